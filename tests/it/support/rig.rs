//! A consumer in this process: the simulator as its stream, a store in memory, a handler
//! that writes down what it gets. No sockets, so it runs on a paused clock.

use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamgate::arn::StreamArn;
use streamgate::batch::BatchSettings;
use streamgate::consumer::{Consumer, ConsumerError, ConsumerSettings};
use streamgate::deliver::{Batch, Handler, HandlerError, OnFailure, Response, RetrySettings};
use streamgate::filter::FilterCriteria;
use streamgate::lineage::StartingPosition;
use streamgate::polling::PollIntervals;
use streamgate::progress::Progress;
use streamgate::simulator::Simulator;
use streamgate::source::Source;
use streamgate::telemetry::metrics::Metrics;
use streamgate::telemetry::status::Board;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const ARN: &str =
    "arn:aws:dynamodb:eu-central-1:123456789012:table/people/stream/2026-01-02T03:04:05.678";

pub fn arn() -> StreamArn {
    ARN.parse().expect("well-formed")
}

/// Settings as the defaults have them, with small batches.
pub fn settings() -> ConsumerSettings {
    ConsumerSettings {
        stream: arn(),
        filter: FilterCriteria::default(),
        starting_position: StartingPosition::TrimHorizon,
        batches: BatchSettings { size: 100, window: Duration::ZERO },
        parallelization: 1,
        tumbling_window: None,
        handler_timeout: Duration::from_secs(60),
        retries: RetrySettings::default(),
        on_failure: OnFailure::Drop,
        poll_intervals: PollIntervals {
            min: Duration::from_millis(200),
            max: Duration::from_secs(1),
        },
        failover_time: Duration::from_secs(10),
        checkpoint_interval: Duration::from_secs(1),
        shutdown_grace: Duration::from_secs(25),
        max_buffered_bytes: 64 << 20,
        own_records_key: None,
    }
}

/// `rounds` changes of each of `items` items.
pub fn put_rounds(simulator: &Simulator, items: usize, rounds: std::ops::Range<u64>) {
    for n in rounds {
        for item in 0..items {
            simulator.put_item(&format!("item-{item}"), n);
        }
    }
}

/// One record as the handler got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub shard: String,
    pub pk: String,
    pub n: Option<u64>,
    pub sequence_number: String,
}

/// A handler that writes down what it gets, and can be told to misbehave.
#[derive(Default)]
pub struct Recorder {
    got: Mutex<Vec<Got>>,
    batches: Mutex<Vec<usize>>,
    more: Notify,
    stuck: AtomicBool,
    unstick: Notify,
    failures: Mutex<u32>,
    /// Batches with one of these `n` in them fail.
    poison: Mutex<BTreeSet<u64>>,
    /// The answer names the poison.
    is_partial: AtomicBool,
    /// Poison makes it panic.
    panics: AtomicBool,
    /// How many times it panics when it is asked for a turn.
    turn_panics: AtomicU32,
    /// The `n` of every record of every invocation.
    invocations: Mutex<Vec<Vec<u64>>>,
    /// Batches wait here when it is set.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    /// Batches with a record of one of these items wait until it is one no more.
    held: watch::Sender<BTreeSet<String>>,
    /// Items in batches that are being handled, each batch by itself.
    flying: Mutex<Vec<BTreeSet<String>>>,
    /// How long each batch takes.
    pub takes: Mutex<Duration>,
    /// The most batches at a time so far.
    most_at_once: AtomicUsize,
}

impl Recorder {
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Records in each batch that was taken.
    pub fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    /// The next batches fail so many times.
    pub fn fail(&self, times: u32) {
        *self.failures.lock().unwrap() = times;
    }

    /// Batches with one of these `n` in them fail from now on; `partial` answers say from
    /// which record on.
    pub fn poison(&self, poison: impl IntoIterator<Item = u64>, partial: bool) {
        *self.poison.lock().unwrap() = poison.into_iter().collect();
        self.is_partial.store(partial, Ordering::SeqCst);
    }

    /// Poison makes it panic instead, and so do its next turns so many times.
    pub fn panic(&self, turns: u32) {
        self.panics.store(true, Ordering::SeqCst);
        self.turn_panics.store(turns, Ordering::SeqCst);
    }

    /// The `n` of every record of every invocation.
    pub fn invocations(&self) -> Vec<Vec<u64>> {
        self.invocations.lock().unwrap().clone()
    }

    /// Batches with records of these items, and of no others, are held up from now on.
    pub fn hold<'a>(&self, items: impl IntoIterator<Item = &'a str>) {
        self.held.send_replace(items.into_iter().map(str::to_owned).collect());
    }

    /// How many batches are being handled.
    pub fn at_work(&self) -> usize {
        self.flying.lock().unwrap().len()
    }

    /// The most batches that were handled at the same time.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    pub fn stick(&self) {
        self.stuck.store(true, Ordering::SeqCst);
    }

    pub fn unstick(&self) {
        self.stuck.store(false, Ordering::SeqCst);
        self.unstick.notify_waiters();
    }

    /// Waits until `condition` holds of what was got.
    pub async fn until(&self, condition: impl Fn(&[Got]) -> bool) {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if condition(&self.got.lock().unwrap()) {
                return;
            }
            more.await;
        }
    }

    /// Waits until so many different records were got.
    pub async fn until_distinct(&self, count: usize) {
        self.until(|got| got.len() >= count && distinct(got) >= count).await;
    }
}

pub fn distinct(got: &[Got]) -> usize {
    let numbers: std::collections::HashSet<_> = got.iter().map(|g| &g.sequence_number).collect();
    numbers.len()
}

/// Each item's records came in order: at its first delivery, every record is the next.
pub fn assert_in_order(got: &[Got]) {
    let mut next: HashMap<&str, u64> = HashMap::new();
    for record in got {
        let n = record.n.expect("only counted items are put");
        let expected = next.entry(&record.pk).or_default();
        assert!(n <= *expected, "{} jumped to {n}, expected {expected}", record.pk);
        *expected = (*expected).max(n + 1);
    }
}

/// How often each record came.
pub fn deliveries(got: &[Got]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for record in got {
        *counts.entry(record.sequence_number.as_str()).or_default() += 1;
    }
    counts
}

pub fn read_event(shard: &str, event: &[u8]) -> Vec<Got> {
    let event: Value = serde_json::from_slice(event).expect("events are JSON");
    let records = event["Records"].as_array().expect("events have records");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    records
        .iter()
        .map(|record| Got {
            shard: shard.to_owned(),
            pk: text(&record["dynamodb"]["Keys"]["PK"]["S"]),
            n: record["dynamodb"]["NewImage"]["n"]["N"].as_str().and_then(|n| n.parse().ok()),
            sequence_number: text(&record["dynamodb"]["SequenceNumber"]),
        })
        .collect()
}

#[async_trait]
impl Handler for Recorder {
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let left = self.turn_panics.load(Ordering::SeqCst);
        if left > 0 {
            self.turn_panics.store(left - 1, Ordering::SeqCst);
            panic!("told to panic before its turn");
        }
        None
    }

    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let items: BTreeSet<String> =
            read_event("", &batch.event().to_vec()).into_iter().map(|record| record.pk).collect();
        let _flight = Flight::begin(self, &items);
        let mut held = self.held.subscribe();
        held.wait_for(|held| held.is_disjoint(&items)).await.expect("the recorder lives");
        let takes = *self.takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("never closed").forget();
        }
        loop {
            let unstick = self.unstick.notified();
            tokio::pin!(unstick);
            unstick.as_mut().enable();
            if !self.stuck.load(Ordering::SeqCst) {
                break;
            }
            unstick.await;
        }
        {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(HandlerError::failed("told to fail"));
            }
        }
        let mut records = read_event(batch.shard.as_str(), &batch.event().to_vec());
        let ns = records.iter().filter_map(|record| record.n).collect();
        self.invocations.lock().unwrap().push(ns);
        let poison = self.poison.lock().unwrap().clone();
        let is_poison = |record: &Got| record.n.is_some_and(|n| poison.contains(&n));
        let mut failed = Vec::new();
        if let Some(first) = records.iter().position(is_poison) {
            self.more.notify_waiters();
            assert!(!self.panics.load(Ordering::SeqCst), "told to panic");
            if !self.is_partial.load(Ordering::SeqCst) {
                return Err(HandlerError::failed("it has poison in it"));
            }
            let poisonous = records.iter().filter(|record| is_poison(record));
            failed = poisonous.map(|record| record.sequence_number.clone()).collect();
            records.truncate(first);
        }
        self.batches.lock().unwrap().push(records.len());
        self.got.lock().unwrap().extend(records);
        self.more.notify_waiters();
        Ok(Response::failed(failed))
    }
}

/// A batch that is being handled. An item in two of them at a time fails the test.
struct Flight<'a> {
    recorder: &'a Recorder,
    items: BTreeSet<String>,
}

impl<'a> Flight<'a> {
    fn begin(recorder: &'a Recorder, items: &BTreeSet<String>) -> Self {
        let mut flying = recorder.flying.lock().unwrap();
        let twice: Vec<_> = flying.iter().flat_map(|other| other.intersection(items)).collect();
        assert!(twice.is_empty(), "in two batches at a time: {twice:?}");
        flying.push(items.clone());
        recorder.most_at_once.fetch_max(flying.len(), Ordering::SeqCst);
        Self { recorder, items: items.clone() }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flying = self.recorder.flying.lock().unwrap();
        if let Some(at) = flying.iter().position(|items| *items == self.items) {
            flying.swap_remove(at);
        }
    }
}

/// A running consumer.
pub struct Running<H = Recorder> {
    pub handler: Arc<H>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    drain: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
}

/// Starts a consumer of `simulator` that keeps its progress in `progress`.
pub fn start(
    settings: ConsumerSettings,
    simulator: &Simulator,
    progress: impl Progress,
    handler: Arc<Recorder>,
) -> Running {
    start_with(settings, Arc::new(simulator.clone()), Arc::new(progress), handler)
}

pub fn start_with(
    settings: ConsumerSettings,
    source: Arc<dyn Source>,
    progress: Arc<dyn Progress>,
    handler: Arc<Recorder>,
) -> Running {
    start_for(settings, source, progress, handler)
}

/// The same for a handler of the test's own.
pub fn start_for<H: Handler>(
    settings: ConsumerSettings,
    source: Arc<dyn Source>,
    progress: Arc<dyn Progress>,
    handler: Arc<H>,
) -> Running<H> {
    let (metrics, board) = (Arc::new(Metrics::new()), Arc::new(Board::new()));
    let consumer = Consumer::new(
        settings,
        source,
        progress,
        Arc::clone(&handler) as Arc<dyn Handler>,
        Arc::clone(&metrics),
        Arc::clone(&board),
    );
    let drain = CancellationToken::new();
    let task = tokio::spawn(consumer.run(drain.clone()));
    Running { handler, metrics, board, drain, task }
}

impl<H> Running<H> {
    /// Asks for a stop and waits for it.
    pub async fn stop(self) {
        self.drain.cancel();
        self.task.await.expect("no panic").expect("a clean stop");
    }

    /// Asks for a stop.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// As `kill -9`: nothing is written any more.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// How it ends by itself.
    pub async fn ended(self) -> Result<(), ConsumerError> {
        self.task.await.expect("no panic")
    }
}

/// How many shards each of these reads.
pub fn held(workers: &[&Running]) -> Vec<i64> {
    workers.iter().map(|worker| worker.metrics.leases_held.get()).collect()
}

/// Waits until they read so many shards each, in whatever order. Gives how long it took.
pub async fn until_held(workers: &[&Running], expected: &[i64]) -> Duration {
    let all: i64 = expected.iter().sum();
    until("so many shards are read", || {
        let mut held = held(workers);
        assert!(held.iter().sum::<i64>() <= all, "a shard with two owners: {held:?}");
        held.sort_unstable();
        held == expected
    })
    .await
}

/// Waits until it is so, on a paused clock, where it may take ten minutes. Gives how long it
/// took.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = tokio::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(600), "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}
