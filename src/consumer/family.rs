//! The family tree of the stream's shards, as far as this process knows it.
//!
//! Owns what leader and worker of one process tell each other: where the leader has listed
//! the stream, ends and children need not be asked for. Decides nothing; see [`Lineage`].

use crate::lineage::Lineage;
use crate::progress::ShardProgress;
use crate::progress::report::{Report, Waiting};
use crate::source::{Shard, ShardId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// What is known.
#[derive(Default)]
pub(super) struct Family {
    /// `None` while another worker leads.
    lineage: Mutex<Option<Lineage>>,
    /// Nothing is added to the stream any more.
    finished: AtomicBool,
    /// What is known is from this epoch; items of earlier ones say nothing.
    epoch: AtomicU64,
    /// The whole listing should be looked at soon.
    wanted: Notify,
}

impl Family {
    /// This process leads from now on, and knows nothing yet; or it leads no more.
    pub fn lead(&self, leads: bool) {
        *self.lock() = leads.then(Lineage::default);
        self.set_finished(false);
    }

    /// Whether this process leads.
    pub fn leads(&self) -> bool {
        self.lock().is_some()
    }

    /// Reads or changes the tree of a leader.
    pub fn with<T>(&self, change: impl FnOnce(&mut Lineage) -> T) -> T {
        change(self.lock().get_or_insert_default())
    }

    /// Has `report` say which shards wait for their parents, where this process leads.
    pub fn tell_waiting(&self, report: &mut Report) {
        let lineage = self.lock();
        let waiting = lineage.iter().flat_map(Lineage::waiting);
        report.waits(
            waiting.map(|(shard, parent)| Waiting { shard: shard.clone(), parent: parent.clone() }),
        );
    }

    /// The store is in this epoch.
    pub fn in_epoch(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Takes in an item that was made, where this process leads.
    pub fn keep(&self, item: &ShardProgress) {
        if let Some(lineage) = &mut *self.lock()
            && self.is_now(item.lease.epoch())
        {
            lineage.keep(&item.shard, item.parent.as_ref(), &item.position);
        }
    }

    /// The shard is delivered to its end, under a lease of this epoch. Gives its children,
    /// where they are known; `None` where the whole stream has begun anew since.
    pub fn end(&self, shard: &ShardId, epoch: u64) -> Option<Vec<Shard>> {
        let mut lineage = self.lock();
        if !self.is_now(epoch) {
            return None;
        }
        Some(match &mut *lineage {
            Some(lineage) => {
                lineage.end(shard);
                lineage.children(shard)
            }
            None => Vec::new(),
        })
    }

    fn is_now(&self, epoch: u64) -> bool {
        epoch >= self.epoch.load(Ordering::Relaxed)
    }

    /// Whether shards that end have no children that are not known.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// As last listed.
    pub fn set_finished(&self, finished: bool) {
        self.finished.store(finished, Ordering::Relaxed);
    }

    /// The whole listing should be looked at soon, where this process does that.
    pub fn want_listing(&self) {
        self.wanted.notify_one();
    }

    /// Resolves when somebody wants the listing.
    pub async fn listing_wanted(&self) {
        self.wanted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lineage>> {
        self.lineage.lock().expect("no panic while held")
    }
}
