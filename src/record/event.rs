//! The event a handler gets: Lambda's, written as a list of slices of the records.
//!
//! Owns the differences between what GetRecords answers and what a Lambda function
//! receives: `eventSourceARN` is added, and the members of `userIdentity` are spelled
//! `principalId` and `type`. Everything else goes through byte for byte.

use super::Record;
use crate::arn::StreamArn;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The largest event that is built, 6 MB as Lambda's synchronous invocation has it. A
/// single record is never refused for its size (DynamoDB bounds it far below).
pub const MAX_EVENT_BYTES: usize = 6 * 1024 * 1024;

const OPEN: &[u8] = br#"{"Records":["#;
const CLOSE: &[u8] = b"]}";

/// What is the same in every record of a stream: its ARN as a JSON member.
#[derive(Clone)]
pub struct EventEnvelope {
    /// `,"eventSourceARN":"…"}`, which takes the place of a record's last brace.
    tail: Bytes,
}

/// An event as slices, in order. Joining them gives the JSON text.
#[derive(Clone, Debug)]
pub struct Event {
    pub(super) slices: Vec<Bytes>,
    pub(super) len: usize,
}

impl EventEnvelope {
    /// The envelope of `stream`'s records.
    pub fn new(stream: &StreamArn) -> Self {
        let arn = serde_json::to_string(stream.as_str()).expect("text is always JSON");
        Self { tail: Bytes::from(format!(",\"eventSourceARN\":{arn}}}")) }
    }

    /// For records that are out of an event already, and have their stream's ARN.
    pub fn of_events() -> Self {
        Self { tail: Bytes::from_static(b"}") }
    }

    /// Bytes that `record` takes in an event, its comma included. An upper bound: a
    /// rewritten `userIdentity` may be shorter than the original, never longer.
    pub fn cost(&self, record: &Record) -> usize {
        record.bytes.len() + self.tail.len() + 1
    }

    /// Bytes of an event without records.
    pub const EMPTY: usize = OPEN.len() + CLOSE.len();

    /// The event for `records`, in their order.
    pub fn event(&self, records: &[Record]) -> Event {
        let mut event = Event { slices: Vec::with_capacity(3 * records.len() + 1), len: 0 };
        event.push(Bytes::from_static(OPEN));
        for (index, record) in records.iter().enumerate() {
            if index > 0 {
                event.push(Bytes::from_static(b","));
            }
            self.write(record, &mut event);
        }
        event.push(Bytes::from_static(CLOSE));
        event
    }

    /// The event for `records` with further members after them, JSON without its braces.
    pub fn event_with(&self, records: &[Record], members: String) -> Event {
        let mut event = self.event(records);
        event.slices.pop();
        event.len -= CLOSE.len();
        event.push(Bytes::from_static(b"],"));
        event.push(Bytes::from(members));
        event.push(Bytes::from_static(b"}"));
        event
    }

    /// One record in the form it has inside an event.
    pub fn record(&self, record: &Record) -> Event {
        let mut event = Event { slices: Vec::with_capacity(4), len: 0 };
        self.write(record, &mut event);
        event
    }

    /// Writes one record, in that form, to the end of `event`.
    pub(super) fn write(&self, record: &Record, event: &mut Event) {
        let bytes = &record.bytes;
        let end = if record.marks.has_source_arn { bytes.len() } else { bytes.len() - 1 };
        let mut from = 0;
        if let Some(member) = &record.marks.user_identity
            && let Some(rewritten) = lambda_user_identity(record.text(member))
        {
            event.push(bytes.slice(..member.start as usize));
            event.push(rewritten);
            from = member.end as usize;
        }
        event.push(bytes.slice(from..end));
        if !record.marks.has_source_arn {
            event.push(self.tail.clone());
        }
    }
}

/// `userIdentity` as Lambda spells it; `None` leaves it as it came.
fn lambda_user_identity(member: &str) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Identity<'a> {
        #[serde(rename = "PrincipalId", borrow)]
        principal_id: Option<&'a serde_json::value::RawValue>,
        #[serde(rename = "Type", borrow)]
        kind: Option<&'a serde_json::value::RawValue>,
    }
    #[derive(Serialize)]
    struct Lambda<'a> {
        #[serde(rename = "principalId", skip_serializing_if = "Option::is_none")]
        principal_id: Option<&'a serde_json::value::RawValue>,
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<&'a serde_json::value::RawValue>,
    }
    let (_, value) = member.split_once(':')?;
    // A struct would be read from a list, too, and grow by its names.
    value.trim_start().strip_prefix('{')?;
    let identity: Identity<'_> = serde_json::from_str(value).ok()?;
    if identity.principal_id.is_none() && identity.kind.is_none() {
        return None;
    }
    let lambda = Lambda { principal_id: identity.principal_id, kind: identity.kind };
    Some(Bytes::from(format!("\"userIdentity\":{}", serde_json::to_string(&lambda).ok()?)))
}

impl Event {
    /// The slices in order.
    pub fn slices(&self) -> &[Bytes] {
        &self.slices
    }

    /// Bytes of all slices together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to write; true only of no slices at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, to be written one after the other.
    pub fn into_slices(self) -> Vec<Bytes> {
        self.slices
    }

    /// All slices joined into one text.
    pub fn to_vec(&self) -> Vec<u8> {
        self.slices.concat()
    }

    pub(super) fn push(&mut self, slice: Bytes) {
        self.len += slice.len();
        self.slices.push(slice);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_page;
    use super::*;
    use serde_json::{Value, json};

    fn envelope() -> EventEnvelope {
        EventEnvelope::new(&"arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap())
    }

    fn records(records: &str) -> Vec<Record> {
        parse_page(&Bytes::from(format!(r#"{{"Records":{records}}}"#))).unwrap().records
    }

    #[test]
    fn adds_the_arn_and_spells_user_identity_as_lambda_does() {
        let records = records(
            r#"[{"eventID":"1","dynamodb":{"SequenceNumber":"1","NewImage":{"n":{"N":"1.500e0"}}}},
                {"userIdentity": {"Type":"Service","PrincipalId":"dynamodb.amazonaws.com"} ,"dynamodb":{"SequenceNumber":"2"}},
                {"dynamodb":{"SequenceNumber":"3"},"eventSourceARN":"already"}]"#,
        );
        let event = envelope().event(&records);
        let text = event.to_vec();
        assert_eq!(event.len(), text.len());
        assert!(
            event.len()
                <= EventEnvelope::EMPTY + records.iter().map(|r| envelope().cost(r)).sum::<usize>()
        );
        let arn = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026";
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value,
            json!({"Records": [
                {"eventID":"1","dynamodb":{"SequenceNumber":"1","NewImage":{"n":{"N":"1.500e0"}}},"eventSourceARN":arn},
                {"userIdentity":{"principalId":"dynamodb.amazonaws.com","type":"Service"},
                 "dynamodb":{"SequenceNumber":"2"},"eventSourceARN":arn},
                {"dynamodb":{"SequenceNumber":"3"},"eventSourceARN":"already"},
            ]})
        );
    }

    #[test]
    fn a_user_identity_of_another_form_stays_as_it_came() {
        for identity in [r#"["a","b"]"#, " [null,1]", "null", "\"a\"", "{}"] {
            let json =
                format!(r#"[{{"userIdentity":{identity},"dynamodb":{{"SequenceNumber":"1"}}}}]"#);
            let records = records(&json);
            let event = envelope().event(&records);
            assert!(event.len() <= EventEnvelope::EMPTY + envelope().cost(&records[0]), "{json}");
            let kept = format!(r#""userIdentity":{identity}"#);
            assert!(String::from_utf8(event.to_vec()).unwrap().contains(&kept), "{json}");
        }
    }

    #[test]
    fn an_event_without_records_is_still_an_event() {
        let event = envelope().event(&[]);
        assert_eq!(
            (event.to_vec(), event.len()),
            (br#"{"Records":[]}"#.to_vec(), EventEnvelope::EMPTY)
        );
    }
}
