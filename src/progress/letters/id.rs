//! What a dead letter is called.
//!
//! Owns the id and its text. Invariant: it follows from the records and their payload, so
//! that the same records given up again are the same letter, and no other is taken for it.

use crate::record::SequenceNumber;
use crate::source::ShardId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The longest name of a shard in a letter's id.
const MAX_SHARD_BYTES: usize = 128;

/// What a letter is called, `SHARD:FIRST-LAST:DIGEST`: by its records' sequence numbers and
/// by its payload, for other records may lie between the same two numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct LetterId {
    /// The shard the records come from.
    pub shard: ShardId,
    /// The sequence number of the first of them.
    pub first: SequenceNumber,
    /// And of the last.
    pub last: SequenceNumber,
    /// The first 64 bits of the payload's SHA-256.
    pub digest: u64,
}

/// [`LetterId::digest`] of a payload.
pub fn digest(payload: &[u8]) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, payload);
    let first = digest.as_ref().first_chunk().expect("it has 32 bytes");
    u64::from_be_bytes(*first)
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}:{:016x}", self.shard, self.first, self.last, self.digest)
    }
}

impl fmt::Debug for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not what a dead letter is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of a dead letter, SHARD:FIRST-LAST:DIGEST, as `dead-letters list` shows it")]
pub struct NotALetterId;

impl FromStr for LetterId {
    type Err = NotALetterId;

    fn from_str(text: &str) -> Result<Self, NotALetterId> {
        let (shard, range) = text.split_once(':').ok_or(NotALetterId)?;
        let (range, digest) = range.split_once(':').ok_or(NotALetterId)?;
        let (first, last) = range.split_once('-').ok_or(NotALetterId)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_digest = digest.len() == 16 && digest.bytes().all(is_hex);
        let digest = u64::from_str_radix(digest, 16).ok().filter(|_| is_digest);
        let is_name = (1..=MAX_SHARD_BYTES).contains(&shard.len())
            && shard.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let number = |digits: &str| digits.parse().map_err(|_| NotALetterId);
        let (first, last) = (number(first)?, number(last)?);
        let digest = digest.ok_or(NotALetterId)?;
        let id = Self { shard: ShardId::from(shard), first, last, digest };
        is_name.then_some(id).ok_or(NotALetterId)
    }
}

impl Serialize for LetterId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for LetterId {
    fn schema_name() -> Cow<'static, str> {
        "LetterId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A dead letter: shard, first and last sequence number, digest of the payload.",
            "type": "string",
            "pattern": "^[0-9A-Za-z_.-]{1,128}:[0-9]{1,40}-[0-9]{1,40}:[0-9a-f]{16}$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown_and_nothing_else_is() {
        let text =
            "shardId-00000001414562045508-2bac9cd2:100-200000000000000000000:00c0ffee00c0ffee";
        let id: LetterId = text.parse().unwrap();
        assert_eq!(id.shard.as_str(), "shardId-00000001414562045508-2bac9cd2");
        assert_eq!((id.first.as_str(), id.last.as_str()), ("100", "200000000000000000000"));
        assert_eq!(id.to_string(), text);
        for text in ["", "s", "s:1", "s:1-2", "s:1-2:", "s:1-2:C0FFEE00C0FFEE00"] {
            assert_eq!(text.parse::<LetterId>(), Err(NotALetterId), "{text}");
        }
        for text in ["", "s", "s:1", "s:1-", ":1-2", "s#x:1-2", "s:1-2-3", "s:a-2", "s:1 - 2"] {
            let text = format!("{text}:0000000000000000");
            assert_eq!(text.parse::<LetterId>(), Err(NotALetterId), "{text}");
        }
    }
}
