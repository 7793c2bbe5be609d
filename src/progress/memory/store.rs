//! What is kept in memory, and how each write changes it.
//!
//! Owns the items; [`fencing`] judges every write. Invariant: a write that is refused
//! changes nothing.

use super::super::fencing::{self, Verdict};
use super::super::letters::LettersInMemory;
use super::super::orders::{Orders, Request};
use super::super::{
    Checkpoint, Gap, Heartbeat, Lease, LeaseKey, Member, NewShard, Position, ProgressError,
    ShardProgress, WorkerId, first_take, item,
};
use crate::clock;
use crate::source::ShardId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(in crate::progress) struct Store {
    pub(in crate::progress) letters: LettersInMemory,
    pub(super) stream: Option<Lease>,
    pub(super) seeded: Option<Position>,
    /// The last step under the stream's lease.
    seeded_step: Option<u64>,
    pub(super) workers: BTreeMap<WorkerId, Member>,
    pub(super) shards: BTreeMap<ShardId, ShardProgress>,
    pub(super) orders: Orders,
    /// The last step under each shard's lease.
    pub(super) steps: BTreeMap<ShardId, u64>,
}

impl Store {
    pub(super) fn lease(&self, key: &LeaseKey) -> Option<&Lease> {
        match key {
            LeaseKey::Stream => self.stream.as_ref(),
            LeaseKey::Shard(shard) => self.shards.get(shard).map(|item| &item.lease),
        }
    }

    pub(super) fn take(
        &mut self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        let first = if seen.is_none() { first_take(key, new)? } else { None };
        let taken = match seen {
            Some(seen) => fencing::taken(seen, worker),
            None => fencing::first(first, worker),
        };
        match fencing::take(self.lease(key), seen, &taken) {
            Verdict::Write => {}
            verdict => return verdict.after_refusal().map(|()| taken),
        }
        match (key, first) {
            (LeaseKey::Stream, _) => {
                (self.stream, self.seeded_step) = (Some(taken.clone()), None);
            }
            (LeaseKey::Shard(shard), Some(first)) => {
                let begun = ShardProgress {
                    shard: shard.clone(),
                    parent: first.parent.clone(),
                    lease: taken.clone(),
                    since: item::kept(clock::now()),
                    position: item::kept_position(&first.position),
                    order: 0,
                    updated: item::kept(clock::now()),
                    closed: first.closed,
                    gaps: Vec::new(),
                    window: None,
                };
                self.shards.insert(shard.clone(), begun);
            }
            (LeaseKey::Shard(shard), None) => self.set_lease(shard, taken.clone()),
        }
        Ok(taken)
    }

    pub(super) fn release(&mut self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError> {
        let verdict = fencing::release(self.lease(key), lease);
        if verdict != Verdict::Write {
            return verdict.after_refusal();
        }
        let released = Lease { owner: None, counter: lease.counter };
        match key {
            LeaseKey::Stream => self.stream = Some(released),
            LeaseKey::Shard(shard) => self.set_lease(shard, released),
        }
        Ok(())
    }

    pub(super) fn set_lease(&mut self, shard: &ShardId, lease: Lease) {
        self.steps.remove(shard);
        if let Some(item) = self.shards.get_mut(shard) {
            if lease.owner.is_some() {
                item.since = item::kept(clock::now());
            }
            item.lease = lease;
        }
    }

    pub(super) fn beat_of(&self, worker: &WorkerId) -> Option<u64> {
        self.workers.get(worker).map(|member| member.sign.beat)
    }

    pub(super) fn heartbeat(&mut self, sign: &Heartbeat) -> Result<(), ProgressError> {
        match fencing::beat(self.beat_of(&sign.worker), sign.beat) {
            Verdict::Write => {
                let announced = self.workers.get(&sign.worker).map_or(0, |m| m.announced);
                let member = Member { sign: sign.clone(), announced };
                self.workers.insert(sign.worker.clone(), member);
                Ok(())
            }
            verdict => verdict.after_refusal(),
        }
    }

    pub(super) fn retire(
        &mut self,
        worker: &WorkerId,
        seen: Option<u64>,
    ) -> Result<(), ProgressError> {
        match fencing::retire(self.beat_of(worker), seen, worker) {
            Verdict::Write => {
                self.workers.remove(worker);
                Ok(())
            }
            verdict => verdict.after_refusal(),
        }
    }

    pub(super) fn hand_over(
        &mut self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError> {
        let handed = fencing::handed_over(lease, to);
        let current = self.shards.get(shard).map(|item| &item.lease);
        match fencing::hand_over(current, lease, to) {
            Verdict::Write => self.set_lease(shard, handed.clone()),
            verdict => verdict.after_refusal()?,
        }
        Ok(handed)
    }

    pub(super) fn seed(
        &mut self,
        lease: &Lease,
        step: u64,
        begin: Option<&Position>,
    ) -> Result<(), ProgressError> {
        match fencing::checkpoint(self.stream.as_ref(), self.seeded_step, lease, step) {
            Verdict::Write => {
                self.seeded = begin.map(item::kept_position);
                self.seeded_step = Some(step);
                Ok(())
            }
            verdict => verdict.after_refusal(),
        }
    }

    pub(super) fn order(&mut self, request: &Request) -> Result<Orders, ProgressError> {
        if let Some(orders) = self.orders.with(request, item::kept(clock::now()))? {
            self.orders = orders;
        }
        Ok(self.orders.clone())
    }

    pub(super) fn seek(
        &mut self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError> {
        let item = self.shards.get_mut(shard);
        let written = self.steps.get(shard).copied();
        let now = item.as_ref().map(|item| &item.lease);
        let verdict = fencing::checkpoint(now, written, lease, step);
        let (Verdict::Write, Some(item)) = (&verdict, item) else {
            return verdict.after_refusal();
        };
        item.position = item::kept_position(position);
        (item.updated, item.window, item.order) = (item::kept(clock::now()), None, order);
        self.steps.insert(shard.clone(), step);
        Ok(())
    }

    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), ProgressError> {
        let item = self.shards.get_mut(&checkpoint.shard);
        let (lease, step) = (item.as_ref().map(|item| &item.lease), checkpoint.step);
        let written = self.steps.get(&checkpoint.shard).copied();
        let verdict = fencing::checkpoint(lease, written, &checkpoint.lease, step);
        let (Verdict::Write, Some(item)) = (&verdict, item) else {
            return verdict.after_refusal();
        };
        item.position = item::kept_position(&checkpoint.position);
        item.updated = item::kept(clock::now());
        item.window = checkpoint.window.as_ref().map(item::kept_window);
        self.steps.insert(checkpoint.shard.clone(), step);
        if let Some(gap) = &checkpoint.gap {
            let mark = |gap: &Gap| item::gap_mark(gap);
            if item.gaps.last().map(mark) != Some(mark(gap)) {
                item.gaps.push(item::kept_gap(gap));
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, shard: &ShardId, lease: &Lease) -> Result<(), ProgressError> {
        let current = self.shards.get(shard).map(|item| &item.lease);
        match fencing::forget(current, lease) {
            Verdict::Write => {
                self.shards.remove(shard);
                self.steps.remove(shard);
                Ok(())
            }
            verdict => verdict.after_refusal(),
        }
    }
}
