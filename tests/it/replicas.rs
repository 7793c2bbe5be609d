//! Several replicas of the api: consumers go on through another while one does not answer.

use crate::support::api::{LABEL, RunningApi, TOKEN};
use crate::support::endpoint::Endpoint;
use crate::support::process::{Process, within};
use crate::support::rig::{assert_in_order, put_rounds};
use crate::support::stage::Stage;
use crate::support::{Untouched, free_port};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use futures_util::future::join_all;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use streamgate::api::Stores;
use streamgate::progress::{
    ClientProgress, Heartbeat, MemoryProgress, Progress, ProgressError, WorkerId,
};
use tokio::net::TcpListener;

const BEATS: &str = "streamgate_progress_requests_total{outcome=\"ok\",route=\"heartbeat\"}";
const POSITIONS: &str = "streamgate_progress_requests_total{outcome=\"ok\",route=\"checkpoint\"}";

/// Waits until so many more signs of life have come through `keeper`, and a position of what is
/// put meanwhile.
async fn beats_through(keeper: &Process, more: f64, put: impl Future<Output = ()>) {
    let (beats, positions) = (keeper.metric(BEATS).await, keeper.metric(POSITIONS).await);
    put.await;
    within("signs of life through the other replica", async {
        while keeper.metric(BEATS).await < beats + more
            || keeper.metric(POSITIONS).await <= positions
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// There are three signs of life in a failover time.
const LONGER_THAN_FAILOVER: f64 = 5.0;

/// Two apis, and a consumer that asks the first of them.
async fn start(
    stage: &Stage,
    handler: &str,
    failover: &str,
) -> ([SocketAddr; 2], [Process; 2], Process) {
    let at = [free_port(), free_port()];
    let url = format!("http://{},http://{}", at[0], at[1]);
    let variables = [
        ("HANDLER", handler),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("FAILOVER_TIME", failover),
        ("CHECKPOINT_INTERVAL", "50ms"),
    ];
    let keepers = [stage.api(at[0], &[]).await, stage.api(at[1], &[]).await];
    (at, keepers, stage.consumer(&variables).await)
}

async fn leases_lost(consumer: &Process) -> f64 {
    consumer.metric("streamgate_leases_lost_total").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_or_hangs_costs_no_lease_and_repeats_nothing() {
    let stage = Stage::new("replicas", 2).await;
    let endpoint = Endpoint::start().await;
    let ([_, second], keepers, consumer) = start(&stage, &endpoint.url, "4s").await;
    let mut rounds = 0;
    let mut put = async || {
        put_rounds(&stage.simulator, 10, rounds..rounds + 1);
        rounds += 1;
        endpoint.until_distinct(10 * rounds as usize).await;
    };
    beats_through(&keepers[0], 1.0, put()).await;
    let nobody = keepers[1].metric(BEATS).await;
    assert_eq!(nobody, 0.0, "one answers, and the other is not asked");

    // It holds connections open, takes new ones, and says nothing.
    keepers[0].signal("STOP");
    beats_through(&keepers[1], LONGER_THAN_FAILOVER, put()).await;
    keepers[0].signal("CONT");
    beats_through(&keepers[1], 1.0, put()).await;

    let [one, other] = keepers;
    other.kill().await;
    beats_through(&one, LONGER_THAN_FAILOVER, put()).await;
    assert_eq!(leases_lost(&consumer).await, 0.0);
    assert_eq!(endpoint.got().len(), 10 * 4, "nothing came twice");

    one.kill().await;
    consumer.until("/readyz", |code, body| code == 503 && body.contains("progress")).await;
    consumer.until("/status", |_, body| body.contains("\"shards\":{}")).await;
    let back = stage.api(second, &[]).await;
    put().await;
    consumer.until("/readyz", |code, _| code == 200).await;
    consumer.stop().await;
    back.stop().await;
    assert_in_order(&endpoint.got());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_failover_time_outlasts_a_replica_that_hangs() {
    let stage = Stage::new("replicas-default", 1).await;
    let endpoint = Endpoint::start().await;
    let (_, keepers, consumer) = start(&stage, &endpoint.url, "").await;
    let put = async |round| put_rounds(&stage.simulator, 10, round..round + 1);
    beats_through(&keepers[0], 1.0, put(0)).await;
    keepers[0].signal("STOP");
    beats_through(&keepers[1], 1.0, put(1)).await;
    assert_eq!(leases_lost(&consumer).await, 0.0);
    consumer.stop().await;
    assert_eq!(endpoint.got().len(), 20, "nothing came twice");
}

/// A client of `api` that asks these addresses.
fn client(api: &RunningApi, urls: &[SocketAddr]) -> ClientProgress {
    let mut settings = api.settings("streamgate", LABEL);
    settings.urls = urls.iter().map(|to| format!("http://{to}").parse().unwrap()).collect();
    ClientProgress::new(settings).expect("a client can be made")
}

async fn api_in_memory() -> RunningApi {
    let store = Arc::new(MemoryProgress::new());
    let stores: Stores = Arc::new(move |_, _| Arc::clone(&store) as Arc<dyn Progress>);
    RunningApi::start("people", stores).await
}

/// Answers whatever it is asked with this, and counts.
async fn answers(
    status: u16,
    kind: &'static str,
    body: impl ToString,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let (body, asked) = (body.to_string(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let answer = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let status = StatusCode::from_u16(status).unwrap();
        std::future::ready((status, [(header::CONTENT_TYPE, kind)], body.clone()).into_response())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

fn problem(status: u16, code: &str) -> serde_json::Value {
    json!({"type": "about:blank", "title": "T", "status": status, "detail": "why", "code": code})
}

const PROBLEM: &str = "application/problem+json";

#[tokio::test]
async fn what_is_not_the_apis_word_is_asked_of_the_next() {
    let api = api_in_memory().await;
    let dead = free_port();
    let (empty, _) = answers(503, "text/html", "<h1>no target</h1>").await;
    let (broken, _) = answers(502, "application/json", "{}").await;
    let (other, asked) = answers(200, "application/json", "\"hello\"").await;
    let progress = client(&api, &[dead, empty, broken, other, api.private]);
    progress.describe().await.unwrap();
    progress.coordination().await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it stays with the one that answers");
    let none = client(&api, &[dead, empty]).coordination().await;
    let Err(ProgressError::Unavailable(why)) = none else { panic!("{none:?}") };
    for part in ["503", &format!("(http://{dead})"), &format!("(http://{empty})"), "; "] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test]
async fn the_apis_own_no_is_final() {
    let api = api_in_memory().await;
    for (status, code) in [(409, "lease_lost"), (401, "unauthorized"), (400, "malformed")] {
        let (refuses, _) = answers(status, PROBLEM, problem(status, code)).await;
        let (_nobody, untouched) = Untouched::new();
        client(&api, &[refuses, untouched]).coordination().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_table_out_of_reach_is_tried_through_one_other_replica() {
    let api = api_in_memory().await;
    let (first, asked_first) = answers(503, PROBLEM, problem(503, "unavailable")).await;
    let (second, asked_second) = answers(503, PROBLEM, problem(503, "unavailable")).await;
    let (_nobody, untouched) = Untouched::new();
    let progress = client(&api, &[first, second, untouched]);
    let refused = progress.coordination().await;
    assert!(matches!(refused, Err(ProgressError::Unavailable(_))), "{refused:?}");
    let asked = [asked_first, asked_second].map(|asked| asked.load(Ordering::Relaxed));
    assert_eq!(asked, [1, 1]);
    client(&api, &[first, api.private]).coordination().await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_silent_is_left_with_its_connections() {
    let api = api_in_memory().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let progress = client(&api, &[silent.local_addr().unwrap(), api.private]);
    // By itself, and where a caller has no patience.
    progress.coordination().await.unwrap();
    let (connection, _) = silent.accept().await.unwrap();
    let worker = WorkerId::from("w1");
    for beat in 1..4 {
        progress.heartbeat(&Heartbeat { beat, ..Heartbeat::first(worker.clone()) }).await.unwrap();
    }
    drop(connection);

    let progress = client(&api, &[silent.local_addr().unwrap(), api.private]);
    let a_third_of_a_second = Duration::from_millis(333);
    tokio::time::timeout(a_third_of_a_second, progress.coordination()).await.unwrap_err();
    progress.coordination().await.unwrap();
    silent.accept().await.unwrap();
    assert_eq!(futures_util::FutureExt::now_or_never(silent.accept()).map(drop), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_readers_cost_few_reads_of_the_table_and_see_what_was_written() {
    const QUERIES: &str = "streamgate_table_requests_total{operation=\"Query\",outcome=\"ok\"}";
    let stage = Stage::new("replicas-readers", 1).await;
    let private = free_port();
    let keeper = stage.api(private, &[]).await;
    // Its own looks at the table come before.
    keeper.until("/readyz", |code, _| code == 200).await;
    let readers: Vec<_> = (0..50).map(|_| stage.client(private)).collect();
    join_all(readers.iter().map(|reader| async { reader.describe().await.unwrap() })).await;
    let (before, began) = (keeper.metric(QUERIES).await, Instant::now());
    for _ in 0..10 {
        for answer in join_all(readers.iter().map(|reader| reader.coordination())).await {
            assert_eq!(answer.unwrap().workers, []);
        }
    }
    let queries = keeper.metric(QUERIES).await - before;
    // None begins earlier than a tenth of a second after the one before it.
    let most = 1.0 + began.elapsed().as_secs_f64() * 10.0;
    assert!((1.0..=most).contains(&queries), "{queries} for 500 readers, {most} at most");

    let worker = WorkerId::from("w1");
    for beat in 1..50 {
        let sign = Heartbeat { beat, ..Heartbeat::first(worker.clone()) };
        readers[0].heartbeat(&sign).await.unwrap();
        for answer in join_all(readers.iter().map(|reader| reader.coordination())).await {
            assert_eq!(answer.unwrap().workers[0].sign.beat, beat, "a write is seen at once");
        }
    }
    keeper.stop().await;
}
