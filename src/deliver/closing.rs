//! The last invocation of a tumbling window.
//!
//! Owns when it is made before a batch and that nothing comes after it until it was taken:
//! Lambda suspends a shard as long, and so do we, whatever the retry settings.

use super::deliverer::{RETRY, Retrying};
use super::{Batch, Deliverer, Undelivered, Window, Windows};
use crate::record::EventEnvelope;
use crate::source::ShardId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

impl Deliverer {
    /// Opens `window`. Another that is open is closed first.
    pub(super) async fn turn_to(
        &self,
        windows: &Windows,
        window: Window,
        shard: &ShardId,
        envelope: &EventEnvelope,
        drain: &CancellationToken,
    ) -> Result<(), Undelivered> {
        if windows.current().is_some_and(|current| current != window) {
            self.close_window(windows, shard, envelope, false, drain).await?;
        }
        windows.turn_to(window);
        Ok(())
    }

    /// Tells the handler that the open window is over, until it takes that. Nothing where
    /// none is open. `early`: its state has grown too large.
    ///
    /// # Errors
    /// [`Undelivered`] when a stop was asked for first; the window is open still.
    pub async fn close_window(
        &self,
        windows: &Windows,
        shard: &ShardId,
        envelope: &EventEnvelope,
        early: bool,
        drain: &CancellationToken,
    ) -> Result<(), Undelivered> {
        let (mut retry, mut retrying, mut attempt) = (RETRY, None, 1_u32);
        let mut trace = None;
        while let Some(call) = windows.call(true, early) {
            if let (None, Some(traces)) = (&trace, &self.traces) {
                trace = Some(traces.batch(shard, &[], Instant::now()));
            }
            let batch = Batch {
                shard: shard.clone(),
                attempt,
                records: &[],
                envelope,
                stream: &self.stream,
                window: Some(call),
                trace: None,
            };
            let turn = tokio::select! {
                biased;
                () = drain.cancelled() => return Err(Undelivered),
                turn = self.turn() => turn,
            };
            let Err(error) = self.attempt(batch, trace.as_ref(), turn).await else {
                windows.close();
                if let Some(trace) = trace {
                    trace.through();
                }
                break;
            };
            let wait = retry.next(fastrand::f64()).max(error.retry_after.unwrap_or_default());
            if attempt.is_power_of_two() {
                warn!(
                    %shard, attempt, retry_in_ms = wait.as_millis() as u64,
                    outcome = error.outcome.label(), %error,
                    "the handler did not take the end of a tumbling window, trying again; its shard waits"
                );
            }
            if let Some(trace) = &trace {
                trace.retry(false, wait);
            }
            retrying.get_or_insert_with(|| Retrying::on(&self.board, shard));
            self.board.shard(shard, |status| status.failed(attempt, error.to_string()));
            attempt = attempt.saturating_add(1);
            tokio::select! {
                biased;
                () = drain.cancelled() => return Err(Undelivered),
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(())
    }
}
