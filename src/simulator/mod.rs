//! A DynamoDB stream without DynamoDB, which does on request what a real one does rarely.
//!
//! Owns a stream that splits shards, rolls them over, trims, expires iterators, throttles
//! and fails: for tests, benchmarks, `streamgate local`, and for trying a handler against
//! a reshard. It is read in this process (it is a [`Source`](crate::source::Source)) or
//! over HTTP ([`Simulator::serve`]); both go through one way, [`Simulator`]'s `answer`.
//! See `docs/simulator.md`. Holds no table: changes are put, not computed from writes.

mod admin;
mod answer;
mod builder;
mod calls;
mod change;
mod engine;
mod fault;
mod load;
mod protocol;
mod read;
mod run;
mod server;
mod settings;
mod shard;
mod source;
mod token;

pub use builder::Builder;
pub use calls::Calls;
pub use change::{Change, ChangeKind, StreamViewType, UserIdentity};
pub use fault::{Fault, FaultRule, Faults};
pub use load::LoadOptions;
pub use run::{SimulateOptions, reshard, simulate};
pub use settings::{ListingOrder, Settings};

use crate::arn::StreamArn;
use crate::record::SequenceNumber;
use crate::source::{ShardId, StreamStatus};
use answer::Reply;
use calls::Counters;
use engine::Engine;
use load::Load;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// The operations of DynamoDB Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Streams of an account or table.
    ListStreams,
    /// A stream and a page of its shards.
    DescribeStream,
    /// A cursor into a shard.
    GetShardIterator,
    /// A page of records.
    GetRecords,
}

/// Why the simulator did not do what it was told. The sentence is for its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    fn unknown(shard: &ShardId) -> Self {
        Self(format!("there is no shard {shard}"))
    }
}

/// A shard as the simulator knows it, lags and filters aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardState {
    /// Its name.
    pub id: ShardId,
    /// The shard it continues.
    pub parent: Option<ShardId>,
    /// Whether it takes records.
    pub open: bool,
    /// Records it holds, trimmed ones aside.
    pub records: usize,
    /// StartingSequenceNumber.
    pub start: SequenceNumber,
    /// EndingSequenceNumber, once it is closed.
    pub end: Option<SequenceNumber>,
    /// The oldest and the newest record it holds.
    pub range: Option<(SequenceNumber, SequenceNumber)>,
    /// The newest record trimmed from it.
    pub trimmed_to: Option<SequenceNumber>,
}

/// A simulated stream. Clones are handles to the same one.
///
/// Methods that change the stream panic when told something impossible, which in a test
/// is the test's mistake; `try_put` and the admin interface answer [`Refused`] instead.
#[derive(Clone)]
pub struct Simulator(Arc<Inner>);

struct Inner {
    stream: StreamArn,
    engine: Mutex<Engine>,
    load: Option<Load>,
    faults: Faults,
    counters: Counters,
}

impl Simulator {
    /// The stream that is simulated.
    pub fn stream(&self) -> &StreamArn {
        &self.0.stream
    }

    /// Adds a record of `change`; answers its sequence number.
    ///
    /// # Panics
    /// If no table could make the change, or the stream is disabled.
    pub fn put(&self, change: &Change) -> SequenceNumber {
        expect(self.try_put(change))
    }

    /// Adds a record of `change`; answers its sequence number.
    ///
    /// # Errors
    /// [`Refused`] if no table could make the change, or the stream is disabled.
    pub fn try_put(&self, change: &Change) -> Result<SequenceNumber, Refused> {
        self.engine().put(change).map(number)
    }

    /// Puts [`Change::item`]: the `n`-th change of the item `pk`.
    pub fn put_item(&self, pk: &str, n: u64) -> SequenceNumber {
        self.put(&Change::item(pk, n))
    }

    /// The open shard that takes records of the item with these keys, if any is open.
    pub fn shard_of(&self, keys: &Value) -> Option<ShardId> {
        let place = change::place(keys);
        let engine = self.engine();
        engine.shards.iter().find(|(_, shard)| shard.takes(place)).map(|(id, _)| id.clone())
    }

    /// Closes an open shard and opens two children that share its items.
    pub fn split(&self, shard: &ShardId) -> [ShardId; 2] {
        expect(self.engine().split(shard))
    }

    /// Closes an open shard and opens one child for all its items.
    pub fn rollover(&self, shard: &ShardId) -> ShardId {
        expect(self.engine().rollover(shard))
    }

    /// Rolls every open shard over; answers the children.
    pub fn roll_all(&self) -> Vec<ShardId> {
        let mut engine = self.engine();
        let open: Vec<ShardId> = engine.open_shards().cloned().collect();
        open.iter().map(|shard| expect(engine.rollover(shard))).collect()
    }

    /// Drops a shard's records up to and including `up_to`; answers how many.
    pub fn trim(&self, shard: &ShardId, up_to: &SequenceNumber) -> usize {
        let up_to = up_to.as_str().parse().unwrap_or(u128::MAX);
        expect(self.engine().trim(shard, up_to))
    }

    /// Drops every record older than `age`; answers how many.
    pub fn trim_older_than(&self, age: Duration) -> usize {
        self.engine().trim_older_than(age)
    }

    /// Forgets a closed shard, as the service does a day after it closed.
    pub fn remove(&self, shard: &ShardId) {
        expect(self.engine().remove(shard));
    }

    /// Closes every shard without children; nothing can be put any more.
    pub fn disable(&self) {
        self.engine().disable();
    }

    /// Ends ENABLING: the shards are listed from now on.
    pub fn enable(&self) {
        expect(self.engine().enable());
    }

    /// Makes every iterator handed out so far an expired one.
    pub fn expire_iterators(&self) {
        self.engine().expire_iterators();
    }

    /// The service's clock: the wall's when the simulator was made, driven by tokio's since.
    /// While that is paused the wall runs ahead of it, and its times are in the future.
    pub fn now(&self) -> SystemTime {
        self.engine().now()
    }

    /// How the service behaves now.
    pub fn settings(&self) -> Settings {
        self.engine().settings.clone()
    }

    /// Changes how the service behaves.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings();
        change(&mut settings);
        expect(settings.check());
        self.engine().settings = settings;
    }

    /// Every shard not forgotten, oldest first.
    pub fn shards(&self) -> Vec<ShardState> {
        let mut engine = self.engine();
        engine.tidy();
        let prepared = |id: &ShardId| self.0.load.as_ref().map_or(0, |load| load.records(id));
        let state = |(id, shard): (&ShardId, &shard::ShardLog)| {
            let ends = shard.records().front().zip(shard.records().back());
            ShardState {
                id: id.clone(),
                parent: shard.parent.clone(),
                open: shard.is_open(),
                records: shard.records().len() + prepared(id),
                start: number(shard.start),
                end: shard.end.map(number),
                range: ends.map(|(first, last)| (number(first.number), number(last.number))),
                trimmed_to: shard.trimmed_to.map(number),
            }
        };
        engine.shards.iter().map(state).collect()
    }

    /// The open shards, oldest first.
    pub fn open_shards(&self) -> Vec<ShardId> {
        self.engine().open_shards().cloned().collect()
    }

    /// The rules by which calls fail.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// What was asked so far.
    pub fn calls(&self) -> Calls {
        let mut calls = Calls { faults: self.0.faults.injected(), ..self.0.counters.snapshot() };
        for (shard, reads) in self.0.load.iter().flat_map(Load::reads) {
            *calls.reads.entry(shard.clone()).or_default() += reads;
        }
        calls
    }

    /// Waits until what was asked meets `condition`. It is asked now and after each call.
    pub async fn called(&self, condition: impl Fn(&Calls) -> bool) {
        loop {
            let counted = self.0.counters.counted.notified();
            tokio::pin!(counted);
            counted.as_mut().enable();
            if condition(&self.calls()) {
                return;
            }
            counted.await;
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // What is impossible is refused before anything changes, so a panic over it while
        // the lock was held left the stream whole.
        self.0.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status_name(status: StreamStatus) -> &'static str {
    match status {
        StreamStatus::Enabling => "ENABLING",
        StreamStatus::Enabled => "ENABLED",
        StreamStatus::Disabling => "DISABLING",
        StreamStatus::Disabled => "DISABLED",
    }
}

fn number(number: u128) -> SequenceNumber {
    number.to_string().parse().expect("digits of a u128 are a sequence number")
}

fn expect<T>(result: Result<T, Refused>) -> T {
    result.unwrap_or_else(|refused| panic!("the simulator was told the impossible: {refused}"))
}

#[cfg(test)]
mod tests;
