//! Both containers under roles that a server evaluates on the wire: what each may do, that
//! this is enough, and that nothing less is.

use crate::support::api::TOKEN;
use crate::support::endpoint::Endpoint;
use crate::support::process::{Ended, Process};
use crate::support::rig::{assert_in_order, deliveries};
use crate::support::roles::{self, Keys, allowed, calls, let_in, without};
use crate::support::stage::{self, Stage};
use crate::support::{Untouched, free_port};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use streamgate::arn::StreamArn;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_call_what_its_policy_names_and_nothing_else() {
    let (own, other) = (roles::table("roles-own").await, roles::table("roles-other").await);
    let [consumer, api] = roles::policies(&own).await;
    let alone = roles::policy_without_api(&own).await;
    let own_item = format!("streamgate#streamgate#{}", own.label());
    let shard_item = format!("{own_item}#07");
    let others = format!("streamgate#another#{}", own.label());
    let nothing = BTreeSet::new();
    // The one call on a table that knows no items.
    let describe = BTreeSet::from(["DescribeTable".to_owned()]);
    for (name, policy) in [("consumer", &consumer), ("api", &api), ("alone", &alone)] {
        let keys = roles::session(&format!("matrix-{name}"), policy).await;
        let all = calls(&keys, &own, &own_item).await;
        assert!(all.len() > 55, "every call of both services: {}", all.len());
        assert_eq!(let_in(&all), allowed(policy), "{name} on its own table and stream");
        assert_eq!(let_in(&calls(&keys, &other, &own_item).await), nothing, "{name} elsewhere");
        if name == "consumer" {
            continue;
        }
        assert_eq!(let_in(&calls(&keys, &own, &shard_item).await), allowed(policy));
        let reads = if name == "alone" { allowed(&consumer) } else { nothing.clone() };
        for foreign in ["customer#1", &others, "streamgate#streamgate"] {
            let passed = let_in(&calls(&keys, &own, foreign).await);
            assert_eq!(passed, &reads | &describe, "{name}: {foreign} is not its own");
        }
    }
}

/// The api with these keys.
async fn api(keys: &Keys, stream: &StreamArn, private: SocketAddr) -> Process {
    let url = format!("http://{}", roles::server());
    let private = private.to_string();
    let mut variables = keys.variables().to_vec();
    variables.extend([
        ("AWS_REGION", stream.region()),
        ("AWS_ENDPOINT_URL_DYNAMODB", &url),
        ("TABLE_NAME", stream.table()),
        ("API_TOKEN", TOKEN),
        ("LISTEN", "127.0.0.1:0"),
        ("PRIVATE_LISTEN", &private),
    ]);
    Process::start(&["api"], &variables)
}

/// The consumer with these keys, its table where it is told.
fn consumer(
    keys: &Keys,
    stream: &StreamArn,
    tables: SocketAddr,
    variables: &[(&str, &str)],
) -> Process {
    let keys = keys.variables();
    let variables = [&keys[..], variables].concat();
    stage::consumer(stream, stream.table(), roles::server(), tables, &variables)
}

async fn put(stream: &StreamArn, rounds: std::ops::Range<u64>) {
    let (first, last) = (rounds.start, rounds.end);
    let put = json!(["put", {"table": stream.table(), "first": first, "last": last}]);
    roles::root(&[put]).await;
}

/// No call was refused.
async fn assert_nothing_denied(process: &Process, metric: &str, operations: &[&str]) {
    for operation in operations {
        let series = format!("streamgate_{metric}{{operation=\"{operation}\",outcome=\"denied\"}}");
        assert_eq!(process.metric(&series).await, 0.0, "{operation}");
    }
}

const STREAM_CALLS: [&str; 3] = ["DescribeStream", "GetShardIterator", "GetRecords"];
const TABLE_CALLS: [&str; 4] = ["DescribeTable", "Query", "UpdateItem", "DeleteItem"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pair_works_under_its_two_roles() {
    let stream = roles::table("roles-pair").await;
    let [consumers, apis] = roles::policies(&stream).await;
    let (consumers, apis) = (
        roles::session("pair-consumer", &consumers).await,
        roles::session("pair-api", &apis).await,
    );
    let endpoint = Endpoint::start().await;
    let private = free_port();
    let url = format!("http://{private}");
    let (_tables, untouched) = Untouched::new();
    let variables = [("HANDLER", endpoint.url.as_str()), ("API_URL", &url), ("API_TOKEN", TOKEN)];
    let mut keeper = api(&apis, &stream, private).await;
    keeper.listening().await;
    let start = async || {
        let mut process = consumer(&consumers, &stream, untouched, &variables);
        process.listening().await;
        process
    };
    let process = start().await;
    put(&stream, 0..5).await;
    endpoint.until_distinct(15).await;
    assert_nothing_denied(&process, "aws_requests_total", &STREAM_CALLS).await;
    process.stop().await;
    put(&stream, 5..8).await;
    let process = start().await;
    endpoint.until_distinct(24).await;
    process.stop().await;
    assert_nothing_denied(&keeper, "table_requests_total", &TABLE_CALLS).await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
    assert_eq!(deliveries(&endpoint.got()).len(), 24);
    assert_eq!(endpoint.got().len(), 24, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_is_killed_under_its_role_and_everything_arrives_in_order() {
    let stream = roles::table("roles-kills").await;
    let [consumers, apis] = roles::policies(&stream).await;
    let consumers = roles::session("kills-consumer", &consumers).await;
    let apis = roles::session("kills-api", &apis).await;
    let endpoint = Endpoint::start().await;
    let private = free_port();
    let url = format!("http://{private}");
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("API_URL", &url),
        ("API_TOKEN", TOKEN),
        ("FAILOVER_TIME", "2s"),
        ("BATCH_SIZE", "2"),
        ("CHECKPOINT_INTERVAL", "100ms"),
    ];
    let start = async |private| {
        let mut keeper = api(&apis, &stream, private).await;
        keeper.listening().await;
        keeper
    };
    let mut keeper = start(private).await;
    let mut process = consumer(&consumers, &stream, roles::server(), &variables);
    for kill in 0..6 {
        put(&stream, kill * 4..kill * 4 + 4).await;
        endpoint.until_distinct(12 * kill as usize + 3).await;
        if kill % 2 == 0 {
            keeper.kill().await;
            keeper = start(private).await;
        } else {
            process.kill().await;
            process = consumer(&consumers, &stream, roles::server(), &variables);
        }
    }
    endpoint.until_distinct(72).await;
    process.listening().await;
    process.until("/readyz", |code, _| code == 200).await;
    assert_nothing_denied(&process, "aws_requests_total", &STREAM_CALLS).await;
    process.stop().await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
    assert_eq!(deliveries(&endpoint.got()).len(), 72);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_alone_works_under_its_own_items() {
    let stream = roles::table("roles-alone").await;
    let keys = roles::session("alone", &roles::policy_without_api(&stream).await).await;
    let endpoint = Endpoint::start().await;
    let variables = [("HANDLER", endpoint.url.as_str())];
    let mut process = consumer(&keys, &stream, roles::server(), &variables);
    process.listening().await;
    put(&stream, 0..5).await;
    endpoint.until_distinct(15).await;
    let all = [&STREAM_CALLS[..], &TABLE_CALLS].concat();
    assert_nothing_denied(&process, "aws_requests_total", &all).await;
    process.stop().await;
    assert_in_order(&endpoint.got());
}

/// What all tests with a stage stand on when STREAMGATE_TEST_ROLES is set: their processes
/// have a session of the role that goes with their variables, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_under_roles_gives_each_process_the_role_of_its_variables() {
    let stage = Stage::under_roles("roles-stage").await;
    let with_api = [("API_URL", "http://127.0.0.1:9"), ("API_TOKEN", TOKEN)];
    let another = [("CONSUMER_NAME", "another")];
    for (container, variables, works, refused) in [
        ("consumer", &with_api[..], false, "dynamodb:DescribeTable on"),
        // The items of another consumer only: whichever of its own is asked for first.
        ("consumer", &another, false, "dynamodb:"),
        ("api", &another, false, "dynamodb:"),
        ("api", &[], true, ""),
        ("consumer", &[], true, ""),
    ] {
        let keys = stage.keys(container, variables).await.expect("it is under roles");
        let keys = [&keys.variables()[..], &[("HANDLER", "discard")]].concat();
        let (stream, streams, tables) = (stage.simulator.stream(), stage.streams, stage.tables);
        let mut process = stage::consumer(stream, &stage.table, streams, tables, &keys);
        if !works {
            let ended = process.ended().await;
            let last = ended.stderr.last().unwrap();
            assert_eq!(ended.code, Some(77), "{container}: {last}");
            assert!(last.contains(&format!("needs to allow {refused}")), "{last}");
            continue;
        }
        process.listening().await;
        process.until("/readyz", |code, _| code == 200).await;
        if container == "consumer" {
            process.until("/status", |_, body| body.contains("\"reading\"")).await;
        }
        process.stop().await;
    }
    assert!(!stage.progress().await.is_empty(), "the root user sees what was written");
}

#[test]
fn what_does_not_run_under_roles_is_there_and_says_why() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for (test, reason) in roles::exceptions() {
        let (module, name) = test.split_once("::").expect("a module and a test");
        let source = std::fs::read_to_string(folder.join(format!("{module}.rs"))).expect(module);
        assert!(source.contains(&format!("async fn {name}()")), "there is no test {test}");
        assert!(source.contains("Stage::new"), "{module} does not run under roles anyway");
        assert!(!reason.trim().is_empty(), "{test} says why");
    }
}

fn assert_names(ended: &Ended, action: &str) {
    assert_eq!(ended.code, Some(77), "{action}: {:#?}", ended.stderr);
    let last = ended.stderr.last().unwrap();
    assert!(last.contains(&format!("needs to allow {action} on")), "{last}");
}

/// Minimality: whatever is taken away is missed at once, and by its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_any_one_of_its_actions_is_told_which() {
    let stream = roles::table("roles-less").await;
    put(&stream, 0..1).await;
    let [of_consumer, of_api] = roles::policies(&stream).await;
    let of_alone = roles::policy_without_api(&stream).await;
    let whole = roles::session("less-consumer", &of_consumer).await;
    let named = |action: &str| format!("dynamodb:{action}");
    for action in STREAM_CALLS.into_iter().chain(TABLE_CALLS) {
        let policy = without(&of_alone, &named(action));
        let keys = roles::session(&format!("less-alone-{action}"), &policy).await;
        let mut process = consumer(&keys, &stream, roles::server(), &[("HANDLER", "discard")]);
        assert_names(&process.ended().await, &named(action));
    }
    for action in TABLE_CALLS {
        let policy = without(&of_api, &named(action));
        let keys = roles::session(&format!("less-api-{action}"), &policy).await;
        let private = free_port();
        let url = format!("http://{private}");
        let mut keeper = api(&keys, &stream, private).await;
        if action == "DescribeTable" {
            assert_names(&keeper.ended().await, &named(action));
            continue;
        }
        keeper.listening().await;
        // The api finds out when it is asked, and the consumer says it.
        let variables = [("HANDLER", "discard"), ("API_URL", url.as_str()), ("API_TOKEN", TOKEN)];
        let mut process = consumer(&whole, &stream, roles::server(), &variables);
        assert_names(&process.ended().await, &named(action));
        keeper.stop().await;
    }
}

async fn check(container: &str, keys: &Keys, variables: &[(&str, &str)]) -> Ended {
    let url = format!("http://{}", roles::server());
    let mut all = keys.variables().to_vec();
    all.extend([
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_DYNAMODB", &url),
        ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", &url),
        ("API_TOKEN", TOKEN),
    ]);
    all.extend(variables);
    Process::start(&["check", container], &all).ended().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_of_each_role_what_is_missing_and_what_is_too_much() {
    let stream = roles::table("roles-check").await;
    put(&stream, 0..1).await;
    let [of_consumer, of_api] = roles::policies(&stream).await;
    let consumers = roles::session("check-consumer", &of_consumer).await;
    let apis = roles::session("check-api", &of_api).await;
    let before = roles::items(&stream).await;
    let everything = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"},
    ]});
    let wide = roles::session("check-wide", &everything).await;
    let endpoint = Endpoint::start().await;
    let private = free_port();
    let url = format!("http://{private}");
    let mut keeper = api(&apis, &stream, private).await;
    keeper.listening().await;
    let table = ("TABLE_NAME", stream.table());
    let handler = ("HANDLER", endpoint.url.as_str());
    let as_consumer = [("STREAM_ARN", stream.as_str()), table, ("API_URL", url.as_str()), handler];

    // Each with its own role: all good.
    for ended in
        [check("consumer", &consumers, &as_consumer).await, check("api", &apis, &[table]).await]
    {
        let lines = ended.stdout.join("\n");
        assert_eq!(ended.code, Some(0), "{lines}\n{:?}", ended.stderr);
        assert!(
            ended.stdout.len() > 7 && ended.stdout.iter().all(|l| l.starts_with("ok ")),
            "{lines}"
        );
        assert!(lines.contains("granted, as needed") && lines.contains("refused, as it should be"));
    }
    // The other's role, and one that may do anything.
    let faults = |ended: &Ended| -> Vec<String> {
        assert_eq!(ended.code, Some(1), "{:#?}", ended.stdout);
        let faults = ended.stdout.iter().filter(|line| line.starts_with("FAULT"));
        faults.cloned().collect()
    };
    let found = faults(&check("consumer", &apis, &as_consumer).await).join("\n");
    assert!(found.contains("missing: dynamodb:DescribeStream"), "{found}");
    for action in TABLE_CALLS {
        assert!(found.contains(&format!("over-privileged: dynamodb:{action} on table")), "{found}");
    }
    let found = faults(&check("consumer", &wide, &as_consumer).await);
    assert_eq!(found.len(), 8, "seven calls on the table, and ListStreams: {found:#?}");
    let found = faults(&check("api", &consumers, &[table]).await).join("\n");
    assert!(found.contains("dynamodb:DescribeTable"), "{found}");
    let found = faults(&check("api", &wide, &[table]).await).join("\n");
    for action in ["DescribeStream", "GetShardIterator", "ListStreams"] {
        assert!(found.contains(&format!("over-privileged: dynamodb:{action} on")), "{found}");
    }
    // What is not a permission: a token, a handler, an api that is not there.
    let mut wrong = as_consumer.to_vec();
    wrong.extend([("API_TOKEN", "not-the-token-of-it"), ("HANDLER", "http://127.0.0.1:9/")]);
    let found = faults(&check("consumer", &consumers, &wrong).await).join("\n");
    assert!(found.contains("set API_TOKEN to the same in both"), "{found}");
    assert!(found.contains("HANDLER: 127.0.0.1:9 does not accept connections"), "{found}");
    keeper.stop().await;
    let ended = check("consumer", &consumers, &as_consumer).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.iter().any(|line| line.starts_with("?  ")), "{:#?}", ended.stdout);

    // Without an api: its own items, and no others.
    let alone = roles::session("check-alone", &roles::policy_without_api(&stream).await).await;
    let as_alone = [("STREAM_ARN", stream.as_str()), table, ("API_TOKEN", ""), handler];
    let ended = check("consumer", &alone, &as_alone).await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stdout);
    let found = faults(&check("consumer", &wide, &as_alone).await).join("\n");
    assert!(
        found.contains("over-privileged: dynamodb:UpdateItem on other items of table"),
        "{found}"
    );
    assert_eq!(roles::items(&stream).await, before, "a check changes nothing");
}

/// Hands out a new session of a role to whoever asks, as ECS' and EKS' agents do.
struct Agent {
    url: String,
    served: Arc<AtomicUsize>,
    is_away: Arc<AtomicBool>,
}

impl Agent {
    async fn start(name: &str, policy: &Value) -> Self {
        let role = roles::role(name, policy).await;
        let (served, is_away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, away) = (Arc::clone(&served), Arc::clone(&is_away));
        let hand_out = async move || {
            if away.load(Ordering::SeqCst) {
                return Err(StatusCode::INTERNAL_SERVER_ERROR);
            }
            let assume = json!(["assume", {"role": role, "session": "short"}]);
            let keys = roles::root(&[assume]).await.remove(0);
            count.fetch_add(1, Ordering::SeqCst);
            let life = Duration::from_secs(roles::SHORT_SESSION_SECONDS);
            let end = humantime::format_rfc3339_seconds(SystemTime::now() + life).to_string();
            Ok(axum::Json(json!({
                "AccessKeyId": keys["AccessKeyId"],
                "SecretAccessKey": keys["SecretAccessKey"],
                "Token": keys["SessionToken"],
                "Expiration": end,
            })))
        };
        let router = axum::Router::new().route("/keys", axum::routing::get(hand_out));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/keys", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, served, is_away }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_expire_are_renewed_under_the_running_pair() {
    let stream = roles::table("roles-rotate").await;
    let [of_consumer, of_api] = roles::policies(&stream).await;
    let agents = [
        Agent::start("rotate-consumer", &of_consumer).await,
        Agent::start("rotate-api", &of_api).await,
    ];
    let endpoint = Endpoint::start().await;
    let (private, server) = (free_port(), format!("http://{}", roles::server()));
    let (url, private) = (format!("http://{private}"), private.to_string());
    let both = |agent: usize| {
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", agents[agent].url.as_str()),
            ("AWS_REGION", stream.region()),
            ("TABLE_NAME", stream.table()),
            ("API_TOKEN", TOKEN),
            ("LISTEN", "127.0.0.1:0"),
        ]
    };
    let mut variables = both(1);
    variables
        .extend([("AWS_ENDPOINT_URL_DYNAMODB", server.as_str()), ("PRIVATE_LISTEN", &private)]);
    let mut keeper = Process::start(&["api"], &variables);
    keeper.listening().await;
    let mut variables = both(0);
    variables.extend([
        ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", server.as_str()),
        ("STREAM_ARN", stream.as_str()),
        ("API_URL", &url),
        ("HANDLER", &endpoint.url),
        ("POLL_INTERVAL_MIN", "20ms"),
        ("POLL_INTERVAL_MAX", "100ms"),
    ]);
    let mut process = Process::start(&["consumer"], &variables);
    process.listening().await;

    let mut rounds = 0;
    let mut deliver = async |endpoint: &Endpoint| {
        put(&stream, rounds..rounds + 1).await;
        rounds += 1;
        endpoint.until_distinct(3 * rounds as usize).await;
    };
    // The SDK renews keys ten seconds before they end: here every three.
    while agents.iter().any(|agent| agent.served() < 6) {
        deliver(&endpoint).await;
    }
    assert_eq!(process.metric("streamgate_leases_lost_total").await, 0.0);
    assert_nothing_denied(&process, "aws_requests_total", &STREAM_CALLS).await;
    assert_nothing_denied(&keeper, "table_requests_total", &TABLE_CALLS).await;
    // Without new keys nothing works, and nothing ends.
    for agent in &agents {
        agent.is_away.store(true, Ordering::SeqCst);
    }
    process.until("/readyz", |code, _| code == 503).await;
    keeper.until("/readyz", |code, _| code == 503).await;
    for agent in &agents {
        agent.is_away.store(false, Ordering::SeqCst);
    }
    deliver(&endpoint).await;
    process.until("/readyz", |code, _| code == 200).await;
    process.stop().await;
    keeper.stop().await;
    assert_in_order(&endpoint.got());
}
