//! Hands a batch over until every record of it is taken or given up.
//!
//! Owns invocations, their time-out, the waits between them and their counting; what is
//! tried next is [`super::plan`]'s to decide. Invariant: `done` is told of records only
//! after the handler took them or they were given up and counted, in order and without
//! holes.

use super::destination::Destination;
use super::plan::{Failure, Next, Plan, RetrySettings};
use super::{Batch, Handler, HandlerError, Reason, Window, Windows};
use crate::backoff::Backoff;
use crate::clock;
use crate::panics::{Panicked, contained};
use crate::record::{EventEnvelope, Record};
use crate::source::ShardId;
use crate::telemetry::metrics::{InvocationOutcome, Metrics};
use crate::telemetry::status::{Board, ShardStatus};
use crate::telemetry::traces::{BatchTrace, Traces};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Waits between attempts of a failed batch.
pub(super) const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// What the handler gave when it was asked for a turn.
pub(super) type Turn = Result<Option<OwnedSemaphorePermit>, Panicked>;

/// What the deliverers of a process share.
#[derive(Clone)]
pub struct Deliverer {
    /// The user's code.
    pub handler: Arc<dyn Handler>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When a failing batch is given up.
    pub retries: RetrySettings,
    /// Who takes what is given up; nobody: it is dropped.
    pub destination: Option<Destination>,
    /// The stream's ARN, for those who read what was given up.
    pub stream: String,
    /// Where invocations are counted.
    pub metrics: Arc<Metrics>,
    /// Where a retrying shard is shown.
    pub board: Arc<Board>,
    /// Where spans go, if anywhere.
    pub traces: Option<Traces>,
}

/// The batch was not finished, for a stop was asked for while it waited for its next
/// attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered;

/// Some records of one shard, in order: never none.
pub struct Records<'a> {
    /// The shard they come from.
    pub shard: &'a ShardId,
    /// In the order of the shard.
    pub records: &'a [Record],
    /// What is the same in every record.
    pub envelope: &'a EventEnvelope,
    /// With tumbling windows: those of the shard, and the one that all records belong to.
    pub window: Option<(&'a Windows, Window)>,
    /// Who is told what happens to them, with traces.
    pub trace: Option<&'a BatchTrace>,
}

impl Deliverer {
    /// Hands `all` over, and again what fails, until all are taken or given up. `done` is
    /// told how many from the front are. When `drain` is cancelled, an attempt that has
    /// begun is finished and no other is made.
    ///
    /// # Errors
    /// [`Undelivered`] when some are left.
    pub async fn deliver(
        &self,
        all: Records<'_>,
        drain: &CancellationToken,
        mut done: impl FnMut(usize),
    ) -> Result<(), Undelivered> {
        let Records { shard, records, envelope, window, trace } = &all;
        let windows = window.map(|(windows, _)| windows);
        if let Some((windows, window)) = *window {
            self.turn_to(windows, window, shard, envelope, drain).await?;
        }
        self.metrics.batch_records.observe(records.len() as f64);
        let mut plan = Plan::new(records.len(), self.retries);
        let mut retry = RETRY;
        let mut retrying = None;
        let mut failed = 0_u32;
        let mut first_error: Option<String> = None;
        loop {
            if let Some(before) = self.too_old(&plan, records) {
                let expired = plan.expire(before);
                let end = expired.end;
                let errors = (first_error.as_deref(), None);
                let letter = self.letter(&all, expired, Reason::Age, failed, errors);
                self.give_up(letter, *trace, drain).await?;
                done(end);
                continue;
            }
            let Some((piece, attempt)) = plan.current() else { break };
            let batch = Batch {
                shard: (*shard).clone(),
                attempt,
                records: &records[piece.clone()],
                envelope,
                stream: &self.stream,
                window: windows.and_then(|windows| windows.call(false, false)),
                trace: None,
            };
            let turn = tokio::select! {
                biased;
                () = drain.cancelled() => return Err(Undelivered),
                turn = self.turn() => turn,
            };
            let error = match self.attempt(batch, *trace, turn).await {
                Ok(state) => {
                    keep_state(windows, state.as_deref());
                    plan.taken();
                    done(piece.end);
                    self.delivered(&records[piece]);
                    retry.reset();
                    first_error = None;
                    continue;
                }
                Err(error) => error,
            };
            failed = failed.saturating_add(1);
            first_error.get_or_insert_with(|| error.to_string());
            let failure = failure(&error, &records[piece.clone()], piece.start);
            let next = plan.failed(failure);
            let left = plan.current().map_or(piece.end, |(left, _)| left.start);
            let taken = if let Next::GivenUp(given_up) = &next { given_up.start } else { left };
            if taken > piece.start {
                keep_state(windows, error.state.as_deref());
                done(taken);
                self.delivered(&records[piece.start..taken]);
                retry.reset();
            }
            if let Next::GivenUp(given_up) = next {
                let end = given_up.end;
                let errors = (first_error.as_deref(), Some(&error));
                let letter = self.letter(&all, given_up, Reason::Retries, attempt, errors);
                self.give_up(letter, *trace, drain).await?;
                done(end);
                retry.reset();
                first_error = None;
                continue;
            }
            let wait = retry.next(fastrand::f64()).max(error.retry_after.unwrap_or_default());
            retrying.get_or_insert_with(|| Retrying::on(&self.board, shard));
            if let Some(trace) = trace {
                trace.retry(next == Next::Bisected, wait);
            }
            self.tell(shard, &records[piece], attempt, &error, wait, failed);
            tokio::select! {
                biased;
                () = drain.cancelled() => return Err(Undelivered),
                () = tokio::time::sleep(wait) => {}
            }
        }
        if failed > 0 {
            info!(%shard, failed, "the batch is through");
        }
        match windows {
            Some(windows) if windows.is_too_large() => {
                warn!(%shard, "the state of a tumbling window is larger than 1 MB, the window ends early");
                self.close_window(windows, shard, envelope, true, drain).await
            }
            _ => Ok(()),
        }
    }

    /// The first record of the current piece that is not too old, if one before it is.
    fn too_old(&self, plan: &Plan, records: &[Record]) -> Option<usize> {
        let max_age = self.retries.max_age?;
        let (piece, _) = plan.current()?;
        let horizon = clock::now().checked_sub(max_age)?;
        let is_old = |record: &&Record| record.created().is_some_and(|at| at < horizon);
        let count = records[piece.clone()].iter().take_while(is_old).count();
        (count > 0).then_some(piece.start + count)
    }

    pub(super) async fn turn(&self) -> Turn {
        contained(self.handler.turn()).await
    }

    /// One invocation, told to `trace`. Gives the state of the batch's window.
    pub(super) async fn attempt(
        &self,
        mut batch: Batch<'_>,
        trace: Option<&BatchTrace>,
        turn: Turn,
    ) -> Result<Option<Box<RawValue>>, HandlerError> {
        let records = batch.records().len() as u64;
        self.metrics.records_invoked.inc_by(records);
        batch.trace = trace
            .map(|trace| trace.attempt(batch.records, batch.attempt, self.handler.is_remote()));
        let started = Instant::now();
        let handling = async {
            // Without a turn the handler has not seen the batch: no retry is used up.
            let turn = turn.map_err(|Panicked| HandlerError { invoked: false, ..panicked() })?;
            // A handler may do its work before it gives a future: that is within too.
            let answer = contained(async { self.handler.handle(&batch, turn).await }).await;
            answer.unwrap_or_else(|Panicked| Err(panicked()))
        };
        let answer = match tokio::time::timeout(self.timeout, handling).await {
            Ok(answer) => answer.and_then(|response| response.judge(&batch)),
            Err(_) => Err(HandlerError::new(
                InvocationOutcome::Timeout,
                format!("no answer within HANDLER_TIMEOUT ({:?})", self.timeout),
            )),
        };
        self.metrics.invocation_duration.observe(started.elapsed().as_secs_f64());
        let outcome = answer.as_ref().err().map_or(InvocationOutcome::Success, |e| e.outcome);
        self.metrics.invocations.with_label_values(&[outcome.label()]).inc();
        if answer.is_err() {
            self.metrics.records_failed.inc_by(records);
        }
        if let Some(trace) = batch.trace {
            trace.end(outcome, answer.as_ref().err().map(ToString::to_string));
        }
        answer
    }

    fn delivered(&self, records: &[Record]) {
        self.metrics.records_delivered.inc_by(records.len() as u64);
        if let Some(created) = records.last().and_then(Record::created)
            && let Ok(delay) = clock::now().duration_since(created)
        {
            self.metrics.delivery_delay.observe(delay.as_secs_f64());
        }
    }

    /// Shows that records failed and come again; a line when their number doubles.
    fn tell(
        &self,
        shard: &ShardId,
        records: &[Record],
        attempt: u32,
        error: &HandlerError,
        wait: Duration,
        failed: u32,
    ) {
        if failed.is_power_of_two() {
            warn!(
                %shard, attempt, records = records.len(), first = records[0].sequence_digits(),
                retry_in_ms = wait.as_millis() as u64, outcome = error.outcome.label(), %error,
                "the handler did not take a batch, trying again"
            );
        }
        self.board.shard(shard, |status| status.failed(failed, error.to_string()));
    }
}

/// Shows a shard as retrying for as long as it lives. Several batches of a shard may.
pub(super) struct Retrying<'a> {
    board: &'a Board,
    shard: &'a ShardId,
}

impl<'a> Retrying<'a> {
    pub fn on(board: &'a Board, shard: &'a ShardId) -> Self {
        board.shard(shard, ShardStatus::retry_begins);
        Self { board, shard }
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.board.known(self.shard, ShardStatus::retry_ends);
    }
}

fn keep_state(windows: Option<&Windows>, state: Option<&RawValue>) {
    if let (Some(windows), Some(state)) = (windows, state) {
        windows.set_state(state);
    }
}

/// The message is not repeated: it may hold items, and errors are logged and posted.
fn panicked() -> HandlerError {
    HandlerError::failed(format!("the handler {Panicked}"))
}

/// What an error means for the plan: from which record of the batch on.
fn failure(error: &HandlerError, piece: &[Record], start: usize) -> Failure {
    match &error.from {
        _ if !error.invoked => Failure::NotInvoked,
        None => Failure::Whole,
        Some(first) => {
            let found = piece.iter().position(|record| record.sequence_digits() == first);
            found.map_or(Failure::Whole, |at| Failure::From(start + at))
        }
    }
}
