//! What is the table's own: which tables suit it, what it asks of the service, and what
//! it makes of lost answers and errors. The rules it shares with other stores are
//! [`crate::conformance`]'s.

use crate::support::scripted::{Reaction, Scripted};
use crate::support::{NewTable, REGION, dynoxide, ministack, sdk_config};
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ScalarAttributeType};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;
use streamgate::progress::{
    Checkpoint, Gap, Heartbeat, Lease, LeaseKey, NewShard, Position, Progress, ProgressError,
    Selection, TABLE_ACTIONS, TableProgress, TableSettings, WorkerId, is_own,
};
use streamgate::source::{AwsSource, IteratorPosition, ShardId, Source};

fn settings(table: &str) -> TableSettings {
    TableSettings {
        table: table.to_owned(),
        partition_key: "PK".to_owned(),
        sort_key: "SK".to_owned(),
        consumer: "streamgate".to_owned(),
        label: "2026-01-02T03:04:05.678".to_owned(),
    }
}

fn open(config: &SdkConfig, table: &str) -> TableProgress {
    TableProgress::new(config, settings(table))
}

fn shard() -> ShardId {
    ShardId::from("shardId-00000001414562045508-2bac9cd2")
}

fn new_shard() -> NewShard {
    NewShard { parent: None, position: Position::TrimHorizon, closed: false, epoch: 0 }
}

fn a_gap() -> Gap {
    Gap { after: None, resumed_at: None, found_at: SystemTime::UNIX_EPOCH }
}

async fn take(store: &TableProgress, seen: Option<&Lease>, by: &str) -> Lease {
    let key = LeaseKey::Shard(shard());
    store.take(&key, seen, &WorkerId::from(by), Some(&new_shard())).await.unwrap()
}

/// A call of each kind, all of which succeed.
async fn everything(store: &TableProgress) {
    let (w1, key) = (WorkerId::from("w1"), LeaseKey::Shard(shard()));
    store.describe().await.unwrap();
    let sign = Heartbeat::first(w1.clone());
    store.heartbeat(&sign).await.unwrap();
    store.heartbeat(&Heartbeat { beat: 2, ..sign }).await.unwrap();
    store.announce(&w1).await.unwrap();
    let stream = store.take(&LeaseKey::Stream, None, &w1, None).await.unwrap();
    store.seeded(&stream, 1, &Position::TrimHorizon).await.unwrap();
    let lease = take(store, None, "w1").await;
    for gap in [None, Some(a_gap())] {
        let lease = lease.clone();
        let moved = Checkpoint {
            shard: shard(),
            lease,
            step: 1,
            position: Position::ShardEnd,
            gap,
            window: None,
        };
        store.checkpoint(&[moved]).await.remove(0).unwrap();
    }
    store.release(&key, &lease).await.unwrap();
    let free = Lease { owner: None, ..lease };
    let lease = take(store, Some(&free), "w2").await;
    let lease = store.hand_over(&shard(), &lease, &WorkerId::from("w3")).await.unwrap();
    let found = store.load(Selection::All).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].lease, &found[0].gaps[..]), (&lease, &[a_gap()][..]));
    assert_eq!(store.coordination().await.unwrap().workers.len(), 1);
    store.forget(&shard(), &lease).await.unwrap();
    store.retire(&w1, Some(2)).await.unwrap();
    assert_eq!(store.load(Selection::All).await.unwrap(), []);
}

#[tokio::test]
async fn a_table_that_does_not_suit_is_refused_with_what_to_set() {
    let config = sdk_config(dynoxide::shared()).await;
    let string = ScalarAttributeType::S;
    let named = |name| NewTable::named(name);
    NewTable { sort_key: None, ..named("no-sort-key") }.create(&config).await;
    let partition_key = ("PK", ScalarAttributeType::N);
    NewTable { partition_key, ..named("number-key") }.create(&config).await;
    let (partition_key, sort_key) = (("id", string.clone()), Some(("at", string)));
    NewTable { partition_key, sort_key, ..named("other-names") }.create(&config).await;
    for (table, sentence) in [
        (
            "not-there",
            format!(
                "there is no table not-there in {REGION}: set TABLE_NAME to one that exists, and AWS_REGION to where it is"
            ),
        ),
        (
            "no-sort-key",
            "table no-sort-key has the partition key PK (string) and no sort key, but progress needs both, and both strings: set TABLE_NAME to a table that has them".to_owned(),
        ),
        (
            "number-key",
            "table number-key has the partition key PK (number) and the sort key SK (string), but progress needs both, and both strings: set TABLE_NAME to a table that has them".to_owned(),
        ),
        (
            "other-names",
            "table other-names has the partition key id (string) and the sort key at (string), but PK and SK were expected: set TABLE_PARTITION_KEY=id and TABLE_SORT_KEY=at".to_owned(),
        ),
    ] {
        match open(&config, table).describe().await {
            Err(ProgressError::Unsuitable(words)) => assert_eq!(words, sentence),
            other => panic!("{table}: {other:?}"),
        }
    }
    let settings = TableSettings {
        partition_key: "id".to_owned(),
        sort_key: "at".to_owned(),
        ..settings("other-names")
    };
    everything(&TableProgress::new(&config, settings)).await;
}

#[tokio::test]
async fn a_table_that_is_not_active_is_refused() {
    let scripted = Scripted::start(dynoxide::shared(), |_, _| {
        Reaction::Answer(200, json!({"Table": {"TableName": "t", "TableStatus": "DELETING"}}))
    })
    .await;
    let answer = open(&scripted.sdk_config().await, "t").describe().await;
    let sentence = "table t is DELETING: it can be used once it is ACTIVE";
    assert!(matches!(&answer, Err(ProgressError::Unsuitable(s)) if s == sentence), "{answer:?}");
}

#[tokio::test]
async fn reads_are_consistent_and_writes_conditional_and_nothing_else_is_asked_for() {
    NewTable::named("asked-for").create(&sdk_config(dynoxide::shared()).await).await;
    let scripted = Scripted::start(dynoxide::shared(), |_, body| Reaction::Forward(body)).await;
    everything(&open(&scripted.sdk_config().await, "asked-for")).await;
    let mut actions = BTreeSet::new();
    for (operation, body) in scripted.seen() {
        match operation.as_str() {
            "Query" => assert_eq!(body["ConsistentRead"], true, "{body}"),
            "UpdateItem" => assert_eq!(body["ReturnValuesOnConditionCheckFailure"], "ALL_OLD"),
            "DeleteItem" if !body["Key"]["SK"]["S"].as_str().unwrap().starts_with("worker#") => {
                assert_eq!(body["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
            }
            _ => {}
        }
        assert_eq!(
            body.get("ConditionExpression").is_some(),
            body.get("ReturnValuesOnConditionCheckFailure").is_some(),
            "{body}"
        );
        actions.insert(format!("dynamodb:{operation}"));
    }
    assert_eq!(actions, TABLE_ACTIONS.iter().map(ToString::to_string).collect());
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_known_as_its_own_when_the_sdk_repeats_it() {
    NewTable::named("lost-answers").create(&sdk_config(dynoxide::shared()).await).await;
    let count = AtomicU32::new(0);
    let scripted = Scripted::start(dynoxide::shared(), move |operation, body| match operation {
        // Every write happens, is answered with a server fault, and is repeated.
        "UpdateItem" | "DeleteItem" if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => {
            Reaction::LoseAnswer(body)
        }
        _ => Reaction::Forward(body),
    })
    .await;
    everything(&open(&scripted.sdk_config().await, "lost-answers")).await;
    let writes = |(operation, _): &&(String, Value)| operation != "Query";
    assert!(scripted.seen().iter().filter(writes).count() > 24, "they were repeated");
}

#[tokio::test]
async fn an_endpoint_that_keeps_the_old_item_to_itself_is_asked_for_it() {
    NewTable::named("no-old-items").create(&sdk_config(dynoxide::shared()).await).await;
    let scripted =
        Scripted::start(dynoxide::shared(), |_, body| Reaction::WithoutOldItem(body)).await;
    let store = open(&scripted.sdk_config().await, "no-old-items");
    let lease = take(&store, None, "w1").await;
    assert_eq!(take(&store, None, "w1").await, lease);
    let key = LeaseKey::Shard(shard());
    let lost = store.take(&key, None, &WorkerId::from("w2"), Some(&new_shard())).await;
    let Err(ProgressError::LeaseLost { owner }) = lost else { panic!("{lost:?}") };
    assert_eq!(owner, lease.owner);
    let gap = Some(a_gap());
    let moved = Checkpoint {
        shard: shard(),
        lease,
        step: 1,
        position: Position::ShardEnd,
        gap,
        window: None,
    };
    for _ in 0..2 {
        store.checkpoint(std::slice::from_ref(&moved)).await.remove(0).unwrap();
    }
    assert_eq!(store.load(Selection::All).await.unwrap()[0].gaps, [a_gap()]);
}

#[tokio::test]
async fn queries_are_read_to_their_last_page() {
    NewTable::named("pages").create(&sdk_config(dynoxide::shared()).await).await;
    let scripted = Scripted::start(dynoxide::shared(), |operation, mut body| {
        if operation == "Query" {
            body["Limit"] = json!(1);
        }
        Reaction::Forward(body)
    })
    .await;
    let store = open(&scripted.sdk_config().await, "pages");
    for n in 0..40 {
        let worker = WorkerId::from(format!("w{n:02}").as_str());
        store
            .heartbeat(&Heartbeat { shards: n, ..Heartbeat::first(worker.clone()) })
            .await
            .unwrap();
        let key = LeaseKey::Shard(ShardId::from(format!("shard-{n:02}").as_str()));
        store.take(&key, None, &worker, Some(&new_shard())).await.unwrap();
    }
    assert_eq!(store.load(Selection::All).await.unwrap().len(), 40);
    let workers = store.coordination().await.unwrap().workers;
    assert_eq!(
        workers.iter().map(|w| w.sign.shards).collect::<Vec<_>>(),
        (0..40).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn every_error_says_what_to_do_about_it() {
    use ProgressError::{AccessDenied, Credentials, Unavailable, Unsuitable};
    let words = "the service's words";
    for (status, code, expected) in [
        (400, "AccessDeniedException", "dynamodb:UpdateItem was refused: the service's words"),
        (400, "UnrecognizedClientException", "UpdateItem: the service's words"),
        (400, "ProvisionedThroughputExceededException", "UpdateItem: the service's words"),
        (400, "ThrottlingException", "UpdateItem: the service's words"),
        (400, "TransactionConflictException", "UpdateItem: the service's words"),
        (500, "InternalServerError", "UpdateItem: the service's words"),
        (503, "ServiceUnavailable", "UpdateItem: the service's words"),
        (400, "ValidationException", "UpdateItem: the service's words"),
        (400, "ResourceNotFoundException", "there is no table t in us-east-1"),
    ] {
        let scripted =
            Scripted::start(dynoxide::shared(), move |_, _| Reaction::error(status, code)).await;
        let store = open(&scripted.sdk_config().await, "t");
        let error = store.heartbeat(&Heartbeat::first("w1".into())).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{code}: {error}");
        assert!(
            match code {
                "AccessDeniedException" => matches!(
                    &error,
                    AccessDenied { action: "dynamodb:UpdateItem", message } if message == words
                ),
                "UnrecognizedClientException" => matches!(error, Credentials(_)),
                "ValidationException" | "ResourceNotFoundException" =>
                    matches!(error, Unsuitable(_)),
                _ => matches!(error, Unavailable(_)),
            },
            "{code}: {error:?}"
        );
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = open(&sdk_config(nobody).await, "t");
    assert!(matches!(store.coordination().await, Err(Unavailable(_))));
}

#[tokio::test]
async fn an_item_that_cannot_be_read_is_named() {
    let config = sdk_config(dynoxide::shared()).await;
    NewTable::named("unreadable").create(&config).await;
    let store = open(&config, "unreadable");
    let lease = take(&store, None, "w1").await;
    let (_, partition) = find_item(&config, "unreadable").await;
    Client::new(&config)
        .update_item()
        .table_name("unreadable")
        .key("PK", AttributeValue::S(partition.clone()))
        .key("SK", AttributeValue::S(format!("shard#{}", shard())))
        .update_expression("SET sg_v = :v")
        .expression_attribute_values(":v", AttributeValue::N("2".to_owned()))
        .send()
        .await
        .unwrap();
    let expected = format!(
        "the progress item {partition} / shard#{} cannot be read: it has format 2",
        shard()
    );
    let error = store.load(Selection::All).await.unwrap_err().to_string();
    assert!(error.starts_with(&expected), "{error}");
    let stale = Lease { counter: 9, ..lease };
    let error = store.release(&LeaseKey::Shard(shard()), &stale).await.unwrap_err().to_string();
    assert!(error.starts_with(&expected), "{error}");
}

/// The keys of the only item.
async fn find_item(config: &SdkConfig, table: &str) -> (String, String) {
    let items = Client::new(config).scan().table_name(table).send().await.unwrap().items.unwrap();
    let [item] = &items[..] else { panic!("{} items", items.len()) };
    (item["SK"].as_s().unwrap().clone(), item["PK"].as_s().unwrap().clone())
}

#[tokio::test]
async fn our_items_are_recognised_in_the_tables_own_stream() {
    let config = sdk_config(ministack::shared()).await;
    let stream = NewTable::named("own-stream").with_stream().create(&config).await.unwrap();
    let progress = open(&config, "own-stream");
    let application = |key: &str| {
        Client::new(&config)
            .put_item()
            .table_name("own-stream")
            .item("PK", AttributeValue::S(key.to_owned()))
            .item("SK", AttributeValue::S("streamgate#not-ours".to_owned()))
            .send()
    };
    application("person#1").await.unwrap();
    everything(&progress).await;
    application("person#2").await.unwrap();

    let source = AwsSource::new(&config, stream.parse().unwrap());
    let shards = source.describe().await.unwrap().shards;
    let [shard] = &shards[..] else { panic!("{} shards", shards.len()) };
    let iterator = source.iterator(&shard.id, &IteratorPosition::TrimHorizon).await.unwrap();
    let records = source.records(&iterator).await.unwrap().records;
    let own: Vec<bool> =
        records.iter().map(|record| is_own(record.keys().unwrap(), "PK")).collect();
    assert!(own.len() > 10, "{} records", own.len());
    assert_eq!((own.first(), own.last()), (Some(&false), Some(&false)));
    assert!(own[1..own.len() - 1].iter().all(|own| *own), "{own:?}");
}
