//! Dead letters in the table, beside the progress.
//!
//! Owns their items: a letter's own, with what it says as JSON and a small payload, and one
//! for each part of a larger payload. They lie in partitions of their own, a shard's in one,
//! so that listing reads no payload in parts and finds a shard's letters in order.

use super::super::dynamodb::{Only, Page, Refusal};
use super::super::item::{self, Attributes, Reader, UnreadableItem, Value};
use super::super::keys::ItemKey;
use super::super::table::TableProgress;
use super::{DeadLetter, DeadLetters, LETTERS_PER_PAGE, LetterId, Listed};
use crate::progress::ProgressError;
use async_trait::async_trait;
use bytes::Bytes;

const NOT_WHOLE: &str = "attribute_not_exists(#pk) OR sg_whole = :not_whole";
const NOT_THERE: &str = "attribute_not_exists(#pk)";
const THERE: &str = "attribute_exists(#pk)";
const WRITE: &str = "SET sg_v = :v, sg_letter = :letter, sg_whole = :whole";
const WRITE_WITH_PAYLOAD: &str =
    "SET sg_v = :v, sg_letter = :letter, sg_whole = :whole, sg_payload = :payload";
const WRITE_PART: &str = "SET sg_v = :v, sg_payload = :payload";
const BREAK: &str = "SET sg_whole = :whole";
/// All but the payload.
const LISTED: &str = "#sk, sg_v, sg_letter, sg_whole";

#[async_trait]
impl DeadLetters for TableProgress {
    async fn write_letter(
        &self,
        letter: &DeadLetter,
        payload: Option<&Bytes>,
        whole: bool,
    ) -> Result<(), ProgressError> {
        let text = serde_json::to_string(letter).expect("plain data");
        let mut values = vec![
            (":v", item::FORMAT.into()),
            (":letter", Value::Text(text)),
            (":whole", Value::Bool(whole)),
            (":not_whole", Value::Bool(false)),
        ];
        values.extend(payload.map(|bytes| (":payload", Value::Bytes(bytes.clone()))));
        let key = self.keys.letter(&letter.id);
        if whole && payload.is_none() {
            values.retain(|(name, _)| *name != ":not_whole");
            return match self.table.update(&key, WRITE, THERE, values).await {
                Err(Refusal::Condition(_)) => Err(super::removed(&letter.id)),
                written => done(written),
            };
        }
        let update = if payload.is_some() { WRITE_WITH_PAYLOAD } else { WRITE };
        done(self.table.update(&key, update, NOT_WHOLE, values).await)
    }

    async fn write_part(
        &self,
        id: &LetterId,
        part: u64,
        bytes: &Bytes,
    ) -> Result<(), ProgressError> {
        let key = self.keys.letter_part(id, part);
        let values = vec![(":v", item::FORMAT.into()), (":payload", Value::Bytes(bytes.clone()))];
        // What a part holds follows from its name: one that is there is the same.
        done(self.table.update(&key, WRITE_PART, NOT_THERE, values).await)
    }

    async fn list_letters(&self, after: Option<&LetterId>) -> Result<Vec<Listed>, ProgressError> {
        let mut after = after.map(|id| self.keys.letter(id));
        let mut found = Vec::new();
        for partition in self.keys.letter_partitions() {
            if after.as_ref().is_some_and(|after| after.partition > partition) {
                continue;
            }
            let start = after.take_if(|after| after.partition == partition);
            let limit = LETTERS_PER_PAGE - found.len();
            let prefix = self.keys.letter_prefix();
            let page = Page { partition: &partition, prefix, after: start.as_ref(), limit };
            let items = self.table.query_page(&page, LISTED).await?;
            for (key, item) in items {
                found.push(listed(&key, &item)?);
            }
            if found.len() >= LETTERS_PER_PAGE {
                break;
            }
        }
        Ok(found)
    }

    async fn read_part(&self, id: &LetterId, part: u64) -> Result<Option<Bytes>, ProgressError> {
        let keys =
            [Some(self.keys.letter_part(id, part)), (part == 0).then(|| self.keys.letter(id))];
        for key in keys.into_iter().flatten() {
            let items = self.table.query(&key.partition, Only::Sort(&key.sort)).await?;
            if let Some((key, item)) = items.first()
                && let Some(bytes) = Reader::new(key, item)?.payload()?
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    async fn remove_part(&self, id: &LetterId, part: u64) -> Result<(), ProgressError> {
        done(self.table.delete(&self.keys.letter_part(id, part), None).await)
    }

    async fn break_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        let values = vec![(":whole", Value::Bool(false))];
        done(self.table.update(&self.keys.letter(id), BREAK, THERE, values).await)
    }

    async fn remove_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        done(self.table.delete(&self.keys.letter(id), None).await)
    }
}

/// A refused condition means that it stands as it should.
fn done(written: Result<(), Refusal>) -> Result<(), ProgressError> {
    match written {
        Ok(()) | Err(Refusal::Condition(_)) => Ok(()),
        Err(Refusal::Failed(error)) => Err(error),
    }
}

fn listed(key: &ItemKey, item: &Attributes) -> Result<Listed, UnreadableItem> {
    let reader = Reader::new(key, item)?;
    Ok(Listed { letter: reader.letter()?, whole: reader.whole()? })
}
