//! A lease that this worker has, and how it comes to have it.
//!
//! Owns what is known of one; when it comes and goes is [`super::Shards`]'.

use super::super::discovery::CHILD_CALLS_AT_ONCE;
use crate::planner::{self, Meter, Pulse};
use crate::progress::{Lease, NewShard, ShardProgress, WorkerId};
use crate::source::ShardId;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Leases handed over or given back at the same time, of busy shards and of idle ones.
const TRANSFERS_AT_ONCE: usize = 16;

/// A lease that has become this worker's.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Granted {
    /// The shard's item, with this worker's lease.
    pub item: ShardProgress,
    /// It begins at the tip, this once.
    pub from_latest: bool,
}

/// What the leader in this process has given to this worker.
#[derive(Debug)]
pub(in crate::consumer) enum Given {
    /// A shard that had no item before.
    Begun(Box<Granted>),
    /// A shard of another worker; how far that has come is to be read.
    Taken,
}

impl Granted {
    /// The item of a shard that has just been made.
    pub fn begun(shard: ShardId, new: NewShard, lease: Lease) -> ShardProgress {
        let NewShard { parent, position, closed, epoch: _ } = new;
        let now = crate::clock::now();
        ShardProgress {
            shard,
            parent,
            lease,
            since: now,
            position,
            order: 0,
            updated: now,
            closed,
            gaps: Vec::new(),
            window: None,
        }
    }
}

/// One held shard.
pub(super) struct Held {
    pub lease: Lease,
    /// Asks its loop to finish.
    pub drain: CancellationToken,
    /// To whom it is to go once its loop has finished.
    pub going: Option<WorkerId>,
    /// No loop reads it, and something is being done with it.
    pub stopped: bool,
    /// No loop reads it, as operators have asked.
    pub halted: bool,
    /// The last of operators' moves that was carried out.
    pub order: u64,
    pub pulse: Arc<Pulse>,
    pub meter: Meter,
}

/// How many errands of a kind may be under way.
pub(in crate::consumer) struct Slots {
    /// Of busy shards: they do not wait behind thousands of idle ones.
    busy: Semaphore,
    idle: Semaphore,
    pub(super) discoveries: Semaphore,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            busy: Semaphore::new(TRANSFERS_AT_ONCE),
            idle: Semaphore::new(TRANSFERS_AT_ONCE),
            discoveries: Semaphore::new(CHILD_CALLS_AT_ONCE),
        }
    }
}

impl Slots {
    /// For the transfer of a shard that weighs so much.
    pub(super) fn transfers(&self, weight: u64) -> &Semaphore {
        if planner::is_busy(weight) { &self.busy } else { &self.idle }
    }
}

impl Held {
    /// What it weighs; see [`crate::planner`].
    pub fn weight(&self) -> u64 {
        self.meter.weight(self.pulse.age())
    }
}
