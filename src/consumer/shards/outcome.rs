//! What follows from what the store has answered.
//!
//! Owns the way from each errand's end back into the set of held shards. Asks nothing
//! itself. Invariant: a lease is held again only as it was read after its loop had ended.

use super::errand::Done;
use super::sharing::TELL;
use super::{Granted, Shards};
use crate::progress::ShardProgress;
use std::cmp::Reverse;
use tokio::time::Instant;
use tracing::{debug, info};

impl Shards<'_> {
    /// Takes in what came of an errand.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Loaded { mut items, announced } => {
                self.loading = false;
                self.noted = announced;
                if std::mem::take(&mut self.load_again) {
                    self.load_leases();
                }
                // What moved last first: it is not to wait behind thousands of idle shards.
                items.sort_by_key(|item| Reverse(item.updated));
                for item in items {
                    self.take_back(item);
                }
                self.say(true);
            }
            Done::Moved { shard, item: Some(item), from_latest } => {
                self.held.remove(&shard);
                self.hold(Granted { item, from_latest });
                self.look_for_returned(&shard);
            }
            Done::Moved { shard, item: None, .. } => {
                self.consumer.metrics.leases_lost.inc();
                self.drop_shard(&shard);
            }
            Done::Read { shard, item } => {
                self.held.remove(&shard);
                self.consumer.board.forget(&shard);
                if let Some(item) = item {
                    self.take_back(item);
                }
                self.look_for_returned(&shard);
            }
            Done::HandedOver { shard, to } => {
                match to {
                    Some(to) => {
                        self.consumer.metrics.leases_handed_over.inc();
                        info!(%shard, %to, "a shard was handed over");
                        if self.untold.is_empty() {
                            self.tell_at = Instant::now() + TELL;
                        }
                        self.untold.insert(to);
                    }
                    None => self.consumer.metrics.leases_lost.inc(),
                }
                self.drop_shard(&shard);
            }
            Done::Released { shard } => self.drop_shard(&shard),
            Done::Children { parent, taken, found } => {
                if !found {
                    debug!(%parent, "its children were not seen, the whole listing is looked at");
                    self.family.want_listing();
                }
                for granted in taken {
                    self.family.keep(&granted.item);
                    self.hold(granted);
                }
                self.say(false);
            }
            Done::Told => {}
        }
    }

    /// An item as it was read: it is this worker's, unless that has changed.
    fn take_back(&mut self, item: ShardProgress) {
        if item.lease.owner.as_ref() == Some(self.life.worker()) {
            // What comes while everything goes is handed on at once: its loop stops first.
            self.hold(Granted { item, from_latest: false });
        }
    }
}
