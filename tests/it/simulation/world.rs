//! What all machines of a simulated world share: stream, table, network, and who watches.
//!
//! Owns no time of its own: everything here runs in one runtime, whose clock moves with the
//! machines'.

use super::handler::Mood;
use super::judge::Judge;
use super::network::Network;
use super::shared::SharedReads;
use super::table::Table;
use super::trace::Trace;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use streamgate::simulator::{Change, Simulator};
use streamgate::source::ShardId;
use tokio::runtime::Handle;

/// When every world begins.
pub fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub struct World {
    pub trace: Trace,
    pub network: Network,
    pub table: Table,
    pub shared_reads: SharedReads,
    pub simulator: Simulator,
    /// Where what is on its way lives: it outlives whoever has sent it.
    pub handle: Handle,
    judge: Mutex<Judge>,
    mood: Mutex<Mood>,
}

impl World {
    pub fn new(
        trace: Trace,
        network: Network,
        simulator: Simulator,
        judge: Judge,
        failover: Duration,
        handle: Handle,
    ) -> Self {
        let (judge, mood) = (Mutex::new(judge), Mutex::default());
        let (table, shared_reads) = (Table::new(failover), SharedReads::default());
        Self { trace, network, table, shared_reads, simulator, handle, judge, mood }
    }

    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().expect("no panic while held")
    }

    pub fn mood(&self) -> Mood {
        *self.mood.lock().expect("no panic while held")
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().expect("no panic while held") = mood;
    }

    /// The next change of the item `number`, which is called `name`.
    pub fn put(&self, number: usize, name: &str) {
        let mut judge = self.judge();
        self.put_change(&Change::item(name, judge.next_change(number)), Some(number), &mut judge);
    }

    /// A change of one of the consumer's own items.
    pub fn put_own(&self, change: &Change) {
        self.put_change(change, None, &mut self.judge());
    }

    fn put_change(&self, change: &Change, item: Option<usize>, judge: &mut Judge) {
        let shard = self.simulator.shard_of(&change.keys).expect("every place has an open shard");
        let sequence_number = self.simulator.put(change);
        judge.put(shard, &sequence_number, item);
    }

    /// The records of `shard` up to `number` leave the stream.
    pub fn trim(&self, shard: &ShardId, number: u128) {
        let table = self.table.snapshot();
        let durable = table.shards.get(shard).map(|item| &item.position);
        self.judge().trimmed(shard, number, durable);
        let number = number.to_string().parse().expect("digits");
        self.simulator.trim(shard, &number);
    }
}
