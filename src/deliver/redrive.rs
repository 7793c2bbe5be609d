//! Dead letters handed to the handler again.
//!
//! Owns one letter's second chance. Which letters, and in which order, is the caller's to
//! say. Invariant: a letter is removed only after the handler took all of its records; one
//! of which it took the first part is replaced by a letter of the rest.

use super::{Batch, Deliverer, HandlerError};
use crate::progress::ProgressError;
use crate::progress::letters::{self, DeadLetter, DeadLetters, LetterId, Listed};
use crate::record::{EventEnvelope, Record, keys_hash, parse_page};
use bytes::Bytes;
use std::collections::HashSet;
use tokio::time::Instant;

/// How a letter fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// The handler took it, and it is gone.
    Taken,
    /// The handler took its first records, and it is replaced by one of the rest.
    PartlyTaken {
        /// Records taken.
        taken: usize,
        /// The letter of the others.
        rest: LetterId,
        /// Why they were not taken.
        why: String,
    },
    /// It stays as it is.
    Failed {
        /// Why.
        why: String,
    },
}

/// The items of letters that were not taken: a later letter with one of them waits, so that
/// an item's records stay in order among themselves.
#[derive(Debug, Default)]
pub struct HeldItems(HashSet<u64>);

impl HeldItems {
    fn hold(&mut self, records: &[Record]) {
        self.0.extend(records.iter().filter_map(item));
    }

    fn has_one_of(&self, records: &[Record]) -> bool {
        records.iter().filter_map(item).any(|item| self.0.contains(&item))
    }
}

fn item(record: &Record) -> Option<u64> {
    record.keys().map(|keys| keys_hash(keys, None))
}

impl Deliverer {
    /// Hands a letter's records to the handler, once, as the batch that they were; not
    /// where it has an item that is held.
    ///
    /// # Errors
    /// When the store does not answer: the letter stays, or the handler gets it again.
    pub async fn redrive(
        &self,
        store: &dyn DeadLetters,
        listed: &Listed,
        held: &mut HeldItems,
    ) -> Result<Redriven, ProgressError> {
        let Listed { letter, whole } = listed;
        let failed = |why: String| Ok(Redriven::Failed { why });
        if !whole {
            return failed(
                "it is not whole; its records came again, or it was being removed: delete it"
                    .to_owned(),
            );
        }
        let payload = letters::payload(store, letter).await?;
        let records = match parse_page(&payload) {
            Ok(page) if !page.records.is_empty() => page.records,
            Ok(_) => return failed("its payload has no records".to_owned()),
            Err(error) => return failed(format!("its payload cannot be read: {error}")),
        };
        if held.has_one_of(&records) {
            held.hold(&records);
            return failed("an earlier one with an item of it is left".to_owned());
        }
        // The payload is an event: its records have their stream's ARN already.
        let envelope = EventEnvelope::of_events();
        let attempt = u32::try_from(letter.attempts).unwrap_or(u32::MAX).saturating_add(1);
        let batch = Batch {
            shard: letter.id.shard.clone(),
            attempt,
            records: &records,
            envelope: &envelope,
            stream: &self.stream,
            window: None,
            trace: None,
        };
        let traces = self.traces.as_ref();
        let trace = traces.map(|all| all.batch(&letter.id.shard, &records, Instant::now()));
        let turn = self.turn().await;
        let error = match self.attempt(batch, trace.as_ref(), turn).await {
            Ok(_) => {
                if let Some(trace) = trace {
                    trace.through();
                }
                letters::remove(store, letter).await?;
                self.metrics.records_delivered.inc_by(records.len() as u64);
                return Ok(Redriven::Taken);
            }
            Err(error) => error,
        };
        if let Some(trace) = trace {
            trace.left();
        }
        let taken = error
            .from
            .as_deref()
            .and_then(|first| records.iter().position(|record| record.sequence_digits() == first));
        let taken = taken.unwrap_or_default();
        held.hold(&records[taken..]);
        match taken {
            0 => failed(error.to_string()),
            taken => {
                let rest = keep_rest(store, letter, &records[taken..], attempt, &error).await?;
                letters::remove(store, letter).await?;
                Ok(Redriven::PartlyTaken { taken, rest, why: error.to_string() })
            }
        }
    }
}

async fn keep_rest(
    store: &dyn DeadLetters,
    letter: &DeadLetter,
    records: &[Record],
    attempts: u32,
    error: &HandlerError,
) -> Result<LetterId, ProgressError> {
    let payload = Bytes::from(EventEnvelope::of_events().event(records).to_vec());
    let first = records.first().map_or_else(|| letter.id.first.clone(), Record::sequence_number);
    let rest = DeadLetter {
        id: LetterId { first, digest: letters::digest(&payload), ..letter.id.clone() },
        records: records.len() as u64,
        attempts: attempts.into(),
        last_error: Some(error.to_string()),
        ..letter.clone()
    };
    let id = rest.id.clone();
    letters::keep(store, rest, &payload, &mut 0).await?;
    Ok(id)
}
