//! The handler `exec:` with a real program, which ends, hangs and fails at times.

use crate::support::ministack::python;
use crate::support::process::value_of;
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_gets_every_record_in_order_however_it_behaves() {
    let stage = Stage::new("exec", 2).await;
    let folder = std::env::temp_dir().join(format!("streamgate-exec-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let got = folder.join("got");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/program.py");
    let handler = format!("exec:{} {program} {}", python().display(), got.display());
    let variables = [
        ("HANDLER", handler.as_str()),
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
    for name in ["error", "timeout", "partial"] {
        assert_eq!(consumer.metric(&outcome(name)).await, 1.0, "{name}");
    }
    let ended = consumer.stop().await;
    let said = ended.stderr.join("\n");
    assert!(said.contains("the program is here"), "its stderr is passed through: {said}");
    assert!(said.contains("the program ended before it answered (exit status: 7)"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
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
