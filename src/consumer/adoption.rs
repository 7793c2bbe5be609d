//! Sees that every shard that may be read has an owner who lives.
//!
//! Owns the making of items for new shards, the taking of leases that nobody alive holds,
//! for this worker or on behalf of others, and the removal of items of shards that are
//! long gone. Where they go is [`crate::planner`]'s. Invariant: the items are looked at
//! before the workers. An owner without a sign of life then was gone already, because a
//! worker beats before it takes.

use super::Consumer;
use super::departed::Departed;
use super::expected::{CHILD_GRACE, Expected};
use super::family::Family;
use super::life::Life;
use super::lookout::View;
use super::orders::{RESET_WAIT, SETTLE_WAIT};
use super::shards::{Given, Granted};
use crate::checkpoint::next_step;
use crate::clock;
use crate::lineage::{Seed, StartingPosition};
use crate::planner::{self, Share};
use crate::progress::{
    Coordination, Heartbeat, Lease, LeaseKey, NewShard, Position, ProgressError, Selection,
    ShardProgress, WorkerId,
};
use crate::source::ShardId;
use futures_util::StreamExt;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Leases taken at the same time.
pub(super) const TAKES_AT_ONCE: usize = 16;

/// After a seek of the whole stream: by then a take has arrived that was under way before.
const BELATED: Duration = Duration::from_secs(30);

/// A replica of the api gives what it read for a tenth of a second: who began to beat through
/// another one may be missing in what was read before the items.
const SHARED_READ: Duration = Duration::from_millis(150);

/// The adoptions of one time as leader.
pub(super) struct Adoption<'a> {
    pub(super) consumer: &'a Consumer,
    pub(super) life: &'a Life,
    pub(super) family: &'a Family,
    /// The stream's.
    pub(super) lease: &'a Lease,
    grants: mpsc::UnboundedSender<Given>,
    expected: Expected,
    /// Who has been given something and was not told, as far as is known.
    untold: BTreeSet<WorkerId>,
    departed: Departed,
    /// When the whole stream began anew under this lease.
    pub(super) begun_anew: Option<Instant>,
    /// Who said last time to have fewer shards than are its.
    short: BTreeSet<WorkerId>,
}

/// A lease to be taken.
struct Orphan {
    shard: ShardId,
    /// As it was seen; `None` for a shard without an item.
    item: Option<ShardProgress>,
    new: NewShard,
    from_latest: bool,
}

impl<'a> Adoption<'a> {
    /// Under the stream's `lease`. What is for this worker goes through `grants`.
    pub fn new(
        consumer: &'a Consumer,
        life: &'a Life,
        family: &'a Family,
        lease: &'a Lease,
        grants: mpsc::UnboundedSender<Given>,
    ) -> Self {
        Self {
            consumer,
            life,
            family,
            lease,
            grants,
            expected: Expected::default(),
            untold: BTreeSet::new(),
            departed: Departed::default(),
            begun_anew: None,
            short: BTreeSet::new(),
        }
    }

    /// Gives every shard that nobody has to somebody. `listed` says that the stream's shards
    /// are known. Gives the wait after which it should be done again, if it should.
    ///
    /// At the very first time the starting position is carried out, and that is noted once
    /// all items are there: a crash in between does it again.
    pub async fn adopt(
        &mut self,
        view: &View,
        listed: bool,
    ) -> Result<Option<Duration>, ProgressError> {
        let progress = &self.consumer.progress;
        let items = progress.load(Selection::All).await?;
        let mut seen = self.look().await?;
        // All actions on the table have worked now.
        self.consumer.store_proved.store(true, Ordering::Relaxed);
        self.family.in_epoch(seen.orders.epoch);
        let (items, belated): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.lease.epoch() >= seen.orders.epoch);
        if !belated.is_empty() {
            warn!(
                items = belated.len(),
                "shards were still begun as before the seek of the whole stream: that is undone"
            );
            self.remove(&belated).await?;
        }
        self.family.with(|lineage| {
            for item in &items {
                lineage.keep(&item.shard, item.parent.as_ref(), &item.position);
            }
        });
        if items.iter().any(|item| item.lease.owner.is_some() && self.is_orphan(item, &seen)) {
            tokio::time::sleep(SHARED_READ).await;
            seen = self.look().await?;
        }
        if let Some(reset) = &seen.orders.reset {
            return self.begin_anew(reset, &items, &seen).await.map(Some);
        }
        // This worker would give back what it gets while it does not know.
        if view.orders.reset.is_some() || view.orders.epoch < seen.orders.epoch {
            return Ok(Some(RESET_WAIT));
        }
        self.settle(&seen, &items).await?;
        let seeds = if listed { self.seeds(&seen, &items) } else { Vec::new() };
        let orphans = items.iter().filter(|item| self.is_orphan(item, &seen)).map(Orphan::of);
        let mut orphans: Vec<Orphan> = seeds.into_iter().map(Orphan::from).chain(orphans).collect();
        // New ones first, and then what moved last: that has records, and is not to wait behind
        // thousands of shards that have none.
        orphans.sort_by_key(|orphan| orphan.item.as_ref().map(|item| Reverse(item.updated)));
        let shares = self.shares(&seen, view);
        self.suspect(&seen, &items);
        // What ended before the tip first: where somebody has begun to read it meanwhile, its
        // children are not at the tip.
        let (ended, orphans): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|orphan| orphan.new.position == Position::ShardEnd);
        let taken = match self.take(ended, &shares).await {
            Ok(true) => self.take(orphans, &shares).await,
            refused => refused,
        };
        self.tell().await?;
        let all_taken = taken?;
        if listed && seen.seeded.is_none() {
            if !all_taken {
                // What another has is looked at first: it may be from before a seek.
                return Ok(Some(RESET_WAIT));
            }
            // Also where there was none: what appears in a stream that is still being
            // enabled is new.
            let begin = self.consumer.start(&seen.orders).begin();
            progress.seeded(self.lease, next_step(), &begin).await?;
        }
        if listed {
            self.forget_departed(&items).await?;
        }
        let settling = (!seen.orders.moves.is_empty()).then_some(SETTLE_WAIT);
        let belated = self.begun_anew.is_some_and(|at| at.elapsed() < BELATED);
        let settling = settling.or(belated.then_some(BELATED / 3));
        Ok(settling.or((!self.expected.is_empty()).then_some(CHILD_GRACE)))
    }

    /// The workers now, seen while this one leads. What replicas of the api share may be from
    /// before it did.
    async fn look(&self) -> Result<Coordination, ProgressError> {
        loop {
            let seen = self.consumer.progress.coordination().await?;
            match &seen.stream {
                Some(lease) if lease == self.lease => return Ok(seen),
                Some(lease) if lease.counter >= self.lease.counter => {
                    return Err(ProgressError::LeaseLost { owner: lease.owner.clone() });
                }
                _ => tokio::time::sleep(SHARED_READ).await,
            }
        }
    }

    /// Whether nobody alive holds the lease of a shard that may be read.
    fn is_orphan(&self, item: &ShardProgress, seen: &Coordination) -> bool {
        let alone = match &item.lease.owner {
            None => true,
            Some(owner) => !has_sign(seen, owner),
        };
        alone && self.family.with(|lineage| lineage.is_ready(&item.shard))
    }

    /// The shards that need an item now.
    fn seeds(&mut self, seen: &Coordination, items: &[ShardProgress]) -> Vec<Seed> {
        let now = clock::whole_second(clock::now());
        let start = self.consumer.start(&seen.orders);
        let seeds = self
            .family
            .with(|lineage| lineage.seeds(start, seen.seeded.as_ref(), seen.orders.epoch, now));
        let at_tip = seen.seeded.is_none() && start == StartingPosition::Latest;
        self.expected.due(seeds, items, |owner| has_sign(seen, owner), at_tip)
    }

    /// What those carry who take shards; this worker is among them.
    fn shares(&self, seen: &Coordination, view: &View) -> Vec<Share> {
        let takes = |worker: &WorkerId| view.worker(worker).is_none_or(|seen| seen.lives);
        let signs = seen.workers.iter().map(|member| &member.sign);
        signs.filter(|sign| !sign.draining && takes(&sign.worker)).map(Share::of).collect()
    }

    /// A worker that twice says to have fewer shards than are its may have missed what it
    /// was told, or whoever gave them to it has died before telling.
    pub(super) fn suspect(&mut self, seen: &Coordination, items: &[ShardProgress]) {
        let mut have: BTreeMap<&WorkerId, u64> = BTreeMap::new();
        for item in items.iter().filter(|item| item.position != Position::ShardEnd) {
            if let Some(owner) = &item.lease.owner {
                *have.entry(owner).or_default() += 1;
            }
        }
        let is_short = |sign: &Heartbeat| {
            have.get(&sign.worker).is_some_and(|have| *have > sign.shards) && !sign.draining
        };
        let signs = seen.workers.iter().map(|member| &member.sign);
        let short = signs.filter(|sign| is_short(sign)).map(|sign| sign.worker.clone()).collect();
        let before = std::mem::replace(&mut self.short, short);
        self.untold.extend(before.intersection(&self.short).cloned());
    }

    pub(super) async fn tell(&mut self) -> Result<(), ProgressError> {
        while let Some(worker) = self.untold.first().cloned() {
            self.consumer.progress.announce(&worker).await?;
            self.untold.remove(&worker);
        }
        Ok(())
    }

    /// Whether all of them are taken now; another may have been faster with some.
    async fn take(
        &mut self,
        orphans: Vec<Orphan>,
        shares: &[Share],
    ) -> Result<bool, ProgressError> {
        let me = self.life.worker().clone();
        let weight = planner::usual_weight(shares);
        // What begins at the tip is opened there at once, and what has ended weighs nothing.
        let (own, rest): (Vec<Orphan>, Vec<Orphan>) = orphans
            .into_iter()
            .partition(|orphan| orphan.from_latest || orphan.new.position == Position::ShardEnd);
        let placed = planner::place(rest.into_iter().map(|orphan| (orphan, weight)), shares);
        let placed = own.into_iter().map(|orphan| (orphan, me.clone())).chain(placed);
        let this = &*self;
        let takes: Vec<_> = placed.map(|(orphan, to)| this.take_one(orphan, to)).collect();
        let mut takes = futures_util::stream::iter(takes).buffer_unordered(TAKES_AT_ONCE);
        let (mut result, mut untold) = (Ok(true), BTreeSet::new());
        while let Some((to, taken)) = takes.next().await {
            match taken {
                // Also when others fail: somebody must read it.
                Ok(given) if to == me => drop(self.grants.send(given)),
                Ok(_) => {
                    untold.insert(to);
                }
                // Its owner is alive after all, or the parent's owner was faster.
                Err(ProgressError::LeaseLost { owner }) => {
                    debug!(?owner, "a shard has been taken meanwhile");
                    result = result.map(|_| false);
                }
                // It may have arrived, and its answer was lost.
                Err(error) => {
                    result = Err(error);
                    untold.insert(to);
                }
            }
        }
        drop(takes);
        self.untold.extend(untold);
        result
    }

    async fn take_one(
        &self,
        orphan: Orphan,
        to: WorkerId,
    ) -> (WorkerId, Result<Given, ProgressError>) {
        let Orphan { shard, item, new, from_latest } = orphan;
        let seen = item.as_ref().map(|item| &item.lease);
        let key = LeaseKey::Shard(shard.clone());
        let lease = match self.consumer.progress.take(&key, seen, &to, Some(&new)).await {
            Ok(lease) => lease,
            Err(error) => return (to, Err(error)),
        };
        self.family.with(|lineage| lineage.keep(&shard, new.parent.as_ref(), &new.position));
        info!(%shard, owner = %to, position = ?new.position, "a shard that nobody had is taken");
        // Its last owner may have moved the position until it was taken.
        let given = match item {
            Some(_) => Given::Taken,
            None => {
                let item = Granted::begun(shard, new, lease);
                Given::Begun(Box::new(Granted { item, from_latest }))
            }
        };
        (to, Ok(given))
    }

    /// Removes the items of shards that left the stream long ago.
    async fn forget_departed(&mut self, items: &[ShardProgress]) -> Result<(), ProgressError> {
        self.family.with(|lineage| self.departed.see(lineage.departed()));
        let now = clock::now();
        for item in items.iter().filter(|item| self.departed.is_long_gone(item, now)) {
            match self.consumer.progress.forget(&item.shard, &item.lease).await {
                // It has changed since it was read.
                Err(ProgressError::LeaseLost { .. }) => continue,
                forgotten => forgotten?,
            }
            debug!(shard = %item.shard, "a shard that has left the stream is forgotten");
            self.family.with(|lineage| lineage.forget(&item.shard));
            self.consumer.board.forget(&item.shard);
        }
        Ok(())
    }
}

pub(super) fn has_sign(seen: &Coordination, worker: &WorkerId) -> bool {
    seen.workers.iter().any(|member| member.sign.worker == *worker)
}

impl Orphan {
    fn of(item: &ShardProgress) -> Self {
        let (parent, position) = (item.parent.clone(), item.position.clone());
        let new = NewShard { parent, position, closed: item.closed, epoch: item.lease.epoch() };
        Self { shard: item.shard.clone(), item: Some(item.clone()), new, from_latest: false }
    }
}

impl From<Seed> for Orphan {
    fn from(seed: Seed) -> Self {
        let Seed { shard, new, from_latest } = seed;
        Self { shard, item: None, new, from_latest }
    }
}
