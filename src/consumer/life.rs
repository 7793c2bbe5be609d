//! This worker's life, as others see it.
//!
//! Owns the beat and what it says, and the end of a life: a worker that could not beat for
//! nearly the failover time, or whose sign was removed by others, has lost all its leases.
//! No clocks are compared between machines. Invariant: the own stop comes first, because
//! the own time runs from before the beat was sent, and because a sign of life is removed
//! only with the beat that stood still for the failover time: later ones are refused then.

use crate::progress::{
    BEATS_PER_FAILOVER, Heartbeat, OWN_STOP_TENTHS, Progress, ProgressError, WorkerId,
};
use crate::telemetry::status::{Board, Part};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is written after the drain may take no longer than this, each.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// News are collected for this long before they cost a beat of their own.
const NEWS: Duration = Duration::from_millis(50);

/// How often a worker beats.
pub(super) fn beat_interval(failover: Duration) -> Duration {
    failover / BEATS_PER_FAILOVER
}

/// A name no other life has: where it runs, for people, and 64 random bits.
fn new_worker_id() -> WorkerId {
    let host: String = std::env::var("HOSTNAME")
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.')
        .take(64)
        .collect();
    let host = if host.is_empty() { "worker".to_owned() } else { host };
    WorkerId::from(format!("{host}-{:016x}", fastrand::u64(..)).as_str())
}

/// One life: from its first beat until it ends or is lost. The next has another name.
pub(super) struct Life {
    store: Arc<dyn Progress>,
    worker: WorkerId,
    failover: Duration,
    board: Arc<Board>,
    state: Mutex<State>,
    /// Others should know something before the next beat is due.
    news: Notify,
    lost: CancellationToken,
}

struct State {
    /// As it is said with the next beat; the beat is that of the last one.
    sign: Heartbeat,
    /// When the last beat that arrived was sent.
    shown: Instant,
}

impl Life {
    pub fn new(store: Arc<dyn Progress>, failover: Duration, board: Arc<Board>) -> Self {
        let worker = new_worker_id();
        let sign = Heartbeat {
            beat: 0,
            failover_ms: u64::try_from(failover.as_millis()).unwrap_or(u64::MAX),
            ..Heartbeat::first(worker.clone())
        };
        let state = Mutex::new(State { sign, shown: Instant::now() });
        let (news, lost) = (Notify::new(), CancellationToken::new());
        Self { store, worker, failover, board, state, news, lost }
    }

    /// Its name.
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// The first beat. Nothing may be taken before it. What ends a life is done first: a
    /// role that lacks the permission is found now and not at the first clean stop. `may_pass`
    /// says of which errors there is hope; they are waited out.
    ///
    /// Every try has a name of its own. A first beat that was given up for lost may have
    /// arrived: others count from then, this worker would count from the next try.
    pub async fn begin(
        &mut self,
        may_pass: impl Fn(&ProgressError) -> bool,
    ) -> Result<(), ProgressError> {
        let mut failures = 0_u32;
        loop {
            let begun = async {
                // Of a beat that there never is: if it comes late, it removes nothing.
                self.store.retire(&self.worker, Some(0)).await?;
                self.beat_once().await
            };
            match begun.await {
                Ok(()) => {
                    self.well();
                    return Ok(());
                }
                Err(error) if may_pass(&error) => {
                    failures += 1;
                    self.failed(&error.to_string(), failures);
                }
                Err(error) => return Err(error),
            }
            // Best effort: nobody waits for that name then.
            let _ = tokio::time::timeout(FAREWELL, self.store.retire(&self.worker, None)).await;
            self.worker = new_worker_id();
            let state = self.state.get_mut().expect("no panic while held");
            (state.sign.worker, state.sign.beat) = (self.worker.clone(), 0);
            tokio::time::sleep(beat_interval(self.failover)).await;
        }
    }

    /// Changes what the worker says of itself. Others hear of it soon when `urgent`, else
    /// with the next beat.
    pub fn say(&self, urgent: bool, change: impl FnOnce(&mut Heartbeat)) {
        change(&mut self.lock().sign);
        if urgent {
            self.news.notify_one();
        }
    }

    fn failed(&self, why: &str, failures: u32) {
        self.board.trouble(Part::Progress, why);
        if failures.is_power_of_two() {
            warn!(%why, failures, "the sign of life could not be written");
        }
    }

    fn well(&self) {
        if self.board.well(Part::Progress) {
            info!("the store of progress answers again");
        }
    }

    /// Beats for ever, and says that the life is lost when it is.
    pub async fn beat(&self) -> Infallible {
        tokio::select! {
            biased;
            never = self.watch() => never,
            never = self.show() => never,
        }
    }

    /// A beat that fails is tried again soon.
    async fn show(&self) -> Infallible {
        let interval = beat_interval(self.failover);
        let mut wait = interval;
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = self.news.notified() => tokio::time::sleep(NEWS.min(interval / 4)).await,
                () = tokio::time::sleep(wait) => {}
            }
            let failed = match tokio::time::timeout(interval, self.beat_once()).await {
                Ok(Ok(())) => None,
                Ok(Err(ProgressError::LeaseLost { .. })) => {
                    warn!(
                        worker = %self.worker,
                        "others have taken this worker for dead and removed its sign of life: the shards that it reads are stopped, and it begins anew"
                    );
                    self.lost.cancel();
                    std::future::pending().await
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            wait = match failed {
                None => {
                    failures = 0;
                    self.well();
                    interval
                }
                Some(why) => {
                    failures += 1;
                    self.failed(&why, failures);
                    interval / 4
                }
            };
        }
    }

    /// Gives the leases up a little before others may believe this worker dead.
    async fn watch(&self) -> Infallible {
        loop {
            let shown = self.lock().shown;
            tokio::time::sleep_until(shown + self.failover * OWN_STOP_TENTHS / 10).await;
            if self.lock().shown == shown {
                break;
            }
        }
        warn!(
            failover_ms = self.failover.as_millis() as u64,
            "no sign of life could be written for the failover time: the shards that this worker reads are stopped, for another may take them; it goes on when the store answers"
        );
        self.lost.cancel();
        std::future::pending().await
    }

    /// Cancelled when this worker must believe that its leases have passed on.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Removes the sign of life, so that nobody waits for this worker.
    pub async fn end(&self) {
        if self.lock().sign.beat == 0 {
            return;
        }
        match tokio::time::timeout(FAREWELL, self.store.retire(&self.worker, None)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the sign of life could not be removed"),
            Err(_) => warn!("the sign of life could not be removed in time"),
        }
    }

    async fn beat_once(&self) -> Result<(), ProgressError> {
        let (sign, sent) = {
            let mut state = self.lock();
            state.sign.beat += 1;
            (state.sign.clone(), Instant::now())
        };
        self.store.heartbeat(&sign).await?;
        self.lock().shown = sent;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}
