//! A consumer with a handler in Rust: counts the changes of a table by their kind, and adds
//! up the number `n` of what was written.
//!
//! Begin with a table and its stream on this machine:
//!
//! ```sh
//! cargo run --locked -- local --dynamodb-only --stream-label 2026-01-02T03:04:05.678
//! ```
//!
//! and in another terminal:
//!
//! ```sh
//! export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
//! export AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8000
//! export AWS_ENDPOINT_URL_DYNAMODB_STREAMS=http://127.0.0.1:8001
//! export STREAM_ARN=arn:aws:dynamodb:us-east-1:000000000000:table/people/stream/2026-01-02T03:04:05.678
//! export TABLE_NAME=people
//! cargo run --locked --example counting
//! ```
//!
//! The `curl` line that the first prints writes an item; the second prints the counts. An
//! item whose `n` is text comes again until it is given up: say when with
//! `MAXIMUM_RETRY_ATTEMPTS`, `ON_FAILURE` and `BISECT_BATCH_ON_FUNCTION_ERROR`.

use async_trait::async_trait;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use streamgate::deliver::{Batch, Handler, HandlerError, Response};
use streamgate::program;
use tokio::sync::OwnedSemaphorePermit;

/// What is read of a record; the event has more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    event_name: String,
    dynamodb: Images,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    new_image: Option<Item>,
}

#[derive(Deserialize)]
struct Item {
    n: Option<Number>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Number {
    n: String,
}

/// Records come at least once: after a crash some are counted again.
#[derive(Default)]
struct Counting(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    changes: BTreeMap<String, u64>,
    sum: f64,
}

impl Counts {
    fn add(&mut self, record: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let Change { event_name, dynamodb } = serde_json::from_slice(record)?;
        if let Some(Number { n }) = dynamodb.new_image.and_then(|item| item.n) {
            self.sum += n.parse::<f64>()?;
        }
        *self.changes.entry(event_name).or_default() += 1;
        Ok(())
    }
}

#[async_trait]
impl Handler for Counting {
    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let mut counts = self.0.lock().map_err(|_| HandlerError::failed("it panicked before"))?;
        let mut failed = Vec::new();
        for (record, event) in batch.records().iter().zip(batch.record_events()) {
            if counts.add(&event.to_vec()).is_err() {
                // It and all that come after it come again, so those are not counted now.
                failed.push(record.sequence_digits().to_owned());
                break;
            }
        }
        println!("{:?}, n adds up to {}", counts.changes, counts.sum);
        Ok(Response::failed(failed))
    }
}

fn main() -> ExitCode {
    program::run(async {
        let config = program::from_environment()?;
        let handler = Arc::new(Counting::default());
        program::consume(config, handler, program::drain_on_signal()?).await
    })
}
