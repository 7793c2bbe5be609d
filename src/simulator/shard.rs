//! One shard: its place in the hash space, its records, what was trimmed from it.
//!
//! Owns the order of records within the shard. Invariant: numbers rise, every record's
//! number lies above `trimmed_to`, and nothing is added once `end` is set.

use crate::source::ShardId;
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::time::Instant;

/// A record and what is needed to find and trim it.
pub(super) struct Stored {
    pub number: u128,
    pub bytes: Bytes,
    /// Seconds since the epoch, as the record says.
    pub created: u64,
    pub put_at: Instant,
}

pub(super) struct ShardLog {
    pub parent: Option<ShardId>,
    /// The part of the hash space whose items it takes while it is open.
    pub range: (u64, u64),
    /// StartingSequenceNumber. No record has it.
    pub start: u128,
    /// EndingSequenceNumber: set when it closes, above every record's number.
    pub end: Option<u128>,
    pub closed_at: Option<Instant>,
    /// When DescribeStream begins to list it.
    pub listed_from: Instant,
    /// The highest number trimmed.
    pub trimmed_to: Option<u128>,
    records: VecDeque<Stored>,
}

/// Some of a shard's records.
pub(super) struct Batch {
    pub records: Vec<Bytes>,
    /// The place after the last of them.
    pub after: u128,
    /// Whether records are left behind them.
    pub more: bool,
}

impl ShardLog {
    pub fn open(
        parent: Option<ShardId>,
        range: (u64, u64),
        start: u128,
        listed_from: Instant,
    ) -> Self {
        Self {
            parent,
            range,
            start,
            end: None,
            closed_at: None,
            listed_from,
            trimmed_to: None,
            records: VecDeque::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    pub fn takes(&self, place: u64) -> bool {
        self.is_open() && (self.range.0..=self.range.1).contains(&place)
    }

    pub fn push(&mut self, record: Stored) {
        debug_assert!(
            self.is_open() && self.records.back().is_none_or(|r| r.number < record.number)
        );
        self.records.push_back(record);
    }

    pub fn records(&self) -> &VecDeque<Stored> {
        &self.records
    }

    /// The place before the oldest record kept.
    pub fn horizon(&self) -> u128 {
        self.trimmed_to.unwrap_or(self.start - 1)
    }

    /// Whether a record behind `after` is no longer there.
    pub fn lost_after(&self, after: u128) -> bool {
        self.trimmed_to.is_some_and(|trimmed| after < trimmed)
    }

    /// Drops records from the oldest on, as long as `gone` says so.
    pub fn trim_while(&mut self, gone: impl Fn(&Stored) -> bool) -> usize {
        let before = self.records.len();
        while let Some(record) = self.records.pop_front_if(|record| gone(record)) {
            self.trimmed_to = Some(record.number);
        }
        before - self.records.len()
    }

    /// The records above `after`, within the bounds; one is given however large it is.
    pub fn read(&self, after: u128, max_records: usize, max_bytes: usize) -> Batch {
        let from = self.records.partition_point(|record| record.number <= after);
        let mut batch = Batch { records: Vec::new(), after, more: false };
        let mut bytes = 0;
        for record in self.records.range(from..) {
            bytes += record.bytes.len();
            let full = batch.records.len() == max_records
                || (bytes > max_bytes && !batch.records.is_empty());
            if full {
                batch.more = true;
                break;
            }
            batch.records.push(record.bytes.clone());
            batch.after = record.number;
        }
        batch
    }
}
