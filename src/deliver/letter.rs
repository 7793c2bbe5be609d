//! Records that are given up, and the document that Lambda writes of such.
//!
//! Owns the forms: Lambda's for a destination in S3, with the event as its payload, and
//! what is kept of it in the table. Does not decide who is given up, and sends nothing.

use super::HandlerError;
use super::http::identity;
use crate::progress::letters::{DeadLetter, LetterId, Reason, digest};
use crate::record::{EventEnvelope, Record};
use crate::source::ShardId;
use bytes::Bytes;
use serde_json::json;
use std::time::SystemTime;

/// Records that are given up, and why; never none.
pub(super) struct Letter<'a> {
    pub shard: &'a ShardId,
    pub stream: &'a str,
    pub records: &'a [Record],
    pub envelope: &'a EventEnvelope,
    pub reason: Reason,
    /// Invocations that they have been in.
    pub attempts: u32,
    /// What their batch failed with at first.
    pub first_error: Option<&'a str>,
    /// The last of their errors; none where they were too old to be tried.
    pub error: Option<&'a HandlerError>,
}

impl Letter<'_> {
    /// As it is kept, and its payload.
    pub fn kept(&self, now: SystemTime) -> (DeadLetter, Bytes) {
        let (first, last) = (&self.records[0], &self.records[self.records.len() - 1]);
        let payload = Bytes::from(self.envelope.event(self.records).to_vec());
        let id = LetterId {
            shard: self.shard.clone(),
            first: first.sequence_number(),
            last: last.sequence_number(),
            digest: digest(&payload),
        };
        let letter = DeadLetter {
            id,
            reason: self.reason,
            records: self.records.len() as u64,
            attempts: self.attempts.into(),
            first_error: self.first_error.map(str::to_owned),
            last_error: self.error.map(ToString::to_string),
            given_up_at: now,
            bytes: payload.len() as u64,
        };
        (letter, payload)
    }

    /// As Lambda writes it, with `streamgate` as a member of our own.
    pub fn document(&self, now: SystemTime) -> String {
        let (first, last) = (self.records.first(), self.records.last());
        let digits =
            |record: Option<&Record>| record.map_or("", Record::sequence_digits).to_owned();
        let arrival = |record: Option<&Record>| {
            let created = record.and_then(Record::created);
            created.map(|at| humantime::format_rfc3339_seconds(at).to_string())
        };
        let condition = match self.reason {
            Reason::Retries => "RetryAttemptsExhausted",
            // Not in Lambda's documents; seen in what it has written.
            Reason::Age => "RecordAgeExceeded",
        };
        let payload = self.envelope.event(self.records).to_vec();
        let mut document = json!({
            "requestContext": {
                // The same when it is sent again.
                "requestId": identity(self.shard, self.records),
                "condition": condition,
                "approximateInvokeCount": self.attempts,
            },
            "version": "1.0",
            "timestamp": humantime::format_rfc3339_millis(now).to_string(),
            "DDBStreamBatchInfo": {
                "shardId": self.shard.as_str(),
                "startSequenceNumber": digits(first),
                "endSequenceNumber": digits(last),
                "approximateArrivalOfFirstRecord": arrival(first),
                "approximateArrivalOfLastRecord": arrival(last),
                "batchSize": self.records.len(),
                "streamArn": self.stream,
            },
            "payload": String::from_utf8_lossy(&payload),
            "streamgate": {
                "reason": self.reason.label(),
                "lastError": self.error.map(ToString::to_string),
            },
        });
        if self.error.is_some() {
            document["responseContext"] = json!({
                "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
            });
        }
        document.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse_page;
    use bytes::Bytes;
    use serde_json::Value;

    #[test]
    fn records_that_were_too_old_to_be_tried_have_no_answer() {
        let page = r#"{"Records":[
            {"dynamodb":{"SequenceNumber":"100","ApproximateCreationDateTime":1.7e9}},
            {"dynamodb":{"SequenceNumber":"101","ApproximateCreationDateTime":1700000001}}]}"#;
        let records = parse_page(&Bytes::from(page)).unwrap().records;
        let stream = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026";
        let envelope = EventEnvelope::new(&stream.parse().unwrap());
        let shard = ShardId::from("shardId-1");
        let letter = Letter {
            shard: &shard,
            stream,
            records: &records,
            envelope: &envelope,
            reason: Reason::Age,
            attempts: 0,
            first_error: None,
            error: None,
        };
        let mut document: Value =
            serde_json::from_str(&letter.document(SystemTime::UNIX_EPOCH)).unwrap();
        let payload = document.as_object_mut().unwrap().remove("payload").unwrap();
        assert_eq!(payload, String::from_utf8(envelope.event(&records).to_vec()).unwrap());
        assert_eq!(
            document,
            json!({
                "requestContext": {
                    "requestId": "shardId-1_100_101",
                    "condition": "RecordAgeExceeded",
                    "approximateInvokeCount": 0,
                },
                "version": "1.0",
                "timestamp": "1970-01-01T00:00:00.000Z",
                "DDBStreamBatchInfo": {
                    "shardId": "shardId-1",
                    "startSequenceNumber": "100",
                    "endSequenceNumber": "101",
                    "approximateArrivalOfFirstRecord": "2023-11-14T22:13:20Z",
                    "approximateArrivalOfLastRecord": "2023-11-14T22:13:21Z",
                    "batchSize": 2,
                    "streamArn": stream,
                },
                "streamgate": {"reason": "age", "lastError": null},
            })
        );
    }
}
