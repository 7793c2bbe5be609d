//! Records as CloudEvents 1.0, in the JSON batch format.
//!
//! Owns which attribute says what; a record is an event's `data` as it stands in Lambda's
//! event, byte for byte. Invariant: the attributes say which change it was, and nothing of
//! the item's contents: whoever passes events on may log them.

use super::sequence_number::MAX_DIGITS;
use super::{Event, EventEnvelope, Record, Scanner};
use crate::arn::StreamArn;
use bytes::Bytes;
use serde_json::json;
use std::fmt::Write as _;
use std::ops::Range;

/// The form of a stream's events.
#[derive(Clone, Debug)]
pub struct CloudEvents {
    /// The attributes that all of them have, up to where an event's own begin.
    head: String,
}

impl CloudEvents {
    /// What a batch of them is sent as.
    pub const CONTENT_TYPE: &'static str = "application/cloudevents-batch+json";

    /// Events of `stream`. It is their `source`, and not its table: sequence numbers mean
    /// something within a stream only.
    pub fn of(stream: &StreamArn) -> Self {
        let (source, subject) = (json!(stream.as_str()), json!(stream.table()));
        let head = format!(
            r#"{{"specversion":"1.0","source":{source},"subject":{subject},"datacontenttype":"application/json""#
        );
        Self { head }
    }

    /// A batch of `records`, in their order.
    pub fn batch(&self, envelope: &EventEnvelope, records: &[Record]) -> Event {
        // Attributes, up to four of the record, and what closes it.
        let mut batch = Event { slices: Vec::with_capacity(6 * records.len() + 1), len: 0 };
        let mut open = "[";
        for record in records {
            batch.push(Bytes::from(self.attributes(record, open)));
            envelope.write(record, &mut batch);
            batch.push(Bytes::from_static(b"}"));
            open = ",";
        }
        batch.push(Bytes::from_static(if records.is_empty() { b"[]" } else { b"]" }));
        batch
    }

    /// From `open` to where the data begins.
    fn attributes(&self, record: &Record, open: &str) -> String {
        let Names { id, kind } = Names::of(record);
        let (head, number) = (&self.head, record.sequence_digits());
        // What DynamoDB sends has both; a record that has not is identified by its number.
        let id = id.map_or(number, |id| record.text(&id));
        let kind = kind.map_or("UNKNOWN", |kind| record.text(&kind));
        let mut text = String::with_capacity(open.len() + head.len() + 256);
        text.push_str(open);
        text.push_str(head);
        // The adapters of the specification for AWS' services name types like this, with the
        // service's word as it is.
        let _ = write!(text, r#","id":"{id}","type":"com.amazonaws.dynamodb.{kind}""#);
        if let Some(created) = record.created() {
            let _ = write!(text, r#","time":"{}""#, humantime::format_rfc3339_millis(created));
        }
        // A sequence has to be in order as text, so it has zeros before it.
        let _ = write!(text, r#","sequence":"{number:0>MAX_DIGITS$}","data":"#);
        text
    }
}

/// Where a record has its names, between the quotes. They are looked for when they are asked
/// for: nobody else needs them, and a mark costs every record.
#[derive(Default)]
struct Names {
    /// `eventID`
    id: Option<Range<u32>>,
    /// `eventName`
    kind: Option<Range<u32>>,
}

impl Names {
    fn of(record: &Record) -> Self {
        let (text, mut names) = (record.as_bytes(), Self::default());
        let walked = Scanner::new(text).object(|scanner, key| {
            let name = match &text[key] {
                b"eventID" => &mut names.id,
                b"eventName" => &mut names.kind,
                _ => return scanner.value().map(drop),
            };
            let value = scanner.value()?;
            let is_text = text[value.start] == b'"' && value.len() > 2;
            *name = is_text.then_some(value.start as u32 + 1..value.end as u32 - 1);
            Ok(())
        });
        debug_assert!(walked.is_ok(), "a record is JSON: the page was");
        names
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_page;
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    const ARN: &str = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026-01-02T03:04:05.678";

    fn envelope() -> EventEnvelope {
        EventEnvelope::new(&ARN.parse().unwrap())
    }

    fn records(records: &str) -> Vec<Record> {
        parse_page(&Bytes::from(format!(r#"{{"Records":{records}}}"#))).unwrap().records
    }

    fn batch(records: &[Record]) -> Vec<u8> {
        let batch = CloudEvents::of(&ARN.parse().unwrap()).batch(&envelope(), records);
        let text = batch.to_vec();
        assert_eq!(batch.len(), text.len());
        text
    }

    #[test]
    fn an_event_says_which_change_it_was_and_has_the_record_as_it_is() {
        let records = records(
            r#"[{"eventID":"e1","eventName":"INSERT","dynamodb":{"ApproximateCreationDateTime":1.7e9,
                 "Keys":{"PK":{"S":"tom"}},"SequenceNumber":"100000000000000000042","NewImage":{"n":{"N":"1.50e0"}}}}]"#,
        );
        let text = String::from_utf8(batch(&records)).unwrap();
        let data = String::from_utf8(envelope().record(&records[0]).to_vec()).unwrap();
        assert!(data.contains("1.50e0"));
        assert_eq!(
            text,
            format!(
                r#"[{{"specversion":"1.0","source":"{ARN}","subject":"cats","datacontenttype":"application/json","id":"e1","type":"com.amazonaws.dynamodb.INSERT","time":"2023-11-14T22:13:20.000Z","sequence":"0000000000000000000100000000000000000042","data":{data}}}]"#
            )
        );
        assert_eq!(batch(&[]), b"[]");
    }

    #[test]
    fn a_record_without_names_or_a_time_is_still_an_event() {
        for names in [r#""#, r#""eventID":"","eventName":null,"#, r#""eventID":7,"eventName":{},"#]
        {
            let json = format!(r#"[{{{names}"dynamodb":{{"SequenceNumber":"7"}}}}]"#);
            let value: Value = serde_json::from_slice(&batch(&records(&json))).unwrap();
            let event = &value[0];
            assert_eq!((&event["id"], &event["time"]), (&json!("7"), &Value::Null), "{json}");
            assert_eq!(event["type"], "com.amazonaws.dynamodb.UNKNOWN");
        }
    }

    /// As a reader that knows nothing of how it was written.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read<'a> {
        specversion: String,
        id: String,
        source: String,
        #[serde(rename = "type")]
        kind: String,
        subject: String,
        time: Option<String>,
        sequence: String,
        datacontenttype: String,
        #[serde(borrow)]
        data: &'a RawValue,
    }

    fn any_record() -> impl Strategy<Value = Value> {
        let number = "(0|[1-9][0-9]{0,39})";
        let image = prop::collection::btree_map(".*", ".*", 0..4);
        let time = prop::option::of(0u64..253_402_300_799);
        let place = prop::option::of(Just(ARN));
        let identity = prop::option::of(Just(json!({"Type":"Service","PrincipalId":"x"})));
        (".+", "[A-Z]{1,9}", number, image, time, place, identity).prop_map(
            |(id, name, number, image, time, place, identity)| {
                let mut record = json!({"eventID": id, "eventName": name, "unknown": image,
                    "dynamodb": {"SequenceNumber": number, "NewImage": {"a": {"M": image}}}});
                let mut add = |at: &str, name: &str, value: Option<Value>| {
                    if let Some(value) = value {
                        record.pointer_mut(at).unwrap()[name] = value;
                    }
                };
                add("/dynamodb", "ApproximateCreationDateTime", time.map(Value::from));
                add("", "eventSourceARN", place.map(Value::from));
                add("", "userIdentity", identity);
                record
            },
        )
    }

    proptest! {
        #[test]
        fn every_batch_parses_and_its_data_are_the_records_of_lambdas_event(
            values in prop::collection::vec(any_record(), 0..5), pretty: bool,
        ) {
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let records = records(&write(&values).unwrap());
            let text = batch(&records);
            let events: Vec<Read<'_>> = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(events.len(), records.len());
            for ((event, record), value) in events.iter().zip(&records).zip(&values) {
                let data = envelope().record(record).to_vec();
                prop_assert_eq!(event.data.get().as_bytes(), data);
                prop_assert_eq!(&event.id, value["eventID"].as_str().unwrap());
                let name = value["eventName"].as_str().unwrap();
                prop_assert_eq!(&event.kind, &format!("com.amazonaws.dynamodb.{name}"));
                let time = event.time.as_ref().map(|at| humantime::parse_rfc3339(at).unwrap());
                prop_assert_eq!(time, record.created());
                prop_assert_eq!(event.sequence.len(), MAX_DIGITS);
                let order = super::super::compare(&event.sequence, record.sequence_digits());
                prop_assert!(order.is_eq());
                let same = [&event.specversion, &event.source, &event.subject, &event.datacontenttype];
                prop_assert_eq!(same, ["1.0", ARN, "cats", "application/json"]);
            }
            let sorts = |events: &[Read<'_>]| events.is_sorted_by(|a, b| a.sequence <= b.sequence);
            prop_assert_eq!(sorts(&events), records.is_sorted_by_key(Record::sequence_number));
        }
    }
}
