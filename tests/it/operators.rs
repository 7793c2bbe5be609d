//! What operators ask for on a paused clock: pause, resume, seek, skip, and who carries it out.

use crate::support::rig::{
    Recorder, Running, arn, assert_in_order, put_rounds, settings, start, until, until_held,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::batch::BatchSettings;
use streamgate::consumer::ConsumerSettings;
use streamgate::deliver::{OnFailure, RetrySettings};
use streamgate::progress::letters;
use streamgate::progress::orders::{Order, Orders, Request, SeekTo};
use streamgate::progress::report::Report;
use streamgate::progress::{
    LeaseKey, MemoryProgress, NewShard, OWN_PREFIX, Position, Progress, Selection,
};
use streamgate::simulator::{Change, ChangeKind, Simulator};
use streamgate::source::ShardId;

const SECOND: Duration = Duration::from_secs(1);

/// A stream, the consumers' store and one handler for all of them.
struct Scene {
    simulator: Simulator,
    store: MemoryProgress,
    handler: Arc<Recorder>,
}

impl Scene {
    fn new(shards: usize) -> Self {
        let simulator = Simulator::builder(arn()).shards(shards).seed(7).build();
        Self { simulator, store: MemoryProgress::new(), handler: Arc::default() }
    }

    fn begin(&self) -> Running {
        start(settings(), &self.simulator, self.store.view(), Arc::clone(&self.handler))
    }

    /// Asks for something as an operator does.
    async fn ask(&self, order: Order) {
        let nonce = fastrand::u64(..1 << 53);
        let request = Request { order, by: "operator".to_owned(), nonce };
        self.store.order(&request).await.expect("it can be met");
    }

    /// The shard of the first record that was got.
    fn first_shard(&self) -> ShardId {
        self.handler.got()[0].shard.as_str().into()
    }

    /// The numbers of the records, in the order in which they were got.
    fn numbers(&self) -> Vec<u64> {
        self.handler.got().iter().filter_map(|got| got.n).collect()
    }

    async fn orders(&self) -> Orders {
        self.store.coordination().await.unwrap().orders
    }

    /// Waits until every move is carried out and settled.
    async fn until_settled(&self) {
        while !self.orders().await.moves.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until the worker says that it reads the shard no more, as was asked.
async fn until_paused(worker: &Running, shard: &ShardId) {
    until("the shard is paused", || {
        let picture = worker.board.to_json(SystemTime::now());
        picture["shards"][shard.as_str()]["state"] == "paused"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_a_shard_or_all_until_they_are_resumed() {
    let scene = Scene::new(4);
    let Scene { simulator, handler, .. } = &scene;
    let (first, second) = (scene.begin(), scene.begin());
    put_rounds(simulator, 20, 0..1);
    handler.until_distinct(20).await;
    until_held(&[&first, &second], &[2, 2]).await;
    let paused = scene.first_shard();
    scene.ask(Order::Pause(Some(paused.clone()))).await;
    let (owner, other) = match first.board.to_json(SystemTime::now())["shards"][paused.as_str()] {
        serde_json::Value::Null => (second, first),
        _ => (first, second),
    };
    until_paused(&owner, &paused).await;
    put_rounds(simulator, 20, 1..2);
    tokio::time::sleep(10 * SECOND).await;
    let of = |shard: &ShardId, n| {
        handler.got().iter().filter(|got| got.shard == shard.as_str() && got.n == Some(n)).count()
    };
    let others = handler.got().iter().filter(|got| got.n == Some(1)).count();
    assert_eq!(of(&paused, 1), 0);
    assert_eq!(others, 20 - of(&paused, 0), "the other shards go on");
    // Its owner leaves: it is paused with the next as well.
    owner.stop().await;
    until_paused(&other, &paused).await;
    scene.ask(Order::Pause(None)).await;
    for shard in simulator.open_shards() {
        until_paused(&other, &shard).await;
    }
    put_rounds(simulator, 20, 2..3);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(handler.got().iter().filter(|got| got.n == Some(2)).count(), 0);
    scene.ask(Order::Resume(None)).await;
    handler.until_distinct(60).await;
    other.stop().await;
    assert_in_order(&handler.got());
    assert_eq!(handler.got().len(), 60, "nothing was delivered twice");
}

#[tokio::test(start_paused = true)]
async fn a_skip_leaves_out_the_records_that_come_next_and_counts_them() {
    let scene = Scene::new(1);
    let Scene { simulator, handler, .. } = &scene;
    let running = scene.begin();
    put_rounds(simulator, 1, 0..3);
    handler.until_distinct(3).await;
    // The handler will never take number 3; 4 is skipped with it.
    handler.poison([3], false);
    put_rounds(simulator, 1, 3..8);
    let failed = || running.metrics.invocations.with_label_values(&["error"]).get();
    until("it was tried a few times", || failed() > 3).await;
    scene.ask(Order::Skip(scene.first_shard(), 2)).await;
    handler.until_distinct(6).await;
    assert_eq!(scene.numbers(), [0, 1, 2, 5, 6, 7]);
    assert_eq!(running.metrics.records_dropped.with_label_values(&["skipped"]).get(), 2);
    scene.until_settled().await;
    assert_eq!(scene.orders().await.past[0].request.by, "operator");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_skip_leaves_a_gap_to_be_found_and_kept_once() {
    let scene = Scene::new(1);
    let Scene { simulator, handler, .. } = &scene;
    let running = scene.begin();
    put_rounds(simulator, 1, 0..3);
    handler.until_distinct(3).await;
    let shard = scene.first_shard();
    scene.ask(Order::Pause(Some(shard.clone()))).await;
    until_paused(&running, &shard).await;
    put_rounds(simulator, 1, 3..5);
    let lost = simulator.put_item("item-0", 5);
    put_rounds(simulator, 1, 6..9);
    simulator.trim(&shard, &lost);
    scene.ask(Order::Skip(shard.clone(), 1)).await;
    scene.until_settled().await;
    scene.ask(Order::Resume(Some(shard))).await;
    handler.until(|got| got.last().is_some_and(|got| got.n == Some(8))).await;
    assert_eq!(scene.numbers(), [0, 1, 2, 6, 7, 8], "nothing was left to skip before the gap");
    assert_eq!(running.metrics.gaps.get(), 1, "a gap is told once");
    running.stop().await;
    let items = scene.store.load(Selection::All).await.unwrap();
    assert_eq!(items[0].gaps.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_seek_of_a_shard_moves_it_back_to_a_time_or_to_its_tip() {
    let scene = Scene::new(1);
    let Scene { simulator, handler, .. } = &scene;
    let running = scene.begin();
    put_rounds(simulator, 1, 0..3);
    handler.until_distinct(3).await;
    let shard = scene.first_shard();
    scene.ask(Order::SeekShard(shard.clone(), SeekTo::TrimHorizon)).await;
    handler.until(|got| got.len() == 6).await;
    // Far behind, it is sent to the tip.
    scene.ask(Order::Pause(Some(shard.clone()))).await;
    until_paused(&running, &shard).await;
    put_rounds(simulator, 1, 3..5);
    // Times of records are kept to the second.
    tokio::time::sleep(3 * SECOND).await;
    scene.ask(Order::SeekShard(shard.clone(), SeekTo::Latest)).await;
    scene.until_settled().await;
    scene.ask(Order::Resume(Some(shard))).await;
    put_rounds(simulator, 1, 5..6);
    handler.until(|got| got.len() >= 7).await;
    assert_eq!(scene.numbers(), [0, 1, 2, 0, 1, 2, 5]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_seek_of_the_stream_begins_anew_with_all_shards_in_order() {
    let scene = Scene::new(3);
    let Scene { simulator, handler, .. } = &scene;
    let (first, second) = (scene.begin(), scene.begin());
    put_rounds(simulator, 12, 0..2);
    handler.until_distinct(24).await;
    for shard in simulator.open_shards() {
        simulator.rollover(&shard);
    }
    put_rounds(simulator, 12, 2..4);
    handler.until_distinct(48).await;
    until_held(&[&first, &second], &[1, 2]).await;
    scene.ask(Order::SeekStream(SeekTo::TrimHorizon)).await;
    handler.until(|got| got.len() >= 96).await;
    let again = handler.got().split_off(48);
    assert_in_order(&again);
    assert_eq!(again.len(), 48, "all of it once more, parents first");
    assert_eq!(scene.orders().await.reset, None);
    until_held(&[&first, &second], &[1, 2]).await;
    scene.ask(Order::SeekStream(SeekTo::Latest)).await;
    while scene.orders().await.reset.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until_held(&[&first, &second], &[1, 2]).await;
    put_rounds(simulator, 12, 4..5);
    handler.until_distinct(60).await;
    assert_eq!(handler.got().len(), 108, "nothing old came again");
    first.stop().await;
    second.stop().await;
}

/// A worker that was asked to stop reading may have had the take of a child under way.
#[tokio::test(start_paused = true)]
async fn an_item_that_comes_late_after_a_seek_of_the_stream_counts_for_nothing() {
    let scene = Scene::new(1);
    put_rounds(&scene.simulator, 3, 0..2);
    scene.ask(Order::SeekStream(SeekTo::TrimHorizon)).await;
    let reset = scene.orders().await.reset.unwrap().id;
    scene.ask(Order::Reset(reset)).await;
    let key = LeaseKey::Shard(scene.simulator.open_shards()[0].as_str().into());
    let late = NewShard { parent: None, position: Position::ShardEnd, closed: true, epoch: 0 };
    scene.store.take(&key, None, &"another".into(), Some(&late)).await.unwrap();
    let running = scene.begin();
    scene.handler.until_distinct(6).await;
    running.stop().await;
}

/// On a table that streams to itself signs of life are records too: no page is empty.
#[tokio::test(start_paused = true)]
async fn a_skip_ends_at_the_tip_where_own_records_never_do() {
    let scene = Scene::new(1);
    let Scene { simulator, handler, .. } = &scene;
    let keys =
        serde_json::json!({"PK": {"S": format!("{OWN_PREFIX}skips")}, "SK": {"S": "worker"}});
    let image = Some(keys.clone());
    let kind = ChangeKind::Insert;
    let own = Change { kind, new_image: image, old_image: None, keys, user_identity: None };
    let stream = simulator.clone();
    let beats = tokio::spawn(async move {
        loop {
            stream.put(&own);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let running = scene.begin();
    put_rounds(simulator, 1, 0..3);
    handler.until_distinct(3).await;
    // Times of records are kept to the second.
    tokio::time::sleep(2 * SECOND).await;
    scene.ask(Order::Skip(scene.first_shard(), 1_000)).await;
    let settled = tokio::time::timeout(60 * SECOND, scene.until_settled()).await;
    settled.expect("there is no more to skip");
    put_rounds(simulator, 1, 3..5);
    handler.until_distinct(5).await;
    assert_eq!(scene.numbers(), [0, 1, 2, 3, 4]);
    running.stop().await;
    beats.abort();
}

/// Whoever gave it the lease died before it could tell, or could not remove what it had taken.
#[tokio::test(start_paused = true)]
async fn a_seek_of_the_stream_does_not_wait_for_who_knows_of_no_lease() {
    let scene = Scene::new(1);
    let Scene { simulator, handler, store, .. } = &scene;
    let running = scene.begin();
    put_rounds(simulator, 3, 0..2);
    handler.until_distinct(6).await;
    let item = store.load(Selection::All).await.unwrap().remove(0);
    let (key, owner) = (LeaseKey::Shard(item.shard), item.lease.owner.clone().unwrap());
    store.take(&key, Some(&item.lease), &owner, None).await.unwrap();
    scene.ask(Order::SeekStream(SeekTo::TrimHorizon)).await;
    let again = handler.until(|got| got.len() >= 12);
    tokio::time::timeout(60 * SECOND, again).await.expect("the stream begins anew");
    assert_eq!(scene.orders().await.reset, None);
    running.stop().await;
}

/// The take of a shard that the same worker held before may arrive once more when its item is
/// gone. Nobody would read it, and the seek would wait for it.
#[tokio::test(start_paused = true)]
async fn a_seek_of_the_stream_does_not_wait_for_an_item_that_its_worker_made_by_mistake() {
    let scene = Scene::new(1);
    let running = scene.begin();
    put_rounds(&scene.simulator, 3, 0..2);
    scene.handler.until_distinct(6).await;
    let item = scene.store.load(Selection::All).await.unwrap().remove(0);
    scene.ask(Order::SeekStream(SeekTo::TrimHorizon)).await;
    while !scene.store.load(Selection::All).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (key, worker) = (LeaseKey::Shard(item.shard), item.lease.owner.unwrap());
    let new = NewShard { parent: None, position: item.position, closed: false, epoch: 0 };
    scene.store.take(&key, None, &worker, Some(&new)).await.unwrap();
    let asked = tokio::time::Instant::now();
    while scene.orders().await.reset.is_some() {
        assert!(asked.elapsed() < 60 * SECOND, "it hangs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.handler.until(|got| got.len() >= 12).await;
    running.stop().await;
}

/// A call that hung may be carried out after many others.
#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_once_more_after_many_others_counts_once() {
    let scene = Scene::new(1);
    let shard = ShardId::from("s");
    let request =
        |nonce| Request { order: Order::Skip(shard.clone(), 1), by: "operator".to_owned(), nonce };
    for nonce in 0..500 {
        scene.store.order(&request(nonce)).await.unwrap();
    }
    let before = scene.orders().await;
    scene.ask(Order::Settle(before.moves.iter().map(|order| order.id).collect())).await;
    scene.store.order(&request(0)).await.unwrap();
    assert_eq!(scene.orders().await.moves, []);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_is_carried_out_by_who_leads_and_what_is_not_taken_stays() {
    let scene = Scene::new(1);
    let Scene { simulator, store, handler } = &scene;
    let retries = RetrySettings { max_retries: Some(0), ..RetrySettings::default() };
    let settings = ConsumerSettings {
        on_failure: OnFailure::Keep,
        retries,
        batches: BatchSettings { size: 1, window: Duration::ZERO },
        ..settings()
    };
    let running = start(settings, simulator, store.view(), Arc::clone(handler));
    handler.poison([0, 1], false);
    put_rounds(simulator, 1, 0..3);
    handler.until_distinct(1).await;
    let letters = letters::all(store).await.unwrap();
    assert_eq!(letters.len(), 2);
    let ended = async || {
        loop {
            let redrives = scene.orders().await.redrives;
            let last = redrives.last().expect("it was asked for");
            if let Some(outcome) = &last.ended {
                return (outcome.taken, outcome.left, outcome.why.clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Both of one item: while the first is left, the second waits for it.
    handler.poison([0], false);
    scene.ask(Order::Redrive(None)).await;
    let (taken, left, why) = ended().await;
    assert_eq!((taken, left), (0, 2));
    assert!(why.is_some(), "the first says why");
    handler.poison([], false);
    let first = letters[0].letter.id.clone();
    scene.ask(Order::Redrive(Some(first.clone()))).await;
    assert_eq!(ended().await, (1, 0, None));
    scene.ask(Order::Redrive(None)).await;
    assert_eq!(ended().await, (1, 0, None));
    assert_eq!(scene.numbers(), [2, 0, 1]);
    assert!(letters::all(store).await.unwrap().is_empty());
    scene.ask(Order::Redrive(Some(first))).await;
    let (taken, left, why) = ended().await;
    assert_eq!((taken, left), (0, 0));
    assert!(why.unwrap().contains("redriven or deleted"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_says_what_is_retried_and_what_waits_for_its_parent() {
    let scene = Scene::new(1);
    let Scene { simulator, store, handler } = &scene;
    put_rounds(simulator, 5, 0..1);
    let parent = simulator.open_shards()[0].clone();
    simulator.split(&parent);
    handler.poison([0], false);
    let running = scene.begin();
    let report = async || {
        let seen = store.coordination().await.unwrap();
        seen.workers.first().map(|member| member.sign.report.clone()).unwrap_or_default()
    };
    while report().await.retrying.is_empty() || report().await.waiting.is_empty() {
        tokio::time::sleep(SECOND).await;
    }
    let Report { retrying, retrying_in_all, waiting, waiting_in_all, delivered, .. } =
        report().await;
    assert_eq!((&retrying[0].shard, retrying_in_all, delivered), (&parent, 1, 0));
    assert!(retrying[0].attempts > 0 && !retrying[0].error.is_empty(), "{retrying:?}");
    assert_eq!(waiting_in_all, 2);
    assert!(waiting.iter().all(|one| one.parent == parent), "{waiting:?}");
    handler.poison([], false);
    handler.until_distinct(5).await;
    while report().await != (Report { delivered: 5, ..Report::default() }) {
        tokio::time::sleep(SECOND).await;
    }
    running.stop().await;
}
