//! One of a shard's lanes: its batches, worked one after the other.
//!
//! Owns the batch being filled, those that wait, and which pieces of the shard they are
//! made of. Invariant: all records of a partition key go through one lane, in their order,
//! so that no two batches have an item at the same time.

use crate::batch::Batcher;
use crate::deliver::Window;
use crate::frontier::Ticket;
use crate::record::{Record, keys_hash};
use std::collections::VecDeque;
use std::time::SystemTime;
use tokio::time::Instant;

/// Records that follow each other in the shard and go together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The piece of work they are.
    pub ticket: Ticket,
    /// Where in the batch they begin.
    pub start: usize,
    /// And end.
    pub end: usize,
}

/// A batch on its way.
pub(super) struct Closed {
    pub records: Vec<Record>,
    /// What it is made of, in order.
    pub runs: Vec<Run>,
    /// With tumbling windows: the one that all of it belongs to.
    pub window: Option<Window>,
    /// When nothing could join it any more.
    pub made: Instant,
}

/// One lane.
pub(super) struct Lane {
    batcher: Batcher,
    runs: Vec<Run>,
    window: Option<Window>,
    waiting: VecDeque<Closed>,
    /// When the first record of the batch was written that is being delivered.
    flying: Option<Option<SystemTime>>,
}

impl Lane {
    pub fn new(batcher: Batcher) -> Self {
        Self { batcher, runs: Vec::new(), window: None, waiting: VecDeque::new(), flying: None }
    }

    /// The ticket of the records added last, while their batch is being filled.
    pub fn last_ticket(&self) -> Option<Ticket> {
        self.runs.last().map(|run| run.ticket)
    }

    /// Closes the batch being filled where `record` has no room in it.
    pub fn make_room_for(&mut self, record: &Record, now: Instant) {
        if !self.batcher.has_room_for(record) {
            self.close(now);
        }
    }

    /// The records that come now are of this window: no batch has some of another.
    pub fn turn_to(&mut self, window: Window, now: Instant) {
        if self.window != Some(window) {
            self.close(now);
            self.window = Some(window);
        }
    }

    /// Adds a record for which there is room, as a part of the piece `ticket`.
    pub fn push(&mut self, record: Record, ticket: Ticket, now: Instant) {
        let start = self.batcher.len();
        self.batcher.push(record, now);
        match self.runs.last_mut() {
            Some(run) if run.ticket == ticket => run.end = start + 1,
            _ => self.runs.push(Run { ticket, start, end: start + 1 }),
        }
        if self.batcher.is_full() {
            self.close(now);
        }
    }

    /// Closes the batch being filled, if there is one.
    pub fn close(&mut self, now: Instant) {
        if !self.batcher.is_empty() {
            let (records, runs) = (self.batcher.take(), std::mem::take(&mut self.runs));
            let window = self.window;
            self.waiting.push_back(Closed { records, runs, window, made: now });
        }
    }

    /// The next batch, where none is being delivered.
    pub fn depart(&mut self) -> Option<Closed> {
        if self.flying.is_some() {
            return None;
        }
        let closed = self.waiting.pop_front()?;
        self.flying = Some(closed.records.first().and_then(Record::created));
        Some(closed)
    }

    /// The batch that was being delivered is through. A window begins with that.
    pub fn landed(&mut self, now: Instant) {
        self.flying = None;
        self.batcher.reopen(now);
    }

    /// When the batch being filled is due, where none is before it.
    pub fn due(&self) -> Option<Instant> {
        let is_next = self.is_idle() && self.waiting.is_empty();
        self.batcher.due().filter(|_| is_next)
    }

    /// Whether nothing is being delivered.
    pub fn is_idle(&self) -> bool {
        self.flying.is_none()
    }

    /// Whether it has nothing at all.
    pub fn is_empty(&self) -> bool {
        self.is_idle() && self.waiting.is_empty() && self.batcher.is_empty()
    }

    /// The first record that is not delivered: when it was written, if it says so.
    pub fn oldest(&self) -> Option<SystemTime> {
        let waiting = || self.waiting.front().and_then(|closed| closed.records.first());
        self.flying.unwrap_or_else(|| waiting().or(self.batcher.first()).and_then(Record::created))
    }
}

/// Which of so many lanes takes the record: by its partition key, or, where that has no
/// name, by all of its keys.
pub(super) fn lane_of(record: &Record, partition_key: Option<&str>, lanes: usize) -> usize {
    // The keys are looked at only where it matters: most shards have one lane.
    let Some(keys) = (lanes > 1).then(|| record.keys()).flatten() else { return 0 };
    (keys_hash(keys, partition_key) % lanes as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse_page;
    use bytes::Bytes;

    fn record(keys: &str) -> Record {
        let page =
            format!(r#"{{"Records":[{{"dynamodb":{{"SequenceNumber":"1","Keys":{keys}}}}}]}}"#);
        parse_page(&Bytes::from(page)).unwrap().records.remove(0)
    }

    #[test]
    fn a_partition_key_has_one_lane_whatever_stands_beside_it() {
        let of = |keys: &str, name| lane_of(&record(keys), name, 10);
        for n in 0..50 {
            let pk = format!(r#""PK":{{"S":"cat{n}"}}"#);
            let lane = of(&format!(r#"{{{pk},"SK":{{"S":"1"}}}}"#), Some("PK"));
            assert!(lane < 10);
            assert_eq!(lane, of(&format!(r#"{{"SK":{{"S":"2"}}, {pk} }}"#), Some("PK")));
            let keys =
                [format!(r#"{{{pk},"SK":{{"S":"1"}}}}"#), format!(r#"{{"SK":{{"S":"1"}},{pk}}}"#)];
            assert_eq!(of(&keys[0], None), of(&keys[1], None), "an item has one lane");
        }
        let lanes: std::collections::BTreeSet<_> =
            (0..100).map(|n| of(&format!(r#"{{"PK":{{"N":"{n}"}}}}"#), Some("PK"))).collect();
        assert_eq!(lanes.len(), 10, "they are spread");
        assert_eq!(lane_of(&record(r#"{"PK":{"S":"x"}}"#), Some("PK"), 1), 0);
    }
}
