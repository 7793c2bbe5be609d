//! How the process ends and stands when something is wrong around it: exit codes and
//! their sentences, readiness, the second consumer.

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::process::{Ended, Process};
use crate::support::rig::{ARN, arn, assert_in_order, put_rounds};
use crate::support::stage::{Stage, consumer};
use crate::support::{NewTable, Untouched};
use aws_sdk_dynamodb::types::ScalarAttributeType;
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use streamgate::progress::Progress;
use streamgate::simulator::{Fault, FaultRule, Operation};

/// Runs a consumer to its end, with endpoints that must not be contacted.
async fn misconfigured(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let (_streams, streams) = Untouched::new();
    let (_tables, tables) = Untouched::new();
    let (streams, tables) = (format!("http://{streams}"), format!("http://{tables}"));
    let mut all = vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", streams.as_str()),
        ("AWS_ENDPOINT_URL_DYNAMODB", tables.as_str()),
        ("LISTEN", "127.0.0.1:0"),
    ];
    all.extend(variables);
    let ended = Process::start(&[&["consumer"], arguments].concat(), &all).ended().await;
    assert_eq!(ended.code, Some(64), "{:#?}", ended.stderr);
    assert_eq!(ended.stdout, [""; 0], "stdout belongs to the handler");
    ended
}

#[tokio::test]
async fn every_fault_of_the_configuration_is_told_at_once_and_nothing_is_contacted() {
    let variables = [
        ("TABLE_NAME", ""),
        ("BATCH_SIZE", "0"),
        ("FAILOVER_TIME", "10"),
        ("HANDLER", "ftp://x"),
        ("HANDLER_FORMAT", "xml"),
        ("FILTER_CRITERIA", "[]"),
        ("TUMBLING_WINDOW_IN_SECONDS", "901"),
        ("RUST_LOG", "a=b=c"),
    ];
    let ended = misconfigured(&["--max-buffered-bytes", "1"], &variables).await;
    let names: Vec<_> =
        ended.stderr.iter().map(|line| line.split(' ').nth(1).unwrap_or_default()).collect();
    let expected = [
        "STREAM_ARN",
        "TABLE_NAME",
        "HANDLER",
        "HANDLER_FORMAT",
        "FILTER_CRITERIA",
        "BATCH_SIZE",
        "TUMBLING_WINDOW_IN_SECONDS",
        "FAILOVER_TIME",
        "MAX_BUFFERED_BYTES",
        "RUST_LOG",
    ];
    assert_eq!(names, expected, "{:#?}", ended.stderr);
    assert!(ended.stderr.iter().all(|line| line.starts_with("streamgate: ")));
}

#[tokio::test]
async fn a_panic_outside_of_a_handler_ends_the_process_at_once() {
    const SIGABRT: i32 = 6;
    // What cannot be written to stderr is a panic: the nearest one that all can reach.
    let (nobody, stderr) = std::io::pipe().unwrap();
    drop(nobody);
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_streamgate"))
        .arg("consumer")
        .env_clear()
        .stderr(stderr)
        .status();
    assert_eq!(ended.unwrap().signal(), Some(SIGABRT));
}

#[tokio::test]
async fn the_arn_of_the_table_is_told_from_the_streams() {
    let table = "arn:aws:dynamodb:eu-central-1:123456789012:table/people";
    let ended = misconfigured(&[], &[("STREAM_ARN", table), ("TABLE_NAME", "people")]).await;
    let [line] = &ended.stderr[..] else { panic!("one line: {:#?}", ended.stderr) };
    assert!(line.starts_with("streamgate: STREAM_ARN "), "{line}");
    assert!(line.contains("is the ARN of a table"), "{line}");
}

#[tokio::test]
async fn an_unknown_flag_is_bad_configuration() {
    let variables = [("STREAM_ARN", ARN), ("TABLE_NAME", "people")];
    let ended = misconfigured(&["--batch-siz", "3"], &variables).await;
    let said = ended.stderr.join("\n");
    assert!(said.contains("--batch-siz") && said.contains("--batch-size"), "{said}");
}

#[tokio::test]
async fn a_flag_counts_over_its_variable() {
    let variables = [("STREAM_ARN", ARN), ("TABLE_NAME", "people"), ("BATCH_SIZE", "1")];
    let ended = misconfigured(&["--batch-size", "10001"], &variables).await;
    assert!(ended.stderr[0].contains("10001"), "{:#?}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_aws_refuses_at_start_is_named_with_code_77() {
    for (table, operation, action) in [
        ("refused-1", Operation::DescribeStream, "dynamodb:DescribeStream"),
        ("refused-2", Operation::GetShardIterator, "dynamodb:GetShardIterator"),
        ("refused-3", Operation::GetRecords, "dynamodb:GetRecords"),
    ] {
        let stage = Stage::new(table, 2).await;
        stage.simulator.faults().add(FaultRule::new(Fault::AccessDenied).on(operation));
        let ended = stage.start(&[]).await.ended().await;
        assert_eq!(ended.code, Some(77), "{:#?}", ended.stderr);
        let last = ended.stderr.last().unwrap();
        assert!(last.starts_with("streamgate: ") && last.contains(action), "{last}");
        assert!(last.contains(ARN), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_keep_progress_is_described_with_code_1() {
    let stage = Stage::new("suits", 1).await;
    let wrong = NewTable {
        name: "wrong-keys",
        partition_key: ("id", ScalarAttributeType::S),
        sort_key: None,
        stream: None,
    };
    stage.make(wrong).await;
    for (table, says) in [
        ("wrong-keys", "table wrong-keys has the partition key id (string) and no sort key"),
        ("not-there", "there is no table not-there in eu-central-1"),
    ] {
        let ended = stage.start(&[("TABLE_NAME", table)]).await.ended().await;
        assert_eq!(ended.code, Some(1), "{:#?}", ended.stderr);
        let last = ended.stderr.last().unwrap();
        assert!(last.starts_with("streamgate: ") && last.contains(says), "{last}");
    }
    let ended = stage.start(&[("TABLE_PARTITION_KEY", "pk")]).await.ended().await;
    assert_eq!(ended.code, Some(1));
    let last = ended.stderr.last().unwrap();
    assert!(last.ends_with("set TABLE_PARTITION_KEY=PK and TABLE_SORT_KEY=SK"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_there_ends_the_start() {
    let stage = Stage::new("no-stream", 1).await;
    let other = ARN.replace("2026-01-02", "2025-01-02");
    let ended = stage.start(&[("STREAM_ARN", &other)]).await.ended().await;
    assert_eq!(ended.code, Some(1));
    let last = ended.stderr.last().unwrap();
    assert!(last.contains(&other) && last.contains("LatestStreamArn"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_cannot_be_opened_is_told() {
    let stage = Stage::new("no-listener", 1).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = stage.start(&[("LISTEN", &address)]).await.ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.last().unwrap().starts_with("streamgate: LISTEN: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_later_makes_it_unready_and_not_dead_until_it_passes() {
    let stage = Stage::new("later", 1).await;
    let endpoint = Endpoint::start().await;
    put_rounds(&stage.simulator, 1, 0..1);
    let process = stage.consumer(&[("HANDLER", &endpoint.url)]).await;
    endpoint.until_distinct(1).await;
    process.until("/readyz", |code, _| code == 200).await;
    stage.simulator.faults().add(FaultRule::new(Fault::AccessDenied).on(Operation::GetRecords));
    let body = process.until("/readyz", |code, _| code == 503).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], false);
    assert!(body["troubles"]["shards"].as_str().unwrap().contains("GetRecords"), "{body}");
    assert_eq!(process.get("/healthz").await.0, 200);
    assert_eq!(process.status().await["ready"], false);
    stage.simulator.faults().clear();
    put_rounds(&stage.simulator, 1, 1..2);
    endpoint.until_distinct(2).await;
    process.until("/readyz", |code, _| code == 200).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_of_the_same_name_share_the_shards_and_take_over_from_each_other() {
    let stage = Stage::new("shared", 2).await;
    let endpoint = Endpoint::start().await;
    let variables = [("HANDLER", endpoint.url.as_str()), ("FAILOVER_TIME", "2s")];
    let holds = async |consumer: &Process, count: usize| {
        let holds = move |_: u16, body: &str| {
            let status: Value = serde_json::from_str(body).unwrap();
            let shards = status["shards"].as_object().unwrap().values();
            shards.filter(|shard| shard["state"] == "reading").count() == count
        };
        consumer.until("/status", holds).await;
    };
    let first = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 10, 0..2);
    endpoint.until_distinct(20).await;
    let second = stage.consumer(&variables).await;
    holds(&second, 1).await;
    holds(&first, 1).await;
    put_rounds(&stage.simulator, 10, 2..4);
    endpoint.until_distinct(40).await;
    second.until_metric("streamgate_records_delivered_total", |count| count > 0.0).await;
    assert_eq!(endpoint.got().len(), 40, "what moved was not delivered twice");

    for leaves in [true, false] {
        let third = stage.consumer(&variables).await;
        third.until("/readyz", |code, _| code == 200).await;
        assert_eq!(third.metric("streamgate_leases_held").await, 0.0, "there is none for it");
        if leaves { drop(third.stop().await) } else { third.kill().await }
    }

    first.kill().await;
    put_rounds(&stage.simulator, 10, 4..6);
    endpoint.until_distinct(60).await;
    holds(&second, 2).await;
    second.stop().await;
    assert_in_order(&endpoint.got());
    let left = stage.store().await.coordination().await.expect("the table answers").workers;
    assert!(left.is_empty(), "nobody lives: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_cuts_off_a_handler_that_hangs_and_says_so() {
    let stage = Stage::new("grace", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Hang);
    put_rounds(&stage.simulator, 1, 0..1);
    let variables = [("HANDLER", endpoint.url.as_str()), ("SHUTDOWN_GRACE", "1s")];
    let mut process = stage.consumer(&variables).await;
    endpoint.until("the batch that hangs", |i| i.len() == 1).await;
    process.signal("TERM");
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.last().unwrap().contains("SHUTDOWN_GRACE"), "{:#?}", ended.stderr);
    // Its records come again.
    endpoint.release();
    let process = stage.consumer(&variables).await;
    endpoint.until_distinct(1).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() {
    let stage = Stage::new("second-signal", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Hang);
    put_rounds(&stage.simulator, 1, 0..1);
    let mut process = stage.consumer(&[("HANDLER", endpoint.url.as_str())]).await;
    endpoint.until("the batch that hangs", |i| i.len() == 1).await;
    process.signal("TERM");
    let stopping = |lines: &[String]| lines.iter().any(|l| l.contains("stopping")).then_some(());
    process.stderr.find("that it stops", stopping).await;
    process.signal("INT");
    assert_eq!(process.ended().await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_reaches_nothing_waits_unready_and_can_be_stopped() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut process = consumer(&arn(), "people", nobody, nobody, &[]);
    process.listening().await;
    let body = process.until("/readyz", |_, body| body.contains("progress")).await;
    assert_eq!(process.get("/readyz").await.0, 503, "{body}");
    assert_eq!(process.get("/healthz").await.0, 200);
    process.stop().await;
}
