//! The wire as the real SDK meets it, and as a careless client does.

use super::*;
use crate::simulator::{Change, Fault, FaultRule, LoadOptions, Operation};
use crate::source::{AwsSource, SourceErrorKind, SourceOperation};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodbstreams::config::{Credentials, SharedCredentialsProvider};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn serve(simulator: &Simulator) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (simulator, token) = (simulator.clone(), stop.clone());
    let serving = tokio::spawn(async move { simulator.serve(listener, token).await });
    Served { address, stop, serving }
}

impl Served {
    /// As the service sets its client up, but one try a call and another patience.
    async fn config(&self, patience: Duration) -> SdkConfig {
        let config = crate::aws::load(Some("eu-central-1"), Arc::new(|_, _| {})).await;
        let keys = Credentials::new("key", "secret", None, None, "test");
        config
            .into_builder()
            .endpoint_url(format!("http://{}", self.address))
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(patience).build())
            .build()
    }

    async fn source(&self) -> AwsSource {
        // Long, because nothing here is about time and the machine may be busy.
        AwsSource::new(&self.config(Duration::from_secs(60)).await, arn())
    }

    /// Gives hung calls up at once.
    async fn impatient_source(&self) -> AwsSource {
        AwsSource::new(&self.config(Duration::from_millis(100)).await, arn())
    }

    async fn raw(&self, target: &str, signed: bool, body: Vec<u8>) -> (u16, Value) {
        let mut call = reqwest::Client::new()
            .post(format!("http://{}/", self.address))
            .header("x-amz-target", target)
            .body(body);
        if signed {
            let scope = "Credential=key/20260101/eu-central-1/dynamodb/aws4_request";
            call = call.header("authorization", format!("AWS4-HMAC-SHA256 {scope}, Signature=0"));
        }
        let answer = call.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()["content-type"], "application/x-amz-json-1.0");
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn admin(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .request(method.parse().unwrap(), format!("http://{}/_simulator/{path}", self.address))
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }
}

fn refusal((status, body): (u16, Value)) -> (u16, String) {
    let kind = body["__type"].as_str().unwrap().to_owned();
    (status, kind.strip_prefix("com.amazonaws.dynamodb.v20120810#").unwrap().to_owned())
}

#[tokio::test]
async fn the_sdk_reads_over_the_wire_what_was_put() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let source = served.source().await;
    let put: Vec<_> = (0..5).map(|n| simulator.put_item("a", n)).collect();
    let [parent] = &simulator.open_shards()[..] else { panic!("one shard") };
    let children = simulator.split(parent);

    assert_eq!(source.describe().await.unwrap(), simulator.describe().await.unwrap());
    let listed = source.children(parent).await.unwrap();
    assert_eq!(
        listed.iter().map(|shard| &shard.id).collect::<Vec<_>>(),
        [&children[0], &children[1]]
    );
    let (records, next) = read_on(&source, horizon(&source, parent).await).await.unwrap();
    assert!(next.is_none());
    assert_eq!(records.iter().map(Record::sequence_number).collect::<Vec<_>>(), put);
    let after = IteratorPosition::After(put[2].clone());
    let rest = read_on(&source, source.iterator(parent, &after).await.unwrap()).await.unwrap().0;
    assert_eq!(rest.iter().map(item).collect::<Vec<_>>(), [("a".into(), 3), ("a".into(), 4)]);
    let start = IteratorPosition::AtTimestamp(std::time::UNIX_EPOCH);
    let all = read_on(&source, source.iterator(parent, &start).await.unwrap()).await.unwrap().0;
    assert_eq!(all.len(), 5);
    let calls = simulator.calls();
    assert_eq!((calls.get_shard_iterator, calls.get_records, calls.list_streams), (3, 3, 0));
    assert_eq!(calls.reads_of(parent), 3);
}

/// Every fault arrives as the verdict it stands for, over the wire and in this process.
async fn arrives(faults: &[(Fault, SourceErrorKind)]) {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let source = served.source().await;
    simulator.put_item("a", 0);
    let shard = simulator.open_shards().remove(0);
    let iterator = horizon(&source, &shard).await;
    for &(fault, kind) in faults {
        simulator.faults().add(FaultRule::new(fault));
        let errors = if fault == Fault::Hang {
            all_three(&served.impatient_source().await, &shard, &iterator).await.to_vec()
        } else {
            let here = all_three(&simulator, &shard, &iterator).await;
            [all_three(&source, &shard, &iterator).await, here].concat()
        };
        for error in errors {
            // The SDK reads the small answers itself and cannot tell why that failed.
            let cut = fault == Fault::HalfAnswer && error.operation != SourceOperation::GetRecords;
            let kind = if cut { SourceErrorKind::Malformed } else { kind };
            assert_eq!(error.kind, kind, "{fault:?}: {error}");
        }
        simulator.faults().clear();
        let page = source.records(&iterator).await.unwrap();
        assert_eq!(page.records.len(), 1, "nothing is lost by {fault:?}");
        if fault != Fault::Hang {
            // A call given up early may not have reached the rule.
            assert_eq!(simulator.calls().faults[fault.name()], 6);
        }
    }
}

async fn all_three(
    source: &impl Source,
    shard: &ShardId,
    iterator: &ShardIterator,
) -> [SourceError; 3] {
    let errors = [
        source.describe().await.unwrap_err(),
        source.iterator(shard, &IteratorPosition::TrimHorizon).await.unwrap_err(),
        source.records(iterator).await.unwrap_err(),
    ];
    let operations = errors.each_ref().map(|error| error.operation.name());
    assert_eq!(operations, ["DescribeStream", "GetShardIterator", "GetRecords"]);
    errors
}

#[tokio::test]
async fn each_fault_arrives_as_what_it_is() {
    arrives(&[
        (Fault::Throttle, SourceErrorKind::Throttled),
        (Fault::LimitExceeded, SourceErrorKind::Throttled),
        (Fault::InternalError, SourceErrorKind::Unavailable),
        (Fault::HalfAnswer, SourceErrorKind::Unavailable),
        (Fault::Hang, SourceErrorKind::Unavailable),
        (Fault::ExpiredIterator, SourceErrorKind::ExpiredIterator),
        (Fault::Trimmed, SourceErrorKind::Trimmed),
        (Fault::NotFound, SourceErrorKind::NotFound),
        (Fault::AccessDenied, SourceErrorKind::AccessDenied),
        (Fault::ExpiredToken, SourceErrorKind::Credentials),
    ])
    .await;
}

#[tokio::test]
async fn a_page_that_is_not_json_arrives_as_malformed() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let source = served.source().await;
    let iterator = horizon(&source, &simulator.open_shards()[0]).await;
    simulator.faults().add(FaultRule::new(Fault::Malformed));
    let error = source.records(&iterator).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Malformed);
}

#[tokio::test]
async fn an_answer_that_is_not_json_arrives_as_malformed() {
    arrives(&[(Fault::Malformed, SourceErrorKind::Malformed)]).await;
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_arrives_as_unavailable() {
    arrives(&[(Fault::Reset, SourceErrorKind::Unavailable)]).await;
}

#[tokio::test]
async fn an_empty_page_loses_nothing_and_a_slow_one_arrives() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let source = served.source().await;
    simulator.put_item("a", 0);
    let shard = simulator.open_shards().remove(0);
    simulator.faults().add(FaultRule::new(Fault::Slow(Duration::from_millis(5))));
    simulator.faults().add(FaultRule::new(Fault::EmptyPage).times(1));
    let page = source.records(&horizon(&source, &shard).await).await.unwrap();
    assert!(page.records.is_empty());
    let page = source.records(&page.next.unwrap()).await.unwrap();
    assert_eq!(page.records.len(), 1);
    assert_eq!(simulator.calls().faults["slow"], 3);
}

#[tokio::test]
async fn a_client_that_goes_away_from_a_hung_call_is_no_reader_any_more() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let source = served.source().await;
    simulator.set(|settings| settings.readers_per_shard = Some(1));
    let shard = simulator.open_shards().remove(0);
    let iterator = horizon(&source, &shard).await;
    simulator.faults().add(FaultRule::new(Fault::Hang).on(Operation::GetRecords).times(1));
    let hung = served.impatient_source().await.records(&iterator).await.unwrap_err();
    assert_eq!(hung.kind, SourceErrorKind::Unavailable);
    // The server notices the closed connection in its own time.
    while source.records(&iterator).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unsigned_unknown_and_oversized_calls_are_refused_at_the_door() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let describe = "DynamoDBStreams_20120810.DescribeStream";
    let body = || json!({"StreamArn": ARN}).to_string().into_bytes();
    assert_eq!(
        refusal(served.raw(describe, false, body()).await),
        (400, "MissingAuthenticationTokenException".into())
    );
    for target in ["DynamoDB_20120810.DescribeTable", "DynamoDBStreams_20120810.PutRecord", ""] {
        assert_eq!(
            refusal(served.raw(target, true, body()).await),
            (400, "UnknownOperationException".into())
        );
    }
    assert_eq!(
        refusal(served.raw(describe, true, vec![b' '; 1024 * 1024 + 1]).await),
        (413, "RequestEntityTooLargeException".into())
    );
    assert_eq!(
        refusal(served.raw(describe, true, b"{".to_vec()).await),
        (400, "SerializationException".into())
    );
    assert_eq!(simulator.calls().total(), 1, "only the last one was a call");
    let (status, streams) =
        served.raw("DynamoDBStreams_20120810.ListStreams", true, b"{}".to_vec()).await;
    assert_eq!((status, &streams["Streams"][0]["StreamArn"]), (200, &json!(ARN)));
}

#[tokio::test]
async fn stops_when_told_even_with_a_call_hanging() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let source = served.source().await;
    simulator.faults().add(FaultRule::new(Fault::Hang));
    let hung = tokio::spawn(async move { source.describe().await });
    simulator.called(|calls| calls.faults.contains_key("hang")).await;
    served.stop.cancel();
    served.serving.await.unwrap();
    assert!(hung.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn the_admin_interface_works_the_stream() {
    let simulator = simulator(1);
    let served = serve(&simulator).await;
    let change = json!({"kind": "INSERT", "keys": {"PK": {"S": "a"}}}).to_string();
    let (status, put) = served.admin("POST", "put", &change).await;
    assert_eq!((status, put["sequence_numbers"].as_array().unwrap().len()), (200, 1));
    let (_, put) = served.admin("POST", "put", &format!("[{change},{change}]")).await;
    let numbers = put["sequence_numbers"].as_array().unwrap().clone();
    let parent = simulator.open_shards().remove(0);

    let (_, split) = served.admin("POST", "split", "").await;
    assert_eq!(split["shard"], parent.as_str());
    let child = split["children"][0].as_str().unwrap();
    let (_, rolled) = served.admin("POST", "rollover", &json!({"shard": child}).to_string()).await;
    assert_eq!(rolled["children"].as_array().unwrap().len(), 1);
    let (_, rolled) = served.admin("POST", "rollover", r#"{"all":true}"#).await;
    assert_eq!(rolled["children"].as_array().unwrap().len(), 2);
    let trim = json!({"shard": parent.as_str(), "up_to": numbers[0]}).to_string();
    assert_eq!(served.admin("POST", "trim", &trim).await.1["trimmed"], 2);
    let (_, state) = served.admin("GET", "state", "").await;
    let shards = state["shards"].as_array().unwrap();
    assert_eq!((shards.len(), &shards[0]["records"]), (6, &json!(1)));
    assert_eq!((&shards[0]["first_record"], &shards[0]["open"]), (&numbers[1], &json!(false)));
    assert_eq!(shards[1]["parent"], parent.as_str());
    let removed = json!({"shard": parent.as_str()}).to_string();
    assert_eq!(served.admin("POST", "remove", &removed).await.0, 200);
    assert_eq!(simulator.shards().len(), 5);

    let (_, rules) = served.admin("POST", "faults", r#"{"fault":"throttle","count":2}"#).await;
    assert_eq!(rules.as_array().unwrap().len(), 1);
    assert_eq!(served.admin("GET", "faults", "").await.1, rules);
    assert!(simulator.describe().await.is_err());
    assert_eq!(served.admin("DELETE", "faults", "").await.1, json!([]));
    assert!(simulator.describe().await.is_ok());
    let (_, settings) = served.admin("POST", "settings", r#"{"page_records":7}"#).await;
    assert_eq!((&settings["page_records"], simulator.settings().page_records), (&json!(7), 7));

    let open = simulator.open_shards().remove(0);
    let iterator = horizon(&simulator, &open).await;
    assert_eq!(served.admin("POST", "expire-iterators", "").await.0, 200);
    let expired = simulator.records(&iterator).await.unwrap_err();
    assert_eq!(expired.kind, SourceErrorKind::ExpiredIterator);
    assert_eq!(served.admin("POST", "disable", "").await.0, 200);
    assert!(simulator.open_shards().is_empty());
    let (_, state) = served.admin("GET", "state", "").await;
    assert_eq!(state["status"], "DISABLED");
    assert_eq!(state["calls"]["DescribeStream"], 2);
    assert_eq!(state["faults_injected"], json!({"throttle": 1}));
}

#[tokio::test]
async fn bad_admin_input_is_refused_with_a_sentence_and_changes_nothing() {
    let simulator = simulator(2);
    let served = serve(&simulator).await;
    simulator.put_item("a", 0);
    let shard = simulator.open_shards().remove(0);
    let before = (simulator.shards(), simulator.settings(), simulator.faults().rules());
    let good = json!({"kind": "INSERT", "keys": {"PK": {"S": "a"}}});
    let bad = json!({"kind": "INSERT", "keys": {"PK": "a"}});
    for (path, body) in [
        ("put", "".to_owned()),
        ("put", "{".to_owned()),
        ("put", bad.to_string()),
        ("put", json!([good, bad]).to_string()),
        ("put", json!([good, {"kind": "UPSERT"}]).to_string()),
        ("split", json!({"shard": "shardId-1"}).to_string()),
        ("split", json!({"shards": shard.as_str()}).to_string()),
        ("rollover", json!({"shard": shard.as_str(), "all": true}).to_string()),
        ("trim", "".to_owned()),
        ("trim", json!({"shard": shard.as_str(), "up_to": "x"}).to_string()),
        ("trim", json!({"shard": "shardId-1", "up_to": "1"}).to_string()),
        ("remove", "".to_owned()),
        ("remove", json!({"shard": shard.as_str()}).to_string()),
        ("faults", json!({"fault": "explode"}).to_string()),
        ("faults", json!([{"fault": "reset"}, {"fault": "reset", "probability": 2}]).to_string()),
        ("settings", json!({"page_records": 0}).to_string()),
        ("settings", json!({"page_records": 5, "speed": 1}).to_string()),
    ] {
        let (status, answer) = served.admin("POST", path, &body).await;
        assert_eq!(status, 400, "{path} {body}");
        assert!(answer["error"].as_str().unwrap().len() > 10, "{path} {body}: {answer}");
        let after = (simulator.shards(), simulator.settings(), simulator.faults().rules());
        assert_eq!(before, after, "{path} {body}");
    }
    let page = reqwest::Client::new()
        .post(format!("http://{}/_simulator/disable", served.address))
        .header("origin", "https://example.org");
    assert_eq!(page.send().await.unwrap().status().as_u16(), 403);
    assert_eq!(simulator.open_shards().len(), 2);
    assert_eq!(served.admin("POST", "nonsense", "").await.0, 404);
    assert_eq!(served.admin("GET", "put", "").await.0, 404);
}

#[tokio::test]
async fn a_put_into_a_disabled_stream_is_refused() {
    let simulator = simulator(1);
    simulator.disable();
    assert!(simulator.try_put(&Change::item("a", 0)).is_err());
    assert_eq!(simulator.shards()[0].records, 0);
}

#[tokio::test]
async fn prepared_pages_are_read_over_the_wire_to_the_end() {
    let load = LoadOptions { pages: 3, records_per_page: 700, ..LoadOptions::default() };
    let simulator = Simulator::builder(arn()).shards(2).load(load).build();
    let served = serve(&simulator).await;
    let source = served.source().await;
    for shard in source.describe().await.unwrap().shards {
        let (records, next) = read_on(&source, horizon(&source, &shard.id).await).await.unwrap();
        assert_eq!((records.len(), next), (2100, None));
        assert!(numbers(&records).is_sorted());
        assert_eq!(simulator.calls().reads_of(&shard.id), 3, "no call more than pages");
    }
}
