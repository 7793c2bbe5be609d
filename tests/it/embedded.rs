//! `streamgate local` and `simulate` as processes, and the consumer against a whole
//! DynamoDB: streams computed from writes.

use crate::support::api::TOKEN;
use crate::support::endpoint::Endpoint;
use crate::support::process::{Process, client, value_of, within};
use crate::support::rig::{Got, assert_in_order, deliveries, read_event};
use crate::support::stage::{self, consumer};
use crate::support::{NewTable, REGION, Untouched, free_port, ministack, sdk_config};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use streamgate::arn::StreamArn;

/// A running `streamgate local`.
struct Local {
    process: Process,
    tables: String,
    /// The api's public listener.
    api: String,
    greeting: Vec<String>,
    client: reqwest::Client,
}

impl Local {
    async fn start(arguments: &[&str]) -> Self {
        let ports = ["--port", "--stream-port", "--api-port", "--private-port"];
        let ports = ports.into_iter().flat_map(|port| [port, "0"]);
        let ports: Vec<_> = ["local", "--listen", "127.0.0.1:0"].into_iter().chain(ports).collect();
        let mut process = Process::start(&[&ports[..], arguments].concat(), &[]);
        let greeting = |lines: &[String]| {
            let begin = lines.iter().position(|line| line.starts_with("Table "))?;
            let end = lines.iter().position(|line| line == "Ctrl-C stops.")?;
            Some(lines[begin..end].to_vec())
        };
        let greeting = process.stderr.find("the greeting", greeting).await;
        let tables = between(&greeting[0], " at ", ", its stream").to_owned();
        let pair = greeting.iter().find(|line| line.starts_with("Consumer at ")).unwrap();
        let status = between(pair, "Consumer at ", "/status");
        assert_eq!(status, format!("http://{}", process.listening().await));
        let api = between(pair, "api at ", "/metrics").to_owned();
        Self { process, tables, api, greeting, client: client() }
    }

    async fn call(&self, operation: &str, body: Value) -> (u16, Value) {
        let answer = self
            .client
            .post(&self.tables)
            .header("X-Amz-Target", format!("DynamoDB_20120810.{operation}"))
            .header("Content-Type", "application/x-amz-json-1.0")
            .body(body.to_string())
            .send()
            .await
            .expect("the table answers");
        let code = answer.status().as_u16();
        (code, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn put(&self, pk: &str, n: u64) {
        let (code, body) =
            self.call("PutItem", json!({"TableName": "people", "Item": item(pk, n)})).await;
        assert_eq!(code, 200, "{body}");
    }

    /// The records on stdout, once there are so many.
    async fn records(&self, count: usize) -> Vec<Value> {
        let enough = |lines: &[String]| (lines.len() >= count).then(|| lines.to_vec());
        let lines = self.process.stdout.find(&format!("{count} records"), enough).await;
        lines.iter().map(|line| serde_json::from_str(line).expect("a record a line")).collect()
    }
}

fn item(pk: &str, n: u64) -> Value {
    json!({"PK": {"S": pk}, "SK": {"S": "item"}, "n": {"N": n.to_string()}})
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {text}")).0
}

fn got(records: &[Value]) -> Vec<Got> {
    read_event("", json!({ "Records": records }).to_string().as_bytes())
}

/// What a shell makes of a line without variables: words, and quoted text in one piece.
fn words(line: &str) -> Vec<String> {
    let pieces = line.trim().split('\'').enumerate();
    let words = pieces.flat_map(|(index, piece)| match index % 2 {
        0 => piece.split_whitespace().map(str::to_owned).collect(),
        _ => vec![piece.to_owned()],
    });
    words.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_that_local_prints_writes_an_item_whose_record_appears() {
    let local = Local::start(&[]).await;
    let line = local.greeting.iter().find(|line| line.trim().starts_with("curl ")).unwrap();
    let [curl, silent, url, h, target, h2, kind, d, body] = &words(line)[..] else {
        panic!("another command: {line}")
    };
    assert_eq!([curl, silent, h, h2, d], ["curl", "-s", "-H", "-H", "-d"]);
    local.process.until("/status", |_, body| body.contains("\"role\":\"active\"")).await;
    let header =
        |line: &str| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
    let written = Instant::now();
    let mut request = client().post(url.as_str()).body(body.clone());
    for (name, value) in [header(target), header(kind)] {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap());
    let [record] = &local.records(1).await[..] else { panic!("one record") };
    let took = written.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(record["eventName"], "INSERT");
    let written: Value = serde_json::from_str(body).unwrap();
    assert_eq!(record["dynamodb"]["NewImage"], written["Item"]);
    let arn = local.greeting[1].trim();
    assert_eq!(record["eventSourceARN"], arn);
    let status = local.process.status().await;
    assert_eq!((&status["role"], &status["ready"]), (&json!("active"), &json!(true)));
    let ended = local.process.stop_with("INT").await;
    assert_eq!(ended.stdout.len(), 1, "own records are not shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_pair_on_a_table_that_streams_to_itself_writes_signs_of_life_and_nothing_else() {
    let local = Local::start(&["--failover-time", "2s", "--checkpoint-interval", "10ms"]).await;
    local.put("a", 0).await;
    local.records(1).await;
    let requests = |text: &str, route: &str| {
        let series =
            format!("streamgate_progress_requests_total{{outcome=\"ok\",route=\"{route}\"}}");
        value_of(text, &series)
    };
    let until = async |what: &str, condition: &dyn Fn(&str) -> bool| {
        let asking = async {
            loop {
                let answer = local.client.get(format!("{}/metrics", local.api)).send();
                let text = answer.await.expect("the api answers").text().await.expect("text");
                if condition(&text) {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(what, asking).await
    };
    // The item's position is written, and perhaps one that own records moved before it.
    let mut written = until("a position", &|text| requests(text, "checkpoint") > 0.0).await;
    loop {
        let beats = requests(&written, "heartbeat") + 2.0;
        let later = until("two beats", &|text| requests(text, "heartbeat") >= beats).await;
        if requests(&later, "checkpoint") == requests(&written, "checkpoint") {
            break;
        }
        written = later;
    }
    // Each of its own writes comes back as a record, and must cause no other.
    let beats = requests(&written, "heartbeat") + 10.0;
    let later = until("ten beats", &|text| requests(text, "heartbeat") >= beats).await;
    let more = |of: &dyn Fn(&str) -> f64| of(&later) - of(&written);
    assert_eq!(more(&|text| requests(text, "checkpoint")), 0.0);
    let units = |text: &str| value_of(text, "streamgate_table_write_units_total");
    let beats = more(&|text| requests(text, "heartbeat"));
    // One that was on its way when they were counted may be on one side only.
    assert!((more(&units) - beats).abs() <= 1.0, "{beats} beats cost {}", more(&units));
    assert!(units(&written) > 3.0, "leases, a shard, a position: {}", units(&written));
    let own = local.process.metric("streamgate_records_own_total").await;
    assert!(own >= 10.0, "{own}");
    local.process.stop_with("INT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_delivers_in_order_while_shards_split() {
    let local = Local::start(&["--split-every", "200ms"]).await;
    for n in 0..50 {
        for item in 0..10 {
            local.put(&format!("item-{item}"), n).await;
        }
    }
    let records = local.records(500).await;
    let status = local.process.status().await;
    assert!(status["shards"].as_object().unwrap().len() > 3, "shards were split: {status}");
    let ended = local.process.stop_with("INT").await;
    assert_eq!(ended.stdout.len(), 500, "nothing came twice");
    let got = got(&records);
    assert_in_order(&got);
    assert_eq!(deliveries(&got).len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_makes_records_of_what_changed_and_of_nothing_else() {
    let local = Local::start(&[]).await;
    let batch = json!({"RequestItems": {"people": [
        {"PutRequest": {"Item": item("a", 0)}},
        {"PutRequest": {"Item": item("b", 0)}},
    ]}});
    assert_eq!(local.call("BatchWriteItem", batch).await.0, 200);
    // Neither a write that changes nothing nor one that is refused makes a record.
    local.put("a", 0).await;
    let refused = json!({"TableName": "people", "Item": item("a", 7),
        "ConditionExpression": "attribute_not_exists(PK)"});
    let (code, body) = local.call("PutItem", refused).await;
    assert_eq!(code, 400, "{body}");
    let key = |pk: &str| json!({"PK": {"S": pk}, "SK": {"S": "item"}});
    let transaction = json!({"TransactItems": [
        {"Update": {"TableName": "people", "Key": key("a"), "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": {":n": {"N": "1"}}}},
        {"Delete": {"TableName": "people", "Key": key("b")}},
        {"Put": {"TableName": "people", "Item": item("c", 0)}},
    ]});
    let (code, body) = local.call("TransactWriteItems", transaction).await;
    assert_eq!(code, 200, "{body}");
    let partiql = json!({"Statement": "DELETE FROM people WHERE PK = 'a' AND SK = 'item'"});
    let (code, body) = local.call("ExecuteStatement", partiql).await;
    assert_eq!(code, 400);
    assert!(body["message"].as_str().unwrap().contains("does not follow PartiQL"), "{body}");
    local.put("last", 0).await;

    let records = local.records(6).await;
    let ended = local.process.stop_with("INT").await;
    assert_eq!(ended.stdout.len(), 6);
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            let data = &record["dynamodb"];
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            [
                text(&record["eventName"]),
                text(&data["Keys"]["PK"]["S"]),
                text(&data["OldImage"]["n"]["N"]),
                text(&data["NewImage"]["n"]["N"]),
            ]
        })
        .collect();
    assert_eq!(
        seen,
        [
            ["INSERT", "a", "-", "0"],
            ["INSERT", "b", "-", "0"],
            ["MODIFY", "a", "0", "1"],
            ["REMOVE", "b", "0", "-"],
            ["INSERT", "c", "-", "0"],
            ["INSERT", "last", "-", "0"],
        ]
    );
}

#[tokio::test]
async fn simulate_serves_its_stream_and_admin_interface() {
    let process = Process::start(&["simulate", "--listen", "127.0.0.1:0", "--shards", "3"], &[]);
    let said = |lines: &[String]| lines.iter().find(|l| l.starts_with("Stream ")).cloned();
    let said = process.stderr.find("where it listens", said).await;
    let state = between(&format!("{said}\n"), "admin interface at ", "\n").to_owned();
    let answer = client().get(&state).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let state: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(state["shards"].as_array().map(Vec::len), Some(3), "{state}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_streams_to_itself_on_a_whole_dynamodb() {
    let stream = table_with_stream("itself").await;
    streams_to_itself(&stream, ministack::shared(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pair_on_a_whole_dynamodb_whose_table_streams_to_itself() {
    let stream = table_with_stream("pair-itself").await;
    let (_tables, untouched) = Untouched::new();
    let private = free_port();
    let keeper = stage::api("pair-itself", REGION, ministack::shared(), private, &[]).await;
    let url = format!("http://{private}");
    let through_api = [("API_URL", url.as_str()), ("API_TOKEN", TOKEN)];
    streams_to_itself(&stream, untouched, &through_api).await;
    let writes = "streamgate_table_requests_total{operation=\"UpdateItem\",outcome=\"ok\"}";
    assert!(keeper.metric(writes).await > 0.0);
    keeper.stop().await;
}

/// A table on ministack, by its stream.
async fn table_with_stream(name: &str) -> StreamArn {
    let config = sdk_config(ministack::shared()).await;
    let arn = NewTable::named(name).with_stream().create(&config).await.expect("a stream");
    arn.parse().expect("the stream's ARN is well-formed")
}

/// Writes, reads, stops and goes on, with the stream on ministack and the table where the
/// consumer is told it is.
async fn streams_to_itself(stream: &StreamArn, tables: SocketAddr, added: &[(&str, &str)]) {
    let address: SocketAddr = ministack::shared();
    let (config, name) = (sdk_config(address).await, stream.table());
    let endpoint = Endpoint::start().await;
    let variables = [("HANDLER", endpoint.url.as_str()), ("AWS_REGION", REGION)];
    let variables = [&variables, added].concat();
    let start = async || {
        let mut process = consumer(stream, name, address, tables, &variables);
        process.listening().await;
        process
    };
    let table = Client::new(&config);
    let put = async |pk: &str, n: u64| {
        table
            .put_item()
            .table_name(name)
            .item("PK", AttributeValue::S(pk.to_owned()))
            .item("SK", AttributeValue::S("item".to_owned()))
            .item("n", AttributeValue::N(n.to_string()))
            .send()
            .await
            .expect("an item can be written");
    };
    let remove = async |pk: &str| {
        table
            .delete_item()
            .table_name(name)
            .key("PK", AttributeValue::S(pk.to_owned()))
            .key("SK", AttributeValue::S("item".to_owned()))
            .send()
            .await
            .expect("an item can be removed");
    };
    let process = start().await;
    for n in 0..5 {
        for item in ["a", "b", "c"] {
            put(item, n).await;
        }
    }
    remove("c").await;
    endpoint.until_distinct(16).await;
    // Its own writes come back and are passed over.
    let own = |text: &str| crate::support::process::value_of(text, "streamgate_records_own_total");
    process.until("/metrics", |_, text| own(text) >= 3.0).await;
    process.stop().await;
    for n in 5..8 {
        put("a", n).await;
    }
    let process = start().await;
    endpoint.until_distinct(19).await;
    put("a", 8).await;
    endpoint.until_distinct(20).await;
    within("a clean stop", process.stop()).await;

    let got = endpoint.got();
    assert_eq!(got.len(), 20, "nothing came twice");
    assert!(got.iter().all(|got| ["a", "b", "c"].contains(&got.pk.as_str())), "{got:?}");
    let of = |pk: &str| got.iter().filter(|g| g.pk == pk).map(|g| g.n).collect::<Vec<_>>();
    assert_eq!(of("a"), (0..9).map(Some).collect::<Vec<_>>());
    assert_eq!(of("b"), (0..5).map(Some).collect::<Vec<_>>());
    assert_eq!(of("c"), (0..5).map(Some).chain([None]).collect::<Vec<_>>());
}
