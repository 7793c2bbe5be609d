//! A program over the library with a handler of its own: the example, run as people run it.

use crate::support::example::example;
use crate::support::process::{Ended, Process};
use crate::support::rig::{ARN, put_rounds};
use crate::support::stage::Stage;
use serde_json::json;
use std::path::PathBuf;
use streamgate::simulator::{Change, ChangeKind};

async fn counting() -> PathBuf {
    example("counting").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_counts_every_record_and_gives_up_what_it_cannot_read() {
    let stage = Stage::new("program", 1).await;
    put_rounds(&stage.simulator, 3, 0..4);
    stage.simulator.put(&Change {
        kind: ChangeKind::Insert,
        new_image: Some(json!({"PK": {"S": "cat"}, "n": {"S": "many"}})),
        ..Change::item("cat", 0)
    });
    stage.simulator.put(&Change::expiry("item-0"));
    let variables = [
        ("MAXIMUM_RETRY_ATTEMPTS", "0"),
        ("BISECT_BATCH_ON_FUNCTION_ERROR", "true"),
        ("ON_FAILURE", "none"),
    ];
    let mut process = stage.start_program(&counting().await, &variables).await;
    process.listening().await;
    let all = r#"{"INSERT": 3, "MODIFY": 9, "REMOVE": 1}, n adds up to 18"#;
    let find = |lines: &[String]| lines.iter().any(|line| line == all).then_some(());
    process.stdout.find("the counts", find).await;
    process.until("/status", |_, body| body.contains("\"role\":\"active\"")).await;
    let dropped = "streamgate_records_dropped_total{reason=\"retries\"}";
    assert_eq!(process.metric(dropped).await, 1.0);
    let said = process.stop().await.stderr.join("\n");
    assert!(said.contains("stopping: finishing what is in flight"), "{said}");
    assert!(!said.contains("many"), "no item contents in the log: {said}");
    // What was counted is written down: another run has nothing left to do.
    let mut again = stage.start_program(&counting().await, &variables).await;
    again.listening().await;
    put_rounds(&stage.simulator, 1, 4..5);
    let find = |lines: &[String]| lines.first().cloned();
    let first = again.stdout.find("a count", find).await;
    assert_eq!(first, r#"{"MODIFY": 1}, n adds up to 4"#);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_with_its_own_handler_refuses_another_and_ends_with_the_codes_of_the_consumer() {
    let run = async |variables: &[(&str, &str)]| -> Ended {
        Process::of(&counting().await, &[], variables).ended().await
    };
    let ended = run(&[("STREAM_ARN", ARN), ("HANDLER", "log")]).await;
    assert_eq!(ended.code, Some(64), "{:#?}", ended.stderr);
    let [handler, table] = &ended.stderr[..] else { panic!("two lines: {:#?}", ended.stderr) };
    assert!(handler.starts_with("counting: HANDLER is set, but"), "{handler}");
    assert!(table.starts_with("counting: TABLE_NAME is not set"), "{table}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let variables = [("STREAM_ARN", ARN), ("TABLE_NAME", "people"), ("LISTEN", &*address)];
    let ended = run(&variables).await;
    assert_eq!(ended.code, Some(1), "{:#?}", ended.stderr);
    let said = ended.stderr.join("\n");
    assert!(said.contains(&format!("LISTEN: {address} cannot be opened")), "{said}");
}
