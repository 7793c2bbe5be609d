//! What this worker sees of the others, and whether they live.
//!
//! Owns the look at the store, often enough that a hand-off is seen within half a second,
//! and the judgement that a worker is dead: its beat has not moved for the failover time,
//! its own or this worker's, whichever is longer, by this worker's clock. Acts on nothing.

use super::life::beat_interval;
use crate::progress::orders::Orders;
use crate::progress::{Coordination, Lease, Member, Position, Progress, ProgressError, WorkerId};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

/// The longest and the shortest time between two looks while there are others.
const LOOK_MAX: Duration = Duration::from_millis(500);
const LOOK_MIN: Duration = Duration::from_millis(100);
/// A part of the failover time: what a look comes late is a part of what a takeover takes.
const LOOKS_PER_FAILOVER: u32 = 20;

/// How often to look while there are others.
pub(super) fn look_interval(failover: Duration) -> Duration {
    (failover / LOOKS_PER_FAILOVER).clamp(LOOK_MIN, LOOK_MAX)
}

/// The consumer's workers, as they were last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// The leader's lease.
    pub stream: Option<Lease>,
    /// Where shards begin that have no item, once that is known.
    pub seeded: Option<Position>,
    /// In the order of their names.
    pub workers: Vec<Seen>,
    /// What operators have asked for.
    pub orders: Orders,
}

/// One worker as seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What it says.
    pub member: Member,
    /// Its beat moves.
    pub lives: bool,
}

impl View {
    /// The worker of that name, if it has a sign of life.
    pub fn worker(&self, worker: &WorkerId) -> Option<&Seen> {
        self.workers.iter().find(|seen| seen.member.sign.worker == *worker)
    }

    /// Those who live.
    pub fn living(&self) -> impl Iterator<Item = &Member> {
        self.workers.iter().filter(|seen| seen.lives).map(|seen| &seen.member)
    }

    /// Those who live and take shards.
    pub fn taking(&self) -> impl Iterator<Item = &Member> {
        self.living().filter(|member| !member.sign.draining)
    }
}

/// Judges by their beats whether workers live.
pub(super) struct Observer {
    me: WorkerId,
    failover: Duration,
    seen: BTreeMap<WorkerId, (u64, Instant)>,
}

impl Observer {
    pub fn new(me: WorkerId, failover: Duration) -> Self {
        Self { me, failover, seen: BTreeMap::new() }
    }

    /// Takes in what the store holds now.
    pub fn observe(&mut self, coordination: Coordination) -> View {
        let now = Instant::now();
        let Coordination { stream, seeded, workers, orders } = coordination;
        let is_there = |worker: &WorkerId| workers.iter().any(|m| m.sign.worker == *worker);
        self.seen.retain(|worker, _| is_there(worker));
        let mut workers: Vec<Seen> = workers
            .into_iter()
            .map(|member| {
                let sign = &member.sign;
                let seen = self.seen.entry(sign.worker.clone()).or_insert((sign.beat, now));
                if seen.0 != sign.beat {
                    *seen = (sign.beat, now);
                }
                let failover = self.failover.max(Duration::from_millis(sign.failover_ms));
                // Of itself it knows better.
                let lives = sign.worker == self.me || seen.1.elapsed() < failover;
                Seen { member, lives }
            })
            .collect();
        workers.sort_unstable_by(|a, b| a.member.sign.worker.cmp(&b.member.sign.worker));
        View { stream, seeded, workers, orders }
    }
}

/// Looks for ever, and publishes what it sees. `may_pass` says of which errors there is hope.
///
/// # Errors
/// Those of which there is none.
pub(super) async fn look(
    store: &dyn Progress,
    me: &WorkerId,
    failover: Duration,
    views: &watch::Sender<Arc<View>>,
    may_pass: impl Fn(&ProgressError) -> bool,
) -> Result<Infallible, ProgressError> {
    let mut observer = Observer::new(me.clone(), failover);
    let often = look_interval(failover);
    loop {
        let patience = beat_interval(failover).max(often);
        let wait = match tokio::time::timeout(patience, store.coordination()).await {
            Ok(Ok(coordination)) => {
                let view = observer.observe(coordination);
                let leads = view.stream.as_ref().is_some_and(|l| l.owner.as_ref() == Some(me));
                let alone = leads && view.workers.len() == 1;
                views.send_replace(Arc::new(view));
                // Nobody waits for a worker that is alone but one that joins.
                if alone { beat_interval(failover) } else { often }
            }
            // The beats notice an outage, and end the life in time.
            Ok(Err(error)) => {
                if !may_pass(&error) {
                    return Err(error);
                }
                debug!(%error, "the other workers could not be looked at");
                often
            }
            Err(_) => often,
        };
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Heartbeat;

    const SECOND: Duration = Duration::from_secs(1);

    fn beats(beats: &[(&str, u64, u64)]) -> Coordination {
        let member = |(worker, beat, failover_ms): &(&str, u64, u64)| {
            let first = Heartbeat::first((*worker).into());
            let sign = Heartbeat { beat: *beat, failover_ms: *failover_ms, ..first };
            Member { sign, announced: 0 }
        };
        Coordination { workers: beats.iter().map(member).collect(), ..Coordination::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_dead_when_its_beat_stands_still_for_the_failover_time() {
        let mut observer = Observer::new("me".into(), 10 * SECOND);
        let mut lives = |beat| {
            let view = observer.observe(beats(&[("a", beat, 10_000), ("me", 1, 10_000)]));
            assert!(view.worker(&"me".into()).unwrap().lives, "of itself it knows better");
            view.worker(&"a".into()).unwrap().lives
        };
        assert!(lives(7));
        tokio::time::advance(9 * SECOND).await;
        assert!(lives(7));
        tokio::time::advance(SECOND).await;
        assert!(!lives(7));
        assert!(lives(8));
        let view = observer.observe(beats(&[]));
        assert!(view.worker(&"a".into()).is_none(), "it took its leave");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_with_a_longer_failover_time_is_given_that() {
        let mut observer = Observer::new("me".into(), SECOND);
        let mut lives = |failover_ms| {
            let view = observer.observe(beats(&[("a", 7, failover_ms)]));
            view.living().count() == 1
        };
        assert!(lives(60_000));
        tokio::time::advance(59 * SECOND).await;
        assert!(lives(60_000));
        assert!(!lives(500), "but not less than the own");
    }
}
