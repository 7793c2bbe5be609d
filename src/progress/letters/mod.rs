//! Dead letters: records that were given up by policy, kept with their payload.
//!
//! Owns what a letter says, and one trait with a store beside each of progress's. Does
//! not decide who is given up, and hands nothing to anybody. Invariant: a letter counts
//! as kept only when it is there whole. A small payload stands in the letter's own item, in
//! one write; a larger one in parts, and the letter says that it is not whole until all of
//! them are there. What it is called ([`LetterId`]) follows from what is in it.

mod client;
mod id;
mod memory;
mod table;

pub use id::{LetterId, NotALetterId, digest};
pub(super) use memory::LettersInMemory;

use super::ProgressError;
use super::json::{count, millis};
use crate::record::compare;
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
    first(store, usize::MAX).await.map(|(letters, _)| letters)
}

/// The letter of that name, if it is there.
///
/// # Errors
/// When the store does not answer.
pub async fn find(
    store: &dyn DeadLetters,
    wanted: &LetterId,
) -> Result<Option<Listed>, ProgressError> {
    let mut after: Option<LetterId> = None;
    loop {
        let page = store.list_letters(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(None) };
        after = Some(last.letter.id.clone());
        if let Some(found) = page.into_iter().find(|listed| listed.letter.id == *wanted) {
            return Ok(Some(found));
        }
    }
}

/// The first letters as the store has them, in the order of [`all`]: at least so many, where
/// there are, and not many more; and whether there may be others.
///
/// # Errors
/// When the store does not answer.
pub async fn first(
    store: &dyn DeadLetters,
    enough: usize,
) -> Result<(Vec<Listed>, bool), ProgressError> {
    let mut letters: Vec<Listed> = Vec::new();
    let more = loop {
        if letters.len() >= enough {
            break true;
        }
        let after = letters.last().map(|listed| &listed.letter.id);
        let page = store.list_letters(after).await?;
        if page.is_empty() {
            break false;
        }
        letters.extend(page);
    };
    let first = |listed: &Listed| listed.letter.id.first.clone();
    letters.sort_by(|a, b| compare(first(a).as_str(), first(b).as_str()));
    Ok((letters, more))
}
