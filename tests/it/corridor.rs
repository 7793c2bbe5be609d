//! From stream to handler on a paused clock: order, completeness, restarts, gaps, cost.

use crate::support::around::store_around;
use crate::support::rig::{
    Got, Recorder, arn, assert_in_order, put_rounds, settings, start, start_with,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::batch::BatchSettings;
use streamgate::consumer::{ConsumerError, ConsumerSettings};
use streamgate::lineage::StartingPosition;
use streamgate::progress::{
    MemoryFault, MemoryProgress, Position, Progress, ProgressError, Selection, ShardProgress,
};
use streamgate::record::SequenceNumber;
use streamgate::simulator::{
    Change, ChangeKind, Fault, FaultRule, ListingOrder, Operation, Simulator,
};
use streamgate::source::StreamStatus;
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

fn simulator(shards: usize) -> Simulator {
    Simulator::builder(arn()).shards(shards).seed(7).build()
}

#[tokio::test(start_paused = true)]
async fn three_generations_of_splits_listed_children_first_in_pages_of_three() {
    let simulator = simulator(2);
    simulator.set(|s| {
        s.listing_order = ListingOrder::ChildrenFirst;
        s.listing_page = 3;
    });
    for generation in 0..3 {
        put_rounds(&simulator, 40, generation * 5..generation * 5 + 5);
        for shard in simulator.open_shards() {
            simulator.split(&shard);
        }
    }
    put_rounds(&simulator, 40, 15..20);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(800).await;
    assert_in_order(&running.handler.got());
    assert_eq!(running.handler.got().len(), 800, "nothing came twice");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn splits_and_rollovers_while_reading_lose_nothing_and_cost_no_waiting() {
    let simulator = simulator(2);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    for generation in 0..4 {
        put_rounds(&simulator, 30, generation * 10..generation * 10 + 5);
        for (index, shard) in simulator.open_shards().iter().enumerate() {
            if index % 2 == 0 {
                simulator.split(shard);
            } else {
                simulator.rollover(shard);
            }
        }
        let before = tokio::time::Instant::now();
        put_rounds(&simulator, 30, generation * 10 + 5..generation * 10 + 10);
        running.handler.until_distinct(300 * (generation as usize + 1)).await;
        assert!(before.elapsed() < 2 * SECOND, "found without waiting for the next listing");
    }
    assert_in_order(&running.handler.got());
    assert_eq!(running.handler.got().len(), 1200);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_still_lists_as_open_beside_its_children_is_read_before_them() {
    let simulator = simulator(2);
    simulator.set(|s| {
        s.parent_lag = 3600 * SECOND;
        s.listing_order = ListingOrder::ChildrenFirst;
    });
    put_rounds(&simulator, 20, 0..3);
    for shard in simulator.open_shards() {
        simulator.split(&shard);
    }
    put_rounds(&simulator, 20, 3..6);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(120).await;
    assert_in_order(&running.handler.got());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn children_that_become_visible_late_are_found() {
    let simulator = simulator(1);
    simulator.set(|s| s.child_lag = 40 * SECOND);
    put_rounds(&simulator, 5, 0..2);
    simulator.split(&simulator.open_shards()[0]);
    put_rounds(&simulator, 5, 2..4);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(20).await;
    assert_in_order(&running.handler.got());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_the_child_filter_still_leads_to_the_children() {
    let simulator = simulator(1);
    simulator.set(|s| s.child_filter = false);
    put_rounds(&simulator, 5, 0..2);
    simulator.split(&simulator.open_shards()[0]);
    put_rounds(&simulator, 5, 2..4);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(20).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disabled_stream_is_read_to_its_end_and_then_left_in_peace() {
    let simulator = simulator(3);
    put_rounds(&simulator, 20, 0..3);
    simulator.disable();
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(60).await;
    simulator.called(|calls| calls.describe_stream > 4).await;
    let reads = simulator.calls().get_records;
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(simulator.calls().get_records, reads, "nothing is read that has ended");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_records_over_twenty_shards_with_a_tenth_of_the_calls_failing() {
    let simulator = simulator(20);
    simulator.set(|s| {
        s.page_records = 25;
        s.empty_pages = 1;
    });
    put_rounds(&simulator, 500, 0..20);
    for fault in [
        Fault::Throttle,
        Fault::LimitExceeded,
        Fault::InternalError,
        Fault::Reset,
        Fault::HalfAnswer,
        Fault::Malformed,
        Fault::ExpiredToken,
        Fault::Slow(SECOND),
    ] {
        simulator.faults().add(FaultRule::new(fault).probability(0.0125));
    }
    for fault in [Fault::ExpiredIterator, Fault::EmptyPage] {
        simulator.faults().add(FaultRule::new(fault).on(Operation::GetRecords).probability(0.02));
    }
    let settings = ConsumerSettings {
        batches: BatchSettings { size: 37, window: Duration::ZERO },
        ..settings()
    };
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::default());
    running.handler.fail(40);
    running.handler.until_distinct(10_000).await;
    assert_in_order(&running.handler.got());
    assert_eq!(running.handler.got().len(), 10_000, "a failed call delivers nothing twice");
    let faults = simulator.calls().faults;
    assert!(faults.len() >= 9, "every fault struck: {faults:?}");
    running.stop().await;
}

/// What comes after a kill lies behind the position that was durable then.
fn assert_begins_behind(durable: &[ShardProgress], got: &[Got]) {
    for item in durable {
        let Position::After(position) = &item.position else { continue };
        for record in got.iter().filter(|got| got.shard == item.shard.as_str()) {
            let number: SequenceNumber = record.sequence_number.parse().unwrap();
            assert!(number > *position, "{record:?} was checkpointed at {position}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killed_ten_times_delivers_everything_and_again_only_what_was_not_checkpointed() {
    let simulator = simulator(4);
    let store = MemoryProgress::new();
    let handler = Arc::new(Recorder::default());
    let settings = ConsumerSettings {
        batches: BatchSettings { size: 10, window: Duration::ZERO },
        ..settings()
    };
    let mut random = fastrand::Rng::with_seed(11);
    for life in 0..10 {
        put_rounds(&simulator, 50, life * 8..life * 8 + 8);
        let durable = store.view().load(Selection::All).await.unwrap();
        let delivered = handler.got().len();
        let gate = Arc::new(Semaphore::new(0));
        *handler.gate.lock().unwrap() = Some(Arc::clone(&gate));
        let mut goal = handler.batches().len();
        let running = start(settings.clone(), &simulator, store.view(), Arc::clone(&handler));
        // Some batches are taken and checkpointed, some are taken within the interval after
        // that, and the next of every shard is in flight when the worker dies.
        for _ in 0..2 {
            let batches = random.usize(1..16);
            gate.add_permits(batches);
            goal += batches;
            handler.until(|_| handler.batches().len() >= goal).await;
            tokio::time::sleep(SECOND / 10).await;
        }
        running.kill().await;
        assert_begins_behind(&durable, &handler.got()[delivered..]);
    }
    let (durable, delivered) =
        (store.view().load(Selection::All).await.unwrap(), handler.got().len());
    *handler.gate.lock().unwrap() = None;
    let running = start(settings, &simulator, store.view(), Arc::clone(&handler));
    handler.until_distinct(4000).await;
    assert_in_order(&handler.got());
    assert_begins_behind(&durable, &handler.got()[delivered..]);
    assert!(handler.got().len() > 4000, "the kills struck work in flight");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_under_load_delivers_nothing_twice() {
    let simulator = simulator(4);
    let store = MemoryProgress::new();
    let handler = Arc::new(Recorder::default());
    for life in 0..5 {
        put_rounds(&simulator, 50, life * 20..life * 20 + 20);
        let running = start(settings(), &simulator, store.view(), Arc::clone(&handler));
        let goal = handler.got().len() + 150;
        handler.until(|got| got.len() >= goal).await;
        running.stop().await;
    }
    let running = start(settings(), &simulator, store.view(), Arc::clone(&handler));
    handler.until_distinct(5000).await;
    running.stop().await;
    assert_eq!(handler.got().len(), 5000);
    assert_in_order(&handler.got());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_handler_and_not_longer_than_the_grace() {
    let simulator = simulator(1);
    put_rounds(&simulator, 5, 0..1);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.stick();
    simulator.called(|calls| calls.get_records > 0).await;
    let handler = Arc::clone(&running.handler);
    let asked = tokio::time::Instant::now();
    let stop = running.stop();
    let unstick = async {
        tokio::time::sleep(20 * SECOND).await;
        handler.unstick();
    };
    tokio::join!(stop, unstick);
    assert!(asked.elapsed() < 21 * SECOND);
    assert_eq!(handler.got().len(), 5);

    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.stick();
    running.metrics.records_invoked.reset();
    while running.metrics.records_invoked.get() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = tokio::time::Instant::now();
    running.drain();
    let error = running.ended().await.unwrap_err();
    assert!(matches!(error, ConsumerError::GracePassed { .. }), "{error}");
    assert!(asked.elapsed() < 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_handler_stops_the_reading_and_the_expired_iterators_are_renewed() {
    let simulator = simulator(8);
    for n in 0..400 {
        for item in 0..32 {
            let filler = "x".repeat(4000);
            let keys =
                serde_json::json!({"PK": {"S": format!("item-{item}")}, "SK": {"S": "item"}});
            let image = |n: u64| serde_json::json!({"PK": keys["PK"], "SK": keys["SK"], "n": {"N": n.to_string()}, "f": {"S": filler}});
            simulator.put(&Change {
                kind: if n == 0 { ChangeKind::Insert } else { ChangeKind::Modify },
                keys: keys.clone(),
                new_image: Some(image(n)),
                old_image: n.checked_sub(1).map(image),
                user_identity: None,
            });
        }
    }
    let budget = 8 << 20;
    let settings = ConsumerSettings {
        max_buffered_bytes: budget,
        handler_timeout: 24 * 3600 * SECOND,
        ..settings()
    };
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::default());
    running.handler.stick();
    simulator.called(|calls| calls.get_records >= 8).await;
    // Longer than an iterator lives.
    tokio::time::sleep(1200 * SECOND).await;
    let buffered = running.metrics.buffered_bytes.get();
    // A page may be a little larger than the megabyte set aside for it.
    assert!(buffered > 0 && buffered <= budget as i64 * 5 / 4, "{buffered}");
    let reads = simulator.calls().get_records;
    assert!(reads < 20, "no more was read than fits: {reads}");
    running.handler.unstick();
    running.handler.until_distinct(32 * 400).await;
    assert_in_order(&running.handler.got());
    assert_eq!(running.handler.got().len(), 32 * 400);
    assert!(running.metrics.read_retries.with_label_values(&["expired_iterator"]).get() > 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn trimmed_records_are_a_gap_that_is_counted_and_kept() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    put_rounds(&simulator, 1, 0..10);
    let running = start(settings(), &simulator, store.view(), Arc::default());
    running.handler.until_distinct(10).await;
    let last_read = running.handler.got()[9].sequence_number.clone();
    running.stop().await;

    put_rounds(&simulator, 1, 10..20);
    let [shard] = &simulator.open_shards()[..] else { panic!("one shard") };
    let lost = simulator.put_item("item-0", 20);
    put_rounds(&simulator, 1, 21..25);
    simulator.trim(shard, &lost);
    let running = start(settings(), &simulator, store.view(), Arc::default());
    running.handler.until_distinct(4).await;
    let first = running.handler.got()[0].clone();
    assert_eq!((first.n, running.metrics.gaps.get()), (Some(21), 1));
    running.stop().await;

    let items = store.view().load(Selection::All).await.unwrap();
    let [gap] = &items[0].gaps[..] else { panic!("one gap: {:?}", items[0]) };
    assert_eq!(gap.after.as_ref().unwrap().as_str(), last_read);
    assert_eq!(gap.resumed_at.as_ref().unwrap().as_str(), first.sequence_number);

    let running = start(settings(), &simulator, store.view(), Arc::default());
    put_rounds(&simulator, 1, 25..26);
    running.handler.until_distinct(1).await;
    assert_eq!(running.metrics.gaps.get(), 0, "a gap is told once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_vanished_is_a_gap_and_its_children_go_on() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    put_rounds(&simulator, 3, 0..3);
    let running = start(settings(), &simulator, store.view(), Arc::default());
    running.handler.until_distinct(9).await;
    running.stop().await;
    let parent = simulator.open_shards()[0].clone();
    put_rounds(&simulator, 3, 3..6);
    simulator.split(&parent);
    put_rounds(&simulator, 3, 6..9);
    simulator.remove(&parent);
    let running = start(settings(), &simulator, store.view(), Arc::default());
    running.handler.until_distinct(9).await;
    assert!(running.handler.got().iter().all(|got| got.n >= Some(6)));
    assert_eq!(running.metrics.gaps.get(), 1);
    running.stop().await;
    let items = store.view().load(Selection::All).await.unwrap();
    let vanished = items.iter().find(|item| item.shard == parent).unwrap();
    assert_eq!((vanished.position.clone(), vanished.gaps.len()), (Position::ShardEnd, 1));
}

#[tokio::test(start_paused = true)]
async fn latest_begins_at_the_tip_and_children_begin_at_their_start() {
    let simulator = simulator(2);
    put_rounds(&simulator, 10, 0..3);
    simulator.split(&simulator.open_shards()[0]);
    put_rounds(&simulator, 10, 3..5);
    // The times of records are cut to the second, so nothing older may share this one.
    tokio::time::sleep(2 * SECOND).await;
    let latest = ConsumerSettings { starting_position: StartingPosition::Latest, ..settings() };
    let store = MemoryProgress::new();
    let running = start(latest.clone(), &simulator, store.view(), Arc::default());
    simulator.called(|calls| calls.get_records >= 3).await;
    put_rounds(&simulator, 10, 5..8);
    simulator.split(&simulator.open_shards()[0]);
    put_rounds(&simulator, 10, 8..10);
    running.handler.until_distinct(50).await;
    assert!(running.handler.got().iter().all(|got| got.n >= Some(5)));
    running.stop().await;
    // What is written while it is away is not missed.
    put_rounds(&simulator, 10, 10..12);
    let running = start(latest, &simulator, store.view(), Arc::default());
    running.handler.until_distinct(20).await;
    assert!(running.handler.got().iter().all(|got| got.n >= Some(10)));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_starting_position_changed_later_cuts_no_hole() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    put_rounds(&simulator, 3, 0..2);
    let running = start(settings(), &simulator, store.view(), Arc::default());
    running.handler.until_distinct(6).await;
    running.stop().await;
    put_rounds(&simulator, 3, 2..4);
    simulator.split(&simulator.open_shards()[0]);
    put_rounds(&simulator, 3, 4..6);
    for shard in simulator.open_shards() {
        simulator.rollover(&shard);
    }
    put_rounds(&simulator, 3, 6..8);
    let latest = ConsumerSettings { starting_position: StartingPosition::Latest, ..settings() };
    let running = start(latest, &simulator, store.view(), Arc::default());
    running.handler.until_distinct(18).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn latest_on_a_stream_that_is_still_being_enabled_misses_nothing() {
    let simulator = Simulator::builder(arn()).status(StreamStatus::Enabling).build();
    let latest = ConsumerSettings { starting_position: StartingPosition::Latest, ..settings() };
    let running = start(latest, &simulator, MemoryProgress::new(), Arc::default());
    simulator.called(|calls| calls.describe_stream >= 2).await;
    simulator.enable();
    let enabled = tokio::time::Instant::now();
    put_rounds(&simulator, 5, 0..2);
    running.handler.until_distinct(10).await;
    assert!(enabled.elapsed() < 10 * SECOND, "an enabling stream is looked at often");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_the_service_does_not_know_for_a_while_is_not_given_up() {
    let simulator = simulator(1);
    put_rounds(&simulator, 5, 0..2);
    let unknown = FaultRule::new(Fault::NotFound);
    simulator.faults().add(unknown.clone().on(Operation::GetShardIterator).times(6));
    simulator.faults().add(unknown.on(Operation::GetRecords).times(3));
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(10).await;
    assert_eq!(running.metrics.gaps.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_less_than_the_failover_time_stops_nothing() {
    let simulator = simulator(2);
    let store = MemoryProgress::new();
    let view = Arc::new(store.view());
    let running = start_with(
        settings(),
        Arc::new(simulator.clone()),
        Arc::clone(&view) as Arc<dyn Progress>,
        Arc::default(),
    );
    put_rounds(&simulator, 10, 0..2);
    running.handler.until_distinct(20).await;
    for round in 1..20 {
        view.set_fault(MemoryFault::Unreachable);
        put_rounds(&simulator, 10, round * 2..round * 2 + 1);
        running.handler.until_distinct(round as usize * 20 + 10).await;
        tokio::time::sleep(4 * SECOND).await;
        view.set_fault(MemoryFault::None);
        simulator.split(&simulator.open_shards()[0]);
        put_rounds(&simulator, 10, round * 2 + 1..round * 2 + 2);
        running.handler.until_distinct(round as usize * 20 + 20).await;
        tokio::time::sleep(4 * SECOND).await;
    }
    assert_in_order(&running.handler.got());
    assert_eq!(running.handler.got().len(), 400, "nothing was started over");
    assert_eq!(running.metrics.leases_lost.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_refused_for_a_while_makes_it_unready_for_that_while() {
    let simulator = simulator(1);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    simulator.called(|calls| calls.get_records >= 3).await;
    simulator.faults().add(FaultRule::new(Fault::AccessDenied).on(Operation::DescribeStream));
    tokio::time::sleep(70 * SECOND).await;
    assert!(!running.board.troubles().is_empty());
    simulator.faults().clear();
    tokio::time::sleep(10 * SECOND).await;
    assert!(running.board.troubles().is_empty(), "{:?}", running.board.troubles());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_iterator_age_grows_while_nothing_can_be_read_and_is_zero_at_the_tip() {
    let simulator = simulator(1);
    simulator.set(|s| s.page_records = 5);
    put_rounds(&simulator, 1, 0..50);
    simulator.faults().add(FaultRule::new(Fault::Throttle).on(Operation::GetRecords).after(3));
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    running.handler.until_distinct(15).await;
    tokio::time::sleep(600 * SECOND).await;
    let age = || {
        running.board.measure(&running.metrics, streamgate::clock::now());
        running.metrics.iterator_age.get()
    };
    assert!(age() >= 600.0, "{}", age());
    assert!(!running.board.troubles().is_empty(), "it says that it cannot read");
    simulator.faults().clear();
    running.handler.until_distinct(50).await;
    let reads = simulator.calls().get_records;
    simulator.called(|calls| calls.get_records > reads + 2).await;
    assert_eq!(age(), 0.0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn progress_of_consumers_that_keep_it_elsewhere_is_not_delivered_either() {
    let simulator = simulator(1);
    let echo = Arc::new(Echo { inner: MemoryProgress::new(), simulator: simulator.clone() });
    let source = Arc::new(simulator.clone());
    // The partition key's name is asked of the stream.
    let settings = ConsumerSettings { own_records_key: None, ..settings() };
    let running = start_with(settings, source, echo as Arc<dyn Progress>, Arc::default());
    put_rounds(&simulator, 3, 0..2);
    running.handler.until_distinct(6).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(running.handler.got().len(), 6);
    assert!(running.metrics.records_own.get() > 10);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn latest_survives_a_kill_before_its_first_checkpoint() {
    let simulator = simulator(1);
    put_rounds(&simulator, 1, 0..3);
    tokio::time::sleep(2 * SECOND).await;
    let latest = ConsumerSettings { starting_position: StartingPosition::Latest, ..settings() };
    let store = MemoryProgress::new();
    let running = start(latest.clone(), &simulator, store.view(), Arc::default());
    simulator.called(|calls| calls.get_records >= 1).await;
    running.kill().await;
    put_rounds(&simulator, 1, 3..6);
    let running = start(latest, &simulator, store.view(), Arc::default());
    running.handler.until_distinct(3).await;
    assert!(running.handler.got().iter().all(|got| got.n >= Some(3)));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_timestamp_begins_there_whether_the_endpoint_knows_it_or_not() {
    for known in [true, false] {
        let simulator = simulator(1);
        simulator.set(|s| s.at_timestamp = known);
        put_rounds(&simulator, 5, 0..2);
        tokio::time::sleep(10 * SECOND).await;
        let now = simulator.now();
        put_rounds(&simulator, 5, 2..4);
        let start_at = SystemTime::UNIX_EPOCH
            + Duration::from_secs(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        let settings = ConsumerSettings {
            starting_position: StartingPosition::AtTimestamp(start_at),
            ..settings()
        };
        let running = start(settings, &simulator, MemoryProgress::new(), Arc::default());
        running.handler.until_distinct(10).await;
        assert!(running.handler.got().iter().all(|got| got.n >= Some(2)), "known: {known}");
        let skipped = running.metrics.records_before_start.get();
        assert_eq!(skipped, if known { 0 } else { 10 });
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batching_window_collects_and_zero_sends_what_is_there() {
    let simulator = simulator(1);
    let window = BatchSettings { size: 100, window: 20 * SECOND };
    let settings = ConsumerSettings { batches: window, ..settings() };
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::default());
    simulator.called(|calls| calls.get_records > 3).await;
    let begun = tokio::time::Instant::now();
    for n in 0..10 {
        simulator.put_item("a", n);
        tokio::time::sleep(SECOND).await;
    }
    running.handler.until_distinct(10).await;
    assert_eq!(running.handler.batches(), [10]);
    assert!(begun.elapsed() >= 20 * SECOND && begun.elapsed() < 23 * SECOND);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_batch_is_tried_again_in_order_and_shown() {
    let simulator = simulator(1);
    put_rounds(&simulator, 3, 0..2);
    let settings = ConsumerSettings {
        batches: BatchSettings { size: 2, window: Duration::ZERO },
        ..settings()
    };
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::default());
    running.handler.fail(5);
    running.handler.until_distinct(6).await;
    assert_in_order(&running.handler.got());
    assert_eq!(running.handler.batches(), [2, 2, 2]);
    assert_eq!(running.metrics.invocations.with_label_values(&["error"]).get(), 5);
    assert_eq!(running.metrics.records_invoked.get(), 6 + 5 * 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_ends_the_start_and_names_the_action() {
    for (operation, action) in [
        (Operation::DescribeStream, "dynamodb:DescribeStream"),
        (Operation::GetShardIterator, "dynamodb:GetShardIterator"),
        (Operation::GetRecords, "dynamodb:GetRecords"),
    ] {
        let simulator = simulator(2);
        simulator.faults().add(FaultRule::new(Fault::AccessDenied).on(operation));
        let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
        let error = running.ended().await.unwrap_err();
        let ConsumerError::Refused { action: named, .. } = error else { panic!("{error}") };
        assert_eq!(named, action);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_later_makes_it_unready_until_it_passes() {
    let simulator = simulator(1);
    let running = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    put_rounds(&simulator, 1, 0..1);
    running.handler.until_distinct(1).await;
    assert!(running.board.troubles().is_empty());
    simulator.faults().add(FaultRule::new(Fault::AccessDenied).on(Operation::GetRecords));
    simulator.called(|calls| calls.faults.values().sum::<u64>() >= 3).await;
    assert!(!running.board.troubles().is_empty());
    simulator.faults().clear();
    put_rounds(&simulator, 1, 1..2);
    running.handler.until_distinct(2).await;
    assert!(running.board.troubles().is_empty());
    running.stop().await;
}

/// A store whose writes come back as records of the stream: the table streams to itself.
struct Echo {
    inner: MemoryProgress,
    simulator: Simulator,
}

impl Echo {
    fn echo<T>(&self, item: &str, result: Result<T, ProgressError>) -> Result<T, ProgressError> {
        if result.is_ok() {
            self.simulator.put(&Change {
                kind: ChangeKind::Modify,
                keys: serde_json::json!({"PK": {"S": "streamgate#streamgate#label"}, "SK": {"S": item}}),
                new_image: None,
                old_image: None,
                user_identity: None,
            });
        }
        result
    }
}

macro_rules! echo {
    ($this:ident, reads, $call:expr) => {
        $call.await
    };
    ($this:ident, $item:literal, $call:expr) => {
        $this.echo($item, $call.await)
    };
}

macro_rules! echo_all {
    ($this:ident, $item:literal, $call:expr) => {
        $call.await.into_iter().map(|result| $this.echo($item, result)).collect()
    };
}

store_around!(Echo, inner, echo, echo_all);

#[tokio::test(start_paused = true)]
async fn an_idle_hour_on_a_table_that_streams_to_itself_writes_heartbeats_and_little_else() {
    let simulator = simulator(4);
    let store = MemoryProgress::new();
    let view = store.view();
    let echo = Arc::new(Echo { inner: view, simulator: simulator.clone() });
    let settings = ConsumerSettings { own_records_key: Some("PK".to_owned()), ..settings() };
    let source = Arc::new(simulator.clone());
    let running =
        start_with(settings, source, Arc::clone(&echo) as Arc<dyn Progress>, Arc::default());
    put_rounds(&simulator, 8, 0..1);
    running.handler.until_distinct(8).await;
    tokio::time::sleep(60 * SECOND).await;
    let before = echo.inner.writes();
    tokio::time::sleep(3600 * SECOND).await;
    let after = echo.inner.writes();
    let beats = after.heartbeats - before.heartbeats;
    let others = after.besides_heartbeats() - before.besides_heartbeats();
    assert!((1070..=1090).contains(&beats), "one every 3.33 s: {beats}");
    // At most one quiet write in five minutes for each shard that own records reach.
    assert!(others <= 4 * 12, "{others}: {before:?} {after:?}");
    assert_eq!(running.handler.got().len(), 8, "own records are not delivered");
    assert!(running.metrics.records_own.get() >= beats);
    running.stop().await;
}
