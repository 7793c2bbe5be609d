//! The commands that look at a container or describe it: health, status, policy.

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::free_port;
use crate::support::process::{Ended, Process};
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use serde_json::Value;
use std::path::PathBuf;

async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    Process::start(arguments, variables).ended().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_that_of_the_process_that_listens() {
    let stage = Stage::new("commands-health", 1).await;
    let (mut consumer, mut keeper) = (stage.consumer(&[]).await, stage.api(free_port(), &[]).await);
    let addresses = [consumer.listening().await, keeper.listening().await];
    for address in addresses {
        // A listener on every address is asked on this one.
        let listen = format!("0.0.0.0:{}", address.port());
        for ended in [
            run(&["health"], &[("LISTEN", &listen)]).await,
            run(&["health", "--listen", &address.to_string()], &[("LISTEN", "1.2.3.4:5")]).await,
        ] {
            assert_eq!((ended.code, ended.stderr.len()), (Some(0), 0), "{:?}", ended.stderr);
        }
        let ended = run(&["health", "--json"], &[("LISTEN", &listen)]).await;
        assert_eq!(ended.stdout, [format!(r#"{{"address":"{address}","live":true}}"#)]);
    }
    consumer.stop().await;
    let gone = addresses[0].to_string();
    let ended = run(&["health"], &[("LISTEN", &gone)]).await;
    assert_eq!(ended.code, Some(1));
    let [said] = &ended.stderr[..] else { panic!("one line: {:?}", ended.stderr) };
    assert!(said.contains(&gone) && said.contains("set LISTEN"), "{said}");
    keeper.stop().await;
    let ended = run(&["health"], &[("LISTEN", "9090")]).await;
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr[0].contains("an address and port"), "{:?}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_each_shard_its_owner_its_position_and_its_trouble() {
    let stage = Stage::new("commands-status", 2).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Status(500));
    let mut consumer = stage.consumer(&[("HANDLER", &endpoint.url)]).await;
    put_rounds(&stage.simulator, 20, 0..1);
    consumer.until("/status", |_, body| body.matches("failed_attempts").count() == 2).await;
    let listen = consumer.listening().await.to_string();
    let variables = [("LISTEN", listen.as_str())];
    let ended = run(&["status"], &variables).await;
    assert_eq!(ended.code, Some(0));
    let [role, heads, shards @ ..] = &ended.stdout[..] else { panic!("{:#?}", ended.stdout) };
    assert_eq!((role.as_str(), shards.len()), ("active", 2));
    assert!(heads.starts_with("SHARD ") && heads.contains("  POSITION  "), "{heads}");
    for shard in shards {
        let cells: Vec<_> = shard.split_whitespace().collect();
        let [id, state, owner, position, ..] = cells[..] else { panic!("{shard}") };
        assert!(id.starts_with("shardId-") && owner.starts_with("worker-"), "{shard}");
        assert_eq!((state, position), ("retrying", "TRIM_HORIZON"));
        assert!(shard.contains("trying again"), "{shard}");
    }
    let ended = run(&["status", "--json"], &variables).await;
    let json: Value = serde_json::from_str(&ended.stdout.join("\n")).unwrap();
    assert_eq!(json["shards"].as_object().map(serde_json::Map::len), Some(2));
    endpoint.usually(Answer::Take);
    endpoint.until_distinct(20).await;
    consumer.stop().await;
    let ended = run(&["status"], &variables).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr[0].contains("no consumer answers at"), "{:?}", ended.stderr);
    let mut keeper = stage.api(free_port(), &[]).await;
    let listen = keeper.listening().await.to_string();
    let ended = run(&["status"], &[("LISTEN", &listen)]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr[0].contains("does not answer as a consumer does"), "{:?}", ended.stderr);
    keeper.stop().await;
}

const STREAM: &str =
    "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-02T03:04:05.678";

/// What stands in the files for the parts that are each user's own.
const PLACEHOLDERS: [(&str, &str); 6] = [
    ("stream/2026-01-02T03:04:05.678", "stream/STREAM_LABEL"),
    ("#2026-01-02T03:04:05.678", "#STREAM_LABEL"),
    ("table/orders", "table/STREAM_TABLE"),
    ("table/progress", "table/TABLE_NAME"),
    ("eu-central-1", "REGION"),
    ("123456789012", "ACCOUNT"),
];

#[tokio::test]
async fn the_files_of_task_policies_are_what_the_command_prints() {
    let table = ("TABLE_NAME", "progress");
    let consumer = [("STREAM_ARN", STREAM), table];
    let with_api = [("STREAM_ARN", STREAM), table, ("API_URL", "http://api:8081")];
    let api = [table, ("AWS_REGION", "eu-central-1"), ("AWS_ACCOUNT_ID", "123456789012")];
    let files = [
        ("consumer.json", "consumer", &with_api[..]),
        ("consumer-without-api.json", "consumer", &consumer),
        ("api.json", "api", &api),
    ];
    for (file, container, variables) in files {
        let arguments = ["policy", container, "--log-group", "LOG_GROUP"];
        let ended = run(&arguments, variables).await;
        assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
        let mut expected = ended.stdout.join("\n") + "\n";
        for (own, placeholder) in PLACEHOLDERS {
            expected = expected.replace(own, placeholder);
        }
        let on_a_line = run(&[&arguments[..], &["--json"]].concat(), variables).await.stdout;
        let [line] = &on_a_line[..] else { panic!("one line: {on_a_line:?}") };
        let policy = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(policy(line), policy(&ended.stdout.join("\n")));
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("task-policies").join(file);
        if std::env::var_os("STREAMGATE_BLESS").is_some() {
            std::fs::write(&path, &expected).expect("the file can be written");
        }
        let stands = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(stands, expected, "STREAMGATE_BLESS=1 writes {file} anew");
        let policy: Value = serde_json::from_str(&stands).expect("JSON");
        for statement in policy["Statement"].as_array().unwrap() {
            let resource = statement["Resource"].as_str().expect("one resource");
            assert!(
                resource.starts_with("arn:aws:") && !resource.contains("table/*"),
                "{resource}"
            );
        }
        for never in ["ListStreams", "CreateLogGroup", "PutItem", "Scan", "dynamodb:*"] {
            assert!(!stands.contains(never), "{file} allows {never}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_in_json_has_a_mark_and_a_sentence_a_line() {
    let stage = Stage::new("commands-check", 1).await;
    let handler = format!("http://{}", free_port());
    let check = ["check", "consumer", "--json"];
    let ended = stage.command(&check, &[("HANDLER", &handler)]).await.ended().await;
    assert_eq!(ended.code, Some(1));
    let findings = ended.stdout.iter().map(|line| serde_json::from_str(line).expect("JSON"));
    let findings: Vec<Value> = findings.collect();
    assert_eq!(findings[0]["what"], "the configuration is complete");
    assert_eq!(findings[0]["mark"], "ok");
    let of = |mark: &str| findings.iter().filter(|finding| finding["mark"] == mark).count();
    assert!(of("fault") > 0 && of("ok") + of("fault") + of("open") == findings.len());
}

#[tokio::test]
async fn a_simulator_says_where_it_is_in_json() {
    let process = Process::start(&["simulate", "--listen", "127.0.0.1:0", "--json"], &[]);
    let said = |lines: &[String]| serde_json::from_str::<Value>(lines.first()?).ok();
    let said = process.stderr.find("where it is", said).await;
    assert!(said["url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{said}");
    assert!(said["stream"].as_str().is_some_and(|arn| arn.starts_with("arn:")), "{said}");
    process.stop().await;
}

#[tokio::test]
async fn a_policy_without_what_it_speaks_of_is_refused() {
    let ended = run(&["policy", "consumer"], &[("API_URL", "http://api:8081")]).await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(64), 0));
    let [stream, table] = &ended.stderr[..] else { panic!("{:#?}", ended.stderr) };
    assert!(stream.contains("STREAM_ARN is not set") && table.contains("TABLE_NAME is not set"));
    let ended =
        run(&["policy", "api", "--aws-account-id", "12"], &[("TABLE_NAME", "orders")]).await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(64), 0));
    let [region, account] = &ended.stderr[..] else { panic!("{:#?}", ended.stderr) };
    assert!(region.contains("AWS_REGION is not set") && account.contains("twelve digits"));
    let ended = run(&["policy"], &[]).await;
    assert_eq!(ended.code, Some(64));
}
