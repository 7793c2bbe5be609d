//! What becomes of batches that fail, by Lambda's rules: each case of the reference through
//! the whole consumer, on a paused clock, against a handler that is told what to refuse.

use crate::support::rig::{Recorder, Running, settings, start};
use std::sync::Arc;
use std::time::Duration;
use streamgate::consumer::ConsumerSettings;
use streamgate::deliver::RetrySettings;
use streamgate::progress::{MemoryProgress, Position, Progress};
use streamgate::simulator::{Change, Simulator};

const SECOND: Duration = Duration::from_secs(1);

/// Six records, `n` 0 to 5, in one shard, read as one batch by a consumer of these
/// settings, whose handler refuses what is poison.
struct Case {
    running: Running,
    progress: MemoryProgress,
    simulator: Simulator,
    handler: Arc<Recorder>,
}

impl Case {
    async fn start(retries: RetrySettings, poison: &[u64], partial: bool) -> Self {
        let handler = Recorder::default();
        handler.poison(poison.iter().copied(), partial);
        Self::of(retries, handler).await
    }

    async fn of(retries: RetrySettings, handler: Recorder) -> Self {
        let simulator = Simulator::builder(crate::support::rig::arn()).seed(3).build();
        for n in 0..6 {
            simulator.put_item("cat", n);
        }
        let (progress, handler) = (MemoryProgress::new(), Arc::new(handler));
        let settings = ConsumerSettings { retries, ..settings() };
        let running = start(settings, &simulator, progress.view(), Arc::clone(&handler));
        // What is put from here on is of a later batch.
        handler.until(|_| !handler.invocations().is_empty()).await;
        Self { running, progress, simulator, handler }
    }

    /// Waits for the record that comes after all this, and stops. Gives the `n` taken, in
    /// order, and how many were dropped by each reason.
    async fn end(self) -> (Vec<u64>, u64, u64) {
        self.simulator.put_item("cat", 99);
        self.handler.until(|got| got.iter().any(|got| got.n == Some(99))).await;
        let dropped =
            |reason| self.running.metrics.records_dropped.with_label_values(&[reason]).get();
        let counts = (dropped("retries"), dropped("age"));
        let got = self.handler.got().iter().filter_map(|got| got.n).filter(|n| *n < 99).collect();
        self.running.stop().await;
        let [shard] = &self.progress.load().await.unwrap()[..] else { panic!("one shard") };
        assert!(matches!(shard.position, Position::After(_)), "the position is past all of it");
        (got, counts.0, counts.1)
    }
}

fn retries(max_retries: u32, bisect: bool) -> RetrySettings {
    RetrySettings { max_retries: Some(max_retries), max_age: None, bisect }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_given_up_whole_after_its_retries() {
    let case = Case::start(retries(2, false), &[3], false).await;
    let invocations = vec![vec![0, 1, 2, 3, 4, 5]; 3];
    let handler = Arc::clone(&case.handler);
    assert_eq!(case.end().await, (vec![], 6, 0));
    assert_eq!(handler.invocations()[..3], invocations[..]);
    assert_eq!(handler.invocations()[3], [99], "and the next batch follows");
}

#[tokio::test(start_paused = true)]
async fn bisecting_finds_the_record_at_fault_and_loses_no_other() {
    let case = Case::start(retries(1, true), &[3], false).await;
    let handler = Arc::clone(&case.handler);
    assert_eq!(case.end().await, (vec![0, 1, 2, 4, 5], 1, 0));
    let expected: [&[u64]; 8] =
        [&[0, 1, 2, 3, 4, 5], &[0, 1, 2], &[3, 4, 5], &[3], &[3], &[4, 5], &[99], &[]];
    for (invocation, expected) in handler.invocations().iter().zip(expected) {
        assert_eq!(invocation, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partial_answer_takes_what_is_before_the_lowest_that_failed() {
    // All from the first that failed on comes again, those that succeeded too.
    let case = Case::start(retries(1, false), &[2, 4], true).await;
    let handler = Arc::clone(&case.handler);
    assert_eq!(case.end().await, (vec![0, 1], 4, 0));
    let expected: [&[u64]; 3] = [&[0, 1, 2, 3, 4, 5], &[2, 3, 4, 5], &[99]];
    assert_eq!(handler.invocations(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_partial_answer_with_bisecting_loses_only_what_fails() {
    let case = Case::start(retries(0, true), &[2, 4], true).await;
    assert_eq!(case.end().await, (vec![0, 1, 3, 5], 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_handler_is_a_failure_of_its_batch_and_of_nothing_else() {
    let handler = Recorder::default();
    handler.poison([3], false);
    handler.panic(0);
    let case = Case::of(retries(1, true), handler).await;
    let (handler, metrics) = (Arc::clone(&case.handler), Arc::clone(&case.running.metrics));
    // The consumer's stop is clean.
    assert_eq!(case.end().await, (vec![0, 1, 2, 4, 5], 1, 0));
    let expected: [&[u64]; 7] =
        [&[0, 1, 2, 3, 4, 5], &[0, 1, 2], &[3, 4, 5], &[3], &[3], &[4, 5], &[99]];
    assert_eq!(handler.invocations(), expected);
    let invocations = |outcome| metrics.invocations.with_label_values(&[outcome]).get();
    assert_eq!((invocations("error"), invocations("success")), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_handler_has_seen_the_batch_uses_up_no_retry() {
    let handler = Recorder::default();
    handler.panic(3);
    let case = Case::of(retries(0, false), handler).await;
    let (handler, metrics) = (Arc::clone(&case.handler), Arc::clone(&case.running.metrics));
    assert_eq!(case.end().await, (vec![0, 1, 2, 3, 4, 5], 0, 0));
    assert_eq!(handler.invocations().len(), 2);
    assert_eq!(metrics.invocations.with_label_values(&["error"]).get(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_is_given_up_and_the_position_waits_where_it_failed() {
    let case = Case::start(RetrySettings::default(), &[4], true).await;
    let handler = Arc::clone(&case.handler);
    handler.until(|_| handler.invocations().len() > 20).await;
    // What is before the record at fault need not come again, even after a crash.
    tokio::time::sleep(2 * SECOND).await;
    let fourth = handler.got()[3].sequence_number.parse().unwrap();
    let [shard] = &case.progress.load().await.unwrap()[..] else { panic!("one shard") };
    assert_eq!(shard.position, Position::After(fourth));
    handler.poison([], false);
    assert_eq!(case.end().await, (vec![0, 1, 2, 3, 4, 5], 0, 0));
}

#[tokio::test(start_paused = true)]
async fn records_that_are_too_old_are_given_up_and_the_rest_is_not() {
    let max_age = Some(60 * SECOND);
    let case =
        Case::start(RetrySettings { max_age, ..RetrySettings::default() }, &[2], false).await;
    tokio::time::sleep(30 * SECOND).await;
    case.simulator.put_item("cat", 6);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(case.end().await, (vec![6], 0, 6));
}

#[tokio::test(start_paused = true)]
async fn a_poison_record_in_one_shard_does_not_delay_the_others() {
    let simulator = Simulator::builder(crate::support::rig::arn()).shards(4).seed(3).build();
    for n in 0..200 {
        simulator.put_item(&format!("item-{n}"), n);
    }
    let handler = Arc::new(Recorder::default());
    handler.poison([7], false);
    let settings = ConsumerSettings {
        retries: RetrySettings { bisect: true, ..RetrySettings::default() },
        ..settings()
    };
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::clone(&handler));
    // Everything of three shards, and of the fourth what comes before the poison.
    let shard_of = |n: u64| {
        let keys = Change::item(&format!("item-{n}"), n).keys;
        simulator.shard_of(&keys).expect("every item has one")
    };
    let poisoned = shard_of(7);
    let others = (0..200).filter(|n| shard_of(*n) != poisoned).count();
    assert!((100..200).contains(&others), "{others}");
    let of_others = |got: &[crate::support::rig::Got]| {
        got.iter().filter(|got| got.shard != poisoned.as_str()).count()
    };
    handler.until(|got| of_others(got) == others).await;
    let before = handler.invocations().len();
    handler.until(|_| handler.invocations().len() > before + 10).await;
    assert!(handler.got().iter().all(|got| got.n != Some(7)));
    handler.poison([], false);
    handler.until_distinct(200).await;
    running.stop().await;
}
