//! What all machines of a simulated world share: stream, table, network, and who watches.
//!
//! Owns no time of its own: everything here runs in one runtime, whose clock moves with the
//! machines'.

use super::handler::Mood;
use super::judge::Judge;
use super::network::Network;
use super::shared::SharedReads;
use super::sight::Sight;
use super::table::Table;
use super::trace::Trace;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use streamgate::simulator::{Change, Fault, Simulator};
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
    pub sight: Sight,
    /// Held by every request of an operator that may still arrive.
    pub on_its_way: Arc<()>,
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
        table: Table,
        handle: Handle,
    ) -> Self {
        let (judge, mood) = (Mutex::new(judge), Mutex::default());
        let (shared_reads, sight) = (SharedReads::default(), Sight::default());
        let on_its_way = Arc::default();
        Self {
            trace,
            network,
            table,
            shared_reads,
            sight,
            on_its_way,
            simulator,
            handle,
            judge,
            mood,
        }
    }

    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().expect("no panic while held")
    }

    /// Whether empty pages of a shard have always meant that there was no more.
    pub fn is_tip_sure(&self) -> bool {
        let has_failed = self.simulator.faults().injected().contains_key(Fault::EmptyPage.name());
        !has_failed && self.simulator.settings().empty_pages == 0
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
        let created = self.simulator.now().duration_since(SystemTime::UNIX_EPOCH);
        let created = created.expect("after it").as_secs();
        judge.put(shard, &sequence_number, item, created, self.trace.now());
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
