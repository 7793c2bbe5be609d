//! A real Lambda function, with AWS' runtime client and Powertools, behind a stand-in for the
//! emulator that its container image brings.

use crate::support::lambda::Function;
use crate::support::process::value_of;
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The function of `support/lambda/function.py`, and where it writes what it handles.
struct Powertools {
    function: Function,
    got: PathBuf,
}

impl Powertools {
    /// With a time-out of its own, in seconds.
    async fn start(name: &str, seconds: &str) -> Self {
        let got = std::env::temp_dir().join(format!("streamgate-{name}-{}", std::process::id()));
        let variables = [("GOT", got.to_str().expect("text"))];
        let folder = Path::new("tests/it/support/lambda");
        let function = Function::start(folder, "function.handle", seconds, &variables).await;
        Self { function, got }
    }

    fn url(&self) -> &str {
        &self.function.url
    }

    /// What was handled of each item, in the order of the first time.
    fn handled(&self) -> BTreeMap<String, Vec<u64>> {
        let text = std::fs::read_to_string(&self.got).unwrap_or_default();
        let mut handled: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in text.lines() {
            let (item, n) = line.split_once(' ').expect("an item and a number");
            let (numbers, n) = (handled.entry(item.to_owned()).or_default(), n.parse().unwrap());
            if !numbers.contains(&n) {
                numbers.push(n);
            }
        }
        handled
    }
}

impl Drop for Powertools {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.got);
        let _ = std::fs::remove_file(self.got.with_extension("slow"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_still_at_work_is_not_invoked_again() {
    let stage = Stage::new("lambda-slow", 1).await;
    let function = Powertools::start("lambda-slow", "60").await;
    // It takes eight seconds, once.
    let variables = [("HANDLER", function.url()), ("HANDLER_TIMEOUT", "2s")];
    stage.simulator.put_item("item-0", 60);
    let consumer = stage.consumer(&variables).await;
    let invocations =
        |outcome: &str| format!("streamgate_invocations_total{{outcome=\"{outcome}\"}}");
    consumer
        .until("/metrics", |_, text| value_of(text, "streamgate_records_delivered_total") == 1.0)
        .await;
    assert_eq!(consumer.metric(&invocations("timeout")).await, 1.0);
    assert_eq!(consumer.metric(&invocations("unreachable")).await, 0.0);
    assert_eq!(function.handled()["item-0"], [60]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_written_for_lambda_runs_unchanged() {
    let stage = Stage::new("lambda", 2).await;
    let function = Powertools::start("lambda", "5").await;
    let variables = [
        ("HANDLER", function.url()),
        ("BATCH_SIZE", "4"),
        ("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"),
        ("BISECT_BATCH_ON_FUNCTION_ERROR", "true"),
        ("MAXIMUM_RETRY_ATTEMPTS", "1"),
        ("ON_FAILURE", "none"),
    ];
    put_rounds(&stage.simulator, 4, 0..8);
    let consumer = stage.consumer(&variables).await;
    let counts = |text: &str| {
        let value = |name: &str| value_of(text, &format!("streamgate_{name}")) as u64;
        (value("records_delivered_total"), value("records_dropped_total{reason=\"retries\"}"))
    };
    // The function refuses every third: Powertools names it, and bisecting leaves it alone.
    consumer.until("/metrics", |_, text| counts(text) == (28, 4)).await;
    let expected: Vec<u64> = vec![0, 1, 2, 4, 5, 6, 7];
    let handled = function.handled();
    assert_eq!(handled.len(), 4);
    assert!(handled.values().all(|numbers| *numbers == expected), "{handled:?}");
    let partial = "streamgate_invocations_total{outcome=\"partial\"}";
    assert!(consumer.metric(partial).await >= 4.0);

    // An error of the function comes with status 200, and so does its time-out.
    stage.simulator.put_item("item-0", 50);
    consumer.until("/metrics", |_, text| counts(text) == (28, 5)).await;
    stage.simulator.put_item("item-0", 60);
    consumer.until("/metrics", |_, text| counts(text) == (29, 5)).await;
    assert_eq!(function.handled()["item-0"].last(), Some(&60));
    let invocations =
        |outcome: &str| format!("streamgate_invocations_total{{outcome=\"{outcome}\"}}");
    assert_eq!(consumer.metric(&invocations("timeout")).await, 1.0);
    // It was not invoked a second time meanwhile, which it does not live through.
    assert_eq!(consumer.metric(&invocations("unreachable")).await, 0.0);
    assert_eq!(consumer.metric(&invocations("error")).await, 2.0);
    let ended = consumer.stop().await;
    let said = ended.stderr.join("\n");
    assert!(said.contains("the function failed with RuntimeError"), "{said}");
    assert!(!said.contains("fifty is too much"), "a function's words may hold items: {said}");
}
