//! Pages made beforehand, so that a benchmark measures the reader and not the simulator.
//!
//! Owns the bodies and their iterators, `<ARN>|2|<shard>.<page>.<record>`. Serving one
//! takes no lock of the stream and copies nothing. The engine still lists the shards; an
//! iterator behind the last prepared page is the engine's. Prepared pages ignore Limit,
//! expire never and are not trimmed.

use super::change::{Change, ChangeKind, StreamViewType};
use super::engine::Engine;
use super::read::{Answer, Start};
use super::{Refused, number};
use crate::record::{compare, parse_page};
use crate::source::ShardId;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bodies beyond this would not fit the machines this runs on.
const MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// How much is made beforehand, in every shard the simulator begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// GetRecords answers per shard.
    pub pages: usize,
    /// Records in each.
    pub records_per_page: usize,
    /// About the bytes of a record's JSON on the wire; a record with both images has no
    /// less than about 1,100.
    pub record_bytes: usize,
    /// How many different items are changed in turn.
    pub items: usize,
    /// Whether the shards stay open behind the last page, so that more can be put.
    /// Otherwise they are closed and the last page has no next iterator.
    pub open: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        // 700 records of this size are just under the service's megabyte.
        Self { pages: 100, records_per_page: 700, record_bytes: 1400, items: 10_000, open: false }
    }
}

impl LoadOptions {
    pub(super) fn check(&self, shards: usize) -> Result<(), Refused> {
        if self.pages == 0 || self.items == 0 || !(1..=1000).contains(&self.records_per_page) {
            return Err(Refused::new(
                "a load has at least one page and item, and from 1 to 1000 records per page",
            ));
        }
        let bytes = [shards, self.pages, self.records_per_page, self.record_bytes.max(500)]
            .into_iter()
            .try_fold(1_u64, |product, factor| product.checked_mul(factor as u64));
        if bytes.is_none_or(|bytes| bytes > MAX_BYTES) {
            return Err(Refused::new("the load's pages must not exceed 16 GiB together"));
        }
        Ok(())
    }
}

/// All prepared pages.
pub(super) struct Load {
    /// What every iterator begins with.
    prefix: String,
    shards: Vec<Prepared>,
}

struct Prepared {
    id: ShardId,
    pages: Vec<PreparedPage>,
    /// Seconds since the epoch, of all records.
    created: u64,
    records: usize,
    reads: AtomicU64,
}

struct PreparedPage {
    body: Bytes,
    /// The number of its last record.
    last: u128,
}

/// A place in the prepared pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    shard: usize,
    page: usize,
    record: usize,
}

impl Load {
    /// Makes the pages of every shard of `engine`, which holds nothing yet.
    pub fn new(engine: &mut Engine, options: &LoadOptions) -> Self {
        let mut load = Self { prefix: format!("{}|2|", engine.stream), shards: Vec::new() };
        let mut serial = 0;
        let ids: Vec<ShardId> = engine.shards.keys().cloned().collect();
        for (shard, id) in ids.into_iter().enumerate() {
            let created = engine.wall_millis() / 1000;
            let mut pages = Vec::with_capacity(options.pages);
            for page in 0..options.pages {
                let mut records = Vec::with_capacity(options.records_per_page);
                for _ in 0..options.records_per_page {
                    let change = order(serial % options.items, serial, options, engine.view);
                    records.push(engine.render(&change, created).1);
                    serial += 1;
                }
                let next = if page + 1 < options.pages {
                    Some(load.encode(Cursor { shard, page: page + 1, record: 0 }))
                } else if options.open {
                    Some(engine.issue(id.clone(), engine.last_number, 0))
                } else {
                    None
                };
                let body = Answer { records, next }.render();
                pages.push(PreparedPage { body, last: engine.last_number });
            }
            if !options.open {
                engine.close(&id);
            }
            let records = options.pages * options.records_per_page;
            load.shards.push(Prepared { id, pages, created, records, reads: AtomicU64::new(0) });
        }
        load
    }

    /// An iterator into the prepared pages; `None` if `start` lies behind them. That the
    /// engine would accept `start` was checked.
    pub fn iterator(&self, shard: &ShardId, start: Start) -> Option<String> {
        let (index, prepared) =
            self.shards.iter().enumerate().find(|(_, prepared)| prepared.id == *shard)?;
        let after = match start {
            Start::TrimHorizon => None,
            Start::Timestamp(time) if time <= prepared.created * 1000 => None,
            Start::Latest | Start::Timestamp(_) => return None,
            Start::At(number) => Some(number - 1),
            Start::After(number) => Some(number),
        };
        let (page, record) = match after {
            None => (0, 0),
            Some(after) => {
                let page = prepared.pages.partition_point(|page| page.last <= after);
                let body = &prepared.pages.get(page)?.body;
                let after = number(after);
                let record = parse_page(body)
                    .expect("made here")
                    .records
                    .partition_point(|it| compare(it.sequence_digits(), after.as_str()).is_le());
                (page, record)
            }
        };
        Some(self.encode(Cursor { shard: index, page, record }))
    }

    /// The place a GetRecords request asks for, taken from its text without parsing it.
    pub fn cursor(&self, request: &[u8]) -> Option<Cursor> {
        const MEMBER: &[u8] = b"\"ShardIterator\"";
        let from = memchr::memmem::find(request, MEMBER)? + MEMBER.len();
        // Some clients write blanks between name, colon and value.
        let value = request[from..].trim_ascii_start().strip_prefix(b":")?;
        let value = value.trim_ascii_start().strip_prefix(b"\"")?;
        let length = memchr::memchr(b'"', value)?;
        let token = std::str::from_utf8(&value[..length]).ok()?;
        let mut parts = token.strip_prefix(&self.prefix)?.splitn(3, '.');
        let mut part = || parts.next()?.parse().ok();
        let cursor = Cursor { shard: part()?, page: part()?, record: part()? };
        self.shards.get(cursor.shard)?.pages.get(cursor.page)?;
        Some(cursor)
    }

    /// The answer at `cursor`.
    pub fn page(&self, cursor: Cursor) -> Bytes {
        let body = &self.shards[cursor.shard].pages[cursor.page].body;
        if cursor.record == 0 {
            return body.clone();
        }
        let page = parse_page(body).expect("made here");
        let rest = page.records.iter().skip(cursor.record);
        let records = rest.map(|record| record.as_bytes().clone()).collect();
        Answer { records, next: page.next_iterator }.render()
    }

    /// An answer without records that leaves the reader at `cursor`.
    pub fn empty_page(&self, cursor: Cursor) -> Bytes {
        Answer { records: Vec::new(), next: Some(self.encode(cursor)) }.render()
    }

    /// Counts a call at `cursor`; answers its shard.
    pub fn count(&self, cursor: Cursor) -> &ShardId {
        let shard = &self.shards[cursor.shard];
        shard.reads.fetch_add(1, Ordering::Relaxed);
        &shard.id
    }

    /// The calls so far, by shard.
    pub fn reads(&self) -> impl Iterator<Item = (&ShardId, u64)> {
        self.shards.iter().map(|shard| (&shard.id, shard.reads.load(Ordering::Relaxed)))
    }

    /// How many records were made for `shard`.
    pub fn records(&self, shard: &ShardId) -> usize {
        self.shards.iter().find(|prepared| prepared.id == *shard).map_or(0, |it| it.records)
    }

    fn encode(&self, cursor: Cursor) -> String {
        format!("{}{}.{}.{}", self.prefix, cursor.shard, cursor.page, cursor.record)
    }
}

/// A change of an order in a shop, about as large on the wire as asked for.
fn order(item: usize, serial: usize, options: &LoadOptions, view: StreamViewType) -> Change {
    let keys = json!({
        "PK": {"S": format!("customer#{:06}", item / 4)}, "SK": {"S": format!("order#{item:06}")},
    });
    let image = |version: usize, note: usize| -> Value {
        json!({
            "PK": keys["PK"], "SK": keys["SK"],
            "status": {"S": if version.is_multiple_of(2) { "paid" } else { "shipped" }},
            "version": {"N": version.to_string()},
            "total": {"N": format!("{}.{:02}", 10 + item % 990, version % 100)},
            "address": {"M": {
                "street": {"S": format!("Main Street {}", 1 + item % 200)},
                "city": {"S": "Springfield"},
                "zip": {"S": format!("{:05}", item % 100_000)},
            }},
            "lines": {"L": [
                {"M": {"sku": {"S": format!("sku-{:04}", item % 10_000)}, "count": {"N": "1"}}},
                {"M": {"sku": {"S": format!("sku-{:04}", serial % 10_000)}, "count": {"N": "2"}}},
            ]},
            "note": {"S": "the quick brown fox jumps over the lazy dog. ".chars().cycle().take(note).collect::<String>()},
        })
    };
    let images = match view {
        StreamViewType::KeysOnly => 0,
        StreamViewType::NewImage | StreamViewType::OldImage => 1,
        StreamViewType::NewAndOldImages => 2,
    };
    // What is not image in a record of this stream, to a few bytes.
    const ENVELOPE: usize = 380;
    let per_image = options.record_bytes.saturating_sub(ENVELOPE) / images.max(1);
    let note = per_image.saturating_sub(image(serial, 0).to_string().len());
    Change {
        kind: ChangeKind::Modify,
        new_image: Some(image(serial + 1, note)),
        old_image: Some(image(serial, note)),
        keys,
        user_identity: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Fault, FaultRule, Simulator};
    use crate::source::{IteratorPosition, Source};

    fn simulator(options: LoadOptions) -> Simulator {
        let arn = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap();
        Simulator::builder(arn).shards(2).load(options).build()
    }

    fn small() -> LoadOptions {
        LoadOptions { pages: 3, records_per_page: 4, items: 5, ..LoadOptions::default() }
    }

    /// The records' numbers, page by page, and the iterator left behind them.
    async fn read(
        simulator: &Simulator,
        shard: &ShardId,
        from: IteratorPosition,
    ) -> (Vec<Vec<String>>, Option<crate::source::ShardIterator>) {
        let mut pages = Vec::new();
        let mut next = Some(simulator.iterator(shard, &from).await.unwrap());
        while let Some(iterator) = next.take() {
            let page = simulator.records(&iterator).await.unwrap();
            if page.records.is_empty() && page.next.is_some() {
                return (pages, page.next);
            }
            pages.push(page.records.iter().map(|it| it.sequence_digits().to_owned()).collect());
            next = page.next;
        }
        (pages, None)
    }

    #[tokio::test(start_paused = true)]
    async fn closed_shards_are_read_to_their_end_from_anywhere() {
        let simulator = simulator(small());
        for shard in simulator.describe().await.unwrap().shards {
            assert!(shard.closed);
            let (pages, next) = read(&simulator, &shard.id, IteratorPosition::TrimHorizon).await;
            assert!(next.is_none());
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4]);
            let all = pages.concat();
            assert!(all.windows(2).all(|pair| compare(&pair[0], &pair[1]).is_lt()));
            for (index, number) in all.iter().enumerate() {
                let after = IteratorPosition::After(number.parse().unwrap());
                let (rest, next) = read(&simulator, &shard.id, after).await;
                assert_eq!((rest.concat().as_slice(), next), (&all[index + 1..], None));
            }
        }
        let calls = simulator.calls();
        assert_eq!(calls.reads.values().sum::<u64>(), calls.get_records);
        assert!(simulator.shards().iter().all(|shard| shard.records == 12));
        assert!(simulator.try_put(&Change::item("a", 0)).is_err(), "no shard is open");
    }

    #[tokio::test(start_paused = true)]
    async fn open_shards_go_on_with_what_is_put() {
        let simulator = simulator(LoadOptions { open: true, ..small() });
        let put = simulator.put_item("a", 0);
        let shard = simulator.shard_of(&Change::item("a", 0).keys).unwrap();
        let (pages, next) = read(&simulator, &shard, IteratorPosition::TrimHorizon).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 1]);
        assert_eq!(pages[3], [put.as_str()]);
        let more = simulator.put_item("a", 1);
        let page = simulator.records(&next.unwrap()).await.unwrap();
        assert_eq!(page.records[0].sequence_number(), more);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_strike_prepared_pages_too() {
        let simulator = simulator(small());
        let shard = simulator.shards().remove(0).id;
        let iterator = simulator.iterator(&shard, &IteratorPosition::TrimHorizon).await.unwrap();
        simulator.faults().add(FaultRule::new(Fault::EmptyPage).shard(&shard).times(1));
        let page = simulator.records(&iterator).await.unwrap();
        assert!(page.records.is_empty());
        assert_eq!(simulator.records(&page.next.unwrap()).await.unwrap().records.len(), 4);
        simulator.faults().add(FaultRule::new(Fault::Throttle).times(1));
        assert!(simulator.records(&iterator).await.is_err());
    }

    #[test]
    fn a_cursor_is_taken_from_the_request_or_left_to_the_engine() {
        let mut engine = Engine::new(crate::simulator::engine::Origin {
            stream: "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap(),
            view: StreamViewType::KeysOnly,
            status: crate::source::StreamStatus::Enabled,
            shards: 1,
            first_number: 10_u128.pow(21),
            seed: 0,
            settings: crate::simulator::Settings::default(),
        });
        let load = Load::new(&mut engine, &small());
        let cursor = Cursor { shard: 0, page: 2, record: 1 };
        let request = |token: &str| format!(r#"{{"Limit":1000,"ShardIterator":"{token}"}}"#);
        let token = load.encode(cursor);
        assert_eq!(load.cursor(request(&token).as_bytes()), Some(cursor));
        for other in
            ["", "garbage", &token.replace("|2|0.2", "|2|0.3"), &token.replace("|2|", "|1|")]
        {
            assert_eq!(load.cursor(request(other).as_bytes()), None, "{other}");
        }
        let spaced = format!(r#"{{"ShardIterator" : "{token}", "Limit": 1000}}"#);
        assert_eq!(load.cursor(spaced.as_bytes()), Some(cursor));
        assert_eq!(load.cursor(br#"{"ShardIterator":1}"#), None);
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_as_large_and_items_as_many_as_asked_for() {
        for record_bytes in [1400, 5000] {
            let simulator =
                simulator(LoadOptions { record_bytes, records_per_page: 50, ..small() });
            let shard = simulator.shards().remove(0).id;
            let iterator =
                simulator.iterator(&shard, &IteratorPosition::TrimHorizon).await.unwrap();
            let page = simulator.records(&iterator).await.unwrap();
            for record in &page.records {
                let length = record.as_bytes().len();
                assert!(length.abs_diff(record_bytes) < 20, "{length} instead of {record_bytes}");
            }
            let keys: std::collections::BTreeSet<_> =
                page.records.iter().map(|record| record.keys().unwrap()).collect();
            assert_eq!(keys.len(), 5);
        }
    }
}
