//! How far each shard has been read, by whom, and who may say so.
//!
//! Owns the words (lease, position, checkpoint, gap) and one trait with several stores.
//! Does not decide who should hold a lease. Invariant: every write names the lease it
//! is made under, and a write under a lease that has passed on changes nothing.

mod client;
mod dynamodb;
mod fencing;
mod item;
mod json;
mod keys;
pub mod letters;
mod memory;
pub mod problem;
mod table;
mod token;
pub mod wire;

pub use client::{ClientProgress, ClientSettings};
pub use dynamodb::{ACTIONS as TABLE_ACTIONS, WriteUnitsObserver};
pub use keys::{OWN_PREFIX, is_own, leading_keys, leading_keys_of, valid_consumer_name};
pub use letters::{DeadLetter, DeadLetters, LetterId};
pub use memory::{MemoryFault, MemoryProgress, MemoryWrites};
pub use table::{TableProgress, TableSettings};
pub use token::{ApiToken, MAX_TOKEN_LENGTH, MIN_TOKEN_LENGTH};

use crate::record::SequenceNumber;
use crate::source::ShardId;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// One running process that may hold leases. Unique for every start.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// The id as it stands in the store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for WorkerId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a lease is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseKey {
    /// The stream as a whole: its holder finds shards and, for now, reads all of them.
    Stream,
    /// One shard.
    Shard(ShardId),
}

/// The fenced right of one worker to one thing. `counter` is the fencing token: it grows
/// by one with every take, so a lease is never confused with an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    /// Who holds it; `None` after a release.
    pub owner: Option<WorkerId>,
    /// How often it has been taken.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub counter: u64,
}

/// How far a shard has been delivered, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nothing delivered: begin at the oldest record kept.
    TrimHorizon,
    /// Nothing delivered: begin at the first record not older than this (milliseconds).
    AtTimestamp(SystemTime),
    /// Delivered up to and including this record.
    After(SequenceNumber),
    /// Closed and delivered to its end.
    ShardEnd,
}

/// Records that left the stream before they were read: lost to this consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The last record known from before the gap, if any was read.
    #[serde(with = "json::number")]
    #[schemars(schema_with = "json::number::schema")]
    pub after: Option<SequenceNumber>,
    /// The first record read after it, if there was one on the page that followed.
    #[serde(with = "json::number")]
    #[schemars(schema_with = "json::number::schema")]
    pub resumed_at: Option<SequenceNumber>,
    /// When it was found (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub found_at: SystemTime,
}

/// A tumbling window that is open in a shard, as the handler has left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenWindow {
    /// Its first moment (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub start: SystemTime,
    /// The first moment after it (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub end: SystemTime,
    /// Its state, JSON as text.
    pub state: String,
}

impl OpenWindow {
    /// Bytes that the state takes in an item or a body, where it is text within JSON.
    pub fn kept_bytes(&self) -> usize {
        let escaped = self.state.bytes().filter(|byte| matches!(byte, b'"' | b'\\'));
        self.state.len() + escaped.count()
    }
}

/// The largest [`OpenWindow::kept_bytes`] that is kept. Every checkpoint writes it, and all
/// shards' are read at a start; an item has room for more.
pub const MAX_KEPT_STATE_BYTES: usize = 64 << 10;

/// One shard's item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardProgress {
    /// The shard.
    pub shard: ShardId,
    /// The shard it continues.
    pub parent: Option<ShardId>,
    /// Who may write it.
    pub lease: Lease,
    /// How far it has been delivered.
    pub position: Position,
    /// When the position was last written (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub updated: SystemTime,
    /// Every gap found in it, oldest first.
    pub gaps: Vec<Gap>,
    /// The tumbling window that is open at the position.
    #[serde(default)]
    pub window: Option<OpenWindow>,
}

/// A worker's sign of life. It is dead when `beat` has not changed for the failover time
/// by the observer's own clock; no clocks are compared between machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// Whose.
    pub worker: WorkerId,
    /// Grows with every beat.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub beat: u64,
}

/// What is known of the consumer as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Coordination {
    /// The lease on the stream; `None` when nobody has ever held it.
    pub stream: Option<Lease>,
    /// Whether the starting position has been carried out: shards that are not in the
    /// store are new since then and are read from their beginning.
    pub seeded: bool,
    /// The workers that beat, dead ones included until they are cleared away.
    pub workers: Vec<Heartbeat>,
}

/// A position to be made durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoint {
    /// The shard.
    pub shard: ShardId,
    /// The lease it is written under.
    pub lease: Lease,
    /// Orders the writes under the lease: larger than that of every earlier one. A write
    /// that comes late, after a later one, changes nothing.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub step: u64,
    /// The new position.
    pub position: Position,
    /// A gap found on the way to it, kept with it in one write.
    pub gap: Option<Gap>,
    /// The tumbling window that is open at it, kept with it in one write.
    #[serde(default)]
    pub window: Option<OpenWindow>,
}

/// How a shard's item looks when it is taken for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewShard {
    /// The shard it continues.
    pub parent: Option<ShardId>,
    /// Where it begins; ignored when the item exists.
    pub position: Position,
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

    /// Every shard's item.
    async fn load(&self) -> Result<Vec<ShardProgress>, ProgressError>;

    /// Writes `worker`'s sign of life.
    async fn heartbeat(&self, worker: &WorkerId, beat: u64) -> Result<(), ProgressError>;

    /// Says that `worker` is stopping and has its last positions still to write. A store
    /// that somebody stands before, who may be stopping too, passes it on; others need
    /// not know.
    async fn drain(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        let _ = worker;
        Ok(())
    }

    /// Removes `worker`'s sign of life; its own at a clean stop, or a dead one's.
    async fn retire(&self, worker: &WorkerId) -> Result<(), ProgressError>;

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

    /// Gives a lease back, so that the next worker need not wait for the failover time.
    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError>;

    /// Notes that the starting position has been carried out, under the stream's lease.
    async fn seeded(&self, lease: &Lease) -> Result<(), ProgressError>;

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
