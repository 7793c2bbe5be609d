//! The table: a store in memory whose every change is judged as it happens.
//!
//! Owns the rules that hold between what stood there and what stands there now, whichever
//! call made the change: who may write, how counters grow, that positions never move back.
//! Every change becomes a record of the table's own stream.

use super::judge::order;
use super::link::{Answer, Call};
use super::world::{World, epoch};
use futures_util::future::FutureExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use streamgate::progress::{
    Coordination, Lease, LeaseKey, MemoryProgress, OWN_PREFIX, Position, Progress, ProgressError,
    Selection, ShardProgress, WorkerId,
};
use streamgate::simulator::{Change, ChangeKind};
use streamgate::source::ShardId;

pub struct Table {
    store: MemoryProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Snapshot,
    /// When each shard's item was last changed: the store's own times are the machine's.
    changed: BTreeMap<ShardId, Duration>,
    /// The furthest position of each shard, as [`order`] has it.
    furthest: BTreeMap<ShardId, u128>,
    /// Which start each worker is.
    workers: BTreeMap<WorkerId, usize>,
    /// Leases that went to another owner, or to one after there was none.
    passed_on: u64,
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
    pub fn new() -> Self {
        Self { store: MemoryProgress::new(), state: Mutex::default() }
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
                let owner = owner.as_ref().map_or("nobody".into(), |owner| state.name(owner));
                format!("lost to {owner}")
            }
            Err(error) => error.to_string(),
        };
        world.trace.note(format_args!("w{worker} {what}: {outcome}"));
        let changes = changes(&before, &after);
        for change in &changes {
            if let Err(fault) = state.check(call, change) {
                world.judge().fault(format!("w{worker} {what}: {fault}"));
            }
            if let Changed::Shard(shard, before, Some(after)) = change {
                state.changed.insert((*shard).clone(), world.trace.now());
                let from = before.map(|before| &before.position);
                if from != Some(&after.position) {
                    state.positions += 1;
                    world.judge().position(shard, from, &after.position);
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
        if self.lock().workers.insert(worker.clone(), number).is_none() {
            world.trace.note(format_args!("w{number} is {worker}"));
        }
    }

    pub fn name(&self, worker: &WorkerId) -> String {
        self.lock().name(worker)
    }

    /// The start that owns `shard` now, and under which counter.
    pub fn owner(&self, shard: &ShardId) -> Option<(usize, u64)> {
        let state = self.lock();
        let Lease { owner, counter } = &state.now.shards.get(shard)?.lease;
        Some((*state.workers.get(owner.as_ref()?)?, *counter))
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().now.clone()
    }

    /// How often leases went to somebody, and positions were written.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.passed_on, state.positions)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

/// One item's change.
enum Changed<'a> {
    Stream(Option<&'a Lease>, Option<&'a Lease>),
    Seeded,
    Worker(&'a WorkerId, Option<u64>, Option<u64>),
    Shard(&'a ShardId, Option<&'a ShardProgress>, Option<&'a ShardProgress>),
}

fn changes<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Vec<Changed<'a>> {
    let mut changes = Vec::new();
    let (old, new) = (&before.coordination, &after.coordination);
    if old.stream != new.stream {
        changes.push(Changed::Stream(old.stream.as_ref(), new.stream.as_ref()));
    }
    if old.seeded != new.seeded {
        changes.push(Changed::Seeded);
    }
    let beat_of = |of: &Coordination, worker: &WorkerId| {
        of.workers.iter().map(|m| &m.sign).find(|sign| sign.worker == *worker).map(|sign| sign.beat)
    };
    let is_new = |worker: &&WorkerId| beat_of(old, worker).is_none();
    let workers = |of: &'a Coordination| of.workers.iter().map(|member| &member.sign.worker);
    for worker in workers(old).chain(workers(new).filter(is_new)) {
        let (old, new) = (beat_of(old, worker), beat_of(new, worker));
        if old != new {
            changes.push(Changed::Worker(worker, old, new));
        }
    }
    for shard in union(&before.shards, &after.shards) {
        let (old, new) = (before.shards.get(shard), after.shards.get(shard));
        if !is_same(old, new) {
            changes.push(Changed::Shard(shard, old, new));
        }
    }
    changes
}

fn union<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    a.keys().chain(b.keys().filter(|key| !a.contains_key(key))).collect()
}

/// But for the time, which is the machine's.
fn is_same(a: Option<&ShardProgress>, b: Option<&ShardProgress>) -> bool {
    let parts = |item: &ShardProgress| {
        (item.lease.clone(), item.position.clone(), item.gaps.clone(), item.window.clone())
    };
    a.map(parts) == b.map(parts)
}

impl State {
    fn name(&self, worker: &WorkerId) -> String {
        self.workers.get(worker).map_or_else(|| worker.to_string(), |number| format!("w{number}"))
    }

    /// What must hold of a change.
    fn check(&mut self, call: &Call, change: &Changed<'_>) -> Result<(), String> {
        match change {
            Changed::Seeded => {
                let held = self.now.coordination.stream.as_ref();
                let is_under = call.under.as_ref().map(|(_, lease)| lease) == held;
                must(self.now.coordination.seeded.is_some() && is_under, || {
                    "carried out the starting position without the lease".to_owned()
                })
            }
            // Beats of the dead may come late: that is for others to judge.
            Changed::Worker(_, Some(old), Some(new)) => {
                must(new > old, || format!("a beat went back from {old} to {new}"))
            }
            Changed::Worker(..) => Ok(()),
            Changed::Stream(old, new) => self.check_lease(call, &LeaseKey::Stream, *old, *new),
            Changed::Shard(shard, old, None) => {
                let is_ended = old.is_some_and(|old| old.position == Position::ShardEnd);
                must(is_ended, || format!("{} was forgotten before its end", short(shard)))
            }
            Changed::Shard(shard, old, Some(new)) => {
                let key = LeaseKey::Shard((*shard).clone());
                let old_lease = old.map(|old| &old.lease);
                if old_lease != Some(&new.lease) {
                    self.check_lease(call, &key, old_lease, Some(&new.lease))?;
                }
                let Some(old) = old else { return Ok(()) };
                self.check_position(call, old, new)
            }
        }
    }

    /// A lease passes on with its counter one higher, or goes back to nobody by its owner.
    fn check_lease(
        &mut self,
        call: &Call,
        key: &LeaseKey,
        old: Option<&Lease>,
        new: Option<&Lease>,
    ) -> Result<(), String> {
        let counter = |lease: Option<&Lease>| lease.map_or(0, |lease| lease.counter);
        let says = || format!("{}: {old:?} became {new:?}", key_name(key));
        match new {
            None => Err(says()),
            Some(Lease { owner: Some(_), .. }) => {
                self.passed_on += 1;
                must(counter(new) == counter(old) + 1, says)
            }
            Some(Lease { owner: None, .. }) => {
                let is_own = call.under.as_ref().is_some_and(|(_, lease)| Some(lease) == old);
                must(is_own && counter(new) == counter(old), says)
            }
        }
    }

    /// A position is written by the lease's owner, under that very lease, and forward.
    fn check_position(
        &mut self,
        call: &Call,
        old: &ShardProgress,
        new: &ShardProgress,
    ) -> Result<(), String> {
        let is_kept = new.gaps.starts_with(&old.gaps);
        must(is_kept, || "forgot a gap".to_owned())?;
        if old.position == new.position && old.gaps == new.gaps && old.window == new.window {
            return Ok(());
        }
        let owner = old.lease.owner.as_ref().and_then(|owner| self.workers.get(owner));
        must(owner == Some(&call.worker), || {
            format!("wrote a position under the lease of {owner:?}")
        })?;
        let is_under = call.under.as_ref().is_some_and(|(_, lease)| *lease == old.lease);
        must(is_under, || format!("wrote under {:?}, which is not {:?}", call.under, old.lease))?;
        // What a gap is after is no more: with it the position is the oldest record kept.
        let gap = new.gaps.get(old.gaps.len()..).unwrap_or_default().last();
        if new.position == Position::TrimHorizon && gap.is_some() {
            return Ok(());
        }
        let furthest = self.furthest.entry(new.shard.clone()).or_default();
        let back = || format!("moved back from {furthest} to {:?}", new.position);
        must(*furthest <= order(&new.position), back)?;
        *furthest = order(&new.position);
        Ok(())
    }
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// The change comes back as a record of the table's stream.
fn stream(world: &World, change: &Changed<'_>) {
    let (sort, is_first, is_last) = match change {
        Changed::Stream(old, _) => ("stream".to_owned(), old.is_none(), false),
        Changed::Seeded => ("stream".to_owned(), false, false),
        Changed::Worker(worker, old, new) => {
            (format!("worker#{worker}"), old.is_none(), new.is_none())
        }
        Changed::Shard(shard, old, new) => (format!("shard#{shard}"), old.is_none(), new.is_none()),
    };
    let kind = match (is_first, is_last) {
        (true, _) => ChangeKind::Insert,
        (_, true) => ChangeKind::Remove,
        _ => ChangeKind::Modify,
    };
    let keys = json!({"PK": {"S": format!("{OWN_PREFIX}simulation")}, "SK": {"S": sort}});
    let image = || Some(keys.clone());
    let (new_image, old_image) = (image(), image());
    world.put_own(&Change { kind, new_image, old_image, keys, user_identity: None });
}

/// Enough of a shard's name to tell it from others.
pub fn short(shard: &ShardId) -> &str {
    let name = shard.as_str();
    &name[name.len().saturating_sub(8)..]
}

pub fn key_name(key: &LeaseKey) -> &str {
    match key {
        LeaseKey::Stream => "stream",
        LeaseKey::Shard(shard) => short(shard),
    }
}

pub fn position_name(position: &Position) -> &str {
    match position {
        Position::TrimHorizon => "horizon",
        Position::AtTimestamp(_) => "time",
        Position::After(number) => number.as_str(),
        Position::ShardEnd => "end",
    }
}
