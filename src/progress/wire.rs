//! The private interface between consumer and api: its calls, paths and bodies.
//!
//! Owns them for both sides; how values stand in JSON is `json`'s. Progress has
//! no meaning here. Invariant: what one side writes the other reads back as the same;
//! unknown members are passed over, so that either side may be the newer one.

use super::json::count;
use super::problem::Problem;
use super::{Lease, LeaseKey, NewShard, ShardProgress, WorkerId};
use crate::source::ShardId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The versions of this interface that this program speaks, oldest first. One is added
/// when an older side would misunderstand; its calls have paths of their own.
pub const VERSIONS: &[u64] = &[1];
/// Where first contact is made, whatever the versions: its own form never changes.
pub const HELLO: &str = "/v1/hello";
/// Where the calls are: `/v1/progress/TABLE/CONSUMER@LABEL/CALL`. The table stands in
/// every call, so that an api started anew on another table changes nothing by mistake.
pub const PROGRESS: &str = "/v1/progress";

/// The calls, one for each method of [`super::Progress`] but `describe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`super::Progress::coordination`]
    Coordination,
    /// [`super::Progress::load`]
    Shards,
    /// [`super::Progress::heartbeat`]
    Heartbeat,
    /// [`super::Progress::drain`]
    Drain,
    /// [`super::Progress::retire`]
    Retire,
    /// [`super::Progress::take`]
    Take,
    /// [`super::Progress::release`]
    Release,
    /// [`super::Progress::seeded`]
    Seeded,
    /// [`super::Progress::checkpoint`]
    Checkpoint,
    /// [`super::Progress::forget`]
    Forget,
}

impl Call {
    /// Every call.
    pub const ALL: [Self; 10] = [
        Self::Coordination,
        Self::Shards,
        Self::Heartbeat,
        Self::Drain,
        Self::Retire,
        Self::Take,
        Self::Release,
        Self::Seeded,
        Self::Checkpoint,
        Self::Forget,
    ];

    /// The last part of its path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coordination => "coordination",
            Self::Shards => "shards",
            Self::Heartbeat => "heartbeat",
            Self::Drain => "drain",
            Self::Retire => "retire",
            Self::Take => "take",
            Self::Release => "release",
            Self::Seeded => "seeded",
            Self::Checkpoint => "checkpoint",
            Self::Forget => "forget",
        }
    }

    /// The call of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.name() == name)
    }

    /// Whether it only reads, and is a GET without a body; the others are POSTs.
    pub fn reads(self) -> bool {
        matches!(self, Self::Coordination | Self::Shards)
    }
}

/// First contact, asked.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The consumer's `TABLE_NAME`.
    pub table: String,
    /// Its `CONSUMER_NAME`.
    pub consumer: String,
    /// Its stream's label.
    pub label: String,
    /// The [`VERSIONS`] it speaks.
    #[serde(with = "count::list")]
    #[schemars(schema_with = "count::list::schema")]
    pub versions: Vec<u64>,
}

/// First contact, answered.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The api's `TABLE_NAME`.
    pub table: String,
    /// The consumer's name, as the api keeps progress for it.
    pub consumer: String,
    /// The newest version that both sides speak.
    pub version: u64,
}

/// The newest version that this program and another speak.
pub fn agreed(theirs: &[u64]) -> Option<u64> {
    VERSIONS.iter().rev().find(|version| theirs.contains(version)).copied()
}

/// Body of [`Call::Heartbeat`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatBody {
    /// Whose.
    pub worker: WorkerId,
    /// Its count.
    #[serde(with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub beat: u64,
}

/// Body of [`Call::Drain`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct DrainBody {
    /// Who is stopping.
    pub worker: WorkerId,
}

/// Body of [`Call::Retire`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct RetireBody {
    /// Who leaves.
    pub worker: WorkerId,
}

/// Body of [`Call::Take`]; the answer is the lease.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TakeBody {
    /// The shard, or none for the stream's lease.
    pub shard: Option<ShardId>,
    /// The lease as it was last seen.
    pub seen: Option<Lease>,
    /// Who takes it.
    pub worker: WorkerId,
    /// How the item begins when there is none.
    pub new: Option<NewShard>,
}

/// Body of [`Call::Release`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseBody {
    /// The shard, or none for the stream's lease.
    pub shard: Option<ShardId>,
    /// The lease given back.
    pub lease: Lease,
}

/// Body of [`Call::Seeded`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SeededBody {
    /// The stream's lease.
    pub lease: Lease,
}

/// Body of [`Call::Forget`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForgetBody {
    /// The shard.
    pub shard: ShardId,
    /// Its lease.
    pub lease: Lease,
}

/// Body of [`Call::Checkpoint`]: every shard that is due.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointBody<C> {
    /// The positions.
    pub checkpoints: C,
}

/// Answer of [`Call::Checkpoint`]: for each position, in order, nothing or its problem.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointAnswer {
    /// `null` where it was written.
    pub results: Vec<Option<Problem>>,
}

/// Answer of [`Call::Shards`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShardsAnswer {
    /// Every shard's item.
    pub shards: Vec<ShardProgress>,
}

impl LeaseKey {
    pub(super) fn to_wire(&self) -> Option<ShardId> {
        match self {
            Self::Stream => None,
            Self::Shard(shard) => Some(shard.clone()),
        }
    }

    /// The lease a body speaks of.
    pub(crate) fn from_wire(shard: Option<ShardId>) -> Self {
        shard.map_or(Self::Stream, Self::Shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let newest = *VERSIONS.last().unwrap();
        assert_eq!(agreed(&[0, newest, newest + 1]), Some(newest));
        assert_eq!(agreed(VERSIONS), Some(newest));
        assert_eq!(agreed(&[newest + 1]), None);
        assert_eq!(agreed(&[]), None);
    }

    #[test]
    fn every_call_is_found_by_its_name() {
        for call in Call::ALL {
            assert_eq!(Call::named(call.name()), Some(call));
        }
        assert_eq!(Call::named("describe"), None);
    }
}
