//! Dead letters in this process.

use super::super::MemoryProgress;
use super::{DeadLetter, DeadLetters, LETTERS_PER_PAGE, LetterId, Listed};
use crate::progress::ProgressError;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;

/// In the order of shards and of their records.
type Place = (String, String, String, u64);

/// What a store in memory holds of letters.
#[derive(Debug, Default)]
pub(in super::super) struct LettersInMemory {
    letters: BTreeMap<Place, (Listed, Option<Bytes>)>,
    parts: BTreeMap<(Place, u64), Bytes>,
}

fn place(id: &LetterId) -> Place {
    let padded = |digits: &str| format!("{digits:0>40}");
    (id.shard.to_string(), padded(id.first.as_str()), padded(id.last.as_str()), id.digest)
}

impl MemoryProgress {
    fn change(&self, change: impl FnOnce(&mut LettersInMemory)) -> Result<(), ProgressError> {
        self.write(
            |writes| writes.letters += 1,
            |store| {
                change(&mut store.letters);
                Ok(())
            },
        )
    }
}

#[async_trait]
impl DeadLetters for MemoryProgress {
    async fn write_letter(
        &self,
        letter: &DeadLetter,
        payload: Option<&Bytes>,
        whole: bool,
    ) -> Result<(), ProgressError> {
        if whole && payload.is_none() {
            let is_there =
                |letters: &LettersInMemory| letters.letters.contains_key(&place(&letter.id));
            if !self.read(|store| is_there(&store.letters))? {
                return Err(super::removed(&letter.id));
            }
        }
        self.change(|LettersInMemory { letters, .. }| {
            if letters.get(&place(&letter.id)).is_none_or(|(listed, _)| !listed.whole) {
                let listed = Listed { letter: letter.clone(), whole };
                letters.insert(place(&letter.id), (listed, payload.cloned()));
            }
        })
    }

    async fn write_part(
        &self,
        id: &LetterId,
        part: u64,
        bytes: &Bytes,
    ) -> Result<(), ProgressError> {
        self.change(|store| {
            store.parts.insert((place(id), part), bytes.clone());
        })
    }

    async fn list_letters(&self, after: Option<&LetterId>) -> Result<Vec<Listed>, ProgressError> {
        let after = after.map(place);
        self.read(|store| {
            let letters = store.letters.letters.iter();
            let later =
                letters.filter(|(place, _)| after.as_ref().is_none_or(|after| *place > after));
            later.take(LETTERS_PER_PAGE).map(|(_, (listed, _))| listed.clone()).collect()
        })
    }

    async fn read_part(&self, id: &LetterId, part: u64) -> Result<Option<Bytes>, ProgressError> {
        self.read(|store| {
            let LettersInMemory { letters, parts } = &store.letters;
            let inline = || letters.get(&place(id)).and_then(|(_, bytes)| bytes.clone());
            let kept = parts.get(&(place(id), part)).cloned();
            kept.or_else(|| (part == 0).then(inline).flatten())
        })
    }

    async fn remove_part(&self, id: &LetterId, part: u64) -> Result<(), ProgressError> {
        self.change(|store| {
            store.parts.remove(&(place(id), part));
        })
    }

    async fn break_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        self.change(|store| {
            if let Some((listed, _)) = store.letters.get_mut(&place(id)) {
                listed.whole = false;
            }
        })
    }

    async fn remove_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        self.change(|store| {
            store.letters.remove(&place(id));
        })
    }
}
