//! Signs of life: this worker's own, and what others' say.
//!
//! Owns the failover time on both sides. A worker that could not beat for that long
//! stops its shards itself; a worker whose beat has not moved for that long, by the
//! observer's own clock, is dead. No clocks are compared between machines. Invariant:
//! the own stop comes first, because the own time runs from before the beat was sent.

use crate::progress::{Heartbeat, Progress, ProgressError, WorkerId};
use crate::telemetry::status::{Board, Part};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is written after the drain may take no longer than this, each.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// How often a worker beats: two beats may fail before its leases can be taken.
pub(super) fn beat_interval(failover: Duration) -> Duration {
    failover / 3
}

/// A name no other process has: where it runs, for people, and 64 random bits.
pub(super) fn new_worker_id() -> WorkerId {
    let host: String = std::env::var("HOSTNAME")
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.')
        .take(64)
        .collect();
    let host = if host.is_empty() { "worker".to_owned() } else { host };
    WorkerId::from(format!("{host}-{:016x}", fastrand::u64(..)).as_str())
}

/// This worker's life.
pub(super) struct Life {
    store: Arc<dyn Progress>,
    worker: WorkerId,
    failover: Duration,
    board: Arc<Board>,
    state: Mutex<State>,
    /// A beat has arrived.
    moved: Notify,
}

struct State {
    beat: u64,
    /// When the last beat that arrived was sent.
    shown: Instant,
    /// Cancelled when life could not be shown for the failover time.
    lost: CancellationToken,
}

impl Life {
    pub fn new(
        store: Arc<dyn Progress>,
        worker: WorkerId,
        failover: Duration,
        board: Arc<Board>,
    ) -> Self {
        let state = State { beat: 0, shown: Instant::now(), lost: CancellationToken::new() };
        Self { store, worker, failover, board, state: Mutex::new(state), moved: Notify::new() }
    }

    /// The first beat. Nothing may be taken before it. What ends a life is done first:
    /// a role that lacks the permission is found now and not at the first clean stop.
    pub async fn begin(&self) -> Result<(), ProgressError> {
        let mut failures = 0_u32;
        loop {
            let begun = async {
                self.store.retire(&self.worker).await?;
                self.beat_once().await
            };
            match begun.await {
                Err(ProgressError::Unavailable(why)) => {
                    failures += 1;
                    self.failed(&why, failures);
                    tokio::time::sleep(beat_interval(self.failover)).await;
                }
                result => return result,
            }
        }
    }

    /// Makes sure that others see this worker alive, before it takes anything. While its
    /// beats arrive they are enough: one that stands by writes no others.
    pub async fn ensure_shown(&self) -> Result<(), ProgressError> {
        if self.lock().shown.elapsed() > self.failover / 2 {
            self.beat_once().await?;
        }
        Ok(())
    }

    fn failed(&self, why: &str, failures: u32) {
        self.board.trouble(Part::Progress, why);
        if failures.is_power_of_two() {
            warn!(%why, failures, "the sign of life could not be written");
        }
    }

    /// Beats for ever, and gives the leases up when no beat arrives for too long.
    pub async fn beat(&self) -> Infallible {
        tokio::select! {
            never = self.show() => never,
            never = self.watch() => never,
        }
    }

    /// A beat that fails is tried again soon.
    async fn show(&self) -> Infallible {
        let interval = beat_interval(self.failover);
        let mut wait = interval;
        let mut failures = 0_u32;
        loop {
            tokio::time::sleep(wait).await;
            let failed = match tokio::time::timeout(interval, self.beat_once()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            wait = match failed {
                None => {
                    failures = 0;
                    if self.board.well(Part::Progress) {
                        info!("the store of progress answers again");
                    }
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
            tokio::time::sleep_until(shown + self.failover.mul_f64(0.9)).await;
            if self.lock().shown != shown {
                continue;
            }
            warn!(
                failover_ms = self.failover.as_millis() as u64,
                "no sign of life could be written for the failover time: the shards that this worker reads are stopped, for another may take them; it goes on when the store answers"
            );
            self.lost().cancel();
            while self.lock().shown == shown {
                self.moved.notified().await;
            }
        }
    }

    /// Cancelled when this worker must believe that its leases have passed on.
    pub fn lost(&self) -> CancellationToken {
        self.lock().lost.clone()
    }

    /// After a lease was taken: it is not lost, whatever was before.
    pub fn renew(&self) {
        self.lock().lost = CancellationToken::new();
    }

    /// Removes the sign of life, so that nobody waits for this worker.
    pub async fn end(&self) {
        if self.lock().beat == 0 {
            return;
        }
        match tokio::time::timeout(FAREWELL, self.store.retire(&self.worker)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the sign of life could not be removed"),
            Err(_) => warn!("the sign of life could not be removed in time"),
        }
    }

    async fn beat_once(&self) -> Result<(), ProgressError> {
        let (beat, sent) = {
            let mut state = self.lock();
            state.beat += 1;
            (state.beat, Instant::now())
        };
        self.store.heartbeat(&self.worker, beat).await?;
        self.lock().shown = sent;
        self.moved.notify_one();
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

/// Judges by their beats whether other workers live.
pub(super) struct Observer {
    failover: Duration,
    seen: HashMap<WorkerId, (u64, Instant)>,
}

impl Observer {
    pub fn new(failover: Duration) -> Self {
        Self { failover, seen: HashMap::new() }
    }

    /// Takes in what the store holds now.
    pub fn observe(&mut self, heartbeats: &[Heartbeat]) {
        let now = Instant::now();
        self.seen.retain(|worker, _| heartbeats.iter().any(|h| h.worker == *worker));
        for Heartbeat { worker, beat } in heartbeats {
            let seen = self.seen.entry(worker.clone()).or_insert((*beat, now));
            if seen.0 != *beat {
                *seen = (*beat, now);
            }
        }
    }

    /// Whether `worker`'s beat has moved within the failover time. One that has no beat
    /// at all took its leave.
    pub fn lives(&self, worker: &WorkerId) -> bool {
        self.seen.get(worker).is_some_and(|(_, since)| since.elapsed() < self.failover)
    }

    /// The workers that left a beat behind and show no life any more.
    pub fn dead(&self) -> impl Iterator<Item = &WorkerId> {
        self.seen.keys().filter(|worker| !self.lives(worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::MemoryProgress;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stands_by_beats_no_more_often_than_others() {
        let store = MemoryProgress::new();
        let failover = Duration::from_secs(9);
        let (view, board) = (Arc::new(store.view()), Arc::new(Board::new()));
        let life = Life::new(view.clone(), "a".into(), failover, board);
        life.begin().await.unwrap();
        // A look at the lease comes a little later than the beat that is due then too.
        for _ in 0..10 {
            tokio::time::advance(beat_interval(failover) + Duration::from_millis(50)).await;
            life.ensure_shown().await.unwrap();
            life.beat_once().await.unwrap();
        }
        assert_eq!(view.writes().heartbeats, 11);
        tokio::time::advance(failover.mul_f64(0.6)).await;
        life.ensure_shown().await.unwrap();
        assert_eq!(view.writes().heartbeats, 12, "one that has long been silent beats first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_dead_when_its_beat_stands_still_for_the_failover_time() {
        let mut observer = Observer::new(Duration::from_secs(10));
        let beat = |beat| [Heartbeat { worker: "a".into(), beat }];
        let second = Duration::from_secs(1);
        observer.observe(&beat(7));
        tokio::time::advance(9 * second).await;
        observer.observe(&beat(7));
        assert!(observer.lives(&"a".into()));
        tokio::time::advance(second).await;
        assert!(!observer.lives(&"a".into()));
        assert_eq!(observer.dead().collect::<Vec<_>>(), [&"a".into()]);
        observer.observe(&beat(8));
        assert!(observer.lives(&"a".into()));
        assert_eq!(observer.dead().count(), 0);
        observer.observe(&[]);
        assert!(!observer.lives(&"a".into()), "it took its leave");
    }
}
