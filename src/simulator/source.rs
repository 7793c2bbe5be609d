//! The simulator as a source in this process: no sockets, so a paused clock drives it.
//!
//! Owns the way from [`Source`]'s calls to the wire's JSON and back. Requests and answers
//! are the same texts as over HTTP, so rules, faults and page parsing are the same too.

use super::{Operation, Reply, Simulator};
use crate::aws::Failure;
use crate::record::parse_page;
use crate::source::{
    IteratorPosition, MAX_RECORDS_PER_PAGE, Page, Shard, ShardId, ShardIterator, Source,
    SourceError, SourceErrorKind, SourceOperation, StreamDescription, StreamStatus,
};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

impl Simulator {
    async fn call(&self, operation: SourceOperation, request: Value) -> Result<Bytes, SourceError> {
        let of_ours = match operation {
            SourceOperation::DescribeStream => Operation::DescribeStream,
            SourceOperation::GetShardIterator => Operation::GetShardIterator,
            SourceOperation::GetRecords => Operation::GetRecords,
        };
        let failed = |kind, message: &str| SourceError { operation, kind, message: message.into() };
        match self.answer(of_ours, request.to_string().as_bytes()).await {
            Reply::Answer(body) => Ok(body),
            Reply::Refused(error) => Err(failed(kind(error.code), &error.message)),
            // As over the SDK, which reads these bodies itself and cannot tell why it failed.
            Reply::Half(_) if of_ours != Operation::GetRecords => {
                Err(failed(SourceErrorKind::Malformed, "half an answer"))
            }
            Reply::Half(_) => Err(failed(SourceErrorKind::Unavailable, "half an answer")),
            Reply::Reset => Err(failed(SourceErrorKind::Unavailable, "connection closed")),
        }
    }

    /// One page of the listing, and where the next one begins.
    async fn list(
        &self,
        request: Value,
    ) -> Result<(StreamDescription, Option<Value>), SourceError> {
        const OPERATION: SourceOperation = SourceOperation::DescribeStream;
        let body = self.call(OPERATION, request).await?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|error| malformed(OPERATION, &error.to_string()))?;
        let listing = &answer["StreamDescription"];
        let status = match listing["StreamStatus"].as_str() {
            Some("ENABLING") => StreamStatus::Enabling,
            Some("ENABLED") => StreamStatus::Enabled,
            Some("DISABLING") => StreamStatus::Disabling,
            Some("DISABLED") => StreamStatus::Disabled,
            _ => return Err(malformed(OPERATION, "no stream status")),
        };
        let shards = listing["Shards"].as_array().into_iter().flatten().filter_map(shard).collect();
        let schema = listing["KeySchema"].as_array();
        let partition_key = schema
            .and_then(|schema| schema.iter().find(|element| element["KeyType"] == "HASH"))
            .and_then(|element| element["AttributeName"].as_str())
            .map(str::to_owned);
        let last = listing.get("LastEvaluatedShardId").cloned();
        let view_type = listing["StreamViewType"].as_str().map(str::to_owned);
        Ok((StreamDescription { status, partition_key, view_type, shards }, last))
    }

    async fn list_all(&self, mut request: Value) -> Result<StreamDescription, SourceError> {
        request["StreamArn"] = self.stream().as_str().into();
        let mut all = Vec::new();
        loop {
            let (page, last) = self.list(request.clone()).await?;
            all.extend(page.shards);
            match last {
                Some(last) => request["ExclusiveStartShardId"] = last,
                None => return Ok(StreamDescription { shards: all, ..page }),
            }
        }
    }
}

#[async_trait]
impl Source for Simulator {
    async fn describe(&self) -> Result<StreamDescription, SourceError> {
        self.list_all(json!({})).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let filter = json!({"Type": "CHILD_SHARDS", "ShardId": parent.as_str()});
        let listing = self.list_all(json!({"ShardFilter": filter})).await?;
        // As it does for an endpoint that does not know the filter.
        Ok(listing
            .shards
            .into_iter()
            .filter(|shard| shard.parent.as_ref() == Some(parent))
            .collect())
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, SourceError> {
        const OPERATION: SourceOperation = SourceOperation::GetShardIterator;
        let mut request = json!({"StreamArn": self.stream().as_str(), "ShardId": shard.as_str()});
        request["ShardIteratorType"] = match position {
            IteratorPosition::TrimHorizon => "TRIM_HORIZON".into(),
            IteratorPosition::Latest => "LATEST".into(),
            IteratorPosition::AtTimestamp(time) => {
                let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                request["Timestamp"] = since.as_secs_f64().into();
                "AT_TIMESTAMP".into()
            }
            IteratorPosition::After(number) => {
                request["SequenceNumber"] = number.as_str().into();
                "AFTER_SEQUENCE_NUMBER".into()
            }
        };
        let body = self.call(OPERATION, request).await?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|error| malformed(OPERATION, &error.to_string()))?;
        let token = answer["ShardIterator"].as_str().map(str::to_owned);
        token.map(ShardIterator::from).ok_or_else(|| malformed(OPERATION, "no iterator"))
    }

    async fn records(&self, iterator: &ShardIterator) -> Result<Page, SourceError> {
        const OPERATION: SourceOperation = SourceOperation::GetRecords;
        let request = json!({"ShardIterator": iterator.as_str(), "Limit": MAX_RECORDS_PER_PAGE});
        let body = self.call(OPERATION, request).await?;
        let page = parse_page(&body).map_err(|error| malformed(OPERATION, &error.to_string()))?;
        Ok(Page {
            records: page.records,
            next: page.next_iterator.map(ShardIterator::from),
            bytes: body.len(),
        })
    }
}

fn shard(shard: &Value) -> Option<Shard> {
    Some(Shard {
        id: ShardId::from(shard["ShardId"].as_str()?),
        parent: shard["ParentShardId"].as_str().map(ShardId::from),
        closed: shard["SequenceNumberRange"].get("EndingSequenceNumber").is_some(),
    })
}

fn malformed(operation: SourceOperation, what: &str) -> SourceError {
    SourceError { operation, kind: SourceErrorKind::Malformed, message: what.to_owned() }
}

/// The verdict that the source over the SDK reaches on the same code.
fn kind(code: &str) -> SourceErrorKind {
    let failure = Failure {
        code: Some(code.to_owned()),
        message: String::new(),
        unreadable: false,
        not_sent: false,
    };
    match code {
        "ExpiredIteratorException" => SourceErrorKind::ExpiredIterator,
        "TrimmedDataAccessException" => SourceErrorKind::Trimmed,
        "ResourceNotFoundException" => SourceErrorKind::NotFound,
        "ValidationException" | "SerializationException" => SourceErrorKind::Invalid,
        _ if failure.is_throttle() => SourceErrorKind::Throttled,
        _ if failure.is_denied() => SourceErrorKind::AccessDenied,
        _ if failure.is_credentials() => SourceErrorKind::Credentials,
        _ => SourceErrorKind::Unavailable,
    }
}
