//! The two containers as processes: the api, and a consumer that may not touch the table.

use crate::support::api::TOKEN;
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::process::Process;
use crate::support::rig::{assert_in_order, distinct, put_rounds};
use crate::support::stage::Stage;
use crate::support::{Untouched, free_port};
use std::net::SocketAddr;
use std::time::Duration;
use streamgate::progress::Position;

/// Starts `streamgate api` on the stage's table and waits until it listens.
async fn api(stage: &Stage, private: SocketAddr, variables: &[(&str, &str)]) -> Process {
    let (tables, private) = (format!("http://{}", stage.tables), private.to_string());
    let mut all = vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", stage.simulator.stream().region()),
        ("AWS_ENDPOINT_URL_DYNAMODB", &tables),
        ("TABLE_NAME", &stage.table),
        ("API_TOKEN", TOKEN),
        ("LISTEN", "127.0.0.1:0"),
        ("PRIVATE_LISTEN", &private),
    ];
    all.extend(variables);
    let mut process = Process::start(&["api"], &all);
    process.listening().await;
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_is_killed_under_load_and_everything_arrives_in_order() {
    let stage = Stage::new("pair", 3).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::TakeLater(Duration::from_millis(5)));
    stage.simulator.set(|s| s.page_records = 20);
    let private = free_port();
    let url = format!("http://{private}");
    // The consumer's own endpoint for tables: nobody comes.
    let (_tables, tables) = Untouched::new();
    let tables = format!("http://{tables}");
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("AWS_ENDPOINT_URL_DYNAMODB", &tables),
        ("FAILOVER_TIME", "2s"),
        ("CHECKPOINT_INTERVAL", "100ms"),
        ("BATCH_SIZE", "3"),
    ];
    let mut keeper = api(&stage, private, &[]).await;
    let mut consumer = stage.consumer(&variables).await;
    const KILLS: u64 = 8;
    for kill in 0..KILLS {
        put_rounds(&stage.simulator, 40, kill * 5..kill * 5 + 5);
        let before = endpoint.invocations().len();
        endpoint.until("some batches", |i| i.len() > before + 10).await;
        if kill % 2 == 0 {
            keeper.kill().await;
            keeper = api(&stage, private, &[]).await;
        } else {
            consumer.kill().await;
            consumer = stage.consumer(&variables).await;
        }
    }
    endpoint.until_distinct(40 * 5 * KILLS as usize).await;
    consumer.until("/readyz", |code, _| code == 200).await;
    let ended = consumer.stop().await;
    let said = ended.stderr.join("\n");
    assert!(!said.contains("written to the table directly") && !said.contains(TOKEN), "{said}");
    assert_in_order(&endpoint.got());
    assert_eq!(distinct(&endpoint.got()), 40 * 5 * KILLS as usize);
    let moved = |p: &Position| matches!(p, Position::After(_) | Position::ShardEnd);
    assert!(stage.progress().await.iter().all(|shard| moved(&shard.position)));
    let requests = "streamgate_progress_requests_total{outcome=\"ok\",route=\"checkpoint\"}";
    assert!(keeper.metric(requests).await > 0.0);
    let writes = "streamgate_table_requests_total{operation=\"UpdateItem\",outcome=\"ok\"}";
    assert!(keeper.metric(writes).await > 0.0);
    let ended = keeper.stop().await;
    assert!(!ended.stderr.join("\n").contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_another_table_or_token_ends_with_a_sentence() {
    let stage = Stage::new("pair-refused", 1).await;
    let private = free_port();
    let url = format!("http://{private}");
    let keeper = api(&stage, private, &[]).await;
    keeper.until("/readyz", |code, _| code == 200).await;
    for (name, value, says) in [
        ("TABLE_NAME", "another-table", "set TABLE_NAME to the same in both"),
        ("API_TOKEN", "not-the-token-of-it", "set API_TOKEN to the same in both"),
    ] {
        let variables = [("API_URL", url.as_str()), ("API_TOKEN", TOKEN), (name, value)];
        let ended = stage.start(&variables).ended().await;
        assert_eq!(ended.code, Some(1));
        let last = ended.stderr.last().unwrap();
        assert!(last.contains(says), "{last}");
        assert!(!ended.stderr.join("\n").contains("not-the-token"), "{last}");
    }
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_is_waited_for() {
    let stage = Stage::new("pair-away", 1).await;
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
    let keeper = api(&stage, private, &[]).await;
    endpoint.until_distinct(5).await;
    keeper.stop().await;
    // It stops its shards, lives on without being ready, and goes on by itself.
    consumer.until("/readyz", |code, body| code == 503 && body.contains("progress")).await;
    assert_eq!(consumer.get("/healthz").await.0, 200);
    let keeper = api(&stage, private, &[]).await;
    put_rounds(&stage.simulator, 5, 1..2);
    endpoint.until_distinct(10).await;
    consumer.until("/readyz", |code, _| code == 200).await;
    consumer.stop().await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_cannot_work_ends_with_what_to_do() {
    let none = Process::start(&["api"], &[("API_TOKEN", "too-short")]).ended().await;
    assert_eq!(none.code, Some(64));
    let [table, token] = &none.stderr[..] else { panic!("two lines: {:#?}", none.stderr) };
    assert!(table.starts_with("streamgate: TABLE_NAME is not set"), "{table}");
    assert!(token.starts_with("streamgate: API_TOKEN has 9 bytes"), "{token}");
    assert!(!token.contains("too-short"), "{token}");

    let both = [("TABLE_NAME", "people"), ("API_TOKEN", TOKEN), ("API_TOKEN_FILE", "/token")];
    let ended = Process::start(&["api"], &both).ended().await;
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr[0].contains("both set"), "{:#?}", ended.stderr);

    let stage = Stage::new("pair-exits", 1).await;
    let file = std::env::temp_dir().join(format!("streamgate-token-{}", std::process::id()));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let path = file.to_str().unwrap();
    // Set to nothing counts as not set.
    let from_file = [("API_TOKEN", ""), ("API_TOKEN_FILE", path)];
    let private = free_port();
    let keeper = api(&stage, private, &from_file).await;
    let client = crate::support::process::client();
    let asked = client.get(format!("http://{private}/nothing")).bearer_auth(TOKEN).send();
    assert_eq!(asked.await.unwrap().status(), 404, "the token of the file lets in");
    keeper.until("/readyz", |code, _| code == 200).await;
    keeper.stop().await;
    std::fs::remove_file(file).unwrap();

    let mut lost = api(&stage, free_port(), &[("TABLE_NAME", "not-there")]).await;
    let ended = lost.ended().await;
    assert_eq!(ended.code, Some(1));
    let last = ended.stderr.last().unwrap();
    assert!(last.contains("there is no table not-there"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_both_at_once_loses_nothing() {
    let stage = Stage::new("pair-stops", 2).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::TakeLater(Duration::from_millis(20)));
    let private = free_port();
    let url = format!("http://{private}");
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("BATCH_SIZE", "3"),
        ("SHUTDOWN_GRACE", "2s"),
    ];
    let mut keeper = api(&stage, private, &[]).await;
    let mut consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 40, 0..10);
    endpoint.until("some batches", |i| i.len() > 20).await;
    keeper.signal("TERM");
    consumer.signal("TERM");
    assert_eq!(keeper.ended().await.code, Some(0));
    // With the api gone first its last positions have nowhere to go, and it says so.
    let ended = consumer.ended().await;
    let last = ended.stderr.last().unwrap();
    assert!(ended.code == Some(0) || last.contains("its records come again"), "{last}");
    let keeper = api(&stage, private, &[]).await;
    let consumer = stage.consumer(&variables).await;
    endpoint.until_distinct(400).await;
    consumer.stop().await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
}
