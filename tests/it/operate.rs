//! The commands that operators ask something of a consumer with, as they are typed.

use crate::support::api::TOKEN;
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::process::Ended;
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use crate::support::{free_port, process};
use serde_json::Value;
use std::time::Duration;

/// Runs a command until what it says fits.
async fn until(
    stage: &Stage,
    command: &[&str],
    variables: &[(&str, &str)],
    fits: impl Fn(&Ended) -> bool,
) -> Ended {
    process::within("what stands to change", async {
        loop {
            let ended = stage.command(command, variables).await.ended().await;
            if fits(&ended) {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_shard_is_paused_skipped_and_sought_through_the_api() {
    let stage = Stage::new("operate", 1).await;
    let private = free_port();
    let keeper = stage.api(private, &[]).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Status(500));
    let api = format!("http://{private}");
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", api.as_str()),
        ("API_TOKEN", TOKEN),
        ("FAILOVER_TIME", "3s"),
    ];
    let consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 1, 0..3);
    consumer.until("/status", |_, body| body.contains("failed_attempts")).await;

    let all = ["status", "--all", "--json"];
    let ended = stage.command(&all, &variables).await.ended().await;
    let seen: Value = serde_json::from_str(&ended.stdout.join("\n")).expect("one object");
    let shard = seen["shards"][0]["shard"].as_str().expect("there is one").to_owned();
    assert_eq!(seen["workers"].as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!(seen["leader"], seen["workers"][0]["sign"]["worker"]);

    let ask = async |command: &[&str]| stage.command(command, &variables).await.ended().await;
    let ended = ask(&["pause", "--shard", &shard, "--by", "ann"]).await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    assert!(
        ended.stdout[0].contains(&format!("asked to pause shard {shard}")),
        "{:?}",
        ended.stdout
    );
    consumer.until("/status", |_, body| body.contains("\"paused\"")).await;
    let ended = ask(&["status", "--all"]).await;
    let text = ended.stdout.join("\n");
    assert!(
        text.contains("leads") && text.contains(&format!("shard {shard} is paused, as ann asked")),
        "{text}"
    );

    // The first record is the one that the handler does not take.
    let ended = ask(&["skip", "--shard", &shard, "--by", "ann", "--json"]).await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    let [line] = &ended.stdout[..] else { panic!("one line: {:?}", ended.stdout) };
    let asked: Value = serde_json::from_str(line).expect("one object");
    assert_eq!((&asked["by"], &asked["order"]["skip"][0]), (&"ann".into(), &shard.as_str().into()));
    endpoint.usually(Answer::Take);
    let ended = ask(&["resume"]).await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    endpoint.until_distinct(2).await;
    let ns: Vec<_> = endpoint.got().iter().filter_map(|got| got.n).collect();
    assert_eq!(ns, [1, 2]);
    assert_eq!(consumer.metric("streamgate_records_dropped_total{reason=\"skipped\"}").await, 1.0);

    let ended = ask(&["seek", "--to", "trim-horizon"]).await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    endpoint.until_distinct(3).await;
    until(&stage, &all, &variables, |ended| {
        let seen: Value = serde_json::from_str(&ended.stdout.join("\n")).expect("one object");
        let orders = &seen["orders"];
        orders["reset"].is_null() && orders["moves"].as_array().is_some_and(Vec::is_empty)
    })
    .await;

    for (command, code, says) in [
        (&["skip"][..], 64, "--shard"),
        (&["skip", "--shard", "shardId-none"], 1, "has no progress in a shard shardId-none"),
        (&["seek", "--to", "yesterday"], 64, "trim-horizon, latest or a time"),
        (&["skip", "--shard", &shard, "--records", "0"], 64, "0"),
        (&["pause", "--by", ""], 64, "--by is 1 to 128 bytes"),
    ] {
        let ended = ask(command).await;
        assert_eq!(ended.code, Some(code), "{command:?}: {:?}", ended.stderr);
        let said = ended.stderr.join("\n");
        assert!(said.contains(says), "{command:?}: {said}");
    }
    consumer.stop().await;
    keeper.stop().await;
}
