//! What is done with records that are given up: dropped, or handed to the destination.
//!
//! Owns the counting and the wait. Who is given up is [`super::plan`]'s to decide, the way
//! there [`super::destination`]'s. Invariant: it returns only when they are dropped and
//! counted as ON_FAILURE has it, or taken.

use super::deliverer::{RETRY, Records, Retrying};
use super::letter::Letter;
use super::{Deliverer, HandlerError, Reason, Undelivered};
use crate::telemetry::traces::BatchTrace;
use std::ops::Range;
use tokio_util::sync::CancellationToken;
use tracing::warn;

impl Deliverer {
    pub(super) fn letter<'a>(
        &'a self,
        all: &'a Records<'_>,
        given_up: Range<usize>,
        reason: Reason,
        attempts: u32,
        (first_error, error): (Option<&'a str>, Option<&'a HandlerError>),
    ) -> Letter<'a> {
        let Records { shard, records, envelope, .. } = all;
        let (records, stream) = (&records[given_up], self.stream.as_str());
        Letter { shard, stream, records, envelope, reason, attempts, first_error, error }
    }

    /// Drops records, or hands them to the destination and waits until they are taken; counted, and a line
    /// in the log for each time.
    pub(super) async fn give_up(
        &self,
        letter: Letter<'_>,
        trace: Option<&BatchTrace>,
        drain: &CancellationToken,
    ) -> Result<(), Undelivered> {
        let Letter { shard, records, reason, attempts, error, .. } = &letter;
        let count = records.len() as u64;
        let (first, last) =
            (records[0].sequence_digits(), records[records.len() - 1].sequence_digits());
        if let Some(trace) = trace {
            trace.given_up(records.len(), reason.label());
        }
        let error = error.map(tracing::field::display);
        let Some(destination) = &self.destination else {
            self.metrics.records_dropped.with_label_values(&[reason.label()]).inc_by(count);
            warn!(
                %shard, reason = reason.label(), records = count, attempts, first, last, error,
                "records are given up and dropped, as ON_FAILURE=none has it"
            );
            return Ok(());
        };
        let mut retry = RETRY;
        let mut retrying = None;
        let mut parts_done = 0;
        loop {
            let sent = destination.send(&letter, &mut parts_done, self.timeout).await;
            let outcome = if sent.is_ok() { "ok" } else { "error" };
            self.metrics.dead_letter_attempts.with_label_values(&[outcome]).inc();
            let Err(why) = sent else { break };
            let wait = retry.next(fastrand::f64());
            if retry.failures().is_power_of_two() {
                warn!(
                    %shard, %why, first, last, retry_in_ms = wait.as_millis() as u64,
                    "records that are given up could not be handed to ON_FAILURE; their shard waits"
                );
            }
            retrying.get_or_insert_with(|| Retrying::on(&self.board, shard));
            self.board
                .shard(shard, |status| status.failed(*attempts, format!("ON_FAILURE: {why}")));
            tokio::select! {
                biased;
                () = drain.cancelled() => return Err(Undelivered),
                () = tokio::time::sleep(wait) => {}
            }
        }
        drop(retrying);
        self.metrics.records_dead_lettered.inc_by(count);
        warn!(
            %shard, reason = reason.label(), records = count, attempts, first, last, error,
            "records are given up, and ON_FAILURE has them"
        );
        Ok(())
    }
}
