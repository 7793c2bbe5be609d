//! TUMBLING_WINDOW_IN_SECONDS: a state that goes from one batch of a window to the next, a
//! last invocation when the window is over, and neither lost in a crash.

use crate::support::process::{Process, within};
use crate::support::rig::{arn, put_rounds, settings};
use crate::support::stage::Stage;
use async_trait::async_trait;
use axum::http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamgate::batch::BatchSettings;
use streamgate::consumer::{Consumer, ConsumerError, ConsumerSettings};
use streamgate::deliver::{Batch, Handler, HandlerError, Response, RetrySettings};
use streamgate::filter::FilterCriteria;
use streamgate::progress::{MemoryProgress, Position, Progress, Selection};
use streamgate::simulator::{Fault, FaultRule, Operation, Simulator};
use streamgate::telemetry::metrics::Metrics;
use streamgate::telemetry::status::Board;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What goes wrong with an invocation.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    Fails,
    HasNoState,
    FailsFrom(usize),
}

/// Counts the records of a window and lists their `n` in its state.
#[derive(Default)]
struct Counter {
    events: Mutex<Vec<Value>>,
    wrong: Mutex<VecDeque<Wrong>>,
    /// How long the next invocations take.
    takes: Mutex<VecDeque<Duration>>,
    /// Bytes to blow the state up by.
    filler: Mutex<usize>,
    more: Notify,
}

impl Counter {
    fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap().clone()
    }

    /// States of the windows that are over, in order.
    fn finals(&self) -> Vec<Value> {
        let is_final = |event: &Value| event["isFinalInvokeForWindow"] == true;
        self.events().iter().filter(|event| is_final(event)).cloned().collect()
    }

    async fn until(&self, condition: impl Fn(&[Value]) -> bool) {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if condition(&self.events.lock().unwrap()) {
                return;
            }
            more.await;
        }
    }

    async fn until_final(&self, count: usize) {
        let finals = |events: &[Value]| {
            events.iter().filter(|event| event["isFinalInvokeForWindow"] == true).count()
        };
        self.until(|events| finals(events) >= count).await;
    }
}

/// The state after `records` of an event.
fn counted(event: &Value, records: usize) -> Value {
    let mut ns = event["state"]["ns"].as_array().cloned().unwrap_or_default();
    let records = &event["Records"].as_array().unwrap()[..records];
    ns.extend(records.iter().map(|record| record["dynamodb"]["NewImage"]["n"]["N"].clone()));
    json!({"ns": ns})
}

#[async_trait]
impl Handler for Counter {
    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let event: Value = serde_json::from_slice(&batch.event().to_vec()).expect("JSON");
        let wrong = self.wrong.lock().unwrap().pop_front().unwrap_or(Wrong::Nothing);
        self.events.lock().unwrap().push(event.clone());
        self.more.notify_waiters();
        let takes = self.takes.lock().unwrap().pop_front().unwrap_or_default();
        tokio::time::sleep(takes).await;
        let numbers = batch.records().iter().map(|record| record.sequence_digits().to_owned());
        let count = batch.records().len();
        let (taken, failed) = match wrong {
            Wrong::Fails => return Err(HandlerError::failed("told to")),
            Wrong::FailsFrom(from) => (from, numbers.skip(from).take(1).collect()),
            Wrong::Nothing | Wrong::HasNoState => (count, Vec::new()),
        };
        let mut state = counted(&event, taken);
        let filler = *self.filler.lock().unwrap();
        if filler > 0 {
            state["filler"] = "x".repeat(filler).into();
        }
        let state = RawValue::from_string(state.to_string()).expect("JSON");
        let response = Response::failed(failed);
        Ok(if wrong == Wrong::HasNoState { response } else { response.with_state(state) })
    }
}

struct Running {
    drain: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
    metrics: Arc<Metrics>,
}

fn start(
    settings: ConsumerSettings,
    simulator: &Simulator,
    progress: &MemoryProgress,
    handler: &Arc<Counter>,
) -> Running {
    let (metrics, drain) = (Arc::new(Metrics::new()), CancellationToken::new());
    let consumer = Consumer::new(
        settings,
        Arc::new(simulator.clone()),
        Arc::new(progress.view()),
        Arc::clone(handler) as Arc<dyn Handler>,
        Arc::clone(&metrics),
        Arc::new(Board::new()),
    );
    let task = tokio::spawn(consumer.run(drain.clone()));
    Running { drain, task, metrics }
}

impl Running {
    async fn stop(self) {
        self.drain.cancel();
        self.task.await.expect("no panic").expect("a clean stop");
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn minutes(size: usize) -> ConsumerSettings {
    let batches = BatchSettings { size, window: Duration::ZERO };
    ConsumerSettings { tumbling_window: Some(MINUTE), batches, ..settings() }
}

fn simulator() -> Simulator {
    Simulator::builder(arn()).shards(1).seed(9).build()
}

/// Waits until a window has just begun.
async fn at_a_windows_start() {
    at_the_start_of(MINUTE).await;
}

async fn at_the_start_of(window: Duration) {
    let since = streamgate::clock::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let passed = Duration::from_secs(since.as_secs() % window.as_secs());
    tokio::time::sleep(window - passed + SECOND / 2).await;
}

fn ns(state: &Value) -> Vec<u64> {
    let ns = state["ns"].as_array().cloned().unwrap_or_default();
    ns.iter().map(|n| n.as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_state_goes_from_batch_to_batch_and_the_end_of_a_window_is_told() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    let running = start(minutes(2), &simulator, &progress, &handler);
    put_rounds(&simulator, 1, 0..5);
    handler.until(|events| events.len() == 3).await;
    let events = handler.events();
    assert_eq!(events[0]["state"], json!({}));
    assert_eq!(events[1]["state"], json!({"ns": ["0", "1"]}));
    assert_eq!(events[2]["state"], json!({"ns": ["0", "1", "2", "3"]}));
    for event in &events {
        assert_eq!(event["eventSourceARN"], crate::support::rig::ARN);
        assert_eq!(event["shardId"], simulator.shards()[0].id.as_str());
        assert_eq!(event["isFinalInvokeForWindow"], false);
        assert_eq!(event["isWindowTerminatedEarly"], false);
    }
    // Over by the clock, with nothing behind it.
    handler.until_final(1).await;
    let last = handler.events().pop().unwrap();
    assert_eq!((&last["Records"], ns(&last["state"])), (&json!([]), vec![0, 1, 2, 3, 4]));
    assert_eq!(last["window"], events[0]["window"]);
    // Over by records of the next: first the end of the one, then the other, anew.
    at_a_windows_start().await;
    put_rounds(&simulator, 1, 5..7);
    handler.until(|events| events.len() == 5).await;
    simulator.faults().add(FaultRule::new(Fault::Throttle).on(Operation::GetRecords));
    tokio::time::sleep(MINUTE).await;
    put_rounds(&simulator, 1, 7..8);
    simulator.faults().clear();
    handler.until(|events| events.len() == 7).await;
    let [.., closed, next] = &handler.events()[..] else { panic!("seven") };
    assert_eq!(
        (&closed["isFinalInvokeForWindow"], ns(&closed["state"])),
        (&json!(true), vec![5, 6])
    );
    assert_eq!((&next["isFinalInvokeForWindow"], &next["state"]), (&json!(false), &json!({})));
    assert_eq!(next["window"]["start"], closed["window"]["end"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_state_is_a_failure_and_a_partial_one_carries_the_state_of_what_is_done()
{
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    put_rounds(&simulator, 1, 0..4);
    let wrong = [Wrong::HasNoState, Wrong::FailsFrom(3), Wrong::Fails, Wrong::FailsFrom(0)];
    handler.wrong.lock().unwrap().extend(wrong);
    let running = start(minutes(100), &simulator, &progress, &handler);
    handler.until_final(1).await;
    let events = handler.events();
    let tried: Vec<_> =
        events.iter().map(|event| event["Records"].as_array().unwrap().len()).collect();
    assert_eq!(tried, [4, 4, 1, 1, 1, 0]);
    assert_eq!(events[1]["state"], json!({}), "nothing was kept of the failure");
    assert_eq!(events[2]["state"], events[4]["state"]);
    assert_eq!(ns(&events[4]["state"]), [0, 1, 2]);
    assert_eq!(ns(&events[5]["state"]), [0, 1, 2, 3], "each record counts once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_window_comes_again_until_it_is_taken_whatever_the_retry_limit() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    put_rounds(&simulator, 1, 0..1);
    let retries = RetrySettings { max_retries: Some(0), ..RetrySettings::default() };
    let running =
        start(ConsumerSettings { retries, ..minutes(10) }, &simulator, &progress, &handler);
    handler.until(|events| events.len() == 1).await;
    handler.wrong.lock().unwrap().extend([Wrong::Fails; 6]);
    handler.until_final(1).await;
    put_rounds(&simulator, 1, 1..2);
    handler
        .until(|events| {
            events.last().is_some_and(|e| e["isFinalInvokeForWindow"] == false && events.len() > 1)
        })
        .await;
    let finals = handler.finals();
    assert_eq!(finals.len(), 7);
    assert!(finals.iter().all(|event| ns(&event["state"]) == [0]), "{finals:#?}");
    assert_eq!(running.metrics.records_dropped.with_label_values(&["retries"]).get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_beyond_a_megabyte_ends_its_window_early() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    *handler.filler.lock().unwrap() = 1 << 20;
    put_rounds(&simulator, 1, 0..3);
    let running = start(minutes(2), &simulator, &progress, &handler);
    handler.until_final(2).await;
    let events = handler.events();
    let [first, end, second, again] = &events[..] else { panic!("{}", events.len()) };
    assert_eq!(
        (&end["isFinalInvokeForWindow"], &end["isWindowTerminatedEarly"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(ns(&end["state"]), [0, 1]);
    assert_eq!((&second["state"], &second["window"]), (&json!({}), &first["window"]));
    assert_eq!(ns(&again["state"]), [2]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_no_state_of_any_size_and_counts_no_record_twice() {
    for filler in [0, 300 << 10] {
        let (simulator, progress) = (simulator(), MemoryProgress::new());
        let handler = Arc::new(Counter::default());
        // Long enough for a few waits until a dead worker's lease may be taken.
        let quarter = 15 * MINUTE;
        let settings = ConsumerSettings { tumbling_window: Some(quarter), ..minutes(2) };
        at_the_start_of(quarter).await;
        *handler.filler.lock().unwrap() = filler;
        let mut next = 0..;
        for kill in 0..6 {
            let running = start(settings.clone(), &simulator, &progress, &handler);
            for n in next.by_ref().take(3) {
                put_rounds(&simulator, 1, n..n + 1);
            }
            let before = handler.events().len();
            handler.until(|events| events.len() > before).await;
            // Sometimes with the last position written, sometimes not.
            tokio::time::sleep(SECOND * (kill % 3)).await;
            if kill % 2 == 0 { running.kill().await } else { running.stop().await }
        }
        let running = start(settings.clone(), &simulator, &progress, &handler);
        handler.until_final(1).await;
        let finals = handler.finals();
        assert_eq!(ns(&finals[0]["state"]), (0..18).collect::<Vec<_>>(), "filler {filler}");
        running.stop().await;
        let [shard] = &progress.load(Selection::All).await.unwrap()[..] else {
            panic!("one shard")
        };
        assert!(matches!(shard.position, Position::After(_)) && shard.window.is_none());
        // Nothing of it is left to be told again.
        let running = start(settings.clone(), &simulator, &progress, &handler);
        tokio::time::sleep(2 * quarter).await;
        running.stop().await;
        assert_eq!(handler.finals().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reshard_closes_the_window_and_the_children_begin_their_own() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    put_rounds(&simulator, 8, 0..1);
    let parent = simulator.open_shards().remove(0);
    simulator.split(&parent);
    put_rounds(&simulator, 8, 1..2);
    let running = start(minutes(100), &simulator, &progress, &handler);
    handler.until_final(3).await;
    let finals = handler.finals();
    assert_eq!(
        (&finals[0]["shardId"], ns(&finals[0]["state"])),
        (&json!(parent.as_str()), vec![0; 8])
    );
    assert_eq!(finals[0]["isWindowTerminatedEarly"], false);
    let of_children: usize = finals[1..].iter().map(|event| ns(&event["state"]).len()).sum();
    assert_eq!(of_children, 8, "{finals:#?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_from_before_the_end_of_a_window_does_not_close_it() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    // While the handler works, pages that were empty long ago wait to be taken in.
    handler.takes.lock().unwrap().push_back(70 * SECOND);
    put_rounds(&simulator, 1, 0..1);
    let settings = ConsumerSettings { handler_timeout: 10 * MINUTE, ..minutes(10) };
    let running = start(settings, &simulator, &progress, &handler);
    handler.until(|events| events.len() == 1).await;
    tokio::time::sleep(5 * SECOND).await;
    put_rounds(&simulator, 1, 1..2);
    tokio::time::sleep(3 * MINUTE).await;
    running.stop().await;
    let finals: Vec<_> = handler.finals().iter().map(|event| ns(&event["state"])).collect();
    assert_eq!(finals, [[0, 1]]);
}

#[tokio::test(start_paused = true)]
async fn records_that_the_filter_drops_end_a_window_too() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    let pattern = r#"{"dynamodb":{"NewImage":{"n":{"N":["0"]}}}}"#;
    let criteria = json!({"Filters": [{"Pattern": pattern}]}).to_string();
    let filter = FilterCriteria::parse(&criteria).expect("a good pattern");
    let settings = ConsumerSettings { filter, ..minutes(10) };
    let running = start(settings, &simulator, &progress, &handler);
    put_rounds(&simulator, 1, 0..1);
    handler.until(|events| events.len() == 1).await;
    // There is never an empty page.
    for n in 1..900 {
        put_rounds(&simulator, 1, n..n + 1);
        tokio::time::sleep(SECOND / 10).await;
    }
    running.stop().await;
    assert_eq!(handler.finals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_next_window_fails_tells_no_end_again() {
    let (simulator, progress) = (simulator(), MemoryProgress::new());
    let handler = Arc::new(Counter::default());
    at_a_windows_start().await;
    let running = start(minutes(10), &simulator, &progress, &handler);
    put_rounds(&simulator, 1, 0..1);
    handler.until(|events| events.len() == 1).await;
    let throttled = FaultRule::new(Fault::Throttle).on(Operation::GetRecords);
    simulator.faults().add(throttled);
    tokio::time::sleep(MINUTE).await;
    put_rounds(&simulator, 1, 1..2);
    handler.wrong.lock().unwrap().push_back(Wrong::Nothing);
    handler.wrong.lock().unwrap().extend([Wrong::Fails; 3]);
    simulator.faults().clear();
    handler.until(|events| events.len() >= 3).await;
    running.stop().await;
    assert_eq!(handler.finals().len(), 1);
    let running = start(minutes(10), &simulator, &progress, &handler);
    tokio::time::sleep(5 * SECOND).await;
    running.stop().await;
    assert_eq!(handler.finals().len(), 1);
}

/// A handler over HTTP that keeps a count, and what it was sent.
async fn served() -> (String, Arc<Mutex<Vec<Value>>>) {
    let events: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&events);
    let handle = async move |body: String| {
        let event: Value = serde_json::from_str(&body).expect("JSON");
        let count = event["state"]["count"].as_u64().unwrap_or_default();
        let records = event["Records"].as_array().expect("records").len() as u64;
        seen.lock().unwrap().push(event);
        (StatusCode::OK, json!({"state": {"count": count + records}}).to_string())
    };
    let router = axum::Router::new().route("/", axum::routing::post(handle));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_keeps_the_state_in_the_table_while_it_is_started_anew() {
    let stage = Stage::new("windows", 1).await;
    let (url, events) = served().await;
    let variables = [
        ("HANDLER", url.as_str()),
        ("TUMBLING_WINDOW_IN_SECONDS", "3"),
        ("CHECKPOINT_INTERVAL", "10ms"),
    ];
    let look = async |what: &str, condition: &dyn Fn(&[Value]) -> bool| {
        let looking = async {
            while !condition(&events.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(what, looking).await;
    };
    let mut consumer: Process = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 5, 0..1);
    look("the first records", &|events| !events.is_empty()).await;
    consumer.kill().await;
    consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 5, 1..2);
    let total = |events: &[Value]| {
        let finals = events.iter().filter(|event| event["isFinalInvokeForWindow"] == true);
        finals.filter_map(|event| event["state"]["count"].as_u64()).sum::<u64>()
    };
    look("ten records in windows that are over", &|events| total(events) >= 10).await;
    assert_eq!(total(&events.lock().unwrap()), 10, "each record counts once");
    assert_eq!(consumer.stop().await.code, Some(0));
    assert!(stage.progress().await[0].window.is_none());
}
