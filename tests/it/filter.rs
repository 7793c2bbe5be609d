//! FILTER_CRITERIA through the whole consumer: what the handler gets, what is counted,
//! how far the position moves, and what is said of a filter that can match nothing.

use crate::support::endpoint::Endpoint;
use crate::support::process::value_of;
use crate::support::rig::{Recorder, settings, start};
use crate::support::stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use streamgate::consumer::ConsumerSettings;
use streamgate::filter::FilterCriteria;
use streamgate::progress::{MemoryProgress, Position, Progress, Selection};
use streamgate::simulator::{Simulator, StreamViewType};

const SECOND: Duration = Duration::from_secs(1);

/// Lets through what one pattern does.
fn only(pattern: &str) -> FilterCriteria {
    let criteria = serde_json::json!({"Filters": [{"Pattern": pattern}]});
    FilterCriteria::parse(&criteria.to_string()).expect("a good pattern")
}

#[tokio::test(start_paused = true)]
async fn only_what_matches_is_handed_over_and_the_position_passes_the_rest() {
    let simulator = Simulator::builder(crate::support::rig::arn()).seed(3).build();
    let (progress, handler) = (MemoryProgress::new(), Arc::new(Recorder::default()));
    let pattern = r#"{"dynamodb":{"NewImage":{"n":{"N":[{"numeric":["<",3]},"7"]}}}}"#;
    let settings = ConsumerSettings { filter: only(pattern), ..settings() };
    for n in 0..10 {
        simulator.put_item("cat", n);
    }
    let running = start(settings, &simulator, progress.view(), Arc::clone(&handler));
    handler.until_distinct(4).await;
    let got: Vec<_> = handler.got().iter().filter_map(|got| got.n).collect();
    assert_eq!(got, [0, 1, 2, 7]);
    assert_eq!(handler.batches(), [4], "the filter comes before the batch");
    let counts = |running: &crate::support::rig::Running| {
        let metrics = &running.metrics;
        (
            metrics.records_polled.get(),
            metrics.records_filtered.get(),
            metrics.records_invoked.get(),
        )
    };
    assert_eq!(counts(&running), (10, 6, 4));

    // Nothing of these is handed over, and still they are behind us.
    for n in 10..19 {
        simulator.put_item("cat", n);
    }
    let passed = Position::After(simulator.put_item("cat", 19));
    loop {
        let [shard] = &progress.load(Selection::All).await.unwrap()[..] else {
            panic!("one shard")
        };
        if shard.position == passed {
            break;
        }
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(counts(&running), (20, 16, 4));
    running.board.measure(&running.metrics, streamgate::clock::now());
    assert_eq!(running.metrics.iterator_age.get(), 0.0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_iterator_age_is_that_of_what_is_being_passed_and_not_of_the_last_delivered() {
    let simulator = Simulator::builder(crate::support::rig::arn()).seed(3).build();
    simulator.set(|s| s.page_records = 1);
    let handler = Arc::new(Recorder::default());
    let settings = ConsumerSettings { filter: only(r#"{"eventName":["INSERT"]}"#), ..settings() };
    // One insert, and an hour of changes that nobody wants.
    let mut put = 0..;
    simulator.put_item("cat", put.next().expect("no end"));
    let running = start(settings, &simulator, MemoryProgress::new(), Arc::clone(&handler));
    handler.until_distinct(1).await;
    for _ in 0..360 {
        simulator.put_item("cat", put.next().expect("no end"));
        tokio::time::sleep(10 * SECOND).await;
        running.board.measure(&running.metrics, streamgate::clock::now());
        let age = running.metrics.iterator_age.get();
        assert!(age < 30.0, "{age}");
    }
    assert_eq!(running.metrics.records_filtered.get(), 360);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_on_an_image_that_the_stream_does_not_have_is_refused() {
    let simulator =
        Simulator::builder(crate::support::rig::arn()).view_type(StreamViewType::KeysOnly).build();
    let stage = Stage::with("unfit-view", simulator).await;
    let filter =
        r#"{"Filters":[{"Pattern":"{\"dynamodb\":{\"NewImage\":{\"a\":{\"S\":[\"b\"]}}}}"}]}"#;
    let sentence = "FILTER_CRITERIA: Filters[0].Pattern asks for NewImage, but the stream's records have KEYS_ONLY";
    let variables = [("HANDLER", "discard"), ("FILTER_CRITERIA", filter)];
    let ended = stage.start(&variables).await.ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.iter().any(|line| line.contains(sentence)), "{:#?}", ended.stderr);

    let checked = stage.check(&variables).await;
    assert_eq!(checked.code, Some(1));
    let line = format!("FAULT {sentence}");
    assert!(checked.stdout.iter().any(|said| said.starts_with(&line)), "{:#?}", checked.stdout);
    let fits = [
        ("HANDLER", "discard"),
        ("FILTER_CRITERIA", r#"{"Filters":[{"Pattern":"{\"eventName\":[\"INSERT\"]}"}]}"#),
    ];
    let checked = stage.check(&fits).await;
    assert!(
        !checked.stdout.iter().any(|said| said.contains("FILTER_CRITERIA")),
        "{:#?}",
        checked.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_reads_lambdas_json_and_hands_over_what_it_lets_through() {
    let (stage, endpoint) = (Stage::new("filtered", 1).await, Endpoint::start().await);
    let filter = r#"{"Filters":[{"Pattern":"{\"eventName\":[\"REMOVE\"]}"},{"Pattern":"{\"dynamodb\":{\"Keys\":{\"PK\":{\"S\":[{\"prefix\":\"cat\"}]}}}}"}]}"#;
    for n in 0..5 {
        stage.simulator.put_item("cat-1", n);
        stage.simulator.put_item("dog-1", n);
    }
    let variables = [("HANDLER", endpoint.url.as_str()), ("FILTER_CRITERIA", filter)];
    let consumer = stage.consumer(&variables).await;
    endpoint.until_distinct(5).await;
    let got = endpoint.got();
    assert!(got.iter().all(|got| got.pk == "cat-1"), "{got:#?}");
    let series = "streamgate_records_filtered_total";
    consumer.until("/metrics", |_, text| value_of(text, series) == 5.0).await;
    assert_eq!(consumer.stop().await.code, Some(0));
}
