//! Tests of the whole simulator: in this process on a paused clock, and over the wire.

mod stream;
mod wire;

use super::Simulator;
use crate::arn::StreamArn;
use crate::record::{Record, SequenceNumber};
use crate::source::{IteratorPosition, ShardId, ShardIterator, Source, SourceError};
use serde_json::Value;

const ARN: &str =
    "arn:aws:dynamodb:eu-central-1:000000000000:table/people/stream/2026-01-01T00:00:00.000";

fn arn() -> StreamArn {
    ARN.parse().unwrap()
}

fn simulator(shards: usize) -> Simulator {
    Simulator::builder(arn()).shards(shards).seed(1).build()
}

async fn horizon(source: &impl Source, shard: &ShardId) -> ShardIterator {
    source.iterator(shard, &IteratorPosition::TrimHorizon).await.unwrap()
}

/// Reads on until the shard ends or a page is empty; what was read, and the iterator that
/// is left.
async fn read_on(
    source: &impl Source,
    mut from: ShardIterator,
) -> Result<(Vec<Record>, Option<ShardIterator>), SourceError> {
    let mut all = Vec::new();
    loop {
        let page = source.records(&from).await?;
        let empty = page.records.is_empty();
        all.extend(page.records);
        match page.next {
            Some(next) if empty => return Ok((all, Some(next))),
            Some(next) => from = next,
            None => return Ok((all, None)),
        }
    }
}

/// The item and the count that `put_item` wrote.
fn item(record: &Record) -> (String, u64) {
    let record: Value = serde_json::from_slice(record.as_bytes()).unwrap();
    let image = &record["dynamodb"]["NewImage"];
    let n = image["n"]["N"].as_str().unwrap().parse().unwrap();
    (image["PK"]["S"].as_str().unwrap().to_owned(), n)
}

async fn read_all(source: &impl Source, shard: &ShardId) -> Vec<Record> {
    read_on(source, horizon(source, shard).await).await.unwrap().0
}

fn numbers(records: &[Record]) -> Vec<SequenceNumber> {
    records.iter().map(Record::sequence_number).collect()
}
