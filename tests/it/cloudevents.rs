//! `HANDLER_FORMAT=cloudevents` on the wire, to a handler in Python with the SDK of CloudEvents,
//! which judges every event and refuses some.

use crate::support::ministack::python;
use crate::support::process::{value_of, within};
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use streamgate::simulator::Change;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

/// `support/cloud_events.py`, and where it writes what it handles. It ends when this is dropped,
/// and with this binary, for its standard input closes then.
struct Receiver {
    _child: Child,
    url: String,
    folder: PathBuf,
}

impl Receiver {
    async fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("streamgate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut child = Command::new(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/cloud_events.py"))
            .arg(folder.join("got"))
            .arg(SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the venv's python runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = within("the handler's port", lines.next_line()).await.unwrap();
        let url = format!("http://127.0.0.1:{}/", port.expect("it says its port"));
        Self { _child: child, url, folder }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// What was handled of each item, in order.
    fn handled(&self) -> BTreeMap<String, Vec<String>> {
        let mut handled: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.read("got").lines() {
            let (item, change) = line.split_once(' ').expect("an item and its change");
            handled.entry(item.to_owned()).or_default().push(change.to_owned());
        }
        handled
    }

    /// From now on it takes what it has refused.
    fn mend(&self) {
        std::fs::write(self.folder.join("got.mended"), "").unwrap();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_reads_every_event_and_partial_answers_and_redrives_go_on_as_ever() {
    let (stage, receiver) =
        (Stage::new("cloudevents", 2).await, Receiver::start("cloudevents").await);
    let variables = [
        ("HANDLER", receiver.url.as_str()),
        ("HANDLER_FORMAT", "cloudevents"),
        ("HANDLER_SECRET", SECRET),
        ("BATCH_SIZE", "5"),
        ("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"),
        ("BISECT_BATCH_ON_FUNCTION_ERROR", "true"),
        ("MAXIMUM_RETRY_ATTEMPTS", "1"),
    ];
    put_rounds(&stage.simulator, 4, 0..8);
    stage.simulator.put(&Change::expiry("item-1"));
    let consumer = stage.consumer(&variables).await;
    let counts = |text: &str| {
        ["delivered", "dead_lettered"]
            .map(|what| value_of(text, &format!("streamgate_records_{what}_total")))
    };
    consumer.until("/metrics", |_, text| counts(text) == [32.0, 1.0]).await;
    assert_eq!(receiver.read("got.faults"), "");

    let change = |n: u64| format!("{} {n}", if n == 0 { "INSERT" } else { "MODIFY" });
    let mut expected: BTreeMap<String, Vec<String>> =
        (0..4).map(|item| (format!("item-{item}"), (0..8).map(change).collect())).collect();
    expected.get_mut("item-1").unwrap().push("REMOVE -".to_owned());
    let last = expected.get_mut("item-0").unwrap().pop().unwrap();
    assert_eq!(receiver.handled(), expected, "each once, what was refused included");
    let outcome = |name: &str| format!("streamgate_invocations_total{{outcome=\"{name}\"}}");
    assert!(consumer.metric(&outcome("partial")).await >= 8.0);
    assert_eq!(consumer.metric(&outcome("error")).await, 0.0);

    // What is kept of the one that is given up is Lambda's event, and it is handed over again
    // as the handler reads it.
    let run = async |arguments: &[&str]| {
        let arguments = [&["dead-letters"], arguments].concat();
        let ended = stage.command(&arguments, &variables).await.ended().await;
        assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
        ended.stdout.join("")
    };
    let listed: Value = serde_json::from_str(&run(&["list", "--json"]).await).expect("one letter");
    let id = listed["letter"]["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&run(&["show", id, "--json"]).await).unwrap();
    assert_eq!(shown["payload"]["Records"][0]["eventName"], "MODIFY");
    receiver.mend();
    run(&["redrive", "--all"]).await;
    assert_eq!(receiver.read("got.faults"), "");
    expected.get_mut("item-0").unwrap().push(last);
    assert_eq!(receiver.handled(), expected);
    consumer.stop().await;
}
