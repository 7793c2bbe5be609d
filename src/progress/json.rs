//! The values of progress as they stand in JSON, between consumer and api.
//!
//! Owns their forms and bounds, and the schemas that say so; who sends what is
//! [`super::wire`]'s. Invariant: what is written is read back as the same, and what has
//! another form is refused rather than bent.

use super::letters::{MAX_PARTS, PART_BYTES};
use super::{Position, WorkerId, item};
use crate::record::SequenceNumber;
use crate::source::ShardId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::SystemTime;

/// The longest name of a worker or shard that is read.
const MAX_NAME_BYTES: usize = 256;

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

/// An epoch: a count whose leases are counts, too.
pub(super) mod epoch {
    use super::*;
    use crate::progress::fencing::MAX_EPOCH;

    pub use super::count::serialize;

    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": MAX_EPOCH})
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let epoch = count::deserialize(from)?;
        let is_one = epoch <= MAX_EPOCH;
        let why = || serde::de::Error::custom(format!("expected an epoch, 0 to {MAX_EPOCH}"));
        is_one.then_some(epoch).ok_or_else(why)
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
            // The text itself: serde_json reads long fractions a little off.
            let text = Box::<serde_json::value::RawValue>::deserialize(from)?;
            let whole = |float: f64| {
                ((0.0..=MAX as f64).contains(&float) && float.fract() == 0.0)
                    .then_some(float as u64)
            };
            let fraction = || text.get().parse().ok().and_then(whole);
            let count = text.get().parse().ok().or_else(fraction);
            count
                .filter(|count| *count <= MAX)
                .map(Self)
                .ok_or_else(|| serde::de::Error::custom(format!("expected a count, 0 to {MAX}")))
        }
    }

    /// One, or none.
    pub mod optional {
        use super::*;

        pub fn schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": ["integer", "null"], "minimum": 0, "maximum": MAX})
        }

        pub fn serialize<S: serde::Serializer>(
            count: &Option<u64>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            count.serialize(to)
        }

        pub fn deserialize<'de, D: serde::Deserializer<'de>>(
            from: D,
        ) -> Result<Option<u64>, D::Error> {
            Ok(Option::<Count>::deserialize(from)?.map(|Count(count)| count))
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

/// Bytes as base64 text, of the size of a dead letter's part at most.
pub(super) mod base64 {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::alphabet::STANDARD;
    use ::base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    use bytes::Bytes;

    /// Bits that a last character has too many are of no meaning.
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );

    fn read(text: &str) -> Result<Bytes, &'static str> {
        let bytes = BASE64.decode(text).map_err(|_| "expected base64")?;
        match bytes.len() <= PART_BYTES {
            true => Ok(bytes.into()),
            false => Err("more bytes than a part has"),
        }
    }

    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^([0-9A-Za-z+/]{4})*([0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?$",
            "maxLength": PART_BYTES.div_ceil(3) * 4,
        })
    }

    pub fn serialize<S: serde::Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        read(&Cow::<str>::deserialize(from)?).map_err(serde::de::Error::custom)
    }

    /// Or none.
    pub mod optional {
        use super::*;

        pub fn schema(generator: &mut SchemaGenerator) -> Schema {
            json_schema!({"anyOf": [base64::schema(generator), {"type": "null"}]})
        }

        pub fn serialize<S: serde::Serializer>(
            bytes: &Option<Bytes>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            bytes.as_ref().map(|bytes| BASE64.encode(bytes)).serialize(to)
        }

        pub fn deserialize<'de, D: serde::Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Bytes>, D::Error> {
            let text = Option::<Cow<'_, str>>::deserialize(from)?;
            text.map(|text| read(&text).map_err(serde::de::Error::custom)).transpose()
        }
    }
}

/// Parts of a dead letter, counted from 0.
pub(super) mod part {
    use super::*;

    pub use count::serialize;

    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": MAX_PARTS - 1})
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        match count::deserialize(from)? {
            part if part < MAX_PARTS => Ok(part),
            _ => Err(serde::de::Error::custom(format!("expected a part, 0 to {}", MAX_PARTS - 1))),
        }
    }
}

/// Times as milliseconds since the epoch.
pub(super) mod millis {
    use super::*;

    /// The end of the year 9999: as far as times can be written.
    const LAST: u64 = 253_402_300_799_999;

    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": LAST})
    }

    pub fn serialize<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(item::millis(*time).min(LAST))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        match count::deserialize(from)? {
            millis if millis <= LAST => Ok(item::from_millis(millis)),
            _ => Err(serde::de::Error::custom(format!("expected milliseconds, 0 to {LAST}"))),
        }
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
    use super::super::fencing::{MAX_EPOCH, first};
    use super::super::{Checkpoint, Gap, Lease, NewShard};
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn an_epoch_is_one_whose_leases_json_carries_exactly() {
        let read = |epoch: u64| {
            let text = json!({"parent": null, "position": "TRIM_HORIZON", "epoch": epoch});
            serde_json::from_str::<NewShard>(&text.to_string())
        };
        let last = read(MAX_EPOCH).unwrap();
        assert!(first(Some(&last), &WorkerId::from("w")).counter < count::MAX);
        assert!(read(MAX_EPOCH + 1).is_err());
    }

    #[test]
    fn a_checkpoint_stands_as_documented() {
        let digits = "9".repeat(40);
        let checkpoint = Checkpoint {
            shard: ShardId::from("shardId-1"),
            lease: Lease { owner: Some(WorkerId::from("w1")), counter: 7 },
            step: 12,
            position: Position::After(digits.parse().unwrap()),
            gap: Some(Gap {
                after: None,
                resumed_at: Some("12".parse().unwrap()),
                found_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            }),
            window: None,
        };
        let form = json!({
            "shard": "shardId-1",
            "lease": {"owner": "w1", "counter": 7},
            "step": 12,
            "position": format!("AFTER:{digits}"),
            "gap": {"after": null, "resumed_at": "12", "found_at": 1_700_000_000_123_u64},
            "window": null,
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
    fn a_count_is_read_exactly_in_every_form_that_json_has() {
        let read = |count: &str| {
            let lease = format!(r#"{{"owner":null,"counter":{count}}}"#);
            serde_json::from_str::<Lease>(&lease).map(|lease| lease.counter).ok()
        };
        for (text, count) in [
            ("0", 0),
            ("-0.0", 0),
            ("12.0", 12),
            ("1e3", 1000),
            ("2251799813685247.0", 2_251_799_813_685_247),
            ("9007199254740992", count::MAX),
        ] {
            assert_eq!(read(text), Some(count), "{text}");
        }
        for bad in ["-1", "0.5", "9007199254740993", "1e400", "\"1\"", "null", "[]", "NaN"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
