//! The stream in this process, on a paused clock.

use super::*;
use crate::simulator::answer::Reply;
use crate::simulator::{Fault, FaultRule, ListingOrder, Operation};
use crate::source::{SourceErrorKind, StreamStatus};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::advance;

/// The answer's JSON, or the code of the refusal.
async fn call(simulator: &Simulator, operation: Operation, request: Value) -> Result<Value, &str> {
    match simulator.answer(operation, request.to_string().as_bytes()).await {
        Reply::Answer(body) => Ok(serde_json::from_slice(&body).unwrap()),
        Reply::Refused(error) => Err(error.code),
        other => panic!("{other:?}"),
    }
}

/// GetShardIterator for `shard` with these arguments more.
async fn iterator<'s>(
    simulator: &'s Simulator,
    shard: &ShardId,
    more: Value,
) -> Result<ShardIterator, &'s str> {
    let mut request = json!({"StreamArn": ARN, "ShardId": shard.as_str()});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = call(simulator, Operation::GetShardIterator, request).await?;
    Ok(ShardIterator::from(answer["ShardIterator"].as_str().unwrap().to_owned()))
}

fn kind<T: std::fmt::Debug>(result: Result<T, SourceError>) -> SourceErrorKind {
    result.unwrap_err().kind
}

#[tokio::test(start_paused = true)]
async fn an_item_keeps_its_order_through_three_generations_of_splits() {
    let simulator = Simulator::builder(arn())
        .shards(2)
        .first_sequence_number(999_999_999_999_999_990_000)
        .build();
    let roots: BTreeSet<ShardId> = simulator.open_shards().into_iter().collect();
    for generation in 0..4 {
        for n in 0..5 {
            for pk in 0..20 {
                simulator.put_item(&format!("item {pk}"), generation * 5 + n);
            }
        }
        if generation < 3 {
            for shard in simulator.open_shards() {
                simulator.split(&shard);
            }
        }
    }
    assert_eq!(simulator.open_shards().len(), 16);
    let listing = simulator.describe().await.unwrap().shards;
    assert_eq!(listing.len(), 2 + 4 + 8 + 16);
    assert!(listing.windows(2).all(|pair| pair[0].id < pair[1].id), "creation order");
    assert_eq!(listing.iter().filter(|shard| !shard.closed).count(), 16);

    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut all = Vec::new();
    for shard in &listing {
        match &shard.parent {
            None => assert!(roots.contains(&shard.id)),
            Some(parent) => assert!(parent < &shard.id),
        }
        let records = read_all(&simulator, &shard.id).await;
        assert!(numbers(&records).is_sorted());
        for record in &records {
            let (pk, n) = item(record);
            seen.entry(pk).or_default().push(n);
        }
        all.extend(numbers(&records));
    }
    // Parents come before children in the listing, so this is a legal order of reading.
    assert_eq!(seen.len(), 20);
    assert!(seen.values().all(|counts| counts.iter().copied().eq(0..20)));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 400, "no number twice");
    let digits = |number: &SequenceNumber| number.as_str().len();
    assert_eq!((digits(&all[0]), digits(&all[399])), (21, 22));
    let steps: BTreeSet<u128> = all
        .windows(2)
        .map(|pair| [&pair[0], &pair[1]].map(|n| n.as_str().parse::<u128>().unwrap()))
        .map(|[a, b]| b - a)
        .collect();
    assert!(steps.len() > 100, "numbers rise by irregular steps");
}

#[tokio::test(start_paused = true)]
async fn a_rollover_and_a_split_close_the_parent_and_name_it() {
    let simulator = simulator(1);
    let root = simulator.open_shards().remove(0);
    let only = simulator.rollover(&root);
    let [a, b] = simulator.split(&only);
    assert_eq!(simulator.roll_all().len(), 2);
    let listing = simulator.describe().await.unwrap();
    let parents: Vec<_> = listing.shards.iter().map(|shard| shard.parent.clone()).collect();
    let some = |id: &ShardId| Some(id.clone());
    assert_eq!(parents, [None, some(&root), some(&only), some(&only), some(&a), some(&b)]);
    assert_eq!(listing.shards.iter().filter(|shard| shard.closed).count(), 4);
    for shard in simulator.shards() {
        assert_eq!(shard.end.is_none(), shard.open);
        assert!(shard.end.is_none_or(|end| end > shard.start), "{}", shard.id);
    }
    let children = simulator.children(&only).await.unwrap();
    assert_eq!(children.iter().map(|shard| &shard.id).collect::<Vec<_>>(), [&a, &b]);
    assert!(simulator.children(&simulator.open_shards()[0]).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_page_of_a_closed_shard_has_records_and_no_iterator() {
    let simulator = simulator(1);
    simulator.put_item("a", 0);
    let shard = simulator.open_shards().remove(0);
    let first = horizon(&simulator, &shard).await;
    let page = simulator.records(&first).await.unwrap();
    assert_eq!(page.records.len(), 1);
    let open = simulator.records(&page.next.unwrap()).await.unwrap();
    assert!(open.records.is_empty() && open.next.is_some(), "an open shard goes on");

    simulator.rollover(&shard);
    let page = simulator.records(&first).await.unwrap();
    assert_eq!((page.records.len(), page.next.is_none()), (1, true));
    let page = simulator.records(&open.next.unwrap()).await.unwrap();
    assert_eq!((page.records.len(), page.next.is_none()), (0, true));

    simulator.set(|settings| settings.last_page_has_records = false);
    let page = simulator.records(&first).await.unwrap();
    assert_eq!((page.records.len(), page.next.is_some()), (1, true));
    let page = simulator.records(&page.next.unwrap()).await.unwrap();
    assert_eq!((page.records.len(), page.next.is_none()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn pages_are_bounded_in_records_and_bytes() {
    let simulator = simulator(1);
    let put: Vec<_> = (0..25).map(|n| simulator.put_item("a", n)).collect();
    let shard = simulator.open_shards().remove(0);
    simulator.set(|settings| settings.page_records = 10);
    let from = horizon(&simulator, &shard).await;
    assert_eq!(simulator.records(&from).await.unwrap().records.len(), 10);
    let request = json!({"ShardIterator": from.as_str(), "Limit": 3});
    let answer = call(&simulator, Operation::GetRecords, request).await.unwrap();
    assert_eq!(answer["Records"].as_array().unwrap().len(), 3);
    assert_eq!(numbers(&read_all(&simulator, &shard).await), put);

    let one = read_all(&simulator, &shard).await[3].as_bytes().len();
    simulator.set(|settings| settings.page_bytes = 2 * one);
    let page = simulator.records(&from).await.unwrap();
    assert_eq!(page.records.len(), 2);
    simulator.set(|settings| settings.page_bytes = 1);
    assert_eq!(simulator.records(&from).await.unwrap().records.len(), 1, "never stuck");
    assert_eq!(numbers(&read_all(&simulator, &shard).await), put);
}

#[tokio::test(start_paused = true)]
async fn the_listing_is_paged_in_either_order() {
    let simulator = simulator(3);
    let first = simulator.open_shards();
    let children: Vec<ShardId> = first.iter().flat_map(|id| simulator.split(id)).collect();
    simulator.set(|settings| settings.listing_page = 2);
    let ids = |description: crate::source::StreamDescription| -> Vec<ShardId> {
        description.shards.into_iter().map(|shard| shard.id).collect()
    };
    let mut expected: Vec<ShardId> = first.into_iter().chain(children).collect();
    assert_eq!(ids(simulator.describe().await.unwrap()), expected);
    assert_eq!(simulator.calls().describe_stream, 5);
    simulator.set(|settings| settings.listing_order = ListingOrder::ChildrenFirst);
    expected.reverse();
    assert_eq!(ids(simulator.describe().await.unwrap()), expected);

    // An unknown start is no error: the listing goes on behind where it would be.
    simulator.set(|settings| settings.listing_order = ListingOrder::Creation);
    let mut request = json!({"StreamArn": ARN, "Limit": 1});
    request["ExclusiveStartShardId"] = "shardId-99999999999999999999-00000000".into();
    let answer = call(&simulator, Operation::DescribeStream, request).await.unwrap();
    assert_eq!(answer["StreamDescription"]["Shards"], json!([]));
    assert!(answer["StreamDescription"].get("LastEvaluatedShardId").is_none());
}

#[tokio::test(start_paused = true)]
async fn children_and_ends_show_after_their_lags() {
    let simulator = simulator(1);
    let root = simulator.open_shards().remove(0);
    simulator.set(|settings| {
        settings.child_lag = Duration::from_secs(5);
        settings.parent_lag = Duration::from_secs(8);
    });
    simulator.split(&root);
    let listed = async || {
        let shards = simulator.describe().await.unwrap().shards;
        (shards.len(), shards[0].closed, simulator.children(&root).await.unwrap().len())
    };
    assert_eq!(listed().await, (1, false, 0), "a leaf that still looks open");
    advance(Duration::from_secs(5)).await;
    assert_eq!(listed().await, (3, false, 2), "children of a parent that looks open");
    advance(Duration::from_secs(3)).await;
    assert_eq!(listed().await, (3, true, 2));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_the_child_filter_lists_everything() {
    let simulator = simulator(2);
    let [root, _] = &simulator.open_shards()[..] else { panic!("two shards") };
    simulator.split(root);
    simulator.set(|settings| settings.child_filter = false);
    let request = json!({"StreamArn": ARN, "ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": root.as_str()}});
    let answer = call(&simulator, Operation::DescribeStream, request).await.unwrap();
    assert_eq!(answer["StreamDescription"]["Shards"].as_array().unwrap().len(), 4);
    assert_eq!(simulator.children(root).await.unwrap().len(), 2, "the source filters itself");
}

#[tokio::test(start_paused = true)]
async fn iterators_expire_by_age_and_by_request() {
    let simulator = simulator(1);
    simulator.put_item("a", 0);
    let shard = simulator.open_shards().remove(0);
    let old = horizon(&simulator, &shard).await;
    advance(Duration::from_secs(15 * 60)).await;
    let next = simulator.records(&old).await.unwrap().next.unwrap();
    advance(Duration::from_millis(1)).await;
    assert_eq!(kind(simulator.records(&old).await), SourceErrorKind::ExpiredIterator);
    assert!(simulator.records(&next).await.is_ok(), "the next one is younger");
    simulator.expire_iterators();
    assert_eq!(kind(simulator.records(&next).await), SourceErrorKind::ExpiredIterator);
    assert_eq!(read_all(&simulator, &shard).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_is_refused_and_the_rest_is_read() {
    let simulator = simulator(1);
    let put: Vec<_> = (0..4).map(|n| simulator.put_item("a", n)).collect();
    let shard = simulator.open_shards().remove(0);
    let start = simulator.shards()[0].start.clone();
    let behind = horizon(&simulator, &shard).await;
    let at_edge =
        simulator.iterator(&shard, &IteratorPosition::After(put[1].clone())).await.unwrap();
    assert_eq!(simulator.trim(&shard, &put[1]), 2);

    assert_eq!(kind(simulator.records(&behind).await), SourceErrorKind::Trimmed);
    let rest = simulator.records(&at_edge).await.unwrap().records;
    assert_eq!(numbers(&rest), put[2..], "an iterator behind nothing lost goes on");
    for number in [&start, &put[0], &put[1]] {
        let position = IteratorPosition::After(number.clone());
        assert_eq!(kind(simulator.iterator(&shard, &position).await), SourceErrorKind::Trimmed);
        let at =
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": number.as_str()});
        assert_eq!(iterator(&simulator, &shard, at).await, Err("TrimmedDataAccessException"));
    }
    let kept = IteratorPosition::After(put[2].clone());
    assert!(simulator.iterator(&shard, &kept).await.is_ok());
    assert_eq!(numbers(&read_all(&simulator, &shard).await), put[2..]);
    let state = &simulator.shards()[0];
    assert_eq!((state.records, state.trimmed_to.as_ref()), (2, Some(&put[1])));
}

#[tokio::test(start_paused = true)]
async fn age_trims_records_and_forgets_closed_shards() {
    let simulator = simulator(1);
    let hour = Duration::from_secs(3600);
    simulator.put_item("a", 0);
    let root = simulator.open_shards().remove(0);
    advance(hour).await;
    let second = simulator.put_item("a", 1);
    let child = simulator.rollover(&root);
    advance(24 * hour - Duration::from_secs(1)).await;
    assert_eq!(numbers(&read_all(&simulator, &root).await), [second]);
    assert_eq!(simulator.describe().await.unwrap().shards.len(), 2);
    let held = horizon(&simulator, &root).await;
    simulator.put_item("a", 2);
    advance(Duration::from_secs(2)).await;

    let listing = simulator.describe().await.unwrap().shards;
    assert_eq!(listing.len(), 1);
    assert_eq!((&listing[0].id, listing[0].parent.as_ref()), (&child, Some(&root)));
    assert_eq!(kind(simulator.records(&held).await), SourceErrorKind::NotFound);
    let position = IteratorPosition::TrimHorizon;
    assert_eq!(kind(simulator.iterator(&root, &position).await), SourceErrorKind::NotFound);
    assert_eq!(simulator.trim_older_than(Duration::from_secs(1)), 1);
    assert!(read_all(&simulator, &child).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removed_shard_is_gone_and_still_named_by_its_children() {
    let simulator = simulator(1);
    let root = simulator.open_shards().remove(0);
    let held = horizon(&simulator, &root).await;
    let child = simulator.rollover(&root);
    simulator.remove(&root);
    assert_eq!(kind(simulator.records(&held).await), SourceErrorKind::NotFound);
    let listing = simulator.describe().await.unwrap().shards;
    assert_eq!((listing.len(), listing[0].parent.as_ref()), (1, Some(&root)));
    assert_eq!(simulator.children(&root).await.unwrap()[0].id, child);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_stream_is_readable_to_its_end() {
    let simulator = simulator(2);
    simulator.put_item("a", 0);
    simulator.disable();
    let listing = simulator.describe().await.unwrap();
    assert_eq!((listing.status, listing.shards.len()), (StreamStatus::Disabled, 2));
    assert!(listing.shards.iter().all(|shard| shard.closed));
    let mut count = 0;
    for shard in &listing.shards {
        let from = horizon(&simulator, &shard.id).await;
        let (records, next) = read_on(&simulator, from).await.unwrap();
        assert!(next.is_none());
        count += records.len();
    }
    assert_eq!(count, 1);
}

#[tokio::test(start_paused = true)]
async fn an_enabling_stream_lists_no_shards() {
    let simulator = Simulator::builder(arn()).status(StreamStatus::Enabling).build();
    simulator.put_item("a", 0);
    let listing = simulator.describe().await.unwrap();
    assert_eq!((listing.status, listing.shards.len()), (StreamStatus::Enabling, 0));
    simulator.enable();
    let listing = simulator.describe().await.unwrap();
    assert_eq!((listing.status, listing.shards.len()), (StreamStatus::Enabled, 1));
    assert_eq!(read_all(&simulator, &listing.shards[0].id).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn iterators_begin_where_they_are_asked_to() {
    let simulator = simulator(1);
    let shard = simulator.open_shards().remove(0);
    let mut put = Vec::new();
    for n in 0..3 {
        put.push(simulator.put_item("a", n));
        advance(Duration::from_secs(10)).await;
    }
    let start = simulator.shards()[0].start.clone();
    let read = async |more: Value| {
        let from = iterator(&simulator, &shard, more).await.unwrap();
        numbers(&read_on(&simulator, from).await.unwrap().0)
    };
    let at = |number: &SequenceNumber, kind: &str| json!({"ShardIteratorType": kind, "SequenceNumber": number.as_str()});
    assert_eq!(read(at(&put[1], "AT_SEQUENCE_NUMBER")).await, put[1..]);
    assert_eq!(read(at(&put[1], "AFTER_SEQUENCE_NUMBER")).await, put[2..]);
    assert_eq!(read(at(&start, "AT_SEQUENCE_NUMBER")).await, put);
    assert_eq!(read(json!({"ShardIteratorType": "LATEST"})).await, []);
    let wall = simulator.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let since = |ago: f64| json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": wall - ago});
    assert_eq!(read(since(25.0)).await, put[1..]);
    assert_eq!(read(since(1.0)).await, []);
    assert_eq!(read(since(90_000.0)).await, put);
    let latest =
        iterator(&simulator, &shard, json!({"ShardIteratorType": "LATEST"})).await.unwrap();
    let fourth = simulator.put_item("a", 3);
    assert_eq!(numbers(&simulator.records(&latest).await.unwrap().records), [fourth]);
    simulator.rollover(&shard);
    let latest =
        iterator(&simulator, &shard, json!({"ShardIteratorType": "LATEST"})).await.unwrap();
    let page = simulator.records(&latest).await.unwrap();
    assert_eq!((page.records.len(), page.next), (0, None), "LATEST of a closed shard is its end");
}

#[tokio::test(start_paused = true)]
async fn empty_pages_come_before_the_first_record_only() {
    let simulator = simulator(1);
    simulator.put_item("a", 0);
    simulator.set(|settings| settings.empty_pages = 2);
    let mut at = horizon(&simulator, &simulator.open_shards()[0]).await;
    let mut counts = Vec::new();
    for _ in 0..4 {
        let page = simulator.records(&at).await.unwrap();
        counts.push(page.records.len());
        at = page.next.unwrap();
    }
    assert_eq!(counts, [0, 0, 1, 0]);
    assert_eq!(simulator.calls().get_records, 4);
}

#[tokio::test(start_paused = true)]
async fn wrong_arguments_are_refused_with_their_codes() {
    let simulator = simulator(1);
    let last = simulator.put_item("a", 0);
    let shard = simulator.open_shards().remove(0);
    let wall = simulator.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    for more in [
        json!({}),
        json!({"ShardIteratorType": "SOMEWHERE"}),
        json!({"ShardIteratorType": "LATEST", "SequenceNumber": last.as_str()}),
        json!({"ShardIteratorType": "TRIM_HORIZON", "SequenceNumber": last.as_str()}),
        json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
        json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER"}),
        json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "x"}),
        json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "9".repeat(40)}),
        json!({"ShardIteratorType": "AT_TIMESTAMP"}),
        json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": wall + 1.0}),
    ] {
        let refused = iterator(&simulator, &shard, more.clone()).await;
        assert_eq!(refused, Err("ValidationException"), "{more}");
    }
    simulator.set(|settings| settings.at_timestamp = false);
    let more = json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": wall - 1.0});
    assert_eq!(iterator(&simulator, &shard, more).await, Err("ValidationException"));
    let unknown = ShardId::from("shardId-00000000000000000001-00000000");
    let more = json!({"ShardIteratorType": "LATEST"});
    assert_eq!(iterator(&simulator, &unknown, more).await, Err("ResourceNotFoundException"));

    let good = horizon(&simulator, &shard).await.as_str().to_owned();
    let another = ARN.replace("2026", "2027");
    use Operation::{DescribeStream, GetRecords, ListStreams};
    for (operation, request, code) in [
        (GetRecords, json!({}), "ValidationException"),
        (GetRecords, json!({"ShardIterator": "garbage"}), "ValidationException"),
        (GetRecords, json!({"ShardIterator": format!("{good}x")}), "ValidationException"),
        (GetRecords, json!({"ShardIterator": good.replace("2026", "2027")}), "ValidationException"),
        (GetRecords, json!({"ShardIterator": good, "Limit": 0}), "ValidationException"),
        (GetRecords, json!({"ShardIterator": good, "Limit": 1001}), "ValidationException"),
        (GetRecords, json!({"ShardIterator": 1}), "SerializationException"),
        (DescribeStream, json!({}), "ValidationException"),
        (DescribeStream, json!({"StreamArn": "people"}), "ValidationException"),
        (DescribeStream, json!({"StreamArn": another}), "ResourceNotFoundException"),
        (DescribeStream, json!({"StreamArn": ARN, "Limit": 101}), "ValidationException"),
        (DescribeStream, json!({"StreamArn": ARN, "ShardFilter": {}}), "ValidationException"),
        (ListStreams, json!({"Limit": 0}), "ValidationException"),
        (ListStreams, json!({"TableName": "cats"}), "ResourceNotFoundException"),
    ] {
        let refused = call(&simulator, operation, request.clone()).await;
        assert_eq!(refused, Err(code), "{operation:?} {request}");
    }
    assert_eq!(read_all(&simulator, &shard).await.len(), 1, "refusals change nothing");
}

#[tokio::test(start_paused = true)]
async fn a_third_reader_of_a_shard_is_refused() {
    let simulator = simulator(2);
    let shards = simulator.open_shards();
    let (one, other) =
        (horizon(&simulator, &shards[0]).await, horizon(&simulator, &shards[1]).await);
    simulator.faults().add(FaultRule::new(Fault::Slow(Duration::from_secs(1))).times(2));
    let slow = [0, 1].map(|_| {
        let (simulator, iterator) = (simulator.clone(), one.clone());
        tokio::spawn(async move { simulator.records(&iterator).await })
    });
    simulator.called(|calls| calls.faults.get("slow") == Some(&2)).await;
    assert_eq!(kind(simulator.records(&one).await), SourceErrorKind::Throttled);
    assert!(simulator.records(&other).await.is_ok(), "another shard has readers of its own");
    for reader in slow {
        reader.await.unwrap().unwrap();
    }
    assert!(simulator.records(&one).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_shard_answers_so_many_calls_a_second() {
    let simulator = simulator(1);
    simulator.set(|settings| settings.reads_per_second = Some(2));
    let iterator = horizon(&simulator, &simulator.open_shards()[0]).await;
    assert!(simulator.records(&iterator).await.is_ok());
    advance(Duration::from_millis(600)).await;
    assert!(simulator.records(&iterator).await.is_ok());
    assert_eq!(kind(simulator.records(&iterator).await), SourceErrorKind::Throttled);
    advance(Duration::from_millis(400)).await;
    assert!(simulator.records(&iterator).await.is_ok());
    assert_eq!(simulator.calls().get_records, 4);
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_is_pending_until_it_is_dropped() {
    let simulator = simulator(1);
    simulator.faults().add(FaultRule::new(Fault::Hang).times(1));
    let hung = tokio::time::timeout(Duration::from_secs(59), simulator.describe()).await;
    assert!(hung.is_err());
    assert!(simulator.describe().await.is_ok());
}

proptest! {
    /// Whatever happens to the shards, each item has one open shard, its changes lie in
    /// one lineage in their order, and no record is lost or doubled.
    #[test]
    fn nothing_is_lost_or_moved_by_resharding(steps in prop::collection::vec((0u8..4, 0usize..64), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let simulator = simulator(2);
            let mut written: BTreeMap<String, u64> = BTreeMap::new();
            for (step, which) in steps {
                let open = simulator.open_shards();
                match step {
                    0 => drop(simulator.split(&open[which % open.len()])),
                    1 => drop(simulator.rollover(&open[which % open.len()])),
                    _ => {
                        let count = written.entry(format!("item {}", which % 8)).or_default();
                        simulator.put_item(&format!("item {}", which % 8), *count);
                        *count += 1;
                    }
                }
            }
            let mut read: BTreeMap<String, Vec<(u64, ShardId)>> = BTreeMap::new();
            let mut parents = BTreeMap::new();
            for shard in simulator.describe().await.unwrap().shards {
                for record in read_all(&simulator, &shard.id).await {
                    let (pk, n) = item(&record);
                    read.entry(pk).or_default().push((n, shard.id.clone()));
                }
                parents.insert(shard.id, shard.parent);
            }
            for (pk, count) in &written {
                let counts = read[pk].iter().map(|(n, _)| *n);
                assert!(counts.eq(0..*count), "{pk}");
                for pair in read[pk].windows(2) {
                    let mut at = Some(pair[1].1.clone());
                    while at.as_ref().is_some_and(|shard| *shard != pair[0].1) {
                        at = parents[&at.unwrap()].clone();
                    }
                    assert!(at.is_some(), "{} descends from {}", pair[1].1, pair[0].1);
                }
            }
            assert_eq!(read.len(), written.len());
        });
    }
}
