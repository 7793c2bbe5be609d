//! Many shards of which most have nothing: few calls are under way, hot shards go first, and
//! no other is forgotten.

use crate::support::rig::{Recorder, arn, settings, start_with};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use streamgate::budget::CALLS_AT_ONCE;
use streamgate::progress::MemoryProgress;
use streamgate::simulator::{Calls, Fault, FaultRule, Operation, Simulator};
use streamgate::source::{
    IteratorPosition, Page, Shard, ShardId, ShardIterator, Source, SourceError, StreamDescription,
};

/// A stream whose reads take their time, and are counted while they do.
struct Slow {
    stream: Simulator,
    takes: Duration,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Slow {
    fn new(stream: &Simulator, takes: Duration) -> Arc<Self> {
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { stream: stream.clone(), takes, under_way, most })
    }
}

/// A call that may be dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Source for Slow {
    async fn describe(&self) -> Result<StreamDescription, SourceError> {
        self.stream.describe().await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        self.stream.children(parent).await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, SourceError> {
        self.stream.iterator(shard, position).await
    }

    async fn records(&self, iterator: &ShardIterator) -> Result<Page, SourceError> {
        self.most.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        let _under_way = UnderWay(&self.under_way);
        tokio::time::sleep(self.takes).await;
        self.stream.records(iterator).await
    }
}

fn shard_of_hot(stream: &Simulator) -> ShardId {
    let keys = serde_json::json!({"PK": {"S": "hot"}, "SK": {"S": "item"}});
    stream.shard_of(&keys).expect("a shard is open")
}

fn simulator(shards: usize) -> Simulator {
    Simulator::builder(arn()).shards(shards).seed(3).build()
}

#[tokio::test(start_paused = true)]
async fn few_calls_are_under_way_and_a_hot_shard_goes_first() {
    // As many calls as there may be bring a hundred and some pages a second, of five hundred.
    let (shards, takes) = (500, Duration::from_millis(400));
    let stream = simulator(shards);
    let source = Slow::new(&stream, takes);
    let handler = Arc::new(Recorder::default());
    let progress = Arc::new(MemoryProgress::new());
    let running = start_with(settings(), source.clone(), progress, Arc::clone(&handler));
    let is_read = |calls: &Calls| calls.reads.len() == shards;
    stream.called(|calls| is_read(calls) && calls.reads.values().all(|reads| *reads > 1)).await;
    let hot = shard_of_hot(&stream);
    let before = stream.calls();
    for n in 0..30 {
        stream.put_item("hot", n);
        handler.until_distinct(n as usize + 1).await;
    }
    let after = stream.calls();
    let reads = |shard: &ShardId| after.reads_of(shard) - before.reads_of(shard);
    let most_idle = after.reads.keys().filter(|shard| **shard != hot).map(reads).max();
    assert!(reads(&hot) >= 3 * most_idle.unwrap(), "{} of {most_idle:?}", reads(&hot));
    // The others wait for each other, and each has its turn.
    let again = |calls: &Calls| after.reads.iter().all(|(id, reads)| calls.reads_of(id) > *reads);
    stream.called(again).await;
    assert!(source.most.load(SeqCst) <= CALLS_AT_ONCE, "{:?}", source.most);
    // Hundreds wait for a place, and a stop waits for none of them.
    running.stop().await;
    assert_eq!(source.under_way.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_shards_whose_answers_hang_do_not_hold_a_hot_one_up() {
    let stream = simulator(200);
    let handler = Arc::new(Recorder::default());
    let source = Slow::new(&stream, Duration::ZERO);
    let running =
        start_with(settings(), source.clone(), Arc::new(MemoryProgress::new()), handler.clone());
    stream.put_item("hot", 0);
    handler.until_distinct(1).await;
    let hot = shard_of_hot(&stream);
    for shard in stream.open_shards().iter().filter(|shard| **shard != hot) {
        stream.faults().add(FaultRule::new(Fault::Hang).on(Operation::GetRecords).shard(shard));
    }
    for n in 1..50 {
        stream.put_item("hot", n);
        handler.until_distinct(n as usize + 1).await;
    }
    // None of the calls that hang has ended meanwhile.
    assert!(source.under_way.load(SeqCst) >= CALLS_AT_ONCE / 2);
    assert_eq!(running.metrics.read_retries.with_label_values(&["unavailable"]).get(), 0);
    running.stop().await;
}
