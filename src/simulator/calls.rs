//! What was asked of the simulator, counted.
//!
//! Owns the counters and the bound on readers of a shard. A test that waits for a call
//! waits here, not on the clock.

use super::Operation;
use super::read::ApiError;
use super::settings::Settings;
use crate::source::ShardId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often the simulator was called, at one moment. Failed calls count too, and so do
/// those that suffered a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// ListStreams calls.
    pub list_streams: u64,
    /// DescribeStream calls; every page of a listing is one.
    pub describe_stream: u64,
    /// GetShardIterator calls.
    pub get_shard_iterator: u64,
    /// GetRecords calls.
    pub get_records: u64,
    /// GetRecords calls by shard, where the iterator named one.
    pub reads: BTreeMap<ShardId, u64>,
    /// How often each fault struck, by its name.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Calls {
    /// All calls together.
    pub fn total(&self) -> u64 {
        self.list_streams + self.describe_stream + self.get_shard_iterator + self.get_records
    }

    /// GetRecords calls on `shard`.
    pub fn reads_of(&self, shard: &ShardId) -> u64 {
        self.reads.get(shard).copied().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct Counters {
    operations: [AtomicU64; 4],
    shards: Mutex<BTreeMap<ShardId, Arc<Readers>>>,
    /// Told after every call was counted.
    pub counted: Notify,
}

#[derive(Default)]
struct Readers {
    total: AtomicU64,
    in_flight: AtomicU64,
    /// When the calls of the last second came; kept only under `reads_per_second`.
    recent: Mutex<VecDeque<Instant>>,
}

/// One GetRecords under way; counted out when it is dropped, so a client that goes away
/// is no reader any more.
pub(super) struct Reading(Arc<Readers>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Counters {
    pub fn count(&self, operation: Operation) {
        self.operations[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a GetRecords on `shard` in, or refuses it for too many readers.
    pub fn read(&self, shard: &ShardId, settings: &Settings) -> Result<Reading, ApiError> {
        let readers = {
            let mut shards = self.shards.lock().expect("no panic while held");
            Arc::clone(shards.entry(shard.clone()).or_default())
        };
        readers.total.fetch_add(1, Ordering::Relaxed);
        let others = readers.in_flight.fetch_add(1, Ordering::AcqRel);
        let reading = Reading(readers);
        let too_many = settings.readers_per_shard.is_some_and(|most| others >= u64::from(most))
            || settings.reads_per_second.is_some_and(|most| reading.0.too_fast(most as usize));
        if too_many {
            return Err(ApiError::client(
                "LimitExceededException",
                format!("Too many GetRecords calls on shard {shard} at the same time"),
            ));
        }
        Ok(reading)
    }

    pub fn snapshot(&self) -> Calls {
        let of = |operation: Operation| self.operations[operation as usize].load(Ordering::Relaxed);
        let shards = self.shards.lock().expect("no panic while held");
        Calls {
            list_streams: of(Operation::ListStreams),
            describe_stream: of(Operation::DescribeStream),
            get_shard_iterator: of(Operation::GetShardIterator),
            get_records: of(Operation::GetRecords),
            reads: shards
                .iter()
                .map(|(id, readers)| (id.clone(), readers.total.load(Ordering::Relaxed)))
                .collect(),
            faults: BTreeMap::new(),
        }
    }
}

impl Readers {
    fn too_fast(&self, most: usize) -> bool {
        let now = Instant::now();
        let mut recent = self.recent.lock().expect("no panic while held");
        while recent.pop_front_if(|at| now - *at >= Duration::from_secs(1)).is_some() {}
        if recent.len() >= most {
            return true;
        }
        recent.push_back(now);
        false
    }
}
