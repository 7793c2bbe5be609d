//! Batches as Lambda forms them: by count, by window, by 6 MB, whichever is first.
//!
//! Owns the decision when a batch is full or due. Pure: it is told the time. Invariant:
//! records leave in the order they came, each exactly once.

use crate::record::{EventEnvelope, MAX_EVENT_BYTES, Record};
use std::time::Duration;
use tokio::time::Instant;

/// When a batch goes out. The names and bounds are Lambda's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// The most records in a batch, 1 to 10,000.
    pub size: usize,
    /// How long a batch that is not full waits for more; zero sends what is there.
    pub window: Duration,
}

/// A batch being filled.
pub struct Batcher {
    settings: BatchSettings,
    envelope: EventEnvelope,
    records: Vec<Record>,
    bytes: usize,
    most_bytes: usize,
    opened: Option<Instant>,
}

impl Batcher {
    /// An empty batch.
    pub fn new(settings: BatchSettings, envelope: EventEnvelope) -> Self {
        let (bytes, most_bytes) = (EventEnvelope::EMPTY, MAX_EVENT_BYTES);
        Self { settings, envelope, records: Vec::new(), bytes, most_bytes, opened: None }
    }

    /// Leaves so many bytes of an event for what stands in it beside records.
    #[must_use]
    pub fn reserving(mut self, bytes: usize) -> Self {
        self.most_bytes = MAX_EVENT_BYTES.saturating_sub(bytes);
        self
    }

    /// Whether `record` may join the batch. The first record always may.
    pub fn has_room_for(&self, record: &Record) -> bool {
        self.records.is_empty()
            || (self.records.len() < self.settings.size
                && self.bytes + self.envelope.cost(record) <= self.most_bytes)
    }

    /// Adds a record for which there is room. The window opens with the first.
    pub fn push(&mut self, record: Record, now: Instant) {
        debug_assert!(self.has_room_for(&record));
        self.opened.get_or_insert(now);
        self.bytes += self.envelope.cost(&record);
        self.records.push(record);
    }

    /// A window that is open begins now: it counts from when the batch before was through.
    pub fn reopen(&mut self, now: Instant) {
        self.opened = self.opened.map(|_| now);
    }

    /// How many records are in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no further record can join, by count.
    pub fn is_full(&self) -> bool {
        self.records.len() >= self.settings.size
    }

    /// The oldest record in it.
    pub fn first(&self) -> Option<&Record> {
        self.records.first()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// When the window closes; `None` for an empty batch.
    pub fn due(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.settings.window)
    }

    /// The batch's records; the batcher starts over.
    pub fn take(&mut self) -> Vec<Record> {
        self.bytes = EventEnvelope::EMPTY;
        self.opened = None;
        std::mem::take(&mut self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse_page;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn envelope() -> EventEnvelope {
        EventEnvelope::new(&"arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap())
    }

    fn record(number: usize, size: usize) -> Record {
        let filler = "x".repeat(size);
        let page = format!(
            r#"{{"Records":[{{"dynamodb":{{"SequenceNumber":"{number}","NewImage":{{"f":{{"S":"{filler}"}}}}}}}}]}}"#
        );
        parse_page(&Bytes::from(page)).unwrap().records.remove(0)
    }

    proptest! {
        /// Batches hold every record once and in order, no more of them than asked for,
        /// and no event is above 6 MB unless one record alone is.
        #[test]
        fn batches_are_complete_in_order_and_bounded(
            sizes in prop::collection::vec(prop_oneof![9 => 0usize..2000, 1 => 0usize..3_000_000], 1..60),
            size in 1usize..20,
        ) {
            let mut batcher = Batcher::new(BatchSettings { size, window: Duration::ZERO }, envelope());
            let mut batches = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let record = record(number, *size);
                if !batcher.has_room_for(&record) { batches.push(batcher.take()); }
                batcher.push(record, Instant::now());
                if batcher.is_full() { batches.push(batcher.take()); }
            }
            batches.push(batcher.take());
            let numbers: Vec<usize> = batches.iter().flatten()
                .map(|r| r.sequence_digits().parse().unwrap()).collect();
            prop_assert_eq!(numbers, (0..sizes.len()).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(batch.len() <= size);
                prop_assert!(batch.len() == 1 || envelope().event(batch).len() <= MAX_EVENT_BYTES);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_opens_with_the_first_record() {
        let window = Duration::from_secs(5);
        let mut batcher = Batcher::new(BatchSettings { size: 10, window }, envelope());
        assert_eq!(batcher.due(), None);
        let start = Instant::now();
        batcher.push(record(1, 1), start);
        batcher.push(record(2, 1), start + Duration::from_secs(3));
        assert_eq!(batcher.due(), Some(start + window));
        batcher.take();
        assert_eq!(batcher.due(), None);
    }
}
