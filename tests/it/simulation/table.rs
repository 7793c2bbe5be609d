//! The table: a store in memory whose every change is judged as it happens.
//!
//! Owns what stands there and who is told of a change: the rules, the judge of what is handed
//! over, and the table's own stream, of which every change becomes a record.

use super::changes::{Changed, changes, stream};
use super::link::{Answer, Call};
use super::moves::Carried;
use super::names::short;
use super::rules::{Now, Passing, Rules};
use super::world::World;
use futures_util::future::FutureExt;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use streamgate::lineage::StartingPosition;
use streamgate::progress::{
    Coordination, LeaseKey, MemoryProgress, Progress, ProgressError, Selection, ShardProgress,
    WorkerId,
};
use streamgate::source::ShardId;

pub struct Table {
    store: MemoryProgress,
    /// That of all workers.
    failover: Duration,
    /// The setting of all workers.
    start: StartingPosition,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Snapshot,
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
    pub fn new(failover: Duration, start: StartingPosition) -> Self {
        Self { store: MemoryProgress::new(), failover, start, state: Mutex::default() }
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
        let time = world.trace.now();
        let now = Now { table: &after, time, failover: self.failover, start: self.start };
        for change in &changes {
            if let Err(fault) = state.rules.check(call, change, &now) {
                world.judge().fault(format!("w{worker} {what}: {fault}"));
            }
            match change {
                Changed::Shard(shard, before, Some(item)) => {
                    state.positions += u64::from(is_moved(*before, item));
                    state.follow(world, call, shard, *before, item);
                }
                Changed::Orders(before, after) => {
                    if let (Some(reset), None) = (&before.reset, &after.reset) {
                        world.judge().begun_anew(reset.to);
                    }
                }
                _ => {}
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

    /// `worker` is what the start `number` calls itself.
    pub fn introduce(&self, world: &World, number: usize, worker: &WorkerId) {
        if self.lock().rules.workers.insert(worker.clone(), number).is_none() {
            world.trace.note(format_args!("w{number} is {worker}"));
        }
    }

    /// Whether `worker` has removed its own sign of life.
    pub fn has_left(&self, worker: &WorkerId) -> bool {
        self.lock().rules.left.contains(worker)
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

    /// Whether the start `worker` has the very lease that `item` was read with.
    pub fn has(&self, worker: usize, item: &ShardProgress) -> bool {
        let is_now =
            self.lock().now.shards.get(&item.shard).is_some_and(|now| now.lease == item.lease);
        is_now && self.owner(&item.shard) == Some(worker)
    }

    /// How often the stream has begun anew.
    pub fn epoch(&self) -> u64 {
        self.lock().now.coordination.orders.epoch
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

fn is_moved(before: Option<&ShardProgress>, item: &ShardProgress) -> bool {
    before.is_none_or(|before| before.position != item.position)
}

impl State {
    /// Tells the judge what has become of a shard's item.
    fn follow(
        &mut self,
        world: &World,
        call: &Call,
        shard: &ShardId,
        before: Option<&ShardProgress>,
        item: &ShardProgress,
    ) {
        let from = before.map(|before| &before.position);
        let time = world.trace.now();
        if before.is_some_and(|before| before.order != item.order) {
            let carried_out = self.rules.ledger.carry_out(shard, item, time);
            match carried_out {
                Ok((order, asked)) => {
                    let from = from.expect("there was one");
                    let carried =
                        Carried { shard, to: order.to, asked, from, position: &item.position };
                    world.judge().moved(&carried, world.is_tip_sure());
                }
                Err(fault) => world.judge().fault(format!("{}: {fault}", short(shard))),
            }
        } else if is_moved(before, item) {
            world.judge().position(shard, from, &item.position);
        }
        match before.and_then(|before| Passing::of(call, shard, &before.lease, &item.lease)) {
            Some(Passing::Given) => world.judge().stopped(shard, &item.position),
            Some(Passing::Taken) => world.judge().lost(shard),
            None => {}
        }
    }
}
