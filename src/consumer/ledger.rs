//! The items of all shards, and the leases under which this worker may write them.
//!
//! Owns taking: what the store holds becomes this worker's, new shards get items, and
//! items of shards that are long gone are removed. Runs nothing. Invariant: an item is
//! here only under a lease that this worker has taken, or at its shard's end.

use super::Consumer;
use crate::clock;
use crate::lineage::{Lineage, Seed};
use crate::progress::{
    Lease, LeaseKey, NewShard, OpenWindow, Position, ProgressError, ShardProgress,
};
use crate::source::ShardId;
use crate::telemetry::metrics::ShardState;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tracing::{debug, info};

/// Leases taken at the same time.
const TAKES_AT_ONCE: usize = 16;
/// A finished shard that has left the listing is remembered this long: listings are
/// eventually consistent, and a shard that came back would be read again.
const REMEMBER: Duration = Duration::from_secs(48 * 3600);

/// What this worker knows of the items.
pub(super) struct Ledger<'a> {
    consumer: &'a Consumer,
    stream_lease: Lease,
    /// The starting position has been carried out.
    seeded: bool,
    items: BTreeMap<ShardId, Item>,
}

/// One shard's item.
pub(super) struct Item {
    /// Under which it is written.
    pub lease: Lease,
    /// As it was taken; the newest one is on its way through the checkpointer.
    pub position: Position,
    /// Begins at the tip, this once.
    pub from_latest: bool,
    /// The tumbling window that is open at the position.
    pub window: Option<OpenWindow>,
    updated: SystemTime,
}

impl<'a> Ledger<'a> {
    /// Nothing taken yet, under the stream's lease.
    pub fn new(consumer: &'a Consumer, stream_lease: Lease) -> Self {
        Self { consumer, stream_lease, seeded: false, items: BTreeMap::new() }
    }

    /// The item of `shard`, if it has one.
    pub fn item(&self, shard: &ShardId) -> Option<&Item> {
        self.items.get(shard)
    }

    /// The shard's sentinel has been written.
    pub fn ended(&mut self, shard: &ShardId) {
        if let Some(item) = self.items.get_mut(shard) {
            item.position = Position::ShardEnd;
            item.updated = clock::now();
        }
        self.count_leases();
    }

    /// Every item of the store becomes this worker's.
    pub async fn load(&mut self, lineage: &mut Lineage) -> Result<(), ProgressError> {
        let consumer = self.consumer;
        let items = consumer.progress.load().await?;
        info!(shards = items.len(), "progress loaded");
        let mut takes = futures_util::stream::iter(items)
            .map(|item| async move {
                let ended = item.position == Position::ShardEnd;
                // Nothing will be written to it but its removal: no need to take it now.
                if ended {
                    return Ok((item.lease.clone(), item));
                }
                let key = LeaseKey::Shard(item.shard.clone());
                let new = NewShard { parent: item.parent.clone(), position: item.position.clone() };
                let take =
                    consumer.progress.take(&key, Some(&item.lease), &consumer.worker, Some(&new));
                take.await.map(|lease| (lease, item))
            })
            .buffer_unordered(TAKES_AT_ONCE);
        while let Some(taken) = takes.next().await {
            let (lease, item) = taken?;
            lineage.keep(&item.shard, item.parent.as_ref(), &item.position);
            let ShardProgress { shard, position, window, updated, .. } = item;
            self.hold(
                lineage,
                shard,
                Item { lease, position, from_latest: false, window, updated },
            );
        }
        Ok(())
    }

    fn hold(&mut self, lineage: &Lineage, shard: ShardId, item: Item) {
        let ended = item.position == Position::ShardEnd;
        let parent = lineage.parent(&shard).map(ToString::to_string);
        let owner = self.consumer.worker.to_string();
        self.consumer.board.shard(&shard, |status| {
            status.parent = parent;
            status.owner = (!ended).then_some(owner);
            status.state = if ended { ShardState::Ended } else { ShardState::Waiting };
            status.at(&item.position);
        });
        if !ended {
            self.consumer.metrics.leases_taken.inc();
        }
        self.items.insert(shard, item);
        self.count_leases();
    }

    fn count_leases(&self) {
        let held = self.items.values().filter(|item| item.position != Position::ShardEnd).count();
        self.consumer.metrics.leases_held.set(held as i64);
    }

    /// Makes items for shards that have none. At the very first time the starting
    /// position is carried out, and that is noted once all of them are there: a crash in
    /// between does it again.
    pub async fn take_new(&mut self, lineage: &mut Lineage) -> Result<(), ProgressError> {
        let consumer = self.consumer;
        let start = consumer.settings.starting_position;
        let seeded = self.seeded || consumer.progress.coordination().await?.seeded;
        let now = clock::whole_second(clock::now());
        let seeds = lineage.seeds(start, seeded, now);
        let known = &*lineage;
        let takes: Vec<Result<(Lease, Seed), ProgressError>> = futures_util::stream::iter(seeds)
            .map(|seed| async move {
                let key = LeaseKey::Shard(seed.shard.clone());
                let parent = known.parent(&seed.shard).cloned();
                let new = NewShard { parent, position: seed.position.clone() };
                let take = consumer.progress.take(&key, None, &consumer.worker, Some(&new));
                take.await.map(|lease| (lease, seed))
            })
            .buffer_unordered(TAKES_AT_ONCE)
            .collect()
            .await;
        for taken in takes {
            let (lease, Seed { shard, position, from_latest }) = taken?;
            let parent = lineage.parent(&shard).cloned();
            lineage.keep(&shard, parent.as_ref(), &position);
            let item = Item { lease, position, from_latest, window: None, updated: now };
            self.hold(lineage, shard, item);
        }
        // Also where there was none: what appears in a stream that is still being enabled
        // is new.
        if !seeded {
            consumer.progress.seeded(&self.stream_lease).await?;
        }
        self.seeded = true;
        Ok(())
    }

    /// Removes the items of shards that left the stream long ago.
    pub async fn forget_departed(&mut self, lineage: &mut Lineage) -> Result<(), ProgressError> {
        let now = clock::now();
        let departed: Vec<ShardId> = lineage
            .departed()
            .filter(|shard| {
                self.items.get(*shard).is_some_and(|item| {
                    now.duration_since(item.updated).is_ok_and(|age| age > REMEMBER)
                })
            })
            .cloned()
            .collect();
        for shard in departed {
            self.consumer.progress.forget(&shard, &self.items[&shard].lease).await?;
            debug!(%shard, "a shard that has left the stream is forgotten");
            self.items.remove(&shard);
            lineage.forget(&shard);
            self.consumer.board.forget(&shard);
        }
        Ok(())
    }
}
