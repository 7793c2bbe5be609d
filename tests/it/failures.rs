//! What becomes of batches that fail, by Lambda's rules: each case of the reference through
//! the whole consumer, on a paused clock, against a handler that is told what to refuse.

use crate::support::endpoint::{Answer, Endpoint, Invocation};
use crate::support::rig::{Got, Recorder, Running, read_event, settings, start, start_for};
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamgate::batch::BatchSettings;
use streamgate::consumer::ConsumerSettings;
use streamgate::deliver::{
    Answers, Batch, Handler, HandlerError, HttpHandler, Response, RetrySettings,
};
use streamgate::polling::PollIntervals;
use streamgate::progress::{MemoryProgress, Position, Progress, Selection};
use streamgate::simulator::{Change, Simulator};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

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
        let [shard] = &self.progress.load(Selection::All).await.unwrap()[..] else {
            panic!("one shard")
        };
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
    let [shard] = &case.progress.load(Selection::All).await.unwrap()[..] else {
        panic!("one shard")
    };
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

/// How a scripted handler ends an invocation.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// It fails.
    Fail,
    /// It is not reached.
    Unreachable,
    /// It does not answer in time.
    Hang,
    /// It fails, and asks to be left alone for so many seconds.
    Busy(u64),
    /// It answers with this body, and reads it as its function's answer. `$2` stands for the
    /// sequence number of the record `n` = 2.
    Answer(&'static str),
}

/// A handler that ends its invocations as it is told, one after the other, and takes what
/// comes after that.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<Say>>,
    /// Digits of the sequence number of every `n`.
    numbers: Mutex<Vec<String>>,
    /// The `n` of every invocation, which attempt it was, and when it began.
    invocations: Mutex<Vec<(Vec<u64>, u32, Instant)>>,
    more: Notify,
}

impl Scripted {
    async fn until(&self, holds: impl Fn(&[(Vec<u64>, u32, Instant)]) -> bool) {
        let holds = async {
            while !holds(&self.invocations.lock().unwrap()) {
                self.more.notified().await;
            }
        };
        tokio::time::timeout(24 * 60 * 60 * SECOND, holds).await.expect("within a day");
    }
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let records = read_event(batch.shard.as_str(), &batch.event().to_vec());
        let ns: Vec<u64> = records.iter().filter_map(|record| record.n).collect();
        self.invocations.lock().unwrap().push((ns, batch.attempt, Instant::now()));
        self.more.notify_one();
        let say = self.script.lock().unwrap().pop_front();
        match say {
            None => Ok(Response::taken()),
            Some(Say::Fail) => Err(HandlerError::failed("told to fail")),
            Some(Say::Unreachable) => Err(HandlerError::not_invoked("nobody is there")),
            Some(Say::Hang) => std::future::pending().await,
            Some(Say::Busy(seconds)) => {
                let wait = Some(Duration::from_secs(seconds));
                Err(HandlerError::failed("busy").retry_after(wait))
            }
            Some(Say::Answer(body)) => {
                let numbers = self.numbers.lock().unwrap().clone();
                let body = numbers.iter().enumerate().fold(body.to_owned(), |body, (n, number)| {
                    body.replace(&format!("${n}"), number)
                });
                Response::read(body.as_bytes())
            }
        }
    }
}

/// Runs a consumer over six records of one shard, `n` 0 to 5, until it is past all of them.
/// Gives the invocations, and how many records were delivered and dropped.
async fn play(retries: RetrySettings, script: &[Say]) -> (Vec<(Vec<u64>, u32, Instant)>, u64, u64) {
    let simulator = Simulator::builder(crate::support::rig::arn()).seed(3).build();
    let numbers = (0..6).map(|n| simulator.put_item("cat", n).to_string()).collect();
    let handler = Arc::new(Scripted {
        script: Mutex::new(script.iter().copied().collect()),
        numbers: Mutex::new(numbers),
        ..Scripted::default()
    });
    let settings = ConsumerSettings { retries, ..settings() };
    let (source, progress) = (Arc::new(simulator.clone()), Arc::new(MemoryProgress::new()));
    let running = start_for(settings, source, progress.clone(), Arc::clone(&handler));
    handler.until(|invocations| !invocations.is_empty()).await;
    // What is put from here on is of a later batch.
    simulator.put_item("cat", 99);
    handler.until(|invocations| invocations.iter().any(|(ns, ..)| ns[..] == [99])).await;
    let metrics = Arc::clone(&running.metrics);
    running.stop().await;
    let mut invocations = handler.invocations.lock().unwrap().clone();
    assert_eq!(invocations.pop().map(|(ns, attempt, _)| (ns, attempt)), Some((vec![99], 1)));
    let dropped = metrics.records_dropped.with_label_values(&["retries"]).get();
    (invocations, metrics.records_delivered.get() - 1, dropped)
}

/// A row of the reference, as it plays on six records.
struct Row {
    says: &'static str,
    retries: RetrySettings,
    script: &'static [Say],
    /// The `n` of every invocation and which attempt it is.
    invocations: &'static [(&'static [u64], u32)],
    /// How many of the six are given up.
    dropped: u64,
}

const ALL: &[u64] = &[0, 1, 2, 3, 4, 5];
const FOR_EVER: RetrySettings = RetrySettings { max_retries: None, max_age: None, bisect: false };
const BISECT: RetrySettings = RetrySettings { bisect: true, ..FOR_EVER };
const ONCE: RetrySettings = RetrySettings { max_retries: Some(0), ..FOR_EVER };
const TWICE: RetrySettings = RetrySettings { max_retries: Some(1), ..FOR_EVER };
const BISECT_ONCE: RetrySettings = RetrySettings { bisect: true, ..ONCE };
const BISECT_TWICE: RetrySettings = RetrySettings { bisect: true, ..TWICE };

const ROWS: &[Row] = &[
    Row {
        says: "by default a batch comes until it is taken",
        retries: FOR_EVER,
        script: &[Say::Fail, Say::Fail, Say::Hang, Say::Fail],
        invocations: &[(ALL, 1), (ALL, 2), (ALL, 3), (ALL, 4), (ALL, 5)],
        dropped: 0,
    },
    Row {
        says: "no retries: given up after the first attempt, and the next batch follows",
        retries: ONCE,
        script: &[Say::Fail],
        invocations: &[(ALL, 1)],
        dropped: 6,
    },
    Row {
        says: "the last retry may still take it",
        retries: TWICE,
        script: &[Say::Fail],
        invocations: &[(ALL, 1), (ALL, 2)],
        dropped: 0,
    },
    Row {
        says: "no answer in time is a failed attempt",
        retries: TWICE,
        script: &[Say::Hang, Say::Hang],
        invocations: &[(ALL, 1), (ALL, 2)],
        dropped: 6,
    },
    Row {
        says: "a failure before the invocation costs no retry",
        retries: ONCE,
        script: &[Say::Unreachable, Say::Unreachable, Say::Unreachable],
        invocations: &[(ALL, 1), (ALL, 2), (ALL, 3), (ALL, 4)],
        dropped: 0,
    },
    Row {
        says: "nor does it give any back",
        retries: TWICE,
        script: &[Say::Fail, Say::Unreachable, Say::Fail],
        invocations: &[(ALL, 1), (ALL, 2), (ALL, 3)],
        dropped: 6,
    },
    Row {
        says: "a failure before the invocation halves nothing",
        retries: BISECT_ONCE,
        script: &[Say::Unreachable, Say::Unreachable],
        invocations: &[(ALL, 1), (ALL, 2), (ALL, 3)],
        dropped: 0,
    },
    Row {
        says: "a bisection costs no retry",
        retries: BISECT_ONCE,
        script: &[Say::Fail, Say::Fail],
        invocations: &[(ALL, 1), (&[0, 1, 2], 2), (&[0], 3), (&[1, 2], 3), (&[3, 4, 5], 2)],
        dropped: 0,
    },
    Row {
        says: "the record at fault has its retries",
        retries: BISECT_TWICE,
        script: &[Say::Fail, Say::Fail, Say::Fail, Say::Fail],
        invocations: &[
            (ALL, 1),
            (&[0, 1, 2], 2),
            (&[0], 3),
            (&[0], 4),
            (&[1, 2], 3),
            (&[3, 4, 5], 2),
        ],
        dropped: 1,
    },
    Row {
        says: "no answer in time is halved, too",
        retries: BISECT,
        script: &[Say::Hang],
        invocations: &[(ALL, 1), (&[0, 1, 2], 2), (&[3, 4, 5], 2)],
        dropped: 0,
    },
    Row {
        says: "an invocation that fails is halved whatever the type of the answers",
        retries: BISECT,
        script: &[Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$2"}]}"#), Say::Fail],
        invocations: &[(ALL, 1), (&[2, 3, 4, 5], 2), (&[2, 3], 3), (&[4, 5], 3)],
        dropped: 0,
    },
    Row {
        says: "of several identifiers the lowest counts, and all from it on come again",
        retries: FOR_EVER,
        script: &[Say::Answer(
            r#"{"batchItemFailures":[{"itemIdentifier":"$4"},{"itemIdentifier":"$2"},{"itemIdentifier":"$4"}]}"#,
        )],
        invocations: &[(ALL, 1), (&[2, 3, 4, 5], 2)],
        dropped: 0,
    },
    Row {
        says: "the first record failed: all of it comes again",
        retries: TWICE,
        script: &[Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$0"}]}"#), Say::Fail],
        invocations: &[(ALL, 1), (ALL, 2)],
        dropped: 6,
    },
    Row {
        says: "a partial answer is a failed attempt, and the rest is given up whole",
        retries: ONCE,
        script: &[Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$4"}]}"#)],
        invocations: &[(ALL, 1)],
        dropped: 2,
    },
    Row {
        says: "another record has retries of its own",
        retries: TWICE,
        script: &[
            Say::Fail,
            Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$2"}]}"#),
            Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$4"}]}"#),
            Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$4"}]}"#),
        ],
        invocations: &[(ALL, 1), (ALL, 2), (&[2, 3, 4, 5], 3), (&[4, 5], 4)],
        dropped: 2,
    },
    Row {
        says: "a partial answer splits at the record and is not halved",
        retries: BISECT_ONCE,
        script: &[Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$1"}]}"#)],
        invocations: &[(ALL, 1), (&[1, 2, 3, 4, 5], 2)],
        dropped: 0,
    },
    Row {
        says: "nothing is before the record to split at: halved",
        retries: BISECT_ONCE,
        script: &[Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$0"}]}"#)],
        invocations: &[(ALL, 1), (&[0, 1, 2], 2), (&[3, 4, 5], 2)],
        dropped: 0,
    },
    Row {
        says: "what an earlier answer has done with is in the batch no more: all of the rest",
        retries: FOR_EVER,
        script: &[
            Say::Answer(r#"{"batchItemFailures":[{"itemIdentifier":"$3"}]}"#),
            Say::Answer(
                r#"{"batchItemFailures":[{"itemIdentifier":"$0"},{"itemIdentifier":"$4"}]}"#,
            ),
        ],
        invocations: &[(ALL, 1), (&[3, 4, 5], 2), (&[3, 4, 5], 3)],
        dropped: 0,
    },
];

#[tokio::test(start_paused = true)]
async fn every_row_of_the_reference_plays_as_it_says() {
    for Row { says, retries, script, invocations, dropped } in ROWS {
        let (came, delivered, gone) = play(*retries, script).await;
        let came: Vec<(&[u64], u32)> = came.iter().map(|(ns, at, _)| (&ns[..], *at)).collect();
        assert_eq!(came, *invocations, "{says}");
        assert_eq!((delivered, gone), (6 - dropped, *dropped), "{says}");
    }
}

/// Answers that say that all is done, in whichever form.
const DONE: [&str; 7] = [
    "",
    " ",
    "null",
    "{}",
    r#"{"batchItemFailures":[]}"#,
    r#"{"batchItemFailures":null}"#,
    r#"{"statusCode":200}"#,
];

/// Answers that say that all of it failed, whatever else they say.
const FAILED: [&str; 11] = [
    r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
    r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
    r#"{"batchItemFailures":[{"sequenceNumber":"$2"}]}"#,
    r#"{"batchItemFailures":[{"itemIdentifier":"$2"},{"itemIdentifier":""}]}"#,
    r#"{"batchItemFailures":[{"itemIdentifier":42}]}"#,
    r#"{"batchItemFailures":["$2"]}"#,
    r#"{"batchItemFailures":{"itemIdentifier":"$2"}}"#,
    // In no batch, alone and beside one that is.
    r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#,
    r#"{"batchItemFailures":[{"itemIdentifier":"$2"},{"itemIdentifier":"7"}]}"#,
    "[]",
    "done",
];

#[tokio::test(start_paused = true)]
async fn every_form_of_answer_means_that_all_is_done_or_all_has_failed() {
    for body in DONE {
        let (invocations, delivered, dropped) = play(TWICE, &[Say::Answer(body)]).await;
        assert_eq!((invocations.len(), delivered, dropped), (1, 6, 0), "{body:?}");
    }
    for body in FAILED {
        let (invocations, delivered, dropped) = play(TWICE, &[Say::Answer(body); 2]).await;
        let came: Vec<_> = invocations.iter().map(|(ns, ..)| &ns[..]).collect();
        assert_eq!((came, delivered, dropped), (vec![ALL, ALL], 0, 6), "{body:?}");
        // It is no partial answer, so it is halved as any other failure.
        let (invocations, ..) = play(BISECT_ONCE, &[Say::Answer(body)]).await;
        let came: Vec<_> = invocations.iter().map(|(ns, ..)| ns.len()).collect();
        assert_eq!(came, [6, 3, 3], "{body:?}");
    }
}

#[tokio::test]
async fn an_http_handler_is_read_only_where_its_answers_are_partial() {
    for partial in [true, false] {
        let endpoint = Endpoint::start().await;
        let url = endpoint.url.parse().expect("a URL");
        let handler = Arc::new(
            HttpHandler::new(url, "streamgate", Answers { failures: partial, state: false })
                .expect("a client"),
        );
        let simulator = Simulator::builder(crate::support::rig::arn()).build();
        let source = Arc::new(simulator.clone());
        let poll_intervals = PollIntervals { min: SECOND / 50, max: SECOND / 20 };
        let settings = ConsumerSettings { poll_intervals, ..settings() };
        let running = start_for(settings, source, Arc::new(MemoryProgress::new()), handler);
        let mut expected = 0;
        let answers =
            DONE.map(|body| (body, false)).into_iter().chain(FAILED.map(|body| (body, true)));
        for (n, (body, fails)) in (0..).zip(answers) {
            endpoint.script([Answer::Say(body)]);
            simulator.put_item("cat", n);
            expected += if fails && partial { 2 } else { 1 };
            endpoint.until(body, |invocations| invocations.len() >= expected).await;
            let last = endpoint.invocations().pop().expect("one at least");
            assert_eq!(last.records[0].n, Some(n), "{body:?}");
        }
        simulator.put_item("cat", 99);
        let next =
            |invocations: &[Invocation]| invocations.iter().any(|i| i.records[0].n == Some(99));
        endpoint.until("the next", next).await;
        assert_eq!(endpoint.invocations().len(), expected + 1);
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_left_alone_for_as_long_as_it_asks_and_five_minutes_at_most() {
    let asked = [Say::Busy(60), Say::Fail, Say::Busy(24 * 60 * 60), Say::Busy(0)];
    let (invocations, delivered, _) = play(FOR_EVER, &asked).await;
    assert_eq!(delivered, 6);
    let began: Vec<Instant> = invocations.iter().map(|(.., began)| *began).collect();
    let waits: Vec<Duration> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let millisecond = SECOND / 1000;
    assert!(waits[0].abs_diff(60 * SECOND) <= millisecond, "{waits:?}");
    assert!(waits[2].abs_diff(300 * SECOND) <= millisecond, "{waits:?}");
    // Where it does not ask, the waits are ours.
    assert!(waits[1] <= 30 * SECOND && waits[3] <= 30 * SECOND, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn records_that_are_too_old_are_given_up_untried_and_the_rest_of_their_batch_is_handed_over()
{
    let simulator = Simulator::builder(crate::support::rig::arn()).seed(3).build();
    for n in 0..3 {
        simulator.put_item("cat", n);
    }
    tokio::time::sleep(70 * SECOND).await;
    for n in 3..6 {
        simulator.put_item("cat", n);
    }
    let retries = RetrySettings { max_age: Some(60 * SECOND), ..FOR_EVER };
    let settings = ConsumerSettings { retries, ..settings() };
    let handler = Arc::new(Recorder::default());
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::clone(&handler));
    handler.until_distinct(3).await;
    assert_eq!(handler.invocations(), [[3, 4, 5]]);
    assert_eq!(running.metrics.batch_records.get_sample_sum(), 6.0, "they were one batch");
    assert_eq!(running.metrics.records_dropped.with_label_values(&["age"]).get(), 3);
    running.stop().await;
}

/// Poison for ever in one shard of four, which is the first of its shard: the others go on,
/// and what they get does not depend on how often it is tried.
async fn poison_in_one_shard(lanes: usize) {
    let simulator = Simulator::builder(crate::support::rig::arn()).shards(4).seed(3).build();
    let shard_of = |n: u64| {
        let keys = Change::item(&format!("item-{n}"), n).keys;
        simulator.shard_of(&keys).expect("every item has one")
    };
    let poisoned = shard_of(0);
    let mut others = Vec::new();
    for n in 0..200 {
        simulator.put_item(&format!("item-{n}"), n);
        if shard_of(n) != poisoned {
            others.push(n);
        }
    }
    assert!((100..180).contains(&others.len()), "{}", others.len());
    let (progress, handler) = (MemoryProgress::new(), Arc::new(Recorder::default()));
    handler.poison([0], false);
    let settings = ConsumerSettings {
        parallelization: lanes,
        batches: BatchSettings { size: 10, window: Duration::ZERO },
        ..settings()
    };
    let running = start(settings, &simulator, progress.view(), Arc::clone(&handler));
    let of_others = |got: &[Got]| got.iter().filter(|got| got.shard != poisoned.as_str()).count();
    let tries = || handler.invocations().iter().filter(|ns| ns.contains(&0)).count();
    handler.until(|got| of_others(got) >= others.len()).await;
    assert!(tries() <= 2, "they waited for {} tries", tries());
    // From here on the waits between tries are longer than those between reads: before each
    // further try, everything that was put since the last has come.
    handler.until(|_| tries() >= 6).await;
    let mut put = others.len();
    for n in 200..230 {
        for item in &others[..20] {
            simulator.put_item(&format!("item-{item}"), n);
        }
        put += 20;
        let before = tries();
        handler.until(|got| of_others(got) >= put).await;
        assert!(tries() <= before + 1, "{before}, {}", tries());
        handler.until(|_| tries() > before).await;
    }
    assert_eq!(of_others(&handler.got()), put, "nothing came twice");
    let durable = progress.load(Selection::All).await.unwrap();
    for item in &durable {
        let has_moved = matches!(item.position, Position::After(_));
        assert_eq!(has_moved, item.shard != poisoned, "{item:?}");
    }
    assert_eq!(durable.len(), 4);
    // What shares its shard came with other lanes, or not at all.
    let beside = handler.got().len() - put;
    assert_eq!(beside > 0, lanes > 1, "{beside}");
    assert!(handler.got().iter().all(|got| got.n != Some(0)));
    handler.poison([], false);
    handler.until_distinct(200 + 30 * 20).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn poison_for_ever_in_one_shard_holds_its_position_and_no_other_shard() {
    poison_in_one_shard(1).await;
}

#[tokio::test(start_paused = true)]
async fn poison_for_ever_in_one_lane_of_ten_holds_its_position_and_no_other_shard() {
    poison_in_one_shard(10).await;
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
