//! The wire's JSON: requests read, answers written.
//!
//! Owns the members of the four operations and the refusals a wrong argument meets
//! before the stream is looked at. Used by the server and by the source in this process
//! alike, so that both meet the same rules.

use super::Operation;
use super::change::StreamViewType;
use super::read::{Answer, ApiError, Listing, Start};
use crate::arn::StreamArn;
use crate::source::ShardId;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

/// A well-formed call. That its stream is ours was checked.
pub(super) enum Request {
    ListStreams { behind: Option<String> },
    Describe { limit: Option<usize>, start: Option<ShardId>, child_of: Option<ShardId> },
    Iterator { shard: ShardId, start: Start },
    Records { iterator: String, limit: Option<usize> },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Arguments {
    stream_arn: Option<String>,
    table_name: Option<String>,
    limit: Option<i64>,
    exclusive_start_stream_arn: Option<String>,
    exclusive_start_shard_id: Option<String>,
    shard_filter: Option<ShardFilter>,
    shard_id: Option<String>,
    shard_iterator_type: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<f64>,
    shard_iterator: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ShardFilter {
    r#type: Option<String>,
    shard_id: Option<String>,
}

impl Request {
    pub fn parse(operation: Operation, body: &[u8], ours: &StreamArn) -> Result<Self, ApiError> {
        let mut arguments: Arguments = serde_json::from_slice(body).map_err(|error| {
            ApiError::client("SerializationException", format!("cannot read the request: {error}"))
        })?;
        match operation {
            Operation::ListStreams => {
                let other_table =
                    arguments.table_name.take().is_some_and(|table| table != ours.table());
                if other_table {
                    return Err(ApiError::not_found("Table"));
                }
                limit(arguments.limit, 100)?;
                Ok(Self::ListStreams { behind: arguments.exclusive_start_stream_arn })
            }
            Operation::DescribeStream => {
                check_stream(arguments.stream_arn.as_deref(), ours)?;
                Ok(Self::Describe {
                    limit: limit(arguments.limit, 100)?,
                    start: arguments.exclusive_start_shard_id.map(|id| ShardId::from(id.as_str())),
                    child_of: arguments.shard_filter.map(parent).transpose()?,
                })
            }
            Operation::GetShardIterator => {
                check_stream(arguments.stream_arn.as_deref(), ours)?;
                let shard = required(arguments.shard_id.as_deref(), "shardId")?;
                Ok(Self::Iterator { shard: ShardId::from(shard), start: start(&arguments)? })
            }
            Operation::GetRecords => {
                let iterator = required(arguments.shard_iterator.as_deref(), "shardIterator")?;
                Ok(Self::Records {
                    iterator: iterator.to_owned(),
                    limit: limit(arguments.limit, 1000)?,
                })
            }
        }
    }
}

fn required<'a>(value: Option<&'a str>, name: &str) -> Result<&'a str, ApiError> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        ApiError::validation(format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

fn limit(limit: Option<i64>, most: i64) -> Result<Option<usize>, ApiError> {
    match limit {
        None => Ok(None),
        Some(limit) if (1..=most).contains(&limit) => Ok(usize::try_from(limit).ok()),
        Some(limit) => Err(ApiError::validation(format!(
            "1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must have a value from 1 to {most}"
        ))),
    }
}

fn check_stream(arn: Option<&str>, ours: &StreamArn) -> Result<(), ApiError> {
    let arn = required(arn, "streamArn")?;
    match arn.parse::<StreamArn>() {
        Err(_) => Err(ApiError::validation("Invalid StreamArn")),
        Ok(stream) if stream != *ours => Err(ApiError::not_found(&format!("Stream: {arn}"))),
        Ok(_) => Ok(()),
    }
}

fn parent(filter: ShardFilter) -> Result<ShardId, ApiError> {
    match (filter.r#type.as_deref(), filter.shard_id) {
        (Some("CHILD_SHARDS"), Some(shard)) => Ok(ShardId::from(shard.as_str())),
        _ => Err(ApiError::validation("ShardFilter needs the Type CHILD_SHARDS and a ShardId")),
    }
}

fn start(arguments: &Arguments) -> Result<Start, ApiError> {
    let kind = required(arguments.shard_iterator_type.as_deref(), "shardIteratorType")?;
    let number = arguments.sequence_number.as_deref();
    match (kind, number) {
        ("TRIM_HORIZON", None) => Ok(Start::TrimHorizon),
        ("LATEST", None) => Ok(Start::Latest),
        ("AT_SEQUENCE_NUMBER", Some(number)) => sequence_number(number).map(Start::At),
        ("AFTER_SEQUENCE_NUMBER", Some(number)) => sequence_number(number).map(Start::After),
        ("AT_TIMESTAMP", None) => match arguments.timestamp {
            Some(seconds) if seconds >= 0.0 => Ok(Start::Timestamp((seconds * 1000.0) as u64)),
            _ => Err(ApiError::validation("AT_TIMESTAMP needs a Timestamp")),
        },
        ("TRIM_HORIZON" | "LATEST" | "AT_TIMESTAMP", Some(_)) => Err(ApiError::validation(
            format!("SequenceNumber must not be given with ShardIteratorType {kind}"),
        )),
        ("AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER", None) => {
            Err(ApiError::validation(format!("ShardIteratorType {kind} needs a SequenceNumber")))
        }
        _ => Err(ApiError::validation(format!("unknown ShardIteratorType {kind}"))),
    }
}

/// Numbers beyond 39 digits lie behind everything the simulator gives out.
fn sequence_number(text: &str) -> Result<u128, ApiError> {
    text.parse::<crate::record::SequenceNumber>()
        .map(|number| number.as_str().parse().unwrap_or(u128::MAX))
        .map_err(|error| ApiError::validation(format!("Invalid SequenceNumber: {error}")))
}

/// What a listing says of the stream itself.
pub(super) struct About<'a> {
    pub stream: &'a StreamArn,
    pub status: &'static str,
    pub view: StreamViewType,
    /// Seconds since the epoch.
    pub created: u64,
}

impl About<'_> {
    pub fn listing(&self, listing: &Listing) -> Bytes {
        let shards: Vec<Value> = listing
            .shards
            .iter()
            .map(|shard| {
                let mut range = json!({"StartingSequenceNumber": shard.start.to_string()});
                if let Some(end) = shard.end {
                    range["EndingSequenceNumber"] = end.to_string().into();
                }
                let mut text = json!({"ShardId": shard.id.as_str(), "SequenceNumberRange": range});
                if let Some(parent) = &shard.parent {
                    text["ParentShardId"] = parent.as_str().into();
                }
                text
            })
            .collect();
        let mut description = json!({
            "StreamArn": self.stream.as_str(),
            "StreamLabel": self.stream.label(),
            "StreamStatus": self.status,
            "StreamViewType": self.view.name(),
            "CreationRequestDateTime": self.created,
            "TableName": self.stream.table(),
            "KeySchema": [
                {"AttributeName": "PK", "KeyType": "HASH"},
                {"AttributeName": "SK", "KeyType": "RANGE"},
            ],
            "Shards": shards,
        });
        if let Some(last) = &listing.last {
            description["LastEvaluatedShardId"] = last.as_str().into();
        }
        json!({"StreamDescription": description}).to_string().into()
    }

    /// The one stream there is, or none behind itself.
    pub fn streams(&self, behind: Option<&str>) -> Bytes {
        let stream = self.stream;
        let entry = json!({
            "StreamArn": stream.as_str(),
            "TableName": stream.table(),
            "StreamLabel": stream.label(),
        });
        let entries = if behind == Some(stream.as_str()) { vec![] } else { vec![entry] };
        json!({"Streams": entries}).to_string().into()
    }
}

pub(super) fn iterator(token: &str) -> Bytes {
    json!({"ShardIterator": token}).to_string().into()
}

impl Answer {
    /// The GetRecords answer; records are copied, not looked at.
    pub fn render(&self) -> Bytes {
        let size: usize = self.records.iter().map(|record| record.len() + 1).sum();
        let mut text = BytesMut::with_capacity(size + 512);
        text.put_u8(b'{');
        if let Some(next) = &self.next {
            text.put_slice(b"\"NextShardIterator\":");
            text.put_slice(Value::from(next.as_str()).to_string().as_bytes());
            text.put_u8(b',');
        }
        text.put_slice(b"\"Records\":[");
        for (index, record) in self.records.iter().enumerate() {
            if index > 0 {
                text.put_u8(b',');
            }
            text.put_slice(record);
        }
        text.put_slice(b"]}");
        text.freeze()
    }
}
