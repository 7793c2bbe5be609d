//! The workers that show their life through this api: whom its stop waits for.
//!
//! Owns their list, in memory and of this replica only. When both containers are stopped
//! at once, the workers still have their last positions to write; an api that left first
//! would have every record since the last checkpoint delivered again. Invariant: a stop
//! of the api alone is not held up by workers that go on.

use crate::progress::WorkerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The most workers that are remembered; one more is not waited for.
const MAX_WORKERS: usize = 4096;
/// How long a stop waits to hear who is stopping too.
const SETTLING: Duration = Duration::from_secs(2);
/// A worker is gone when it has been silent for this many of its own intervals.
const SILENT_INTERVALS: u32 = 2;
/// Before its interval is known, and at least.
const SILENCE: Duration = Duration::from_secs(4);

/// The workers of one api.
#[derive(Clone, Default)]
pub(super) struct Callers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    workers: Mutex<HashMap<WorkerId, Worker>>,
    changed: Notify,
}

struct Worker {
    beat: Instant,
    interval: Duration,
    drains: bool,
}

impl Worker {
    fn new(now: Instant) -> Self {
        Self { beat: now, interval: Duration::ZERO, drains: false }
    }

    fn silent_at(&self) -> Instant {
        self.beat + SILENCE.max(self.interval * SILENT_INTERVALS)
    }

    /// Until when a stop that began then waits for it.
    fn awaited_until(&self, stop: Instant) -> Instant {
        let silent = self.silent_at();
        if self.drains { silent } else { silent.min(stop + SETTLING) }
    }
}

impl Callers {
    /// A worker beats.
    pub fn beats(&self, worker: &WorkerId) {
        let now = Instant::now();
        self.change(worker, |worker| {
            worker.interval = now - worker.beat;
            worker.beat = now;
        });
    }

    /// A worker says that it is stopping.
    pub fn drains(&self, worker: &WorkerId) {
        self.change(worker, |worker| worker.drains = true);
    }

    /// A worker takes its leave.
    pub fn retires(&self, worker: &WorkerId) {
        self.lock().remove(worker);
        self.0.changed.notify_one();
    }

    /// Resolves once every worker has taken its leave, fallen silent, or kept to itself
    /// that it is stopping.
    pub async fn gone(&self) {
        let stop = Instant::now();
        loop {
            let changed = self.0.changed.notified();
            let until = self.lock().values().map(|worker| worker.awaited_until(stop)).max();
            let Some(until) = until.filter(|until| *until > Instant::now()) else { return };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn change(&self, worker: &WorkerId, change: impl FnOnce(&mut Worker)) {
        let (mut workers, now) = (self.lock(), Instant::now());
        if workers.len() >= MAX_WORKERS && !workers.contains_key(worker) {
            workers.retain(|_, worker| worker.silent_at() > now);
            if workers.len() >= MAX_WORKERS {
                return;
            }
        }
        change(workers.entry(worker.clone()).or_insert_with(|| Worker::new(now)));
        self.0.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkerId, Worker>> {
        self.0.workers.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long a stop waits while `meanwhile` happens.
    async fn waited(callers: &Callers, meanwhile: impl Future<Output = ()>) -> Duration {
        let began = Instant::now();
        let gone = async {
            callers.gone().await;
            began.elapsed()
        };
        tokio::join!(gone, meanwhile).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_workers_that_stop_too_and_for_nobody_else() {
        let (a, b) = (WorkerId::from("a"), WorkerId::from("b"));
        let callers = Callers::default();
        assert_eq!(waited(&callers, async {}).await, Duration::ZERO, "nobody has called");

        callers.beats(&a);
        callers.beats(&b);
        let goes_on = async {
            for _ in 0..9 {
                tokio::time::sleep(SECOND).await;
                callers.beats(&a);
            }
        };
        assert_eq!(waited(&callers, goes_on).await, 2 * SECOND);

        callers.beats(&a);
        let drains = async {
            tokio::time::sleep(SECOND).await;
            callers.drains(&a);
            for _ in 0..20 {
                tokio::time::sleep(SECOND).await;
                callers.beats(&a);
            }
            callers.retires(&a);
        };
        assert_eq!(waited(&callers, drains).await, 21 * SECOND);

        callers.beats(&a);
        callers.drains(&a);
        assert_eq!(waited(&callers, async {}).await, 4 * SECOND, "it fell silent");
    }
}
