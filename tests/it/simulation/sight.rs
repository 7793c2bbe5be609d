//! What each worker has seen of what operators ask, and so what it must not do any more.
//!
//! Owns the promise of a pause: who has seen it hands nothing of the shard to its handler until
//! it is resumed. A worker acts on what its lookout sees. Its leader reads the same for itself,
//! after it has loaded all items, and once more after it has waited: what may be that does not
//! count.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use streamgate::progress::orders::Orders;
use streamgate::source::ShardId;
use tokio::time::Instant;

/// How long a leader waits before it reads again what replicas share.
const LEADER_WAITS: Duration = Duration::from_millis(150);
/// What timers are late, at most.
const LATE: Duration = Duration::from_millis(5);

/// What all workers have seen.
#[derive(Default)]
pub struct Sight(Mutex<State>);

#[derive(Default)]
struct State {
    /// By start: the pauses that stand as it last saw it, and since when it has seen each.
    pauses: BTreeMap<usize, BTreeMap<Option<ShardId>, Duration>>,
    /// The time in which every worker has to see a pause is over.
    all_see: bool,
}

impl Sight {
    /// The start `worker` has seen `orders`; where it is not sure that its lookout has, only
    /// what is over is taken from that.
    pub fn saw(&self, worker: usize, orders: &Orders, now: Duration, is_sure: bool) {
        let mut state = self.lock();
        let seen = state.pauses.entry(worker).or_default();
        seen.retain(|shard, _| orders.pauses.iter().any(|pause| pause.shard == *shard));
        for pause in orders.pauses.iter().filter(|_| is_sure) {
            seen.entry(pause.shard.clone()).or_insert(now);
        }
    }

    /// From now on a pause that stands has been seen by all.
    pub fn all_see(&self, all_see: bool) {
        self.lock().all_see = all_see;
    }

    /// Why `worker` must not hand over of `shard`, while `orders` stand.
    pub fn fault(
        &self,
        worker: usize,
        shard: &ShardId,
        orders: &Orders,
        now: Duration,
    ) -> Option<String> {
        let state = self.lock();
        let mut pauses = state.pauses.get(&worker).into_iter().flatten();
        // At the moment at which it sees it, it may be about to.
        let is_over = |(of, since): (&Option<ShardId>, &Duration)| {
            of.as_ref().is_none_or(|of| of == shard) && *since < now
        };
        if pauses.any(is_over) {
            return Some("it is paused, as the worker has seen".to_owned());
        }
        let stands = state.all_see && orders.pause(shard).is_some();
        stands.then(|| "it is paused, as all must have seen".to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }
}

/// Tells the looks of one worker's leader from those of its lookout.
#[derive(Default)]
pub struct Looks(Mutex<Leader>);

#[derive(Default)]
struct Leader {
    /// It looks at once.
    is_next: bool,
    /// When it may have had an answer.
    answers: Vec<Instant>,
}

impl Looks {
    /// All items were loaded, which a leader does before it looks.
    pub fn loaded(&self) {
        self.lock().is_next = true;
    }

    /// A look begins. Whether it may be a leader's.
    pub fn begin(&self) -> bool {
        let mut leader = self.lock();
        leader.answers.retain(|answer| answer.elapsed() <= LEADER_WAITS + LATE);
        let has_waited = leader.answers.iter().any(|answer| answer.elapsed() >= LEADER_WAITS);
        std::mem::take(&mut leader.is_next) || has_waited
    }

    /// One that may be a leader's is answered.
    pub fn answered(&self) {
        self.lock().answers.push(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Leader> {
        self.0.lock().expect("no panic while held")
    }
}
