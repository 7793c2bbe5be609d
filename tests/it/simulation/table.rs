//! The table: a store in memory whose every change is judged as it happens.
//!
//! Owns what stands there and who is told of a change: the rules, the judge of what is handed
//! over, and the table's own stream, of which every change becomes a record.

use super::changes::{Changed, changes, stream};
use super::link::{Answer, Call};
use super::rules::{Now, Passing, Rules};
use super::world::{World, epoch};
use futures_util::future::FutureExt;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use streamgate::progress::{
    Coordination, LeaseKey, MemoryProgress, Progress, ProgressError, Selection, ShardProgress,
    WorkerId,
};
use streamgate::source::ShardId;

pub struct Table {
    store: MemoryProgress,
    /// That of all workers.
    failover: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Snapshot,
    /// When each shard's item was last changed: the store's own times are the machine's.
    changed: BTreeMap<ShardId, Duration>,
    rules: Rules,
    /// Changes of positions.
    positions: u64,
}

/// All that stands in the table.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub coordination: Coordination,
    pub shards: BTreeMap<ShardId, ShardProgress>,
}

impl Snapshot {
    fn of(store: &MemoryProgress) -> Self {
        let answered = "memory answers at once";
        let coordination = store.coordination().now_or_never().expect(answered).expect(answered);
        let items = store.load(Selection::All).now_or_never().expect(answered).expect(answered);
        let shards = items.into_iter().map(|item| (item.shard.clone(), item)).collect();
        Self { coordination, shards }
    }
}

impl Table {
    pub fn new(failover: Duration) -> Self {
        Self { store: MemoryProgress::new(), failover, state: Mutex::default() }
    }

    /// Does what a call does.
    pub fn serve<T>(
        &self,
        world: &World,
        call: &Call,
        effect: &dyn Fn(&MemoryProgress) -> Answer<T>,
    ) -> Answer<T> {
        let answer = effect(&self.store);
        let after = Snapshot::of(&self.store);
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.now, after.clone());
        let Call { worker, what, .. } = call;
        let outcome = match &answer {
            Ok(_) => "ok".to_owned(),
            Err(ProgressError::LeaseLost { owner }) => {
                let owner = owner.as_ref().map_or("nobody".into(), |owner| state.rules.name(owner));
                format!("lost to {owner}")
            }
            Err(error) => error.to_string(),
        };
        world.trace.note(format_args!("w{worker} {what}: {outcome}"));
        let changes = changes(&before, &after);
        let (time, failover) = (world.trace.now(), self.failover);
        let now = Now { coordination: &after.coordination, time, failover };
        for change in &changes {
            if let Err(fault) = state.rules.check(call, change, &now) {
                world.judge().fault(format!("w{worker} {what}: {fault}"));
            }
            if let Changed::Shard(shard, before, Some(after)) = change {
                state.changed.insert((*shard).clone(), time);
                let from = before.map(|before| &before.position);
                if from != Some(&after.position) {
                    state.positions += 1;
                    world.judge().position(shard, from, &after.position);
                }
                let passing =
                    |before: &ShardProgress| Passing::of(call, shard, &before.lease, &after.lease);
                match before.and_then(passing) {
                    Some(Passing::Given) => world.judge().given(shard, &after.position),
                    Some(Passing::Taken) => world.judge().turns.lease_taken(shard),
                    None => {}
                }
            }
        }
        let is_seeding =
            after.coordination.seeded.is_some() && before.coordination.seeded.is_none();
        drop(state);
        if is_seeding {
            world.judge().seeded(after.shards.keys().cloned());
        }
        for change in changes {
            stream(world, &change);
        }
        answer
    }

    /// Gives items the times at which they were changed.
    pub fn date(&self, items: &mut [ShardProgress]) {
        let state = self.lock();
        for item in items {
            item.updated = epoch() + state.changed.get(&item.shard).copied().unwrap_or_default();
        }
    }

    /// `worker` is what the start `number` calls itself.
    pub fn introduce(&self, world: &World, number: usize, worker: &WorkerId) {
        if self.lock().rules.workers.insert(worker.clone(), number).is_none() {
            world.trace.note(format_args!("w{number} is {worker}"));
        }
    }

    pub fn name(&self, worker: &WorkerId) -> String {
        self.lock().rules.name(worker)
    }

    /// The start that owns `shard` now, under whichever of its names.
    pub fn owner(&self, shard: &ShardId) -> Option<usize> {
        let state = self.lock();
        let owner = state.now.shards.get(shard)?.lease.owner.as_ref()?;
        state.rules.workers.get(owner).copied()
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().now.clone()
    }

    /// How often each lease went to somebody.
    pub fn moves(&self) -> BTreeMap<LeaseKey, u64> {
        self.lock().rules.moves.clone()
    }

    /// How often positions were written.
    pub fn positions(&self) -> u64 {
        self.lock().positions
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}
