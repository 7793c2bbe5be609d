//! The workers that show their life through this api: whom its stop waits for.
//!
//! Owns their list, in memory and of this replica only. When both containers are stopped
//! at once, the workers still have their last positions to write; an api that left first
//! would have every record since the last checkpoint delivered again. Invariant: a stop
//! of the api alone is not held up by workers that go on, nor any stop by one that has taken
//! its leave, through whichever replica.

use crate::progress::{Progress, WorkerId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The most workers that are remembered; one more is not waited for.
const MAX_WORKERS: usize = 4096;
/// How long a stop waits to hear who is stopping too.
const SETTLING: Duration = Duration::from_secs(2);
/// A worker that drains is gone when it has been silent for this many of its intervals.
const SILENT_INTERVALS: u32 = 2;
/// And for this long at least: a beat may be lost.
const SILENCE: Duration = Duration::from_secs(4);
/// How often a stop looks whether those that it waits for have left through another replica.
const LOOK: Duration = Duration::from_secs(1);

/// The workers of one api.
#[derive(Clone, Default)]
pub(super) struct Callers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    workers: HashMap<WorkerId, Worker>,
    /// Somebody has called: that nobody is there is known, and not just not yet heard.
    has_heard: bool,
}

impl Known {
    fn silent_and_draining(&self) -> Vec<(WorkerId, Arc<dyn Progress>)> {
        let silent = self.workers.iter().filter(|(_, worker)| worker.heard.elapsed() >= LOOK);
        silent.filter_map(|(id, worker)| Some((id.clone(), worker.drains.clone()?))).collect()
    }
}

struct Worker {
    /// When it last called.
    heard: Instant,
    /// Between its beats, once it has sent two.
    interval: Option<Duration>,
    last_beat: Option<Instant>,
    /// Where its sign of life is kept, once it drains.
    drains: Option<Arc<dyn Progress>>,
}

impl Worker {
    fn new(now: Instant) -> Self {
        Self { heard: now, interval: None, last_beat: None, drains: None }
    }

    /// Until when a stop that began then waits for it; `None` for as long as may be.
    fn awaited_until(&self, stop: Instant) -> Option<Instant> {
        if self.drains.is_none() {
            return Some(stop + SETTLING);
        }
        let silence = self.interval? * SILENT_INTERVALS;
        Some(self.heard + silence.max(SILENCE))
    }
}

impl Callers {
    /// A worker beats.
    pub fn beats(&self, worker: &WorkerId) {
        self.change(worker, |worker| {
            let now = Instant::now();
            worker.interval = worker.last_beat.map(|last| now - last);
            worker.last_beat = Some(now);
        });
    }

    /// A worker says that it is stopping; it has its sign of life in `progress`.
    pub fn drains(&self, worker: &WorkerId, progress: Arc<dyn Progress>) {
        self.change(worker, |worker| worker.drains = Some(progress));
    }

    /// A worker takes its leave.
    pub fn retires(&self, worker: &WorkerId) {
        let mut known = self.lock();
        known.workers.remove(worker);
        known.has_heard = true;
        self.0.changed.notify_one();
    }

    /// Resolves once every worker that drains has taken its leave or fallen silent, and
    /// there was time to hear of those that drain.
    pub async fn gone(&self) {
        tokio::select! {
            () = self.quiet() => {}
            never = self.look() => match never {},
        }
    }

    async fn quiet(&self) {
        let stop = Instant::now();
        loop {
            let changed = self.0.changed.notified();
            // A worker that may be silent for long is waited for to the end.
            let Some(until) = self.awaited_until(stop) else {
                changed.await;
                continue;
            };
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// A worker that goes on through another replica takes its leave there, and its sign of
    /// life is gone.
    async fn look(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            let draining = self.lock().silent_and_draining();
            for (worker, progress) in draining {
                let looked = tokio::time::timeout(LOOK, progress.coordination()).await;
                let Ok(Ok(found)) = looked else { continue };
                if !found.workers.iter().any(|member| member.sign.worker == worker) {
                    self.retires(&worker);
                }
            }
        }
    }

    fn awaited_until(&self, stop: Instant) -> Option<Instant> {
        let known = self.lock();
        let nobody = if known.has_heard { stop } else { stop + SETTLING };
        known.workers.values().try_fold(nobody, |until, worker| {
            worker.awaited_until(stop).map(|other| until.max(other))
        })
    }

    fn change(&self, worker: &WorkerId, change: impl FnOnce(&mut Worker)) {
        let (mut known, now) = (self.lock(), Instant::now());
        known.has_heard = true;
        let workers = &mut known.workers;
        if workers.len() >= MAX_WORKERS && !workers.contains_key(worker) {
            let oldest = workers.iter().min_by_key(|(_, worker)| worker.heard);
            let oldest = oldest.map(|(id, _)| id.clone()).expect("there are many");
            workers.remove(&oldest);
        }
        let worker = workers.entry(worker.clone()).or_insert_with(|| Worker::new(now));
        change(worker);
        worker.heard = now;
        drop(known);
        self.0.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Heartbeat, MemoryFault, MemoryProgress};

    const SECOND: Duration = Duration::from_secs(1);

    /// A store in which these workers show life.
    async fn showing(workers: &[&WorkerId]) -> Arc<MemoryProgress> {
        let progress = MemoryProgress::new();
        for worker in workers {
            progress
                .heartbeat(&Heartbeat::first((*worker).clone()))
                .await
                .expect("it is in memory");
        }
        Arc::new(progress)
    }

    /// How long a stop waits while `meanwhile` happens.
    async fn waited(callers: &Callers, meanwhile: impl Future<Output = ()>) -> Duration {
        let began = Instant::now();
        let gone = async {
            callers.gone().await;
            began.elapsed()
        };
        tokio::join!(gone, meanwhile).0
    }

    async fn beat(callers: &Callers, worker: &WorkerId, times: u32, interval: Duration) {
        for _ in 0..times {
            callers.beats(worker);
            tokio::time::sleep(interval).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_workers_that_stop_too_and_for_nobody_else() {
        let (a, b) = (WorkerId::from("a"), WorkerId::from("b"));
        let callers = Callers::default();
        let shown = showing(&[&a, &b]).await;
        // They may be there, and have had nothing to say since the api was started.
        assert_eq!(waited(&callers, async {}).await, 2 * SECOND);
        let late = async {
            tokio::time::sleep(SECOND).await;
            callers.drains(&a, shown.clone());
            tokio::time::sleep(10 * SECOND).await;
            callers.retires(&a);
        };
        assert_eq!(waited(&callers, late).await, 11 * SECOND);
        assert_eq!(waited(&callers, async {}).await, Duration::ZERO, "the last has left");

        beat(&callers, &b, 3, SECOND).await;
        assert_eq!(waited(&callers, beat(&callers, &b, 9, SECOND)).await, 2 * SECOND);

        let drains = async {
            callers.drains(&b, shown.clone());
            beat(&callers, &b, 20, SECOND).await;
            callers.retires(&b);
        };
        assert_eq!(waited(&callers, drains).await, 20 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_drains_is_waited_for_while_it_may_be_alive() {
        let worker = WorkerId::from("a");
        let callers = Callers::default();
        let shown = showing(&[&worker]).await;
        // It beats every twenty seconds, and has not beaten twice.
        callers.beats(&worker);
        tokio::time::sleep(8 * SECOND).await;
        let drains = async {
            callers.drains(&worker, shown.clone());
            tokio::time::sleep(12 * SECOND).await;
            callers.beats(&worker);
            tokio::time::sleep(5 * SECOND).await;
        };
        // Its interval is known now, and two of them without a word are enough.
        assert_eq!(waited(&callers, drains).await, (12 + 40) * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_through_another_replica_is_not_waited_for() {
        let worker = WorkerId::from("a");
        let callers = Callers::default();
        let shown = showing(&[&worker]).await;
        let elsewhere = shown.view();
        // All that this replica hears of it is that it drains: not how often it beats.
        callers.drains(&worker, shown.clone());
        let leaves = async {
            tokio::time::sleep(10 * SECOND + SECOND / 2).await;
            elsewhere.retire(&worker, None).await.expect("it is in memory");
        };
        assert_eq!(waited(&callers, leaves).await, 11 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_ends_no_wait() {
        let worker = WorkerId::from("a");
        let callers = Callers::default();
        let shown = showing(&[&worker]).await;
        shown.set_fault(MemoryFault::Unreachable);
        callers.drains(&worker, shown.clone());
        let leaves = async {
            tokio::time::sleep(10 * SECOND).await;
            callers.retires(&worker);
        };
        assert_eq!(waited(&callers, leaves).await, 10 * SECOND);
    }
}
