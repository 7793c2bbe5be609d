//! What the leader does about operators' orders.
//!
//! Owns the seek of the whole stream, and the removal of moves that are carried out; those
//! of single shards are their owners'. Invariant: items are removed only while no worker
//! reads a shard, and the starting position is carried out anew only after all are gone. What
//! was still on its way then is of an earlier epoch: it is removed, and never takes effect.

use super::adoption::{Adoption, TAKES_AT_ONCE, has_sign};
use super::life::beat_interval;
use crate::checkpoint::next_step;
use crate::progress::orders::{Move, Order, Request, Reset};
use crate::progress::{Coordination, LeaseKey, Position, ProgressError, Selection, ShardProgress};
use crate::source::ShardId;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How long to wait until all workers have stopped reading.
pub(super) const RESET_WAIT: Duration = Duration::from_millis(250);
/// While moves of operators stand, how often to see whether they are carried out.
pub(super) const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// After items were removed: longer than it takes until everybody has looked, who looks once
/// a beat at the least.
fn reset_pause(failover: Duration) -> Duration {
    beat_interval(failover) + Duration::from_secs(1)
}

impl Adoption<'_> {
    /// Removes all items once nobody reads any more, as an operator has asked: the starting
    /// position is carried out anew then. Gives when to go on.
    pub(super) async fn begin_anew(
        &mut self,
        reset: &Reset,
        items: &[ShardProgress],
        seen: &Coordination,
    ) -> Result<Duration, ProgressError> {
        let is_read = |item: &ShardProgress| {
            let owner = item.lease.owner.as_ref();
            item.position != Position::ShardEnd && owner.is_some_and(|owner| has_sign(seen, owner))
        };
        if items.iter().any(is_read) {
            // Who was never told that something is its gives nothing back: what an earlier
            // leader gave to it, or what this one took to remove it and could not.
            self.suspect(seen, items);
            self.tell().await?;
            return Ok(RESET_WAIT);
        }
        let consumer = self.consumer;
        // As of now: to begin at the tip with a shard that has children by now would be to
        // begin before it.
        let listing = match consumer.source.describe().await {
            Ok(listing) => listing,
            Err(error) => {
                warn!(%error, "the stream could not be listed to begin anew, trying again");
                return Ok(SETTLE_WAIT);
            }
        };
        self.remove(items).await?;
        if !items.is_empty() {
            // What somebody still makes who has not seen the order yet is found then.
            return Ok(reset_pause(consumer.settings.failover_time));
        }
        self.family.in_epoch(seen.orders.epoch + 1);
        self.family.with(|lineage| {
            lineage.begin_anew();
            lineage.list(&listing);
        });
        consumer.progress.unseed(self.lease, next_step()).await?;
        self.say(Order::Reset(reset.id)).await?;
        info!(by = reset.asked.by, to = %reset.to, "the stream begins anew, as was asked");
        self.begun_anew = Some(Instant::now());
        Ok(Duration::ZERO)
    }

    /// Removes items, whoever has them: what their owners still write is refused. One that
    /// has changed since it was seen stays, and is seen again.
    pub(super) async fn remove(&self, items: &[ShardProgress]) -> Result<(), ProgressError> {
        let (progress, me) = (&self.consumer.progress, self.life.worker());
        let removals: Vec<_> = items
            .iter()
            .map(|item| async move {
                let key = LeaseKey::Shard(item.shard.clone());
                let lease = progress.take(&key, Some(&item.lease), me, None).await?;
                progress.forget(&item.shard, &lease).await?;
                self.family.with(|lineage| lineage.removed(&item.shard));
                Ok(())
            })
            .collect();
        let mut removals = futures_util::stream::iter(removals).buffer_unordered(TAKES_AT_ONCE);
        while let Some(removed) = removals.next().await {
            match removed {
                Err(ProgressError::LeaseLost { .. }) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Removes operators' moves that are carried out, or whose shards have ended.
    pub(super) async fn settle(
        &self,
        seen: &Coordination,
        items: &[ShardProgress],
    ) -> Result<(), ProgressError> {
        let moves = &seen.orders.moves;
        // An item may have been made after the others were read, and asked about since.
        let is_known = |shard: &ShardId| items.iter().any(|item| item.shard == *shard);
        let shards = moves.iter().map(|order| &order.shard);
        let missing: Vec<ShardId> = shards.filter(|shard| !is_known(shard)).cloned().collect();
        let late = match missing.is_empty() {
            true => Vec::new(),
            false => self.consumer.progress.load(Selection::These(&missing)).await?,
        };
        let mut done = Vec::new();
        for Move { id, shard, asked, .. } in moves {
            match items.iter().chain(&late).find(|item| item.shard == *shard) {
                Some(item) if item.order >= *id => done.push(*id),
                Some(item) if item.position != Position::ShardEnd => {}
                // It was read to its end before anybody saw what was asked.
                _ => {
                    warn!(%shard, by = asked.by, "what was asked of a shard comes too late: it has ended");
                    done.push(*id);
                }
            }
        }
        if done.is_empty() { Ok(()) } else { self.say(Order::Settle(done)).await }
    }

    pub(super) async fn say(&self, order: Order) -> Result<(), ProgressError> {
        // Numbers in JSON are exact up to here.
        let nonce = fastrand::u64(..1 << 53);
        let request = Request { order, by: self.life.worker().to_string(), nonce };
        self.consumer.progress.order(&request).await.map(drop)
    }
}
