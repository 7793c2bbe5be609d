//! What a read that failed means for the shard, and when the next is tried.
//!
//! Owns the retry of everything that may pass, what to do when the position was trimmed, and
//! when a shard counts as gone.
//!
//! The retry loop has no budget on purpose: a shard is given up only when the stream no
//! longer lists it. Waits are capped and jittered, counted in `read_retries_total`, and
//! logged at the first failure and each time their number doubles.

use super::Reader;
use crate::backoff::Backoff;
use crate::clock;
use crate::progress::Gap;
use crate::source::{IteratorPosition, SourceError, SourceErrorKind, SourceOperation};
use crate::telemetry::status::ShardStatus;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// Retries of what passes by itself: throttling, server faults, broken connections. The
/// numbers are those DynamoDB recommends for throttled stream readers.
pub(super) const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// A shard is gone when no listing has shown it for this long: listings are eventually
/// consistent, and giving a shard up cannot be taken back.
const GONE_AFTER: Duration = Duration::from_secs(90);
/// Tries with credentials that are missing or not accepted before the first success.
const CREDENTIAL_TRIES: u32 = 3;
/// Failures in a row, about three seconds of them, after which the process is not ready.
const TROUBLE_AFTER: u32 = 5;
/// Retries of what a person has to mend: permissions, credentials, a stream that is gone.
pub(super) const RETRY_SLOWLY: Backoff =
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

impl Reader {
    /// Does what the error asks for, and waits before the next try.
    pub(super) async fn recover(&mut self, error: SourceError) {
        self.count(&error);
        let mut slowly = false;
        match error.kind {
            SourceErrorKind::ExpiredIterator => self.iterator = None,
            SourceErrorKind::Trimmed => self.lose_trimmed(),
            SourceErrorKind::NotFound => {
                self.iterator = None;
                match self.look_for_shard().await {
                    Found::Shard => self.missing_since = None,
                    Found::StreamOnly => {
                        let since = *self.missing_since.get_or_insert_with(Instant::now);
                        if since.elapsed() >= GONE_AFTER {
                            return self.end_vanished();
                        }
                        slowly = true;
                    }
                    Found::Unknown => slowly = true,
                }
            }
            SourceErrorKind::Invalid => {
                self.iterator = None;
                if let IteratorPosition::AtTimestamp(time) = self.from
                    && error.operation == SourceOperation::GetShardIterator
                {
                    self.skip_before = Some(time);
                    self.from = IteratorPosition::TrimHorizon;
                }
            }
            SourceErrorKind::AccessDenied | SourceErrorKind::Credentials => {
                // Credentials may be late where an agent hands them out.
                let settled = error.kind == SourceErrorKind::AccessDenied
                    || self.retry_slowly.failures() >= CREDENTIAL_TRIES;
                if settled && !self.context.board.is_proved(error.operation) {
                    // Full or closed: another shard has said it already.
                    let _ = self.context.refused.try_send(error.clone());
                }
                slowly = true;
            }
            SourceErrorKind::Throttled
            | SourceErrorKind::Unavailable
            | SourceErrorKind::Malformed => {}
        }
        let backoff = if slowly { &mut self.retry_slowly } else { &mut self.retry };
        let wait = backoff.next(fastrand::f64());
        let failures = self.retry.failures() + self.retry_slowly.failures();
        // A renewed iterator is the normal end of a long wait, and worth no pause.
        let wait = match error.kind {
            SourceErrorKind::ExpiredIterator | SourceErrorKind::Trimmed if failures == 1 => {
                Duration::ZERO
            }
            _ => wait,
        };
        if slowly || failures >= TROUBLE_AFTER {
            self.context.board.shard(&self.shard, |status| status.trouble(&error.to_string()));
        }
        if failures.is_power_of_two() {
            warn!(shard = %self.shard, failures, retry_in_ms = wait.as_millis() as u64, %error, "reading failed, trying again");
        }
        tokio::time::sleep(wait).await;
    }

    /// The position is behind the trim horizon: go on there and say what is missing.
    fn lose_trimmed(&mut self) {
        let after = match &self.from {
            IteratorPosition::After(number) => Some(number.clone()),
            _ => None,
        };
        self.iterator = None;
        self.from = IteratorPosition::TrimHorizon;
        self.note_gap(after);
    }

    /// The stream no longer lists the shard.
    fn end_vanished(&mut self) {
        self.ended = true;
        let after = match &self.from {
            IteratorPosition::After(number) => Some(number.clone()),
            _ => None,
        };
        self.note_gap(after);
    }

    fn note_gap(&mut self, after: Option<crate::record::SequenceNumber>) {
        if self.gap.is_some() {
            return;
        }
        if !self.scouts {
            self.context.metrics.gaps.inc();
            self.context.board.shard(&self.shard, |status| status.gaps += 1);
            warn!(
                shard = %self.shard, after = after.as_ref().map(tracing::field::display),
                "records left the stream before they were read: they are lost to this consumer; the gap is kept with the shard's progress"
            );
        }
        self.gap = Some(Gap { after, resumed_at: None, found_at: clock::now() });
    }

    /// Whether the stream still lists the shard.
    async fn look_for_shard(&self) -> Found {
        match self.context.source.describe().await {
            Ok(listing) if listing.shards.iter().any(|s| s.id == self.shard) => Found::Shard,
            Ok(_) => Found::StreamOnly,
            // The whole stream may be gone, which the look at the listing tells.
            Err(_) => Found::Unknown,
        }
    }

    fn count(&self, error: &SourceError) {
        let reason = match error.kind {
            SourceErrorKind::ExpiredIterator => "expired_iterator",
            SourceErrorKind::Trimmed => "trimmed",
            SourceErrorKind::NotFound => "not_found",
            SourceErrorKind::Throttled => "throttled",
            SourceErrorKind::AccessDenied | SourceErrorKind::Credentials => "denied",
            SourceErrorKind::Invalid => "invalid",
            SourceErrorKind::Unavailable => "unavailable",
            SourceErrorKind::Malformed => "malformed",
        };
        self.context.metrics.read_retries.with_label_values(&[reason]).inc();
    }

    /// A read has worked.
    pub(super) fn recovered(&mut self) {
        let failures = self.retry.failures() + self.retry_slowly.failures();
        if failures > 1 {
            info!(shard = %self.shard, failures, "reading works again");
        }
        if failures > 0 {
            self.context.board.shard(&self.shard, ShardStatus::well);
        }
        self.missing_since = None;
        self.retry.reset();
        self.retry_slowly.reset();
    }
}

enum Found {
    Shard,
    StreamOnly,
    Unknown,
}
