//! The two containers as processes: the api, and a consumer that may not touch the table.

use crate::support::api::TOKEN;
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::process::Process;
use crate::support::rig::{assert_in_order, distinct, put_rounds};
use crate::support::stage::Stage;
use crate::support::{Untouched, free_port};
use std::time::Duration;
use streamgate::progress::Position;

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
    let mut keeper = stage.api(private, &[]).await;
    let mut consumer = stage.consumer(&variables).await;
    const KILLS: u64 = 20;
    for kill in 0..KILLS {
        put_rounds(&stage.simulator, 40, kill * 5..kill * 5 + 5);
        let before = endpoint.invocations().len();
        endpoint.until("some batches", |i| i.len() > before + 10).await;
        if kill % 2 == 0 {
            keeper.kill().await;
            keeper = stage.api(private, &[]).await;
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
async fn a_consumer_of_another_table_name_or_token_ends_with_a_sentence() {
    let stage = Stage::new("pair-refused", 1).await;
    let private = free_port();
    let url = format!("http://{private}");
    let keeper = stage.api(private, &[]).await;
    keeper.until("/readyz", |code, _| code == 200).await;
    for (name, value, says) in [
        ("TABLE_NAME", "another-table", "set TABLE_NAME to the same in both"),
        ("CONSUMER_NAME", "another", "set CONSUMER_NAME to the same in both"),
        ("API_TOKEN", "not-the-token-of-it", "set API_TOKEN to the same in both"),
    ] {
        let variables = [("API_URL", url.as_str()), ("API_TOKEN", TOKEN), (name, value)];
        let ended = stage.start(&variables).await.ended().await;
        assert_eq!(ended.code, Some(1));
        let last = ended.stderr.last().unwrap();
        assert!(last.contains(says), "{last}");
        assert!(!ended.stderr.join("\n").contains("not-the-token"), "{last}");
    }
    keeper.stop().await;
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
    let keeper = stage.api(private, &from_file).await;
    let client = crate::support::process::client();
    let asked = client.get(format!("http://{private}/nothing")).bearer_auth(TOKEN).send();
    assert_eq!(asked.await.unwrap().status(), 404, "the token of the file lets in");
    keeper.until("/readyz", |code, _| code == 200).await;
    keeper.stop().await;
    std::fs::remove_file(file).unwrap();

    let mut lost = stage.api(free_port(), &[("TABLE_NAME", "not-there")]).await;
    let ended = lost.ended().await;
    assert_eq!(ended.code, Some(1));
    let last = ended.stderr.last().unwrap();
    assert!(last.contains("there is no table not-there"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_both_at_once_repeats_nothing() {
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
    let mut keeper = stage.api(private, &[]).await;
    let mut consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 40, 0..10);
    endpoint.until("some batches", |i| i.len() > 20).await;
    keeper.signal("TERM");
    consumer.signal("TERM");
    // The api stays until the consumer has written its last positions.
    let ended = consumer.ended().await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    let ended = keeper.ended().await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    let keeper = stage.api(private, &[]).await;
    let consumer = stage.consumer(&variables).await;
    endpoint.until_distinct(400).await;
    consumer.stop().await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
    assert_eq!(endpoint.got().len(), 400, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_almost_all_of_the_grace_is_not_repeated() {
    let stage = Stage::new("pair-grace", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::TakeLater(Duration::from_secs(4)));
    let private = free_port();
    let url = format!("http://{private}");
    // Both have the same, as they have by default.
    let grace = ("SHUTDOWN_GRACE", "6s");
    let variables =
        [("HANDLER", endpoint.url.as_str()), ("API_URL", &url), ("API_TOKEN", TOKEN), grace];
    let mut keeper = stage.api(private, &[grace]).await;
    let mut consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 5, 0..1);
    endpoint.until("a batch", |invocations| !invocations.is_empty()).await;
    keeper.signal("TERM");
    consumer.signal("TERM");
    for process in [&mut consumer, &mut keeper] {
        let ended = process.ended().await;
        assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    }
    let moved = |position: &Position| matches!(position, Position::After(_));
    assert!(stage.progress().await.iter().all(|shard| moved(&shard.position)));
}
