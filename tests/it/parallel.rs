//! PARALLELIZATION_FACTOR: several batches of a shard at a time, an item in one of them at
//! most and in order, and the position at the contiguous frontier.

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::rig::{
    Recorder, arn, assert_in_order, deliveries, distinct, put_rounds, settings, start,
};
use crate::support::stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use streamgate::batch::BatchSettings;
use streamgate::consumer::ConsumerSettings;
use streamgate::progress::{MemoryProgress, Position, Progress, Selection};
use streamgate::simulator::{Change, ChangeKind, Simulator};

const SECOND: Duration = Duration::from_secs(1);

fn simulator(shards: usize) -> Simulator {
    Simulator::builder(arn()).shards(shards).seed(5).build()
}

fn ten_lanes(size: usize) -> ConsumerSettings {
    let batches = BatchSettings { size, window: Duration::ZERO };
    ConsumerSettings { parallelization: 10, batches, ..settings() }
}

/// The only shard's position, once it is what it shall be.
async fn position_is(progress: &MemoryProgress, expected: &Position) {
    loop {
        if let [shard] = &progress.load(Selection::All).await.unwrap()[..]
            && shard.position == *expected
        {
            return;
        }
        tokio::time::sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn up_to_ten_batches_of_a_shard_are_delivered_at_once_and_items_stay_in_order() {
    let (simulator, handler) = (simulator(1), Arc::new(Recorder::default()));
    *handler.takes.lock().unwrap() = SECOND / 200;
    put_rounds(&simulator, 200, 0..4);
    let running = start(ten_lanes(3), &simulator, MemoryProgress::new(), Arc::clone(&handler));
    handler.until_distinct(800).await;
    // The recorder itself fails where an item is in two batches at a time.
    assert_eq!(handler.most_at_once(), 10);
    assert_in_order(&handler.got());
    assert!(deliveries(&handler.got()).values().all(|count| *count == 1));
    assert!(handler.batches().iter().all(|size| *size <= 3));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_stands_still_stops_no_other_and_holds_the_position_before_it() {
    let (simulator, progress) = (simulator(1), MemoryProgress::new());
    let handler = Arc::new(Recorder::default());
    handler.hold(["stuck"]);
    // Of another lane than the next.
    let before = simulator.put_item("item-1", 0);
    simulator.put_item("stuck", 0);
    let running = start(ten_lanes(10), &simulator, progress.view(), Arc::clone(&handler));
    put_rounds(&simulator, 30, 1..40);
    // Those that share its lane wait with it; all others come.
    let others = |got: &[crate::support::rig::Got]| {
        (1..30)
            .filter(|n| got.iter().any(|g| g.pk == format!("item-{n}") && g.n == Some(39)))
            .count()
    };
    handler.until(|got| others(got) >= 20).await;
    assert!(!handler.got().iter().any(|got| got.pk == "stuck"));
    // Everything before the stuck record is finished, and nothing behind it counts.
    let before = Position::After(before);
    position_is(&progress, &before).await;
    tokio::time::sleep(60 * SECOND).await;
    position_is(&progress, &before).await;
    handler.hold([]);
    handler.until(|got| got.iter().any(|got| got.pk == "stuck")).await;
    let last = simulator.put_item("item-1", 40);
    position_is(&progress, &Position::After(last)).await;
    assert_eq!(distinct(&handler.got()), 2 + 30 * 39 + 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_with_lanes_apart_loses_nothing_and_keeps_the_order() {
    let (simulator, progress) = (simulator(1), MemoryProgress::new());
    let handler = Arc::new(Recorder::default());
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..12_u64 {
        let held: Vec<String> = (0..3).map(|_| format!("item-{}", random.u32(..25))).collect();
        handler.hold(held.iter().map(String::as_str));
        put_rounds(&simulator, 25, round * 4..round * 4 + 4);
        let running = start(ten_lanes(4), &simulator, progress.view(), Arc::clone(&handler));
        let before = handler.batches().len();
        handler.until(|_| handler.batches().len() > before + 8).await;
        running.kill().await;
    }
    handler.hold([]);
    let running = start(ten_lanes(4), &simulator, progress.view(), Arc::clone(&handler));
    handler.until_distinct(25 * 48).await;
    running.stop().await;
    assert_in_order(&handler.got());
}

#[tokio::test(start_paused = true)]
async fn shards_end_only_when_every_lane_has_delivered() {
    let (simulator, progress) = (simulator(1), MemoryProgress::new());
    let handler = Arc::new(Recorder::default());
    handler.hold(["item-3"]);
    put_rounds(&simulator, 20, 0..5);
    let [parent] = &simulator.open_shards()[..] else { panic!("one shard") };
    simulator.split(parent);
    put_rounds(&simulator, 20, 5..8);
    let running = start(ten_lanes(2), &simulator, progress.view(), Arc::clone(&handler));
    handler.until_distinct(60).await;
    tokio::time::sleep(600 * SECOND).await;
    assert!(handler.got().iter().all(|got| got.n < Some(5)), "children wait for their parent");
    handler.hold([]);
    handler.until_distinct(160).await;
    assert_in_order(&handler.got());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_falls_behind_holds_its_share_of_memory_and_other_shards_go_on() {
    let (simulator, handler) = (simulator(2), Arc::new(Recorder::default()));
    let settings = ConsumerSettings { max_buffered_bytes: 16 << 20, ..ten_lanes(100) };
    let put = |pk: &str, n: u64, filler: &str| {
        let keys = serde_json::json!({"PK": {"S": pk}, "SK": {"S": "a"}});
        let image = serde_json::json!({"PK": {"S": pk}, "SK": {"S": "a"}, "n": {"N": n.to_string()}, "f": {"S": filler}});
        let shard = simulator.shard_of(&keys).expect("an open shard");
        let (new_image, old_image) = (Some(image), None);
        simulator.put(&Change {
            kind: ChangeKind::Insert,
            keys,
            new_image,
            old_image,
            user_identity: None,
        });
        shard
    };
    // The poison and much else in one shard.
    let poisoned = put("stuck", 0, "");
    handler.hold(["stuck"]);
    let here = |n: u64| format!("item-{n}");
    let filler = "x".repeat(100_000);
    let mut elsewhere = 0;
    for n in 0..600 {
        elsewhere += usize::from(put(&here(n), 0, &filler) != poisoned);
    }
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::clone(&handler));
    handler
        .until(|got| got.iter().filter(|got| got.shard != poisoned.as_str()).count() == elsewhere)
        .await;
    // The shard with the stuck lane came some way, and was stopped by its share.
    tokio::time::sleep(60 * SECOND).await;
    let got = handler.got().len() - elsewhere;
    assert!((10..600 - elsewhere - 10).contains(&got), "{got} of {}", 600 - elsewhere);
    assert!(
        running.metrics.buffered_bytes.get() < 12 << 20,
        "{}",
        running.metrics.buffered_bytes.get()
    );
    handler.hold([]);
    handler.until_distinct(601).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_every_batch_in_flight() {
    let (simulator, progress) = (simulator(1), MemoryProgress::new());
    let handler = Arc::new(Recorder::default());
    handler.stick();
    put_rounds(&simulator, 40, 0..1);
    let running = start(ten_lanes(100), &simulator, progress.view(), Arc::clone(&handler));
    while handler.most_at_once() < 9 {
        tokio::time::sleep(SECOND).await;
    }
    running.drain();
    tokio::time::sleep(5 * SECOND).await;
    handler.unstick();
    running.ended().await.expect("a clean stop");
    assert_eq!(handler.got().len(), 40, "what was in flight was finished");
    let again = start(ten_lanes(100), &simulator, progress.view(), Arc::clone(&handler));
    put_rounds(&simulator, 1, 1..2);
    handler.until_distinct(41).await;
    assert_eq!(handler.got().len(), 41, "and written down: nothing came twice");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_posts_batches_of_a_shard_side_by_side() {
    let (stage, endpoint) = (Stage::new("parallel", 1).await, Endpoint::start().await);
    endpoint.usually(Answer::Hang);
    put_rounds(&stage.simulator, 60, 0..2);
    let variables =
        [("HANDLER", endpoint.url.as_str()), ("PARALLELIZATION_FACTOR", "10"), ("BATCH_SIZE", "2")];
    let consumer = stage.consumer(&variables).await;
    endpoint.until("ten at a time", |invocations| invocations.len() == 10).await;
    endpoint.release();
    endpoint.until_distinct(120).await;
    assert_in_order(&endpoint.got());
    assert_eq!(consumer.stop().await.code, Some(0));
}
