//! Dead letters: records that were given up by policy, kept with their payload.
//!
//! Owns what a letter says, and one trait with a store beside each of progress's. Does
//! not decide who is given up, and hands nothing to anybody. Invariant: a letter counts
//! as kept only when it is there whole. A small payload stands in the letter's own item, in
//! one write; a larger one in parts, and the letter says that it is not whole until all of
//! them are there. A letter's name follows from what is in it, so that the same records given
//! up again are the same letter, and no other is taken for it.

mod client;
mod memory;
mod table;

pub(super) use memory::LettersInMemory;

use super::ProgressError;
use super::json::{count, millis};
use crate::record::{SequenceNumber, compare};
use crate::source::ShardId;
use async_trait::async_trait;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

/// Up to this a payload stands in the letter's item.
pub const INLINE_BYTES: usize = 32 << 10;
/// The size of a part, but the last one's. Part of the format: never changed. An item may
/// have 400 kB, and a body of the private interface, in base64, 1 MiB.
pub const PART_BYTES: usize = 256 << 10;
/// The most parts of a letter: an event has 6 MB, or more where a single record does.
pub const MAX_PARTS: u64 = 64;
/// The most letters that are listed at once.
pub const LETTERS_PER_PAGE: usize = 100;
/// The longest error that is kept, in bytes.
const MAX_ERROR_BYTES: usize = 1024;
/// The longest name of a shard in a letter's id.
const MAX_SHARD_BYTES: usize = 128;

/// Why records were given up.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// `MAXIMUM_RETRY_ATTEMPTS`.
    Retries,
    /// `MAXIMUM_RECORD_AGE_IN_SECONDS`.
    Age,
}

impl Reason {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Retries, Self::Age];

    /// The metric's label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Retries => "retries",
            Self::Age => "age",
        }
    }
}

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

/// Records that were given up, but for their payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// What it is called.
    pub id: LetterId,
    /// Why they were given up.
    pub reason: Reason,
    /// How many they are.
    #[serde(with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub records: u64,
    /// Invocations of the handler that they have been in.
    #[serde(with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub attempts: u64,
    /// What their batch failed with at first; none where they were not tried.
    pub first_error: Option<String>,
    /// What it failed with at last.
    pub last_error: Option<String>,
    /// When they were given up (milliseconds).
    #[serde(with = "millis")]
    #[schemars(schema_with = "millis::schema")]
    pub given_up_at: SystemTime,
    /// Bytes of the payload.
    #[serde(with = "count")]
    #[schemars(schema_with = "count::schema")]
    pub bytes: u64,
}

impl DeadLetter {
    /// In how many parts the payload is kept; 0 when it stands in the letter's own item.
    pub fn parts(&self) -> u64 {
        match self.bytes <= INLINE_BYTES as u64 {
            true => 0,
            false => self.bytes.div_ceil(PART_BYTES as u64).min(MAX_PARTS),
        }
    }

    /// As it is kept: with errors of a bounded length, and times to the millisecond.
    #[must_use]
    fn bounded(mut self) -> Self {
        for error in [&mut self.first_error, &mut self.last_error].into_iter().flatten() {
            error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
        }
        self.given_up_at = super::item::kept(self.given_up_at);
        self
    }
}

/// A letter as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// What it says.
    pub letter: DeadLetter,
    /// Whether all of it is there. If not, whoever kept it or removed it was cut off: the
    /// records of one that was being kept come again.
    pub whole: bool,
}

/// A store of dead letters for one consumer of one stream. Its methods may be called again
/// after their answer was lost.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Writes a letter's own item: whole with its payload where that has no parts, or
    /// whole without when all of them are there, or not whole. A letter that is whole
    /// already stays as it is.
    ///
    /// # Errors
    /// [`ProgressError::Unsuitable`] for one that is to be whole with its parts and is not
    /// there any more: it was removed while it was written.
    async fn write_letter(
        &self,
        letter: &DeadLetter,
        payload: Option<&Bytes>,
        whole: bool,
    ) -> Result<(), ProgressError>;

    /// Writes a part of a letter's payload, counted from 0.
    async fn write_part(
        &self,
        id: &LetterId,
        part: u64,
        bytes: &Bytes,
    ) -> Result<(), ProgressError>;

    /// Up to [`LETTERS_PER_PAGE`] letters after this one, or the first; none at the end.
    /// A shard's stand in the order of its records.
    async fn list_letters(&self, after: Option<&LetterId>) -> Result<Vec<Listed>, ProgressError>;

    /// A part of a letter's payload; where it has no parts, the first is all of it. `None`
    /// for one that is not there.
    async fn read_part(&self, id: &LetterId, part: u64) -> Result<Option<Bytes>, ProgressError>;

    /// Removes a part.
    async fn remove_part(&self, id: &LetterId, part: u64) -> Result<(), ProgressError>;

    /// Says that a letter is not whole any more: it is being removed.
    async fn break_letter(&self, id: &LetterId) -> Result<(), ProgressError>;

    /// Removes a letter's own item.
    async fn remove_letter(&self, id: &LetterId) -> Result<(), ProgressError>;
}

/// Keeps a letter with its payload. When it returns, all of it is there. `parts_done` counts
/// those that are, from 0 at first: what was cut off goes on from there.
///
/// # Errors
/// When the store does not take it; it may be there in part then, and keeping it again
/// completes it.
pub async fn keep(
    store: &dyn DeadLetters,
    letter: DeadLetter,
    payload: &Bytes,
    parts_done: &mut u64,
) -> Result<(), ProgressError> {
    let letter = DeadLetter { bytes: payload.len() as u64, ..letter }.bounded();
    let parts = letter.parts();
    if parts == 0 {
        return store.write_letter(&letter, Some(payload), true).await;
    }
    if payload.len() > MAX_PARTS as usize * PART_BYTES {
        return Err(ProgressError::Unsuitable(format!(
            "a dead letter of {} bytes is larger than can be kept",
            letter.bytes
        )));
    }
    if *parts_done == 0 {
        store.write_letter(&letter, None, false).await?;
    }
    for part in *parts_done..parts {
        let start = part as usize * PART_BYTES;
        let bytes = payload.slice(start..(start + PART_BYTES).min(payload.len()));
        store.write_part(&letter.id, part, &bytes).await?;
        *parts_done = part + 1;
    }
    let closed = store.write_letter(&letter, None, true).await;
    if matches!(closed, Err(ProgressError::Unsuitable(_))) {
        // Somebody has removed it meanwhile, parts and all.
        *parts_done = 0;
    }
    closed
}

/// It was removed while it was written.
fn removed(id: &LetterId) -> ProgressError {
    ProgressError::Unsuitable(format!(
        "the dead letter {id} was removed while it was being kept, and is kept again"
    ))
}

/// A letter's payload: the event, as the handler had it.
///
/// # Errors
/// [`ProgressError::Unsuitable`] when some of it is not there.
pub async fn payload(store: &dyn DeadLetters, letter: &DeadLetter) -> Result<Bytes, ProgressError> {
    let mut payload = Vec::new();
    for part in 0..letter.parts().max(1) {
        match store.read_part(&letter.id, part).await? {
            Some(bytes) => payload.extend_from_slice(&bytes),
            None => {
                return Err(ProgressError::Unsuitable(format!(
                    "part {part} of the dead letter {} is not there",
                    letter.id
                )));
            }
        }
    }
    Ok(payload.into())
}

/// Removes a letter and all of its payload.
///
/// # Errors
/// When the store does not answer; it may be there in part then, and can be removed again.
pub async fn remove(store: &dyn DeadLetters, letter: &DeadLetter) -> Result<(), ProgressError> {
    let parts = letter.parts();
    if parts > 0 {
        store.break_letter(&letter.id).await?;
        for part in 0..parts {
            store.remove_part(&letter.id, part).await?;
        }
    }
    store.remove_letter(&letter.id).await
}

/// Every letter, in the order in which their records were written: that of their sequence
/// numbers, over all shards.
///
/// # Errors
/// When the store does not answer.
pub async fn all(store: &dyn DeadLetters) -> Result<Vec<Listed>, ProgressError> {
    let mut letters: Vec<Listed> = Vec::new();
    loop {
        let after = letters.last().map(|listed| &listed.letter.id);
        let page = store.list_letters(after).await?;
        if page.is_empty() {
            break;
        }
        letters.extend(page);
    }
    let first = |listed: &Listed| listed.letter.id.first.clone();
    letters.sort_by(|a, b| compare(first(a).as_str(), first(b).as_str()));
    Ok(letters)
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
