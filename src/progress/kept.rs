//! What is kept: who may write, how far each shard has come, which workers live.
//!
//! Owns the words of progress as plain data; how they lie in a table is [`super::item`]'s,
//! how they stand in JSON [`super::json`]'s. Invariant: a lease is never confused with an
//! earlier one, for its counter grows with every take and every hand-over, and over every
//! seek of the whole stream.

use super::json;
use super::orders::Orders;
use super::report::{self, Report};
use crate::record::SequenceNumber;
use crate::source::ShardId;
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
    /// The stream as a whole: its holder, the leader, finds shards and adopts those that
    /// nobody has.
    Stream,
    /// One shard.
    Shard(ShardId),
}

/// The fenced right of one worker to one thing. `counter` is the fencing token: it grows
/// with every take and every hand-over, so a lease is never confused with an earlier one;
/// that of an item begins above all those of earlier epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    /// Who holds it; `None` after a release.
    pub owner: Option<WorkerId>,
    /// Grows by one when it is taken or handed over.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub counter: u64,
}

impl Lease {
    /// The [`Orders::epoch`] in which the shard's item was made that this is of.
    pub fn epoch(&self) -> u64 {
        super::fencing::epoch(self)
    }
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
    /// Since when its owner has had it (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub since: SystemTime,
    /// How far it has been delivered.
    pub position: Position,
    /// The last [`Move`](super::orders::Move) of it that was carried out; 0 for none.
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub order: u64,
    /// When the position was last written (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub updated: SystemTime,
    /// Whether it took no more records already when its item was made.
    #[serde(default)]
    pub closed: bool,
    /// Every gap found in it, oldest first.
    pub gaps: Vec<Gap>,
    /// The tumbling window that is open at the position.
    #[serde(default)]
    pub window: Option<OpenWindow>,
}

/// Beats of a worker in its failover time: two may fail before its leases can be taken.
pub const BEATS_PER_FAILOVER: u32 = 3;

/// After so many tenths of its failover time without an answer to a beat a worker stops by
/// itself. The tenth that is left is what clocks may drift: the model of lives explores it.
pub const OWN_STOP_TENTHS: u32 = 9;

/// A worker's sign of life, and what others must know of it to share the shards.
///
/// It is dead when `beat` has not changed for the failover time by the observer's own
/// clock; no clocks are compared between machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// Whose.
    pub worker: WorkerId,
    /// Grows with every beat. The first, 1, begins a life; any other only goes on with one.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub beat: u64,
    /// Its `FAILOVER_TIME`, in milliseconds: it stops itself a little earlier.
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub failover_ms: u64,
    /// Shards it reads.
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub shards: u64,
    /// What they weigh together, in bytes a second (see [`crate::planner`]).
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub load: u64,
    /// The largest iterator age of its shards, in milliseconds; 0 at the tip.
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub age_ms: u64,
    /// It is stopping, and takes nothing more.
    #[serde(default)]
    pub draining: bool,
    /// The announcements it has acted upon, as [`Member::announced`] counts them.
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub noted: u64,
    /// What it is doing, for people.
    #[serde(default, deserialize_with = "report::read")]
    pub report: Report,
}

impl Heartbeat {
    /// A worker that has nothing yet.
    pub fn first(worker: WorkerId) -> Self {
        let (failover_ms, shards, load, age_ms, noted) = (0, 0, 0, 0, 0);
        let (draining, report) = (false, Report::default());
        Self { worker, beat: 1, failover_ms, shards, load, age_ms, draining, noted, report }
    }
}

/// A worker that has shown its life, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// As it last said.
    pub sign: Heartbeat,
    /// How often others have announced that something is its now.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub announced: u64,
}

/// What is known of the consumer as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Coordination {
    /// The lease on the stream; `None` when nobody has ever held it.
    pub stream: Option<Lease>,
    /// Once the starting position has been carried out: where shards begin that are not
    /// in the store. They are new since then, or the children of those that were there.
    #[serde(default)]
    pub seeded: Option<Position>,
    /// The workers that beat, dead ones included until they are cleared away.
    pub workers: Vec<Member>,
    /// What operators have asked for.
    #[serde(default)]
    pub orders: Orders,
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
    /// Whether it takes no more records.
    #[serde(default)]
    pub closed: bool,
    /// [`Orders::epoch`] as it was when this was decided.
    #[serde(default, with = "json::epoch")]
    #[schemars(schema_with = "json::epoch::schema")]
    pub epoch: u64,
}
