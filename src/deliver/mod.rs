//! Hands batches to the handler until every record is taken, or given up by policy.
//!
//! Owns the handler trait and what it answers. Rooms: `deliverer` makes the invocations,
//! `plan` decides what is tried next, `partial` reads answers, `window` keeps tumbling
//! windows, the others are
//! the ways to the user's code. Invariant: a record is reported done only after the
//! handler took it or it was given up and counted, and none behind it in its shard is
//! handed over before.

mod closing;
mod deliverer;
mod destination;
mod discard;
mod exec;
mod giving_up;
mod http;
mod lambda;
mod letter;
mod log;
mod partial;
mod plan;
mod redrive;
mod signature;
mod window;

pub use crate::progress::letters::Reason;
pub use deliverer::{Deliverer, Records, Undelivered};
pub use destination::{Destination, LetterBox, OnFailure};
pub use discard::Discard;
pub use exec::ExecHandler;
pub use http::{HttpHandler, HttpHandlerError};
pub use lambda::LambdaHandler;
pub use log::Log;
pub use plan::RetrySettings;
pub use redrive::{HeldItems, Redriven};
pub use signature::Secrets;
pub use window::{MAX_STATE_BYTES, Window, WindowCall, Windows};

use crate::record::{CloudEvents, Event, EventEnvelope, Record, compare};
use crate::source::ShardId;
use crate::telemetry::metrics::InvocationOutcome;
use crate::telemetry::traces::AttemptTrace;
use async_trait::async_trait;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Some records of one shard, in order, as they are handed over.
pub struct Batch<'a> {
    /// The shard they come from.
    pub shard: ShardId,
    /// Which attempt of these records this is, from 1.
    pub attempt: u32,
    records: &'a [Record],
    envelope: &'a EventEnvelope,
    stream: &'a str,
    window: Option<WindowCall>,
    /// With traces: the span of this attempt.
    trace: Option<AttemptTrace>,
}

impl Batch<'_> {
    /// The records, in the order of the shard; none only where a window is over.
    pub fn records(&self) -> &[Record] {
        self.records
    }

    /// The event a Lambda function would get for this batch.
    pub fn event(&self) -> Event {
        match &self.window {
            None => self.envelope.event(self.records),
            Some(call) => {
                self.envelope.event_with(self.records, call.members(&self.shard, self.stream))
            }
        }
    }

    /// [`Self::event`], with a member `traceparent` where there are traces: for a handler that
    /// is told nothing beside the event.
    fn event_with_traceparent(&self) -> Event {
        let Some(traceparent) = self.traceparent() else { return self.event() };
        let member = format!(r#""traceparent":"{traceparent}""#);
        let window = self.window.as_ref().map(|call| call.members(&self.shard, self.stream));
        let members = window.map_or(member.clone(), |window| format!("{window},{member}"));
        self.envelope.event_with(self.records, members)
    }

    /// The records as CloudEvents, which have no place for a window.
    pub fn cloud_events(&self, form: &CloudEvents) -> Event {
        form.batch(self.envelope, self.records)
    }

    /// With `TUMBLING_WINDOW_IN_SECONDS`: the window, its state, and whether it is over. The
    /// response has to carry the new state.
    pub fn window(&self) -> Option<&WindowCall> {
        self.window.as_ref()
    }

    /// With traces: this attempt as W3C's trace context has it, the parent of what the handler
    /// does with the batch.
    pub fn traceparent(&self) -> Option<&str> {
        self.trace.as_ref()?.traceparent()
    }

    /// What stays the same when this is sent again, in letters that a signature allows.
    fn identity(&self) -> String {
        match &self.window {
            Some(call) if call.is_final => {
                let start = call.window.start.duration_since(std::time::UNIX_EPOCH);
                // A window may end more than once, early or for a late record, and each end
                // has another state.
                let mut hasher = DefaultHasher::new();
                call.state.hash(&mut hasher);
                let (start, state) = (start.unwrap_or_default().as_secs(), hasher.finish());
                format!("{}_window_{start}_{state:016x}", self.shard)
            }
            _ => http::identity(&self.shard, self.records),
        }
    }

    /// Each record as it stands in the event.
    pub fn record_events(&self) -> impl Iterator<Item = Event> {
        self.records.iter().map(|record| self.envelope.record(record))
    }
}

/// What a handler says of a batch that it has worked.
///
/// Two are equal when their states are the same text.
#[derive(Clone, Debug, Default)]
pub struct Response {
    failed: Vec<String>,
    state: Option<Box<RawValue>>,
}

impl PartialEq for Response {
    fn eq(&self, other: &Self) -> bool {
        let state = |response: &Self| response.state.as_ref().map(|state| state.get().to_owned());
        self.failed == other.failed && state(self) == state(other)
    }
}

/// What is read of a handler's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// `FUNCTION_RESPONSE_TYPES=ReportBatchItemFailures`: which records failed.
    pub failures: bool,
    /// With `TUMBLING_WINDOW_IN_SECONDS`: the window's state.
    pub state: bool,
}

impl Answers {
    /// Whether anything is.
    pub fn are_read(self) -> bool {
        self.failures || self.state
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// As [`Response::read`].
    fn read(self, answer: &[u8]) -> Result<Response, HandlerError> {
        if !self.are_read() {
            return Ok(Response::taken());
        }
        let mut response = Response::read(answer)?;
        if !self.failures {
            response.failed.clear();
        }
        Ok(response)
    }
}

impl Response {
    /// All records are done with.
    pub fn taken() -> Self {
        Self::default()
    }

    /// The records of these sequence numbers failed: the first of them and all that come
    /// after it come again, those before it do not. None at all: all are done with. A
    /// number that is none of the batch's means that the whole batch failed.
    pub fn failed(sequence_numbers: Vec<String>) -> Self {
        Self { failed: sequence_numbers, state: None }
    }

    /// With a window: its state after the records that did not fail.
    #[must_use]
    pub fn with_state(mut self, state: Box<RawValue>) -> Self {
        self.state = Some(state);
        self
    }

    /// What it means for `batch`: the state of its window.
    fn judge(self, batch: &Batch<'_>) -> Result<Option<Box<RawValue>>, HandlerError> {
        let needs_state = batch.window.as_ref().is_some_and(|call| !call.is_final);
        if needs_state && self.state.is_none() {
            return Err(HandlerError::failed(
                "the handler's answer has no state, which a tumbling window needs",
            ));
        }
        let Some(first) = self.failed.iter().min_by(|a, b| compare(a, b)) else {
            return Ok(self.state);
        };
        // They are numbers: a CloudEvent's `sequence` has zeros before it.
        let known: HashMap<&str, &str> =
            batch.records.iter().map(Record::sequence_digits).map(by_value).collect();
        let is_known = |digits: &String| known.contains_key(by_value(digits).0);
        let from = known.get(by_value(first).0).filter(|_| self.failed.iter().all(is_known));
        let Some(from) = from else {
            // Lambda's documents do not say what this means. The reading that loses nothing:
            return Err(HandlerError::failed(
                "the handler answered that a record failed which is not in the batch, so the whole batch counts as failed",
            ));
        };
        let message = format!("the handler answered that {} records failed", self.failed.len());
        let error = HandlerError::new(InvocationOutcome::Partial, message);
        Err(HandlerError { from: Some((*from).to_owned()), state: self.state, ..error })
    }
}

/// A sequence number without zeros before it, and as it was written.
fn by_value(digits: &str) -> (&str, &str) {
    (digits.trim_start_matches('0'), digits)
}

/// The longest that a handler may ask to be left alone.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Why a batch was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    /// For the metric.
    pub outcome: InvocationOutcome,
    /// What happened, without item contents.
    pub message: String,
    /// Whether the handler may have seen the batch: if not, no retry is used up.
    invoked: bool,
    /// The first record that failed, where it is not the whole batch.
    from: Option<String>,
    /// The state of the window after the records before it.
    state: Option<Box<RawValue>>,
    /// How long the handler asks to be left alone.
    retry_after: Option<Duration>,
}

impl HandlerError {
    /// The invocation ended so, and the whole batch failed.
    pub fn new(outcome: InvocationOutcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
            invoked: true,
            from: None,
            state: None,
            retry_after: None,
        }
    }

    /// The handler answered that it failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(InvocationOutcome::Error, message)
    }

    /// The handler asks not to be tried again before so long; more than
    /// [`MAX_RETRY_AFTER`] is not granted, for the shard waits meanwhile.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait.map(|wait| wait.min(MAX_RETRY_AFTER));
        self
    }

    /// There was nobody to hand the batch to.
    pub fn not_invoked(message: impl Into<String>) -> Self {
        Self { invoked: false, ..Self::new(InvocationOutcome::Unreachable, message) }
    }
}

/// The user's code, or the way to it.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Waits until the handler can take an invocation; no part of `HANDLER_TIMEOUT`. What
    /// it gives is handed on to [`Self::handle`], which keeps it for as long as the
    /// invocation takes. A handler that takes any number at a time has no turns.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        None
    }

    /// Whether it hands batches to another process. Traces show an invocation as a client's
    /// then, and as this process' own work otherwise.
    fn is_remote(&self) -> bool {
        false
    }

    /// Handles one batch. What the response does not name as failed is done with; an
    /// error means that the batch comes again, whole or halved, as the settings have it.
    /// Batches of one shard come one after the other, of different shards at the same
    /// time. The future is dropped when `HANDLER_TIMEOUT` passes.
    ///
    /// A panic counts as an error: the batch comes again, and what the panic left behind,
    /// such as a poisoned lock, is still there then. Its message goes to stderr, as Rust
    /// writes it, and nowhere else. A panic in a task that the handler spawned is not one
    /// of the handler's: [`crate::panics::contained`] makes it one.
    async fn handle(
        &self,
        batch: &Batch<'_>,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse_page;
    use crate::telemetry::metrics::DROP_REASONS;
    use bytes::Bytes;

    #[test]
    fn every_reason_is_a_label_from_the_start() {
        for reason in Reason::ALL {
            assert!(DROP_REASONS.contains(&reason.label()));
        }
    }

    #[test]
    fn the_lowest_of_the_numbers_counts_and_they_are_compared_as_numbers() {
        let records = ["9", "10", "11", "100"]
            .map(|number| format!(r#"{{"dynamodb":{{"SequenceNumber":"{number}"}}}}"#));
        let page = format!(r#"{{"Records":[{}]}}"#, records.join(","));
        let records = parse_page(&Bytes::from(page)).unwrap().records;
        let arn = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap();
        let envelope = EventEnvelope::new(&arn);
        let shard = ShardId::from("shardId-1");
        let batch = Batch {
            shard,
            attempt: 1,
            records: &records,
            envelope: &envelope,
            stream: "",
            window: None,
            trace: None,
        };
        let judge = |failed: &[&str]| {
            let failed = failed.iter().map(|number| (*number).to_owned()).collect();
            Response::failed(failed).judge(&batch)
        };
        assert!(judge(&[]).is_ok());
        let partial = judge(&["100", "11", "100"]).unwrap_err();
        assert_eq!((partial.from.as_deref(), partial.invoked), (Some("11"), true));
        assert_eq!(partial.outcome, InvocationOutcome::Partial);
        let padded = judge(&["00000000000000000000000000000000000000000011"]).unwrap_err();
        assert_eq!(padded.from.as_deref(), Some("11"), "as the record has it");
        for elsewhere in [&["11", "12"][..], &["5"], &["x"]] {
            let whole = judge(elsewhere).unwrap_err();
            assert_eq!((whole.from, whole.outcome), (None, InvocationOutcome::Error));
        }
    }
}
