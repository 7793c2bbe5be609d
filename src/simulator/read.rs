//! What the three calls answer: listings, iterators, records; and what they refuse.
//!
//! Owns the service's rules about positions and the codes of its refusals. Changes
//! nothing but what age has overtaken.

use super::engine::{Engine, millis};
use super::settings::ListingOrder;
use super::shard::ShardLog;
use super::token::Token;
use crate::source::{ShardId, StreamStatus};
use bytes::Bytes;
use tokio::time::Instant;

/// A refusal as the service puts it: status, code and sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::client("ValidationException", message)
    }

    pub fn not_found(what: &str) -> Self {
        Self::client(
            "ResourceNotFoundException",
            format!("Requested resource not found: {what} not found"),
        )
    }

    pub fn trimmed() -> Self {
        Self::client(
            "TrimmedDataAccessException",
            "The operation attempted to read past the oldest stream record in a shard",
        )
    }

    pub fn expired() -> Self {
        Self::client("ExpiredIteratorException", "Iterator expired")
    }
}

/// Where GetShardIterator is to begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    TrimHorizon,
    Latest,
    At(u128),
    After(u128),
    /// Milliseconds since the epoch.
    Timestamp(u64),
}

pub(super) struct ListedShard {
    pub id: ShardId,
    pub parent: Option<ShardId>,
    pub start: u128,
    pub end: Option<u128>,
}

pub(super) struct Listing {
    pub shards: Vec<ListedShard>,
    pub last: Option<ShardId>,
}

/// A GetRecords answer before it is text: copying a megabyte is left to the caller, who
/// does not hold the lock.
pub(super) struct Answer {
    pub records: Vec<Bytes>,
    pub next: Option<String>,
}

impl Engine {
    /// One page of the listing: shards behind `start`, children of `child_of` only.
    pub fn list(
        &mut self,
        limit: Option<usize>,
        start: Option<&ShardId>,
        child_of: Option<&ShardId>,
    ) -> Listing {
        self.tidy();
        if self.status == StreamStatus::Enabling {
            return Listing { shards: Vec::new(), last: None };
        }
        let now = Instant::now();
        let child_of = child_of.filter(|_| self.settings.child_filter);
        let backwards = self.settings.listing_order == ListingOrder::ChildrenFirst;
        // An unknown start is no error; the listing goes on behind where it would be.
        let behind_start = |id: &ShardId| {
            start.is_none_or(|start| if backwards { id < start } else { id > start })
        };
        let mut listed: Vec<ListedShard> = self
            .shards
            .iter()
            .filter(|(id, shard)| {
                behind_start(id)
                    && shard.listed_from <= now
                    && child_of.is_none_or(|parent| shard.parent.as_ref() == Some(parent))
            })
            .map(|(id, shard)| self.listed(id, shard, now))
            .collect();
        if backwards {
            listed.reverse();
        }
        let most = self.settings.listing_page.min(limit.unwrap_or(usize::MAX));
        let more = listed.len() > most;
        listed.truncate(most);
        let last = listed.last().filter(|_| more).map(|shard| shard.id.clone());
        Listing { shards: listed, last }
    }

    fn listed(&self, id: &ShardId, shard: &ShardLog, now: Instant) -> ListedShard {
        let shows_closed =
            shard.closed_at.is_some_and(|closed| closed + self.settings.parent_lag <= now);
        ListedShard {
            id: id.clone(),
            parent: shard.parent.clone(),
            start: shard.start,
            end: shard.end.filter(|_| shows_closed),
        }
    }

    /// A cursor into `shard`.
    ///
    /// A sequence number is too old once its own record is trimmed, as the service's
    /// documentation has it, even where every record after it is still there.
    pub fn iterator(&mut self, shard: &ShardId, start: Start) -> Result<String, ApiError> {
        self.tidy();
        let now = self.wall_millis();
        let log = self.shards.get(shard).ok_or_else(|| unknown_shard(shard))?;
        let last = log.end.unwrap_or(self.last_number);
        let after = match start {
            Start::TrimHorizon => log.horizon(),
            Start::Latest => last,
            Start::At(number) | Start::After(number) => {
                if number < log.start || log.trimmed_to.is_some_and(|trimmed| number <= trimmed) {
                    return Err(ApiError::trimmed());
                }
                if number > last {
                    return Err(ApiError::validation(format!(
                        "Invalid SequenceNumber: {number} is not of shard {shard}"
                    )));
                }
                if matches!(start, Start::At(_)) { number - 1 } else { number }
            }
            Start::Timestamp(_) if !self.settings.at_timestamp => {
                return Err(ApiError::validation(
                    "1 validation error detected: Value 'AT_TIMESTAMP' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [TRIM_HORIZON, LATEST, AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER]",
                ));
            }
            Start::Timestamp(time) if time > now => {
                return Err(ApiError::validation("Timestamp must not be in the future"));
            }
            Start::Timestamp(time) => {
                let first = log.records().iter().find(|record| record.created * 1000 >= time);
                first.map_or(last, |record| record.number - 1)
            }
        };
        Ok(self.issue(shard.clone(), after, self.settings.empty_pages))
    }

    /// The next page behind a token.
    pub fn records(&mut self, token: &Token, limit: Option<usize>) -> Result<Answer, ApiError> {
        self.check(token)?;
        if token.empty_pages > 0 {
            let next = self.issue(token.shard.clone(), token.after, token.empty_pages - 1);
            return Ok(Answer { records: Vec::new(), next: Some(next) });
        }
        let log = &self.shards[&token.shard];
        let most = self.settings.page_records.min(limit.unwrap_or(usize::MAX));
        let batch = log.read(token.after, most, self.settings.page_bytes);
        let last = !log.is_open()
            && !batch.more
            && (batch.records.is_empty() || self.settings.last_page_has_records);
        let next = (!last).then(|| self.issue(token.shard.clone(), batch.after, 0));
        Ok(Answer { records: batch.records, next })
    }

    /// A page without records that leaves the reader where it is.
    pub fn empty_page(&mut self, token: &Token) -> Result<Answer, ApiError> {
        self.check(token)?;
        let next = self.issue(token.shard.clone(), token.after, token.empty_pages);
        Ok(Answer { records: Vec::new(), next: Some(next) })
    }

    /// Whether the token can be read from, now.
    fn check(&mut self, token: &Token) -> Result<(), ApiError> {
        self.tidy();
        let age = self.age_millis().saturating_sub(token.issued);
        if token.generation != self.generation || age > millis(self.settings.iterator_life) {
            return Err(ApiError::expired());
        }
        let log = self.shards.get(&token.shard).ok_or_else(|| unknown_shard(&token.shard))?;
        if log.lost_after(token.after) {
            return Err(ApiError::trimmed());
        }
        Ok(())
    }

    /// A token for the place after `after`, issued now.
    pub(super) fn issue(&self, shard: ShardId, after: u128, empty_pages: u32) -> String {
        let issued = self.age_millis();
        let token = Token { shard, after, empty_pages, issued, generation: self.generation };
        token.encode(&self.stream)
    }

    fn age_millis(&self) -> u64 {
        millis(Instant::now() - self.started)
    }
}

pub(super) fn unknown_shard(shard: &ShardId) -> ApiError {
    ApiError::not_found(&format!("Shard: {shard}"))
}
