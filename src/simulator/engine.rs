//! The stream as data: shards, their lineage and what happens to them.
//!
//! Owns everything that changes the stream; what is asked of it is in `read`. No I/O and
//! no waiting: time is `tokio::time::Instant`, so a paused clock drives retention, lags
//! and iterators. Invariant: while the stream is not disabled, the open shards divide
//! the hash space without gap or overlap, so every item has exactly one open shard.

use super::change::{Change, Envelope, StreamViewType};
use super::settings::Settings;
use super::shard::{ShardLog, Stored};
use super::{Refused, status_name};
use crate::arn::StreamArn;
use crate::source::{ShardId, StreamStatus};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The most shards that may be open at once, against a splitter left running.
pub(super) const MAX_OPEN_SHARDS: usize = 10_000;
/// Sequence numbers rise by irregular steps of up to this.
const MAX_STEP: u128 = 9_999;

/// What the builder decides.
pub(super) struct Origin {
    pub stream: StreamArn,
    pub view: StreamViewType,
    pub status: StreamStatus,
    pub shards: usize,
    pub first_number: u128,
    pub seed: u64,
    pub settings: Settings,
}

pub(super) struct Engine {
    pub(super) stream: StreamArn,
    pub(super) view: StreamViewType,
    pub(super) status: StreamStatus,
    pub(super) settings: Settings,
    /// Ids sort by creation, so the map's order is the order of creation.
    pub(super) shards: BTreeMap<ShardId, ShardLog>,
    /// The highest number given to anything.
    pub(super) last_number: u128,
    /// Iterators of earlier generations are expired.
    pub(super) generation: u32,
    pub(super) started: Instant,
    pub(super) started_wall: SystemTime,
    random: fastrand::Rng,
    last_shard_millis: u64,
    /// Nothing is overtaken by age before this, while the retention is as it was then.
    fresh: Option<(Instant, Duration)>,
}

impl Engine {
    pub fn new(origin: Origin) -> Self {
        let mut engine = Self {
            stream: origin.stream,
            view: origin.view,
            status: origin.status,
            settings: origin.settings,
            shards: BTreeMap::new(),
            last_number: origin.first_number - 1,
            generation: 0,
            started: Instant::now(),
            started_wall: crate::clock::now(),
            random: fastrand::Rng::with_seed(origin.seed),
            last_shard_millis: 0,
            fresh: None,
        };
        let width = u64::MAX / origin.shards as u64;
        for index in 0..origin.shards {
            let low = index as u64 * width;
            let high =
                if index + 1 == origin.shards { u64::MAX } else { (index as u64 + 1) * width - 1 };
            // The first number of all is the first shard's, exactly as it was asked for.
            let start = if index == 0 { origin.first_number } else { engine.next_number() };
            engine.last_number = start;
            engine.open(None, (low, high), start, Duration::ZERO);
        }
        engine
    }

    /// Adds a record to the one open shard that takes its item.
    pub fn put(&mut self, change: &Change) -> Result<u128, Refused> {
        change.check()?;
        self.must_be_writable()?;
        self.tidy();
        let place = change.place();
        if !self.shards.values().any(|shard| shard.takes(place)) {
            return Err(Refused::new("no shard is open"));
        }
        let created = self.wall_millis() / 1000;
        let (number, bytes) = self.render(change, created);
        let record = Stored { number, bytes, created, put_at: Instant::now() };
        let shard = self.shards.values_mut().find(|shard| shard.takes(place));
        shard.expect("found above").push(record);
        Ok(number)
    }

    /// Gives `change` a number and makes its record; it is not put anywhere.
    pub(super) fn render(&mut self, change: &Change, created: u64) -> (u128, Bytes) {
        let number = self.next_number();
        let envelope = Envelope {
            region: self.stream.region(),
            view: self.view,
            number,
            created,
            event_id: self.random.u128(..),
        };
        (number, envelope.render(change))
    }

    /// Closes `shard` and opens two children, each with half of its range.
    pub fn split(&mut self, shard: &ShardId) -> Result<[ShardId; 2], Refused> {
        let (low, high) = self.must_be_open(shard)?.range;
        if low == high || self.open_shards().count() >= MAX_OPEN_SHARDS {
            return Err(Refused::new(format!("{shard} cannot be split any further")));
        }
        let middle = low + (high - low) / 2;
        self.close(shard);
        let [a, b] = [(low, middle), (middle + 1, high)].map(|range| self.child(shard, range));
        Ok([a, b])
    }

    /// Closes `shard` and opens one child with its range.
    pub fn rollover(&mut self, shard: &ShardId) -> Result<ShardId, Refused> {
        let range = self.must_be_open(shard)?.range;
        self.close(shard);
        Ok(self.child(shard, range))
    }

    /// Drops the records of `shard` up to and including `up_to`.
    pub fn trim(&mut self, shard: &ShardId, up_to: u128) -> Result<usize, Refused> {
        let log = self.shards.get_mut(shard).ok_or_else(|| Refused::unknown(shard))?;
        Ok(log.trim_while(|record| record.number <= up_to))
    }

    /// Drops the records older than `age` from every shard.
    pub fn trim_older_than(&mut self, age: Duration) -> usize {
        let now = Instant::now();
        self.shards
            .values_mut()
            .map(|shard| shard.trim_while(|record| now - record.put_at > age))
            .sum()
    }

    /// Forgets `shard`, as the service does a day after it closed. Its children keep
    /// naming it as their parent.
    pub fn remove(&mut self, shard: &ShardId) -> Result<(), Refused> {
        if self.shards.get(shard).ok_or_else(|| Refused::unknown(shard))?.is_open() {
            return Err(Refused::new(format!("{shard} is open; only closed shards expire")));
        }
        self.shards.remove(shard);
        Ok(())
    }

    /// Closes every shard without children; nothing can be put any more.
    pub fn disable(&mut self) {
        let open: Vec<ShardId> = self.open_shards().cloned().collect();
        for shard in &open {
            self.close(shard);
        }
        self.status = StreamStatus::Disabled;
    }

    /// Ends ENABLING: the shards are listed from now on.
    pub fn enable(&mut self) -> Result<(), Refused> {
        if self.status == StreamStatus::Disabled {
            return Err(Refused::new(
                "a disabled stream stays disabled; enabling makes a new stream with a new ARN",
            ));
        }
        self.status = StreamStatus::Enabled;
        Ok(())
    }

    /// Makes every iterator handed out so far an expired one.
    pub fn expire_iterators(&mut self) {
        self.generation += 1;
    }

    pub fn open_shards(&self) -> impl Iterator<Item = &ShardId> {
        self.shards.iter().filter(|(_, shard)| shard.is_open()).map(|(id, _)| id)
    }

    /// The open shard that takes the most items, the oldest of several.
    pub fn widest_shard(&self) -> Option<ShardId> {
        let width = |id: &&ShardId| {
            let (low, high) = self.shards[*id].range;
            high - low
        };
        let mut open: Vec<&ShardId> = self.open_shards().collect();
        // `max_by_key` takes the last of equals.
        open.reverse();
        open.into_iter().max_by_key(width).cloned()
    }

    /// Trims and forgets what is older than the retention. Looks at the shards only when
    /// something may be: with thousands of them a look at each call is all it would do.
    pub(super) fn tidy(&mut self) {
        let (now, retention) = (Instant::now(), self.settings.retention);
        if self.fresh.is_some_and(|(until, under)| now <= until && retention == under) {
            return;
        }
        // What comes later is overtaken later.
        let mut oldest = now;
        self.shards.retain(|_, shard| {
            shard.trim_while(|record| now - record.put_at > retention);
            let first = shard.records().front().map(|record| record.put_at);
            oldest = oldest.min(first.unwrap_or(now)).min(shard.closed_at.unwrap_or(now));
            shard.closed_at.is_none_or(|closed| now - closed <= retention)
        });
        self.fresh = Some((oldest + retention, retention));
    }

    /// The wall's time when the stream was made, and what passed since on tokio's clock.
    pub(super) fn now(&self) -> SystemTime {
        self.started_wall + (Instant::now() - self.started)
    }

    /// [`Self::now`] in milliseconds since the epoch.
    pub(super) fn wall_millis(&self) -> u64 {
        self.now().duration_since(UNIX_EPOCH).map_or(0, millis)
    }

    fn next_number(&mut self) -> u128 {
        self.last_number += self.random.u128(1..=MAX_STEP);
        self.last_number
    }

    /// Sets the end of an open shard.
    pub(super) fn close(&mut self, shard: &ShardId) {
        let end = self.next_number();
        let log = self.shards.get_mut(shard).expect("checked by the caller");
        log.end = Some(end);
        log.closed_at = Some(Instant::now());
    }

    fn child(&mut self, parent: &ShardId, range: (u64, u64)) -> ShardId {
        let start = self.next_number();
        self.open(Some(parent.clone()), range, start, self.settings.child_lag)
    }

    fn open(
        &mut self,
        parent: Option<ShardId>,
        range: (u64, u64),
        start: u128,
        lag: Duration,
    ) -> ShardId {
        // Two shards of one millisecond would not sort by creation.
        let millis = self.wall_millis().max(self.last_shard_millis + 1);
        self.last_shard_millis = millis;
        let id =
            ShardId::from(format!("shardId-{millis:020}-{:08x}", self.random.u32(..)).as_str());
        let log = ShardLog::open(parent, range, start, Instant::now() + lag);
        self.shards.insert(id.clone(), log);
        id
    }

    fn must_be_writable(&self) -> Result<(), Refused> {
        match self.status {
            StreamStatus::Enabling | StreamStatus::Enabled => Ok(()),
            status => Err(Refused::new(format!("the stream is {}", status_name(status)))),
        }
    }

    fn must_be_open(&self, shard: &ShardId) -> Result<&ShardLog, Refused> {
        let log = self.shards.get(shard).ok_or_else(|| Refused::unknown(shard))?;
        if log.is_open() {
            Ok(log)
        } else {
            Err(Refused::new(format!("{shard} is closed already")))
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
