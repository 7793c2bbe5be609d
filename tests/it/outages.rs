//! The pair while something between its parts fails: the network, or the api for a while.

use crate::support::api::TOKEN;
use crate::support::chaos::{Chaos, Losing};
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::free_port;
use crate::support::rig::{assert_in_order, put_rounds};
use crate::support::stage::Stage;
use std::time::Duration;
use streamgate::progress::Position;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_requests_and_answers_lose_no_record_and_no_order() {
    let stage = Stage::new("outages-lossy", 3).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::TakeLater(Duration::from_millis(2)));
    stage.simulator.set(|s| s.page_records = 20);
    let private = free_port();
    let keeper = stage.api(private, &[]).await;
    let chaos = Chaos::before(private, 5).await;
    let url = format!("http://{}", chaos.address);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("FAILOVER_TIME", "3s"),
        ("CHECKPOINT_INTERVAL", "10ms"),
        ("BATCH_SIZE", "3"),
    ];
    chaos.lose(Losing { requests: 0.15, answers: 0.15 });
    let consumer = stage.consumer(&variables).await;
    let mut rounds = 0;
    while chaos.lost().0.min(chaos.lost().1) < 25 {
        put_rounds(&stage.simulator, 20, rounds..rounds + 10);
        rounds += 10;
        endpoint.until_distinct(20 * rounds as usize).await;
    }
    chaos.lose(Losing::default());
    consumer.until("/readyz", |code, _| code == 200).await;
    let lost = consumer.metric("streamgate_leases_lost_total").await;
    consumer.stop().await;
    keeper.stop().await;
    let got = endpoint.got();
    assert_in_order(&got);
    // What was written and not heard of is the worker's own: nothing is given up for it.
    assert!(lost > 0.0 || got.len() == 20 * rounds as usize, "{} without a lost lease", got.len());
    let moved = |p: &Position| matches!(p, Position::After(_) | Position::ShardEnd);
    assert!(stage.progress().await.iter().all(|shard| moved(&shard.position)));
}

/// The minute is the promise here, and not a wait for something.
const AWAY: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_out_of_reach_for_a_minute_is_waited_for() {
    let stage = Stage::new("outages-away", 2).await;
    let endpoint = Endpoint::start().await;
    let private = free_port();
    let keeper = stage.api(private, &[]).await;
    let chaos = Chaos::before(private, 1).await;
    let url = format!("http://{}", chaos.address);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("FAILOVER_TIME", "2s"),
    ];
    let consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 10, 0..1);
    endpoint.until_distinct(10).await;
    let away = tokio::time::Instant::now();
    chaos.cut();
    // It goes on for the failover time and no longer.
    consumer.until("/readyz", |code, body| code == 503 && body.contains("progress")).await;
    consumer.until("/status", |_, body| body.contains("\"shards\":{}")).await;
    put_rounds(&stage.simulator, 10, 1..2);
    let before = endpoint.invocations().len();
    tokio::time::sleep_until(away + AWAY).await;
    assert_eq!(endpoint.invocations().len(), before, "a worker without its lease delivers nothing");
    assert_eq!(consumer.get("/healthz").await.0, 200);
    chaos.restore();
    endpoint.until_distinct(20).await;
    consumer.until("/readyz", |code, _| code == 200).await;
    let ended = consumer.stop().await;
    let told = ended.stderr.iter().filter(|line| line.contains("could not be written")).count();
    assert!(told <= 16, "a minute of failing is {told} lines");
    keeper.stop().await;
    assert_in_order(&endpoint.got());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_started_later_or_anew_is_waited_for() {
    let stage = Stage::new("outages-later", 1).await;
    let endpoint = Endpoint::start().await;
    let private = free_port();
    let url = format!("http://{private}");
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("FAILOVER_TIME", "1s"),
    ];
    let consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 5, 0..1);
    consumer.until("/readyz", |code, body| code == 503 && body.contains("progress")).await;
    let keeper = stage.api(private, &[]).await;
    endpoint.until_distinct(5).await;
    keeper.stop().await;
    // It stops its shards, lives on without being ready, and goes on by itself.
    consumer.until("/readyz", |code, body| code == 503 && body.contains("progress")).await;
    assert_eq!(consumer.get("/healthz").await.0, 200);
    let keeper = stage.api(private, &[]).await;
    put_rounds(&stage.simulator, 5, 1..2);
    endpoint.until_distinct(10).await;
    consumer.until("/readyz", |code, _| code == 200).await;
    consumer.stop().await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
}
