//! Whose turn it is to hand a shard's batches to a handler.
//!
//! Owns the promises between workers: only the lease's owner hands over, nobody begins while
//! another is still at it, and a lease that was given away leaves nothing to be repeated. A
//! worker that stood still may finish what it was in the middle of: against that there is
//! fencing.

use std::collections::BTreeMap;
use std::time::Duration;
use streamgate::source::ShardId;

#[derive(Default)]
pub struct Turns {
    /// Batches under way: of which shard, by which start, how many.
    under_way: BTreeMap<ShardId, BTreeMap<usize, usize>>,
    /// Until when a start that stood still is excused.
    excused: BTreeMap<usize, Duration>,
    /// How often each shard's lease was taken from one who had not given it away: what was
    /// delivered before that may come again.
    rounds: BTreeMap<ShardId, u64>,
}

impl Turns {
    /// `worker` stands still, and knows of it by then.
    pub fn excuse(&mut self, worker: usize, until: Duration) {
        self.excused.insert(worker, until);
    }

    /// The lease of `shard` was taken.
    pub fn lease_taken(&mut self, shard: &ShardId) {
        *self.rounds.entry(shard.clone()).or_default() += 1;
    }

    pub fn round(&self, shard: &ShardId) -> u64 {
        self.rounds.get(shard).copied().unwrap_or_default()
    }

    /// `worker` begins to hand a batch over. Gives what is wrong with that.
    pub fn begin(
        &mut self,
        worker: usize,
        shard: &ShardId,
        owner: Option<usize>,
        now: Duration,
    ) -> Option<String> {
        let others = self.under_way.get(shard).into_iter().flat_map(BTreeMap::keys);
        let is_excused = |worker: &usize| self.excused.get(worker).is_some_and(|end| now < *end);
        let other = others.copied().find(|other| *other != worker && !is_excused(other));
        let fault = match (other, owner) {
            _ if is_excused(&worker) => None,
            (Some(other), _) => Some(format!("w{other} is still at it")),
            (_, Some(owner)) if owner == worker => None,
            (_, Some(owner)) => Some(format!("it is the turn of w{owner}")),
            (_, None) => Some("it is nobody's".to_owned()),
        };
        let under_way = self.under_way.entry(shard.clone()).or_default();
        *under_way.entry(worker).or_default() += 1;
        fault
    }

    /// The batch is through, or was dropped.
    pub fn end(&mut self, worker: usize, shard: &ShardId) {
        let Some(under_way) = self.under_way.get_mut(shard) else { return };
        if let Some(count) = under_way.get_mut(&worker) {
            *count -= 1;
        }
        under_way.retain(|_, count| *count > 0);
    }
}
