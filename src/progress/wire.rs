//! Progress as JSON: the bodies of the private interface between consumer and api.
//!
//! Owns the forms and the paths, for both sides. Progress has no meaning here and no
//! checks beyond its form. Invariant: what one side writes the other reads back as the
//! same; unknown members are passed over, so that either side may be the newer one.

use super::problem::Problem;
use super::{Lease, LeaseKey, NewShard, Position, ShardProgress, WorkerId, item};
use crate::record::SequenceNumber;
use crate::source::ShardId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::SystemTime;

/// The versions of this interface that this program speaks, oldest first. One is added
/// when an older side would misunderstand; its calls have paths of their own.
pub const VERSIONS: &[u64] = &[1];
/// Where first contact is made, whatever the versions: its own form never changes.
pub const HELLO: &str = "/v1/hello";
/// Where the calls are: `/v1/progress/TABLE/CONSUMER@LABEL/CALL`. The table stands in
/// every call, so that an api started anew on another table changes nothing by mistake.
pub const PROGRESS: &str = "/v1/progress";
/// The longest name of a worker or shard that is read.
const MAX_NAME_BYTES: usize = 256;

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

/// A name as text, of a length that a key can hold.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(from)?;
                if (1..=MAX_NAME_BYTES).contains(&text.len()) {
                    Ok(Self::from(&*text))
                } else {
                    Err(serde::de::Error::custom("a name has 1 to 256 bytes"))
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // JSON counts characters where a key counts bytes.
                json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES})
            }
        }
    )+};
}
as_text!(WorkerId, ShardId);

/// Positions in the words of the table's items.
impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&item::position_text(self))
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        item::parse_position(&text).ok_or_else(|| serde::de::Error::custom("not a position"))
    }
}

impl JsonSchema for Position {
    fn schema_name() -> Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How far a shard has been delivered.",
            "type": "string",
            "pattern": "^(TRIM_HORIZON|SHARD_END|AFTER:[0-9]{1,40}|AT_TIMESTAMP:[0-9]{1,19})$",
        })
    }
}

/// Counts, up to what a double holds exactly: no program between rounds them, and one
/// more can always be counted. JSON knows no integers, so `1.0` is one too.
pub(super) mod count {
    use super::*;

    pub const MAX: u64 = 1 << 53;

    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": MAX})
    }

    pub fn serialize<S: serde::Serializer>(count: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*count)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        Count::deserialize(from).map(|Count(count)| count)
    }

    /// Serialized by the modules that use it.
    struct Count(u64);

    impl<'de> Deserialize<'de> for Count {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let number = serde_json::Number::deserialize(from)?;
            let whole = |float: f64| {
                ((0.0..=MAX as f64).contains(&float) && float.fract() == 0.0)
                    .then_some(float as u64)
            };
            let count = number.as_u64().or_else(|| number.as_f64().and_then(whole));
            count.filter(|count| *count <= MAX).map(Self).ok_or_else(|| {
                serde::de::Error::custom(format!("{number} is not a count, 0 to {MAX}"))
            })
        }
    }

    /// Several of them.
    pub mod list {
        use super::*;

        pub fn schema(generator: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "array", "items": count::schema(generator)})
        }

        pub fn serialize<S: serde::Serializer>(counts: &[u64], to: S) -> Result<S::Ok, S::Error> {
            counts.serialize(to)
        }

        pub fn deserialize<'de, D: serde::Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<u64>, D::Error> {
            let counts = Vec::<Count>::deserialize(from)?;
            Ok(counts.into_iter().map(|Count(count)| count).collect())
        }
    }
}

/// Times as milliseconds since the epoch.
pub(super) mod millis {
    use super::*;

    pub use count::schema;

    pub fn serialize<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(item::millis(*time))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        count::deserialize(from).map(item::from_millis)
    }
}

/// Sequence numbers as text: no JSON number holds 40 digits.
pub(super) mod number {
    use super::*;

    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "pattern": "^[0-9]{1,40}$"})
    }

    pub fn serialize<S: serde::Serializer>(
        number: &Option<SequenceNumber>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        number.as_ref().map(SequenceNumber::as_str).serialize(to)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SequenceNumber>, D::Error> {
        let text = Option::<Cow<'_, str>>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, Gap};
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_checkpoint_stands_as_documented() {
        let digits = "9".repeat(40);
        let checkpoint = Checkpoint {
            shard: ShardId::from("shardId-1"),
            lease: Lease { owner: Some(WorkerId::from("w1")), counter: 7 },
            position: Position::After(digits.parse().unwrap()),
            gap: Some(Gap {
                after: None,
                resumed_at: Some("12".parse().unwrap()),
                found_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            }),
        };
        let form = json!({
            "shard": "shardId-1",
            "lease": {"owner": "w1", "counter": 7},
            "position": format!("AFTER:{digits}"),
            "gap": {"after": null, "resumed_at": "12", "found_at": 1_700_000_000_123_u64},
        });
        assert_eq!(serde_json::to_value(&checkpoint).unwrap(), form);
        let read: Checkpoint = serde_json::from_str(&form.to_string()).unwrap();
        assert_eq!(read, checkpoint);
        for (member, bad) in [
            ("shard", json!("")),
            ("shard", json!("x".repeat(257))),
            ("position", json!("AFTER:x")),
            ("lease", json!({"owner": "w1", "counter": -1})),
            ("lease", json!({"owner": "w1", "counter": 0.5})),
            ("lease", json!({"owner": "w1", "counter": u64::MAX})),
            ("gap", json!({"after": "x", "resumed_at": null, "found_at": 1})),
        ] {
            let mut form = form.clone();
            form[member] = bad;
            assert!(serde_json::from_str::<Checkpoint>(&form.to_string()).is_err(), "{form}");
        }
    }

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
