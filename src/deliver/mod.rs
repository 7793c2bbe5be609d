//! Hands batches to the handler until it takes them.
//!
//! Owns the handler trait and the retrying of a failed batch: in order, for ever, with
//! capped jittered waits. Does not know how a handler is reached. Invariant: a batch is
//! reported delivered only after the handler took it, and no later batch of the shard
//! is handed over before.

mod discard;
mod http;
mod log;

pub use discard::Discard;
pub use http::{HttpHandler, HttpHandlerError};
pub use log::Log;

use crate::backoff::Backoff;
use crate::clock;
use crate::record::{Event, EventEnvelope, Record};
use crate::source::ShardId;
use crate::telemetry::metrics::{InvocationOutcome, Metrics, ShardState};
use crate::telemetry::status::Board;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Waits between attempts of a failed batch.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Some records of one shard, in order.
pub struct Batch {
    /// The shard they come from.
    pub shard: ShardId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    records: Vec<Record>,
    envelope: EventEnvelope,
}

impl Batch {
    /// A batch at its first attempt. `records` is not empty.
    pub fn new(shard: ShardId, records: Vec<Record>, envelope: EventEnvelope) -> Self {
        Self { shard, attempt: 1, records, envelope }
    }

    /// The records, in the order of the shard.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The event a Lambda function would get for this batch.
    pub fn event(&self) -> Event {
        self.envelope.event(&self.records)
    }

    /// Each record as it stands in the event.
    pub fn record_events(&self) -> impl Iterator<Item = Event> {
        self.records.iter().map(|record| self.envelope.record(record))
    }
}

/// Why a batch was not taken. The whole batch counts as failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    /// For the metric.
    pub outcome: InvocationOutcome,
    /// What happened, without item contents.
    pub message: String,
}

impl HandlerError {
    /// The handler answered that it failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { outcome: InvocationOutcome::Error, message: message.into() }
    }
}

/// The user's code, or the way to it.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one batch. Success means that all its records are done with; an error
    /// means that the batch comes again. Batches of one shard come one after the other,
    /// of different shards at the same time. The future is dropped when
    /// `HANDLER_TIMEOUT` passes.
    async fn handle(&self, batch: &Batch) -> Result<(), HandlerError>;
}

/// What the deliverers of a process share.
#[derive(Clone)]
pub struct Deliverer {
    /// The user's code.
    pub handler: Arc<dyn Handler>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Where invocations are counted.
    pub metrics: Arc<Metrics>,
    /// Where a retrying shard is shown.
    pub board: Arc<Board>,
}

/// The batch was not delivered, for a stop was asked for while it waited for its next
/// attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered;

impl Deliverer {
    /// Hands `batch` over until the handler takes it. When `drain` is cancelled, an
    /// attempt that has begun is finished and no other is made.
    pub async fn deliver(
        &self,
        mut batch: Batch,
        drain: &CancellationToken,
    ) -> Result<(), Undelivered> {
        self.metrics.batch_records.observe(batch.records.len() as f64);
        let mut retry = RETRY;
        loop {
            let Err(error) = self.attempt(&batch).await else {
                self.delivered(&batch);
                return Ok(());
            };
            let wait = retry.next(fastrand::f64());
            if batch.attempt.is_power_of_two() {
                warn!(
                    shard = %batch.shard, attempt = batch.attempt, records = batch.records.len(),
                    first = batch.records[0].sequence_digits(), retry_in_ms = wait.as_millis() as u64,
                    outcome = error.outcome.label(), %error, "the handler did not take a batch, trying again"
                );
            }
            let attempt = batch.attempt;
            self.board.shard(&batch.shard, |status| {
                status.state = ShardState::Retrying;
                status.failed_attempts = Some(attempt);
            });
            tokio::select! {
                biased;
                () = drain.cancelled() => return Err(Undelivered),
                () = tokio::time::sleep(wait) => batch.attempt = batch.attempt.saturating_add(1),
            }
        }
    }

    async fn attempt(&self, batch: &Batch) -> Result<(), HandlerError> {
        let records = batch.records.len() as u64;
        self.metrics.records_invoked.inc_by(records);
        let started = Instant::now();
        let result = match tokio::time::timeout(self.timeout, self.handler.handle(batch)).await {
            Ok(result) => result,
            Err(_) => Err(HandlerError {
                outcome: InvocationOutcome::Timeout,
                message: format!("no answer within HANDLER_TIMEOUT ({:?})", self.timeout),
            }),
        };
        self.metrics.invocation_duration.observe(started.elapsed().as_secs_f64());
        let outcome = result.as_ref().err().map_or(InvocationOutcome::Success, |e| e.outcome);
        self.metrics.invocations.with_label_values(&[outcome.label()]).inc();
        if result.is_err() {
            self.metrics.records_failed.inc_by(records);
        }
        result
    }

    fn delivered(&self, batch: &Batch) {
        self.metrics.records_delivered.inc_by(batch.records.len() as u64);
        if let Some(created) = batch.records.last().and_then(Record::created)
            && let Ok(delay) = clock::now().duration_since(created)
        {
            self.metrics.delivery_delay.observe(delay.as_secs_f64());
        }
        if batch.attempt > 1 {
            info!(shard = %batch.shard, attempt = batch.attempt, "the handler took the batch");
            self.board.shard(&batch.shard, |status| {
                status.state = ShardState::Reading;
                status.failed_attempts = None;
            });
        }
    }
}
