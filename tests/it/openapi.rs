//! The description of the private interface, held against the interface.

use crate::support::api::{LABEL, RunningApi, TOKEN};
use crate::support::ministack::python;
use crate::support::process::client;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use streamgate::api::{ApiSettings, Stores, openapi};
use streamgate::progress::wire::{Call, HELLO, PROGRESS};
use streamgate::progress::{ApiToken, MemoryProgress, Progress};

async fn api() -> RunningApi {
    let store: Arc<dyn Progress> = Arc::new(MemoryProgress::new());
    let stores: Stores = Arc::new(move |_, _| Arc::clone(&store));
    let consumers = ["streamgate", "audit"].map(str::to_owned).to_vec();
    RunningApi::start_for(consumers, "people", stores, |api| api).await
}

#[test]
fn the_page_of_the_interface_is_what_an_api_serves() {
    let settings = ApiSettings {
        table: "TABLE_NAME".to_owned(),
        consumers: vec!["CONSUMER_NAME".to_owned()],
        token: ApiToken::new(TOKEN).unwrap(),
    };
    let expected = serde_json::to_string_pretty(&openapi(&settings)).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("STREAMGATE_BLESS").is_some() {
        std::fs::write(&path, &expected).expect("the page can be written");
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stands == expected, "STREAMGATE_BLESS=1 writes docs/openapi.json anew");
}

#[tokio::test]
async fn what_is_described_is_there_and_nothing_else() {
    let api = api().await;
    let get = async |path: &str| {
        let url = format!("{}{path}", api.url());
        let answer = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
        let (status, allow) = (answer.status().as_u16(), answer.headers().get("allow").cloned());
        (status, allow, serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap())
    };
    let (status, _, document) = get("/v1/openapi.json").await;
    assert_eq!(status, 200);
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{table}", "people")
            .replace("{consumer}", "streamgate")
            .replace("{label}", LABEL);
        let (status, allow, _) = get(&path).await;
        match (item.get("get"), item.get("post")) {
            (Some(_), None) => assert_eq!(status, 200, "{path}"),
            (None, Some(_)) => {
                assert_eq!((status, allow.unwrap().as_bytes()), (405, &b"POST"[..]), "{path}");
            }
            both => panic!("{path}: {both:?}"),
        }
        described.insert(path);
    }
    let calls =
        Call::ALL.map(|call| format!("{PROGRESS}/people/streamgate@{LABEL}/{}", call.name()));
    let others = [HELLO, "/v1/openapi.json"].map(str::to_owned);
    assert_eq!(described, calls.into_iter().chain(others).collect());
}

/// schemathesis makes requests that the description allows and such that it forbids, and
/// looks whether status, type and body of the answers are described.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_as_described_whatever_is_asked() {
    let api = api().await;
    let run = tokio::process::Command::new(python().with_file_name("schemathesis"))
        .arg("--config-file")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/schemathesis.toml"))
        .args(["run", &format!("{}/v1/openapi.json", api.url())])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"])
        .args(["--request-timeout", "30", "--no-color"])
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(std::env::temp_dir())
        .kill_on_drop(true)
        .output();
    // A few thousand requests by a program in Python: on two busy cores that takes a minute.
    let output = tokio::time::timeout(Duration::from_secs(300), run).await;
    let output = output.expect("it ends").expect("scripts/test installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
