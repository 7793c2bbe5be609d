//! How far each shard has been read, by whom, and who may say so.
//!
//! Owns the words (lease, position, checkpoint, gap) and one trait with several stores.
//! Does not decide who should hold a lease. Invariant: every write names the lease it
//! is made under, and a write under a lease that has passed on changes nothing.

pub mod asking;
mod client;
mod counts;
mod dynamodb;
mod endpoint;
mod expression;
mod failover;
mod fencing;
mod item;
mod json;
mod kept;
mod keys;
mod leases;
pub mod letters;
mod lives;
mod memory;
#[cfg(test)]
mod model;
pub mod orders;
mod positions;
pub mod problem;
pub mod redrives;
mod replicas;
pub mod report;
mod standing;
mod table;
mod token;
pub mod wire;

pub use client::{ClientProgress, ClientSettings};
pub use counts::{MemoryReads, MemoryWrites};
pub use dynamodb::{ACTIONS as TABLE_ACTIONS, WriteUnitsObserver};
pub use kept::{
    BEATS_PER_FAILOVER, Checkpoint, Coordination, Gap, Heartbeat, Lease, LeaseKey,
    MAX_KEPT_STATE_BYTES, Member, NewShard, OWN_STOP_TENTHS, OpenWindow, Position, ShardProgress,
    WorkerId,
};
pub use keys::{OWN_PREFIX, is_own, leading_keys, leading_keys_of, valid_consumer_name};
pub use letters::{DeadLetter, DeadLetters, LetterId};
pub use memory::{MemoryFault, MemoryProgress};
pub use table::{TableProgress, TableSettings};
pub use token::{ApiToken, MAX_TOKEN_LENGTH, MIN_TOKEN_LENGTH};

use crate::source::ShardId;
use async_trait::async_trait;
use orders::{Orders, Request};

/// Which shards' items are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// All of them.
    All,
    /// Those whose lease this worker holds.
    Of(&'a WorkerId),
    /// These, where they are there.
    These(&'a [ShardId]),
}

/// A call to the store that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProgressError {
    /// The condition failed: somebody else holds the lease, or it has been taken since.
    #[error("lease lost to {}", owner.as_ref().map_or("nobody", WorkerId::as_str))]
    LeaseLost {
        /// Who holds it now.
        owner: Option<WorkerId>,
    },
    /// The role may not make the call.
    #[error("{action} was refused: {message}")]
    AccessDenied {
        /// The IAM action, `dynamodb:UpdateItem`.
        action: &'static str,
        /// The service's words.
        message: String,
    },
    /// Keys, token or clock are not accepted, or there are none.
    #[error("{0}")]
    Credentials(String),
    /// The table cannot hold progress; the sentence says what to do.
    #[error("{0}")]
    Unsuitable(String),
    /// Throttled, a server fault, a broken connection: try again.
    #[error("{0}")]
    Unavailable(String),
}

/// A store of progress for one consumer of one stream, which keeps its dead letters too.
///
/// Every method may be called again after its answer was lost: a write that is found to
/// have happened under the caller's own lease is a success.
#[async_trait]
pub trait Progress: DeadLetters {
    /// Checks that the store can be used, before anything is read or written.
    async fn describe(&self) -> Result<(), ProgressError>;

    /// The stream's lease and the workers' heartbeats; cheap, asked for often.
    async fn coordination(&self) -> Result<Coordination, ProgressError>;

    /// Shards' items, in the order of their names.
    async fn load(&self, which: Selection<'_>) -> Result<Vec<ShardProgress>, ProgressError>;

    /// Writes a sign of life. One that comes late, after a later one, changes nothing.
    ///
    /// # Errors
    /// [`ProgressError::LeaseLost`] when the life has ended: others have removed the sign,
    /// and every lease of this worker may be another's.
    async fn heartbeat(&self, sign: &Heartbeat) -> Result<(), ProgressError>;

    /// Says that `worker` is stopping and has its last positions still to write. A store
    /// that somebody stands before, who may be stopping too, passes it on; others need
    /// not know.
    async fn drain(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        let _ = worker;
        Ok(())
    }

    /// Removes `worker`'s sign of life: its own at a clean stop, or a dead one's, that was
    /// last seen with the beat `seen`. From then on that life cannot go on.
    ///
    /// # Errors
    /// [`ProgressError::LeaseLost`] with the worker as owner when it has beaten since.
    async fn retire(&self, worker: &WorkerId, seen: Option<u64>) -> Result<(), ProgressError>;

    /// Lets `worker` know that a lease is its now. Nothing where it shows no life.
    async fn announce(&self, worker: &WorkerId) -> Result<(), ProgressError>;

    /// Takes the lease that was last seen as `seen` (`None`: it did not exist). `new`
    /// says how a shard's item begins; it is `None` for [`LeaseKey::Stream`].
    ///
    /// # Errors
    /// [`ProgressError::LeaseLost`] when it has changed since it was seen.
    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError>;

    /// Makes a shard's lease another worker's, in one write: nobody else can come between.
    /// The new owner's lease is the answer; it should be announced to it.
    async fn hand_over(
        &self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError>;

    /// Gives a lease back, so that the next worker need not wait for the failover time.
    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError>;

    /// Notes, under the stream's lease, that the starting position has been carried out
    /// and where shards begin that have no item. `step` is as in [`Checkpoint::step`], for
    /// this and [`Self::unseed`] together: what a later one has overtaken changes nothing.
    async fn seeded(&self, lease: &Lease, step: u64, begin: &Position)
    -> Result<(), ProgressError>;

    /// Takes back what [`Self::seeded`] has noted, under the stream's lease: a starting
    /// position is to be carried out anew.
    async fn unseed(&self, lease: &Lease, step: u64) -> Result<(), ProgressError>;

    /// Makes an operator's request a part of what stands, and answers with that. One that
    /// is sent twice counts once.
    ///
    /// # Errors
    /// [`ProgressError::Unsuitable`] with a sentence for who asked, where it cannot be met.
    async fn order(&self, request: &Request) -> Result<Orders, ProgressError>;

    /// Moves a shard's position where an operator wants it, forward or back, and notes that
    /// the move `order` is carried out. `step` is as in [`Checkpoint::step`]. The open
    /// window is dropped.
    async fn seek(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError>;

    /// Writes positions; one result for each, in order. Under a lost lease nothing is
    /// written and the result is [`ProgressError::LeaseLost`]; one that a later
    /// step has overtaken is done already, and does not move the position back. They are written
    /// concurrently; of two of a shard the later step counts.
    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Result<(), ProgressError>>;

    /// Removes the item of a shard that has left the stream, under its lease.
    async fn forget(&self, shard: &ShardId, lease: &Lease) -> Result<(), ProgressError>;
}

/// How a lease's item begins when it is taken for the first time.
fn first_take<'a>(
    key: &LeaseKey,
    new: Option<&'a NewShard>,
) -> Result<Option<&'a NewShard>, ProgressError> {
    match key {
        LeaseKey::Stream => Ok(None),
        LeaseKey::Shard(shard) if new.is_none() => Err(ProgressError::Unsuitable(format!(
            "shard {shard} was to be taken for the first time without saying where it begins"
        ))),
        LeaseKey::Shard(_) => Ok(new),
    }
}

impl From<orders::Refused> for ProgressError {
    fn from(refused: orders::Refused) -> Self {
        Self::Unsuitable(refused.to_string())
    }
}
