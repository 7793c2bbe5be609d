//! The bodies of the private interface's calls and answers.
//!
//! Owns their members; which call has which is told in each. A body that is a type of
//! progress itself is not repeated here.

use super::super::json::{base64, count, part};
use super::super::letters::{DeadLetter, LetterId, Listed};
use super::super::problem::Problem;
use super::super::{Lease, NewShard, Position, Selection, ShardProgress, WorkerId};
use crate::source::ShardId;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of [`super::Call::Shards`]: which of them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShardsBody {
    /// All of them.
    All,
    /// Those whose lease this worker holds.
    Worker(WorkerId),
    /// These.
    Shards(Vec<ShardId>),
}

/// Body of [`super::Call::Announce`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct AnnounceBody {
    /// Who has been given something.
    pub worker: WorkerId,
}

/// Body of [`super::Call::Drain`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct DrainBody {
    /// Who is stopping.
    pub worker: WorkerId,
}

/// Body of [`super::Call::Retire`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct RetireBody {
    /// Who leaves.
    pub worker: WorkerId,
    /// Its beat as it was last seen, where another removes it.
    #[serde(default, with = "count::optional")]
    #[schemars(schema_with = "count::optional::schema")]
    pub seen: Option<u64>,
}

/// Body of [`super::Call::Take`]; the answer is the lease.
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

/// Body of [`super::Call::HandOver`]; the answer is the new owner's lease.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct HandOverBody {
    /// The shard.
    pub shard: ShardId,
    /// The lease given away.
    pub lease: Lease,
    /// To whom.
    pub to: WorkerId,
}

/// Body of [`super::Call::Release`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseBody {
    /// The shard, or none for the stream's lease.
    pub shard: Option<ShardId>,
    /// The lease given back.
    pub lease: Lease,
}

/// Body of [`super::Call::Seeded`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SeededBody {
    /// The stream's lease.
    pub lease: Lease,
    /// Orders the writes under the lease.
    #[serde(default, with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub step: u64,
    /// Where shards begin that have no item.
    pub begin: Position,
}

/// Body of [`super::Call::Unseed`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnseedBody {
    /// The stream's lease.
    pub lease: Lease,
    /// Orders the writes under the lease.
    #[serde(default, with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub step: u64,
}

/// Body of [`super::Call::Seek`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SeekBody {
    /// The shard.
    pub shard: ShardId,
    /// Its lease.
    pub lease: Lease,
    /// Orders the writes under the lease.
    #[serde(with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub step: u64,
    /// The new position.
    pub position: Position,
    /// The move that is carried out with it.
    #[serde(with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub order: u64,
}

/// Body of [`super::Call::Forget`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForgetBody {
    /// The shard.
    pub shard: ShardId,
    /// Its lease.
    pub lease: Lease,
}

/// Body of [`super::Call::Checkpoint`]: every shard that is due.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointBody<C> {
    /// The positions.
    pub checkpoints: C,
}

/// Answer of [`super::Call::Checkpoint`]: for each position, in order, nothing or its problem.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointAnswer {
    /// `null` where it was written.
    pub results: Vec<Option<Problem>>,
}

/// Answer of [`super::Call::Shards`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShardsAnswer {
    /// Every shard's item.
    pub shards: Vec<ShardProgress>,
}

/// Body of [`super::Call::WriteLetter`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct WriteLetterBody {
    /// What it says.
    pub letter: DeadLetter,
    /// Its payload, if that stands in the letter itself.
    #[serde(with = "base64::optional")]
    #[schemars(schema_with = "base64::optional::schema")]
    pub payload: Option<Bytes>,
    /// Whether all of it is there then.
    pub whole: bool,
}

/// Body of [`super::Call::WritePart`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct WritePartBody {
    /// The letter.
    pub id: LetterId,
    /// Which part of its payload.
    #[serde(with = "part")]
    #[schemars(schema_with = "part::schema")]
    pub part: u64,
    /// The part.
    #[serde(with = "base64")]
    #[schemars(schema_with = "base64::schema")]
    pub bytes: Bytes,
}

/// Body of [`super::Call::Letters`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct LettersBody {
    /// The last one that is known; none for the first page.
    pub after: Option<LetterId>,
}

/// Answer of [`super::Call::Letters`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct LettersAnswer {
    /// Some that come after it; none at the end.
    pub letters: Vec<Listed>,
}

/// Body of [`super::Call::ReadPart`] and [`super::Call::RemovePart`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartBody {
    /// The letter.
    pub id: LetterId,
    /// Which part of its payload.
    #[serde(with = "part")]
    #[schemars(schema_with = "part::schema")]
    pub part: u64,
}

/// Answer of [`super::Call::ReadPart`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartAnswer {
    /// The part; none when it is not there.
    #[serde(with = "base64::optional")]
    #[schemars(schema_with = "base64::optional::schema")]
    pub bytes: Option<Bytes>,
}

/// Body of [`super::Call::BreakLetter`] and [`super::Call::RemoveLetter`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct LetterBody {
    /// The letter.
    pub id: LetterId,
}

impl ShardsBody {
    /// The body that asks for `which`.
    pub(in crate::progress) fn of(which: Selection<'_>) -> Self {
        match which {
            Selection::All => Self::All,
            Selection::Of(worker) => Self::Worker(worker.clone()),
            Selection::These(shards) => Self::Shards(shards.to_vec()),
        }
    }

    /// Which it asks for.
    pub(crate) fn selection(&self) -> Selection<'_> {
        match self {
            Self::All => Selection::All,
            Self::Worker(worker) => Selection::Of(worker),
            Self::Shards(shards) => Selection::These(shards),
        }
    }
}
