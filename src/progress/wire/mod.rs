//! The private interface between consumer and api: its calls, paths and bodies.
//!
//! Owns them for both sides; how values stand in JSON is `json`'s. Progress has
//! no meaning here. Invariant: what one side writes the other reads back as the same;
//! unknown members are passed over, so that either side may be the newer one.

mod bodies;

pub use bodies::*;

use super::LeaseKey;
use super::json::count;
use crate::source::ShardId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The versions of this interface that this program speaks, oldest first. One is added
/// when an older side would misunderstand; its calls have paths of their own.
pub const VERSIONS: &[u64] = &[1];
/// Where first contact is made, whatever the versions: its own form never changes.
pub const HELLO: &str = "/v1/hello";
/// Where the calls are: `/v1/progress/TABLE/CONSUMER@LABEL/CALL`. The table stands in
/// every call, so that an api started anew on another table changes nothing by mistake.
pub const PROGRESS: &str = "/v1/progress";

/// What the api gives itself for a call that is a read or a write of the table or two. Together
/// with the consumer's [`PATIENCE`] less than a third of the default `FAILOVER_TIME`, so that the
/// sign of life that meets a replica that hangs arrives in time through another.
const BOUND: Duration = Duration::from_millis(2500);
/// And for a call that reads or writes much.
const LONG_BOUND: Duration = Duration::from_secs(10);
/// A body from which on a call writes much: some hundred positions, or a part of a dead letter.
const LARGE_BODY: usize = 16 << 10;
/// How much longer the consumer waits than the api gives itself, as a factor: the api's sentence
/// about a table that does not answer arrives, and a silent replica is not taken for one.
const PATIENCE: f64 = 1.2;

/// The calls, one for each method of [`super::Progress`] but `describe`, and of
/// [`super::DeadLetters`].
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
    /// [`super::Progress::announce`]
    Announce,
    /// [`super::Progress::take`]
    Take,
    /// [`super::Progress::hand_over`]
    HandOver,
    /// [`super::Progress::release`]
    Release,
    /// [`super::Progress::seeded`]
    Seeded,
    /// [`super::Progress::unseed`]
    Unseed,
    /// [`super::Progress::order`]
    Order,
    /// [`super::Progress::seek`]
    Seek,
    /// [`super::Progress::checkpoint`]
    Checkpoint,
    /// [`super::Progress::forget`]
    Forget,
    /// [`super::DeadLetters::write_letter`]
    WriteLetter,
    /// [`super::DeadLetters::write_part`]
    WritePart,
    /// [`super::DeadLetters::list_letters`]
    Letters,
    /// [`super::DeadLetters::read_part`]
    ReadPart,
    /// [`super::DeadLetters::remove_part`]
    RemovePart,
    /// [`super::DeadLetters::break_letter`]
    BreakLetter,
    /// [`super::DeadLetters::remove_letter`]
    RemoveLetter,
}

impl Call {
    /// Every call.
    pub const ALL: [Self; 22] = [
        Self::Coordination,
        Self::Shards,
        Self::Heartbeat,
        Self::Drain,
        Self::Retire,
        Self::Announce,
        Self::Take,
        Self::HandOver,
        Self::Release,
        Self::Seeded,
        Self::Unseed,
        Self::Order,
        Self::Seek,
        Self::Checkpoint,
        Self::Forget,
        Self::WriteLetter,
        Self::WritePart,
        Self::Letters,
        Self::ReadPart,
        Self::RemovePart,
        Self::BreakLetter,
        Self::RemoveLetter,
    ];

    /// The last part of its path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coordination => "coordination",
            Self::Shards => "shards",
            Self::Heartbeat => "heartbeat",
            Self::Drain => "drain",
            Self::Retire => "retire",
            Self::Announce => "announce",
            Self::Take => "take",
            Self::HandOver => "hand-over",
            Self::Release => "release",
            Self::Seeded => "seeded",
            Self::Unseed => "unseed",
            Self::Order => "order",
            Self::Seek => "seek",
            Self::Checkpoint => "checkpoint",
            Self::Forget => "forget",
            Self::WriteLetter => "write-letter",
            Self::WritePart => "write-letter-part",
            Self::Letters => "letters",
            Self::ReadPart => "read-letter-part",
            Self::RemovePart => "remove-letter-part",
            Self::BreakLetter => "break-letter",
            Self::RemoveLetter => "remove-letter",
        }
    }

    /// The call of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.name() == name)
    }

    /// How long the api works on it, with a body of so many bytes.
    pub fn bound(self, body: usize) -> Duration {
        let answers_much = matches!(self, Self::Shards | Self::Letters | Self::ReadPart);
        if answers_much { LONG_BOUND } else { bound(body) }
    }

    /// Whether it only reads, and is a GET without a body; the others are POSTs.
    pub fn reads(self) -> bool {
        matches!(self, Self::Coordination)
    }
}

/// How long the api works on a request that is none of the calls, or whose answer is small.
pub fn bound(body: usize) -> Duration {
    if body > LARGE_BODY { LONG_BOUND } else { BOUND }
}

/// How long the consumer waits for what the api works on for `bound`.
pub fn patience(bound: Duration) -> Duration {
    bound.mul_f64(PATIENCE)
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
