//! What the leader does with shards that nobody has, on a paused clock: after takes that
//! failed, and in which order.

use crate::support::around::store_around;
use crate::support::rig::{
    Recorder, Running, arn, assert_in_order, put_rounds, settings, start, until_held,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use streamgate::consumer::ConsumerSettings;
use streamgate::lineage::StartingPosition;
use streamgate::progress::MemoryProgress;
use streamgate::simulator::{Change, Simulator};
use streamgate::source::ShardId;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A store whose writes of leases fail after some, or take their time.
#[derive(Clone)]
struct Leases {
    inner: Arc<MemoryProgress>,
    written: Arc<AtomicUsize>,
    /// How many are still written before all others fail.
    enough: usize,
    failing: Arc<AtomicBool>,
    takes_ms: Arc<AtomicU64>,
}

impl Leases {
    fn new(inner: MemoryProgress) -> Self {
        Self {
            inner: Arc::new(inner),
            written: Arc::default(),
            enough: usize::MAX,
            failing: Arc::new(AtomicBool::new(true)),
            takes_ms: Arc::default(),
        }
    }

    fn fails(&self) -> bool {
        let before = self.written.fetch_add(1, Ordering::SeqCst);
        before >= self.enough && self.failing.load(Ordering::SeqCst)
    }
}

macro_rules! slow_or_failing {
    ($this:ident, "lease", $call:expr) => {{
        if $this.fails() {
            return Err(ProgressError::Unavailable("told to fail".to_owned()));
        }
        let takes = Duration::from_millis($this.takes_ms.load(Ordering::SeqCst));
        tokio::time::sleep(takes).await;
        $call.await
    }};
    ($this:ident, $what:tt, $call:expr) => {
        $call.await
    };
}

store_around!(Leases, inner, slow_or_failing, slow_or_failing);

/// Who takes the changes of an item now.
fn shard_of(simulator: &Simulator, item: &str) -> ShardId {
    simulator.shard_of(&Change::item(item, 0).keys).expect("some shard takes it")
}

fn latest() -> ConsumerSettings {
    ConsumerSettings { starting_position: StartingPosition::Latest, ..settings() }
}

/// Waits until a take was refused.
async fn until_one_failed(store: &Leases) {
    while store.written.load(Ordering::SeqCst) <= store.enough {
        tokio::time::sleep(SECOND / 50).await;
    }
}

/// Nobody reads the parent, so nobody takes the child: it must not be waited for until the
/// starting position counts as carried out.
#[tokio::test(start_paused = true)]
async fn latest_reads_nothing_from_its_beginning_where_a_take_failed() {
    let simulator = Simulator::builder(arn()).shards(1).seed(7).build();
    put_rounds(&simulator, 10, 0..3);
    simulator.split(&simulator.open_shards()[0]);
    put_rounds(&simulator, 10, 3..5);
    tokio::time::sleep(2 * SECOND).await;
    // The stream's lease and the parent's.
    let store = Leases { enough: 2, ..Leases::new(MemoryProgress::new()) };
    let running = start(latest(), &simulator, store.clone(), Arc::default());
    until_one_failed(&store).await;
    store.failing.store(false, Ordering::SeqCst);
    until_held(&[&running], &[2]).await;
    put_rounds(&simulator, 10, 5..6);
    running.handler.until_distinct(10).await;
    tokio::time::sleep(60 * SECOND).await;
    let got = running.handler.got();
    assert!(got.iter().all(|got| got.n == Some(5)), "nothing from before the tip: {got:?}");
    running.stop().await;
}

/// The starting position is carried out a second time after a take that failed, while a shard
/// that was begun at the tip the first time is read, and has split since.
#[tokio::test(start_paused = true)]
async fn latest_loses_nothing_of_the_children_of_what_is_read_where_a_take_failed() {
    let simulator = Simulator::builder(arn()).shards(2).seed(7).build();
    let read = simulator.open_shards()[0].clone();
    let in_it = |item: &String| shard_of(&simulator, item) == read;
    let items: Vec<String> = (0..40).map(|n| format!("item-{n}")).filter(in_it).collect();
    let put = |n| items.iter().for_each(|item| drop(simulator.put_item(item, n)));
    // The stream's lease and the first shard's.
    let store = Leases { enough: 2, ..Leases::new(MemoryProgress::new()) };
    let running = start(latest(), &simulator, store.clone(), Arc::default());
    until_held(&[&running], &[1]).await;
    until_one_failed(&store).await;
    // It is at the tip by then.
    simulator.called(|calls| calls.reads_of(&read) > 0).await;
    running.handler.stick();
    put(0);
    simulator.split(&read);
    put(1);
    tokio::time::sleep(2 * SECOND).await;
    // A listing shows the children.
    let listed = simulator.calls().describe_stream;
    simulator.called(|calls| calls.describe_stream > listed).await;
    store.failing.store(false, Ordering::SeqCst);
    until_held(&[&running], &[2]).await;
    tokio::time::sleep(30 * SECOND).await;
    running.handler.unstick();
    let all = running.handler.until_distinct(2 * items.len());
    tokio::time::timeout(120 * SECOND, all).await.expect("nothing is lost");
    assert_in_order(&running.handler.got());
    running.stop().await;
}

/// Puts a record of one item every tenth of a second, and counts them.
fn put_always(simulator: &Simulator, item: String) -> Arc<AtomicU64> {
    let (simulator, next) = (simulator.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&next);
    tokio::spawn(async move {
        loop {
            simulator.put_item(&item, count.fetch_add(1, Ordering::SeqCst));
            tokio::time::sleep(SECOND / 10).await;
        }
    });
    next
}

/// Two workers share 500 shards of which one has records, and the writing of a lease takes a
/// second from now on. Who has that shard, and the other.
async fn one_among_many() -> (Scene, Running, Running) {
    let simulator = Simulator::builder(arn()).shards(500).seed(7).build();
    let store = Leases::new(MemoryProgress::new());
    let handler: Arc<Recorder> = Arc::default();
    let begin = || start(settings(), &simulator, store.clone(), Arc::clone(&handler));
    let (first, second) = (begin(), begin());
    // The last of all by its name.
    let busy = simulator.open_shards().into_iter().max().expect("there are some");
    let in_it = |item: &String| shard_of(&simulator, item) == busy;
    let item = (0..).map(|n| format!("item-{n}")).find(in_it).expect("some item is in it");
    let next = put_always(&simulator, item);
    until_held(&[&first, &second], &[250, 250]).await;
    tokio::time::sleep(60 * SECOND).await;
    store.takes_ms.store(1000, Ordering::SeqCst);
    let (owner, other) = match first.board.to_json(SystemTime::now())["shards"].get(busy.as_str()) {
        Some(_) => (first, second),
        None => (second, first),
    };
    (Scene { handler, next }, owner, other)
}

struct Scene {
    handler: Arc<Recorder>,
    next: Arc<AtomicU64>,
}

impl Scene {
    /// How long it takes from now until a record is delivered that is put from now on.
    async fn goes_on(&self) -> Duration {
        let (began, next) = (Instant::now(), self.next.load(Ordering::SeqCst) + 1);
        self.handler.until(|got| got.iter().any(|got| got.n >= Some(next))).await;
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_records_does_not_wait_for_the_leases_of_hundreds_of_idle_shards_of_the_dead() {
    let (scene, owner, other) = one_among_many().await;
    owner.kill().await;
    let gap = scene.goes_on().await;
    // The failover time, a beat, and the takes of the stream and of the first sixteen.
    assert!(gap < 17 * SECOND, "{gap:?}");
    other.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_records_does_not_wait_for_the_hand_over_of_hundreds_of_idle_shards() {
    let (scene, owner, other) = one_among_many().await;
    owner.drain();
    let gap = scene.goes_on().await;
    assert!(gap < 3 * SECOND, "a hand-over of a second, and what is told: {gap:?}");
    other.kill().await;
    owner.kill().await;
}
