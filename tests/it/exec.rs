//! The handler `exec:` with a real program, which ends, hangs and fails at times.

use crate::support::api::TOKEN;
use crate::support::free_port;
use crate::support::ministack::python;
use crate::support::process::{value_of, within};
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_gets_every_record_in_order_however_it_behaves() {
    let stage = Stage::new("exec", 2).await;
    let folder = std::env::temp_dir().join(format!("streamgate-exec-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let got = folder.join("got");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/program.py");
    let handler = format!("exec:{} {program} {}", python().display(), got.display());
    let private = free_port();
    let keeper = stage.api(private, &[]).await;
    let url = format!("http://{private}");
    let variables = [
        ("HANDLER", handler.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("HANDLER_TIMEOUT", "3s"),
        ("BATCH_SIZE", "3"),
        ("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"),
    ];
    put_rounds(&stage.simulator, 4, 0..8);
    let consumer = stage.consumer(&variables).await;
    let delivered = |text: &str| value_of(text, "streamgate_records_delivered_total");
    consumer.until("/metrics", |_, text| delivered(text) == 32.0).await;
    let mut handled: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in std::fs::read_to_string(&got).unwrap().lines() {
        let (item, n) = line.split_once(' ').unwrap();
        let (numbers, n) = (handled.entry(item.to_owned()).or_default(), n.parse().unwrap());
        // A batch that was cut off comes again from its beginning.
        if !numbers.contains(&n) {
            numbers.push(n);
        }
    }
    let expected: Vec<u64> = (0..8).collect();
    assert!(handled.len() == 4 && handled.values().all(|n| *n == expected), "{handled:?}");
    let outcome = |name: &str| format!("streamgate_invocations_total{{outcome=\"{name}\"}}");
    for (name, count) in [("error", 2.0), ("timeout", 1.0), ("partial", 1.0)] {
        assert_eq!(consumer.metric(&outcome(name)).await, count, "{name}");
    }
    let ended = consumer.stop().await;
    keeper.stop().await;
    let said = ended.stderr.join("\n");
    assert!(said.contains("the program is here"), "its stderr is passed through: {said}");
    assert!(!said.contains("knows a secret"), "it has no business with the token: {said}");
    assert!(said.contains("the program answered more than one line"), "{said}");
    assert!(said.contains("the program ended before it answered (exit status: 7)"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_ended_while_it_had_nothing_to_do_costs_no_attempt() {
    let stage = Stage::new("exec-leaves", 1).await;
    let folder = std::env::temp_dir().join(format!("streamgate-leaves-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/program.py");
    let (python, got) = (python(), folder.join("got"));
    let handler = format!("exec:{} {program} {} leaves", python.display(), got.display());
    let variables =
        [("HANDLER", handler.as_str()), ("MAXIMUM_RETRY_ATTEMPTS", "0"), ("ON_FAILURE", "none")];
    let consumer = stage.consumer(&variables).await;
    for n in 0..3 {
        put_rounds(&stage.simulator, 1, n..n + 1);
        let taken = (n + 1) as f64;
        consumer
            .until("/metrics", |_, text| {
                value_of(text, "streamgate_records_delivered_total") == taken
                    || value_of(text, "streamgate_records_dropped_total{reason=\"retries\"}") > 0.0
            })
            .await;
        assert_eq!(consumer.metric("streamgate_records_delivered_total").await, taken);
        within("the child's end", async {
            while running(program, &got) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    let said = consumer.stop().await.stderr.join("\n");
    assert!(said.contains("another child is started"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Whether a process runs `program` with this argument: one that ended has no arguments.
fn running(program: &str, argument: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let all: Vec<Vec<String>> = lines
        .map(|line| line.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into()).collect())
        .collect();
    let argument = argument.to_str().unwrap();
    all.iter().any(|line| line.get(1..3).is_some_and(|two| two == [program, argument]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_there_is_waited_for_and_named() {
    let stage = Stage::new("exec-nobody", 1).await;
    put_rounds(&stage.simulator, 2, 0..1);
    let variables = [
        ("HANDLER", "exec:/nowhere/program"),
        ("MAXIMUM_RETRY_ATTEMPTS", "0"),
        ("ON_FAILURE", "none"),
    ];
    let consumer = stage.consumer(&variables).await;
    let find = |lines: &[String]| {
        lines.iter().find(|line| line.contains("/nowhere/program cannot be started")).cloned()
    };
    consumer.stderr.find("what cannot be started", find).await;
    let dropped = "streamgate_records_dropped_total{reason=\"retries\"}";
    assert_eq!(consumer.metric(dropped).await, 0.0);
    consumer.stop().await;
}
