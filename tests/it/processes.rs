//! The consumer as people run it: a process, an environment, sockets, signals.

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::free_port;
use crate::support::process::{client, value_of};
use crate::support::rig::{ARN, assert_in_order, deliveries, distinct, put_rounds};
use crate::support::stage::Stage;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use streamgate::progress::Position;
use streamgate::simulator::{Change, ChangeKind, Fault, FaultRule, Operation, Simulator};

/// One page of a stream's only shard, as the service answers it.
async fn raw_records(streams: SocketAddr, shard: &str) -> Vec<Value> {
    let client = client();
    let call = async |operation: &str, body: Value| -> Value {
        let answer = client
            .post(format!("http://{streams}/"))
            .header("x-amz-target", format!("DynamoDBStreams_20120810.{operation}"))
            .header("authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/dynamodb/aws4_request")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    };
    let from = json!({"StreamArn": ARN, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = call("GetShardIterator", from).await;
    let page = call("GetRecords", json!({"ShardIterator": iterator["ShardIterator"]})).await;
    page["Records"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_arrives_as_a_lambda_function_would_get_it() {
    let stage = Stage::new("way", 1).await;
    let endpoint = Endpoint::start().await;
    let image = json!({"PK": {"S": "cat"}, "SK": {"S": "é\"\\"}, "n": {"N": "001.500E+2"}, "b": {"B": "AQI="}});
    let keys = json!({"PK": {"S": "cat"}, "SK": {"S": "é\"\\"}});
    let number = stage.simulator.put(&Change {
        kind: ChangeKind::Insert,
        keys: keys.clone(),
        new_image: Some(image.clone()),
        old_image: None,
        user_identity: None,
    });
    stage.simulator.put(&Change::expiry("old"));
    let process =
        stage.consumer(&[("HANDLER", &endpoint.url), ("CONSUMER_NAME", "the-consumer")]).await;
    endpoint.until_distinct(2).await;

    let [invocation] = &endpoint.invocations()[..] else { panic!("one batch") };
    let shard = stage.simulator.open_shards()[0].clone();
    assert_eq!((invocation.method.as_str(), invocation.path.as_str()), ("POST", "/events?a=b"));
    for (header, value) in [
        ("content-type", "application/json"),
        ("user-agent", concat!("streamgate/", env!("CARGO_PKG_VERSION"))),
        ("streamgate-shard-id", shard.as_str()),
        ("streamgate-attempt", "1"),
        ("streamgate-consumer", "the-consumer"),
        ("content-length", &invocation.body.len().to_string()),
    ] {
        assert_eq!(invocation.header(header), value, "{header}");
    }

    let raw = raw_records(stage.streams, shard.as_str()).await;
    let event: Value = serde_json::from_slice(&invocation.body).unwrap();
    assert_eq!(event.as_object().unwrap().keys().collect::<Vec<_>>(), ["Records"]);
    let inserted = json!({
        "eventID": raw[0]["eventID"],
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-central-1",
        "dynamodb": {
            "ApproximateCreationDateTime": raw[0]["dynamodb"]["ApproximateCreationDateTime"],
            "Keys": keys,
            "NewImage": image,
            "SequenceNumber": number.as_str(),
            "SizeBytes": raw[0]["dynamodb"]["SizeBytes"],
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": ARN,
    });
    let mut expired = raw[1].clone();
    expired["eventSourceARN"] = json!(ARN);
    expired["userIdentity"] = json!({"principalId": "dynamodb.amazonaws.com", "type": "Service"});
    for (record, expected) in event["Records"].as_array().unwrap().iter().zip([&inserted, &expired])
    {
        assert_same_members("Records[]", record, expected);
    }
    assert_eq!(event["Records"].as_array().unwrap().len(), 2);
    let text = std::str::from_utf8(&invocation.body).unwrap();
    assert!(text.contains(r#"{"N":"001.500E+2"}"#), "numbers are not touched: {text}");
    process.stop().await;
}

fn as_number(digits: &str) -> u128 {
    digits.parse().unwrap()
}

/// Compares member by member, so that a difference is told by its path.
fn assert_same_members(path: &str, value: &Value, expected: &Value) {
    match (value, expected) {
        (Value::Object(value), Value::Object(expected)) => {
            let names = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<BTreeSet<_>>()
            };
            assert_eq!(names(value), names(expected), "members of {path}");
            for (name, value) in value {
                assert_same_members(&format!("{path}.{name}"), value, &expected[name]);
            }
        }
        _ => assert_eq!(value, expected, "{path}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_at_random_moments_lose_nothing_and_repeat_only_what_was_not_yet_written_down() {
    let stage = Stage::new("kills", 3).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::TakeLater(Duration::from_millis(5)));
    stage.simulator.set(|s| s.page_records = 20);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let interval = Duration::from_millis(100);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("FAILOVER_TIME", "1s"),
        ("CHECKPOINT_INTERVAL", "100ms"),
        ("BATCH_SIZE", "3"),
    ];
    let mut may_repeat = 0;
    for life in 0..10 {
        // More than a life gets done, so that every kill strikes under load.
        put_rounds(&stage.simulator, 60, life * 8..life * 8 + 8);
        let open = stage.simulator.open_shards();
        if life % 3 == 1 {
            stage.simulator.split(random.choice(&open).unwrap());
        }
        let process = stage.consumer(&variables).await;
        let before = endpoint.invocations().len();
        let more = if random.u8(..) < 50 { 0 } else { random.usize(1..150) };
        endpoint.until("a random moment", |i| i.len() >= before + more).await;
        process.kill().await;
        let killed = Instant::now();
        let positions = stage.progress().await;
        let positions: HashMap<_, _> =
            positions.iter().map(|p| (p.shard.as_str(), &p.position)).collect();
        let is_written = |shard: &str, number: &str| match positions.get(shard) {
            Some(Position::ShardEnd) => true,
            Some(Position::After(last)) => as_number(number) <= as_number(last.as_str()),
            _ => false,
        };
        let mut open_ends = BTreeSet::new();
        for (index, invocation) in endpoint.invocations().iter().enumerate() {
            let shard = invocation.header("streamgate-shard-id").to_owned();
            for record in &invocation.records {
                if !is_written(&shard, &record.sequence_number) {
                    open_ends.insert(record.sequence_number.clone());
                    let age = killed - invocation.at;
                    // A second for a write on a busy machine.
                    let most = interval + Duration::from_secs(1);
                    assert!(index < before || age < most, "not written down for {age:?}");
                }
            }
        }
        may_repeat += open_ends.len();
    }
    let process = stage.consumer(&variables).await;
    endpoint.until_distinct(60 * 80).await;
    process.stop().await;
    let got = endpoint.got();
    assert_in_order(&got);
    let repeated = got.len() - distinct(&got);
    println!("{repeated} repeated, {may_repeat} allowed");
    assert!(repeated <= may_repeat, "{repeated} repeated, {may_repeat} allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_is_clean_and_the_next_start_repeats_nothing() {
    let stage = Stage::new("stops", 4).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::TakeLater(Duration::from_millis(5)));
    stage.simulator.set(|s| s.page_records = 50);
    put_rounds(&stage.simulator, 100, 0..10);
    stage.simulator.roll_all();
    put_rounds(&stage.simulator, 100, 10..20);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("CHECKPOINT_INTERVAL", "5m"),
        ("BATCH_SIZE", "5"),
        ("SHUTDOWN_GRACE", "5s"),
    ];
    for stop in 1..=4 {
        let process = stage.consumer(&variables).await;
        endpoint.until("some batches", |i| i.len() >= stop * 60).await;
        let asked = Instant::now();
        process.stop().await;
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(endpoint.got().len() < 2000, "it was stopped under load");
    }
    let process = stage.consumer(&variables).await;
    endpoint.until_distinct(2000).await;
    process.stop().await;
    assert_in_order(&endpoint.got());
    let twice: Vec<_> = deliveries(&endpoint.got())
        .into_iter()
        .filter(|d| d.1 > 1)
        .map(|d| d.0.to_owned())
        .collect();
    assert!(twice.is_empty(), "came twice: {twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_records_over_twenty_shards_with_a_tenth_of_the_calls_failing_on_the_wire() {
    let stage = Stage::new("faults", 20).await;
    let endpoint = Endpoint::start().await;
    stage.simulator.set(|s| s.page_records = 25);
    put_rounds(&stage.simulator, 500, 0..20);
    let faults = stage.simulator.faults();
    // Three of the first reads hang until the client gives up, all at the same time.
    faults.add(FaultRule::new(Fault::Hang).on(Operation::GetRecords).after(20).times(3));
    for fault in [
        Fault::Throttle,
        Fault::LimitExceeded,
        Fault::InternalError,
        Fault::Reset,
        Fault::HalfAnswer,
        Fault::Malformed,
        Fault::Slow(Duration::from_millis(50)),
    ] {
        faults.add(FaultRule::new(fault).probability(0.0125));
    }
    for fault in [Fault::ExpiredIterator, Fault::EmptyPage, Fault::NotFound] {
        faults.add(FaultRule::new(fault).on(Operation::GetRecords).probability(0.0125));
    }
    // Refusals end a consumer that has never read; this one has by then.
    for fault in [Fault::ExpiredToken, Fault::AccessDenied] {
        let rule = FaultRule::new(fault).on(Operation::GetRecords).after(100);
        faults.add(rule.probability(0.0125));
    }
    let process = stage.consumer(&[("HANDLER", &endpoint.url), ("BATCH_SIZE", "50")]).await;
    endpoint.until_distinct(10_000).await;
    process.stop().await;
    let got = endpoint.got();
    assert_in_order(&got);
    assert_eq!(got.len(), 10_000, "nothing came twice");
    let calls = stage.simulator.calls();
    let struck: u64 = calls.faults.values().sum();
    println!("{} calls, of which failed: {:?}", calls.total(), calls.faults);
    assert!(calls.get_records > 400 && struck * 20 > calls.total(), "{calls:?}");
    assert_eq!(calls.faults["hang"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_handler_stops_the_reading_and_not_the_machine() {
    const BUDGET: usize = 2 << 20;
    const PAGE: usize = 1 << 20;
    let stage = Stage::new("stuck", 8).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Hang);
    let budget = BUDGET.to_string();
    let variables = [("HANDLER", endpoint.url.as_str()), ("MAX_BUFFERED_BYTES", &budget)];
    let process = stage.consumer(&variables).await;
    process.until("/readyz", |code, _| code == 200).await;
    let before = process.metric("process_resident_memory_bytes").await;

    // 48 MiB wait: 3,000 records of 16 KiB.
    put_big(&stage.simulator, 300, 10, 16 << 10);
    endpoint.until("a batch that hangs", |i| !i.is_empty()).await;
    let full = |exposition: &str| value_of(exposition, "streamgate_buffered_bytes") as usize;
    process.until("/metrics", |_, text| full(text) + PAGE > BUDGET).await;
    // Long enough for many more reads, if it read on: every shard's idle poll comes round.
    let reads = stage.simulator.calls().get_records;
    for _ in 0..100 {
        let (_, text) = process.get("/metrics").await;
        assert!(full(&text) <= BUDGET + PAGE, "{} bytes are buffered", full(&text));
        let grown = value_of(&text, "process_resident_memory_bytes") - before;
        assert!(grown < 24e6, "grew by {grown} bytes");
    }
    let more = stage.simulator.calls().get_records - reads;
    assert!(more <= 8, "it reads on: {more} calls");
    assert!(endpoint.got().is_empty());

    endpoint.release();
    endpoint.until_distinct(3000).await;
    process.until("/metrics", |_, text| full(text) == 0).await;
    process.stop().await;
    assert_in_order(&endpoint.got());
    assert_eq!(endpoint.got().len(), 3000);
}

fn put_big(simulator: &Simulator, items: usize, rounds: u64, bytes: usize) {
    let filler = "x".repeat(bytes);
    for n in 0..rounds {
        for item in 0..items {
            let mut change = Change::item(&format!("item-{item}"), n);
            change.new_image.as_mut().unwrap()["filler"] = json!({"S": filler});
            simulator.put(&change);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_answer_over_http_brings_the_rest_again_and_a_limit_drops_it() {
    let stage = Stage::new("processes-partial", 1).await;
    let endpoint = Endpoint::start().await;
    put_rounds(&stage.simulator, 10, 0..1);
    endpoint.script([Answer::FailFrom(4), Answer::FailFrom(3)]);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"),
        ("MAXIMUM_RETRY_ATTEMPTS", "1"),
        ("ON_FAILURE", "none"),
    ];
    let consumer = stage.consumer(&variables).await;
    endpoint.until_distinct(10).await;
    let sizes: Vec<usize> = endpoint.invocations().iter().map(|i| i.records.len()).collect();
    assert_eq!(sizes, [4, 3, 3], "what was taken of ten, of the six left, of the three left");
    let attempts: Vec<String> = endpoint
        .invocations()
        .iter()
        .map(|invocation| invocation.header("streamgate-attempt").to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    let metric = async |name: &str| consumer.metric(&format!("streamgate_{name}")).await;
    consumer
        .until("/metrics", |_, text| value_of(text, "streamgate_records_delivered_total") == 10.0)
        .await;
    assert_eq!(metric("invocations_total{outcome=\"partial\"}").await, 2.0);
    // A whole failure, twice: its one retry is used up.
    endpoint.script([Answer::Status(500), Answer::Status(500)]);
    put_rounds(&stage.simulator, 1, 1..2);
    consumer
        .until("/metrics", |_, text| {
            value_of(text, "streamgate_records_dropped_total{reason=\"retries\"}") == 1.0
        })
        .await;
    put_rounds(&stage.simulator, 1, 2..3);
    endpoint.until_distinct(11).await;
    let ended = consumer.stop().await;
    let dropped: Vec<_> =
        ended.stderr.iter().filter(|line| line.contains("given up and dropped")).collect();
    let [line] = &dropped[..] else { panic!("one line for one batch: {dropped:#?}") };
    assert!(line.contains("\"records\":1") && line.contains("500"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_posted_with_its_payload_and_its_shard_waits_until_it_is_taken() {
    let stage = Stage::new("processes-letters", 1).await;
    let (endpoint, letters) = (Endpoint::start().await, Endpoint::start().await);
    put_rounds(&stage.simulator, 3, 0..1);
    endpoint.script([Answer::Status(500), Answer::Status(500)]);
    letters.script([Answer::Status(503), Answer::Close]);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("MAXIMUM_RETRY_ATTEMPTS", "1"),
        ("ON_FAILURE", letters.url.as_str()),
    ];
    let consumer = stage.consumer(&variables).await;
    letters.until_distinct(3).await;
    // One of the next round, so that what comes after it is seen to come after it.
    put_rounds(&stage.simulator, 1, 1..2);
    endpoint.until_distinct(1).await;
    let metric = async |name: &str| consumer.metric(&format!("streamgate_{name}")).await;
    assert_eq!(metric("records_dead_lettered_total").await, 3.0);
    assert_eq!(metric("records_dropped_total{reason=\"retries\"}").await, 0.0);
    let tried = endpoint.invocations();
    assert_eq!(tried.iter().map(|i| i.records.len()).collect::<Vec<_>>(), [3, 3, 1]);
    let posted = letters.invocations();
    let [refused, _, taken] = &posted[..] else { panic!("three posts: {posted:#?}") };
    assert!(tried[2].at > taken.at, "its shard waited");
    let letter: Value = serde_json::from_slice(&taken.body).unwrap();
    let id = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["requestContext"].clone();
    assert_eq!(letter["requestContext"], id(&refused.body), "the same when it is sent again");
    assert_eq!(letter["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 2);
    let event: Value = serde_json::from_str(letter["payload"].as_str().unwrap()).unwrap();
    let invoked: Value = serde_json::from_slice(&tried[0].body).unwrap();
    assert_eq!(event, invoked, "its payload is what the handler got");
    let info = &letter["DDBStreamBatchInfo"];
    assert_eq!(info["batchSize"], 3);
    let number = |at: usize| &event["Records"][at]["dynamodb"]["SequenceNumber"];
    assert_eq!((&info["startSequenceNumber"], &info["endSequenceNumber"]), (number(0), number(2)));
    assert_eq!(info["streamArn"], event["Records"][0]["eventSourceARN"]);
    let answer = letter["streamgate"]["lastError"].as_str().unwrap();
    assert!(answer.contains("500"), "{answer}");
    let ended = consumer.stop().await;
    let log = ended.stderr.join("\n");
    assert!(
        log.contains("given up, and ON_FAILURE has them") && !log.contains(&letters.url),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_requests_are_what_standard_webhooks_expects_and_keep_their_id() {
    let stage = Stage::new("processes-signed", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.script([Answer::Status(500)]);
    put_rounds(&stage.simulator, 5, 0..1);
    let (old, new) =
        ("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=");
    let both = format!("{new} {old}");
    let variables = [("HANDLER", endpoint.url.as_str()), ("HANDLER_SECRET", &both)];
    let consumer = stage.consumer(&variables).await;
    endpoint.until_distinct(5).await;
    let ended = consumer.stop().await;
    assert!(!ended.stderr.join("\n").contains("whsec"), "secrets are in no log");
    let invocations = endpoint.invocations();
    assert!(invocations.len() >= 2);
    for invocation in &invocations {
        // While one secret is replaced by the other, a handler may know either.
        for secret in [old, new] {
            let webhook = standardwebhooks::Webhook::new(secret).unwrap();
            webhook.verify(&invocation.body, &invocation.headers).expect("it is signed");
        }
        let stranger = "whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4";
        let webhook = standardwebhooks::Webhook::new(stranger).unwrap();
        assert!(webhook.verify(&invocation.body, &invocation.headers).is_err());
    }
    assert_eq!(invocations[0].header("webhook-id"), invocations[1].header("webhook-id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_asks_to_be_left_alone_is() {
    let stage = Stage::new("processes-busy", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.script([Answer::Busy(2)]);
    put_rounds(&stage.simulator, 1, 0..1);
    let consumer = stage.consumer(&[("HANDLER", endpoint.url.as_str())]).await;
    endpoint.until_distinct(1).await;
    let [refused, taken] = &endpoint.invocations()[..] else { panic!("two invocations") };
    // By itself the first retry comes within a fifth of a second.
    assert!(taken.at - refused.at >= Duration::from_secs(2));
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_not_there_uses_up_no_retry() {
    let stage = Stage::new("processes-nobody", 1).await;
    put_rounds(&stage.simulator, 5, 0..1);
    let nobody = free_port();
    let url = format!("http://{nobody}/");
    let variables =
        [("HANDLER", url.as_str()), ("MAXIMUM_RETRY_ATTEMPTS", "0"), ("ON_FAILURE", "none")];
    let consumer = stage.consumer(&variables).await;
    consumer
        .until("/metrics", |_, text| {
            value_of(text, "streamgate_invocations_total{outcome=\"unreachable\"}") >= 3.0
        })
        .await;
    assert_eq!(consumer.metric("streamgate_records_dropped_total{reason=\"retries\"}").await, 0.0);
    let position = &stage.progress().await[0].position;
    assert_eq!(*position, Position::TrimHorizon);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_for_cloudwatch_are_lines_on_stdout() {
    let stage = Stage::new("processes-emf", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.script([Answer::Status(500)]);
    let variables = [("HANDLER", endpoint.url.as_str()), ("METRICS_EMF", "true")];
    let consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 10, 0..1);
    endpoint.until_distinct(10).await;
    let ended = consumer.stop().await;
    let [line] = &ended.stdout[..] else { panic!("one for the time since: {:#?}", ended.stdout) };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["Consumer"], &line["Table"]), (&json!("streamgate"), &json!("people")));
    let counts = ["PolledEventCount", "InvokedEventCount", "FailedInvokeEventCount", "Gaps"];
    let counts = counts.map(|name| line[name].as_u64().unwrap());
    let [polled, invoked, failed, gaps] = counts;
    assert_eq!((polled, gaps, invoked - failed), (10, 0, 10), "{line}");
    assert!(failed > 0, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_a_handler_fails_is_counted_and_tried_again_in_order() {
    let stage = Stage::new("failures", 1).await;
    let endpoint = Endpoint::start().await;
    let failures = [
        (Answer::Status(500), "error"),
        (Answer::Status(404), "error"),
        (Answer::Redirect, "error"),
        (Answer::Endless, "error"),
        (Answer::Close, "unreachable"),
        (Answer::Half, "unreachable"),
        (Answer::Hang, "timeout"),
    ];
    // Each record fails once and is taken; the last fails three times.
    for (answer, _) in failures {
        endpoint.script([answer, Answer::Take]);
    }
    endpoint.script([Answer::Status(503), Answer::Close, Answer::Status(500), Answer::Take]);
    put_rounds(&stage.simulator, 1, 0..8);
    let variables =
        [("HANDLER", endpoint.url.as_str()), ("HANDLER_TIMEOUT", "300ms"), ("BATCH_SIZE", "1")];
    let process = stage.consumer(&variables).await;
    endpoint.until_distinct(8).await;

    let got = endpoint.got();
    assert_eq!(got.iter().map(|got| got.n.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let attempts: Vec<_> = endpoint
        .invocations()
        .iter()
        .map(|i| (i.records[0].n.unwrap(), i.header("streamgate-attempt").to_owned()))
        .collect();
    let expected = (0..7).flat_map(|n| [(n, 1), (n, 2)]).chain((1..5).map(|attempt| (7, attempt)));
    assert_eq!(attempts, expected.map(|(n, a)| (n, a.to_string())).collect::<Vec<_>>());
    assert!(
        endpoint.invocations().iter().all(|i| i.path == "/events?a=b"),
        "redirects are not followed"
    );

    // The counters of the last batch do not change in one moment.
    let counted = |text: &str| {
        let success = value_of(text, "streamgate_invocations_total{outcome=\"success\"}");
        [success, value_of(text, "streamgate_records_delivered_total")] == [8.0, 8.0]
    };
    let text = process.until("/metrics", |_, text| counted(text)).await;
    let count = |outcome: &str| {
        value_of(&text, &format!("streamgate_invocations_total{{outcome=\"{outcome}\"}}"))
    };
    let outcomes = ["success", "error", "unreachable", "timeout"].map(count);
    assert_eq!(outcomes, [8.0, 6.0, 3.0, 1.0]);
    assert_eq!(value_of(&text, "streamgate_records_invoked_total"), 18.0);
    assert_eq!(value_of(&text, "streamgate_records_failed_total"), 10.0);
    let ended = process.stop().await;
    assert!(!ended.stderr.iter().any(|line| line.contains("item-0")), "keys are not logged");
    assert_eq!(ended.stdout, [""; 0], "stdout belongs to the handler log");
}
