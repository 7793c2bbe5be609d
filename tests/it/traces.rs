//! What a collector gets of a real consumer, and what its failures do to deliveries: nothing.

use crate::support::collector::{Collector, Mode, Seen, hex};
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::free_port;
use crate::support::lambda::Function;
use crate::support::process::{Process, value_of, within};
use crate::support::rig::{ARN, put_rounds};
use crate::support::stage::Stage;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What every test has: soon exported, soon written down.
fn variables<'a>(collector: &'a str, handler: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("CHECKPOINT_INTERVAL", "50ms"),
        ("HANDLER", handler),
    ]
}

/// The spans of one batch: its own, and those within it by their names, in order.
struct Batch {
    root: Seen,
    children: Vec<Seen>,
}

impl Batch {
    fn children(&self, name: &str) -> Vec<&Seen> {
        self.children.iter().filter(|span| span.name() == name).collect()
    }

    fn child(&self, name: &str) -> &Seen {
        let [child] = self.children(name)[..] else { panic!("one {name}: {:#?}", self.children) };
        child
    }
}

/// Spans by the batches that they belong to, in the order of these.
fn batches(spans: &[Seen]) -> Vec<Batch> {
    let mut traces: BTreeMap<&[u8], Vec<&Seen>> = BTreeMap::new();
    for seen in spans {
        traces.entry(&seen.span.trace_id).or_default().push(seen);
    }
    let mut batches = Vec::new();
    for mut spans in traces.into_values() {
        spans.sort_by_key(|seen| (seen.span.start_time_unix_nano, seen.span.end_time_unix_nano));
        let (roots, children): (Vec<&Seen>, Vec<&Seen>) =
            spans.into_iter().partition(|seen| seen.span.parent_span_id.is_empty());
        let [root] = roots[..] else { continue };
        for child in &children {
            assert_eq!(child.span.parent_span_id, root.span.span_id, "{child:?}");
            assert!(child.span.start_time_unix_nano >= root.span.start_time_unix_nano);
        }
        let children = children.into_iter().cloned().collect();
        batches.push(Batch { root: root.clone(), children });
    }
    batches.sort_by_key(|batch| batch.root.span.start_time_unix_nano);
    batches
}

/// Waits until so many batches are complete, with their checkpoints.
async fn complete(collector: &Collector, count: usize) -> Vec<Batch> {
    let whole = |spans: &[Seen]| {
        let batches = batches(spans);
        let written = batches.iter().filter(|batch| !batch.children("checkpoint").is_empty());
        written.count() >= count
    };
    batches(&collector.until(&format!("{count} batches"), whole).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_a_span_with_its_waits_and_the_handler_gets_its_trace() {
    let stage = Stage::new("traces", 1).await;
    let (collector, endpoint) = (Collector::start().await, Endpoint::start().await);
    put_rounds(&stage.simulator, 3, 0..1);
    let with_secret = endpoint.url.replace("http://", "http://me:hidden@");
    let mut variables = variables(&collector.url, &with_secret);
    variables.extend([
        ("CONSUMER_NAME", "mails"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=green%20ones"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("HANDLER_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
    ]);
    let consumer = stage.consumer(&variables).await;
    let batch = complete(&collector, 1).await.remove(0);
    let shard = stage.simulator.open_shards()[0].to_string();
    let [invocation] = &endpoint.invocations()[..] else { panic!("one batch") };
    let numbers: Vec<_> =
        invocation.records.iter().map(|got| got.sequence_number.clone()).collect();

    let root = &batch.root;
    let table = ARN.split('/').nth(1).unwrap();
    assert_eq!(root.name(), format!("process {table}"));
    assert_eq!(root.span.kind(), SpanKind::Consumer);
    let expected = BTreeMap::from(
        [
            ("messaging.system", "aws.dynamodb_streams"),
            ("messaging.destination.name", table),
            ("messaging.destination.partition.id", &shard),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.consumer.group.name", "mails"),
            ("messaging.batch.message_count", "3"),
            ("streamgate.stream.arn", ARN),
            ("streamgate.sequence_number.first", &numbers[0]),
            ("streamgate.sequence_number.last", &numbers[2]),
            ("streamgate.attempts", "1"),
            ("streamgate.outcome", "taken"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(root.attributes(), expected);
    assert!(!root.is_error() && root.events().is_empty());
    let resource = |name: &str| root.resource[name].as_str();
    assert_eq!(resource("service.name"), "mails");
    assert_eq!(resource("service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(resource("deployment.environment.name"), "test");

    let names: Vec<_> = batch.children.iter().map(Seen::name).collect();
    assert_eq!(names, ["read", "queued", "POST", "checkpoint"], "one after the other");
    let (read, queued) = (&batch.child("read").span, &batch.child("queued").span);
    let (post, written) = (batch.child("POST"), batch.child("checkpoint"));
    assert_eq!(read.start_time_unix_nano, root.span.start_time_unix_nano);
    assert_eq!(read.end_time_unix_nano, queued.start_time_unix_nano);
    assert!(post.span.start_time_unix_nano >= queued.end_time_unix_nano);
    assert!(root.span.end_time_unix_nano >= post.span.end_time_unix_nano);
    assert_eq!(written.span.start_time_unix_nano, root.span.end_time_unix_nano);
    assert_eq!(post.span.kind(), SpanKind::Client);
    let url = endpoint.url.split('?').next().unwrap();
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.full", url),
        ("server.address", "127.0.0.1"),
        ("streamgate.attempt", "1"),
        ("streamgate.outcome", "success"),
    ] {
        assert_eq!(post.attribute(name), value, "{name}");
    }
    // The handler's own spans are below the attempt.
    assert_eq!(invocation.header("traceparent"), post.traceparent());
    assert_eq!(invocation.header("x-amzn-trace-id"), "", "it was not asked for");
    assert!(!invocation.header("webhook-signature").is_empty());
    let seen = format!("{:?}", collector.spans());
    assert!(!seen.contains("hidden") && !seen.contains("item-0"), "no secret and no item: {seen}");
    assert_eq!(collector.asked()[0]["x-team"], "green ones");
    let exported =
        |text: &str| value_of(text, "streamgate_trace_spans_total{outcome=\"exported\"}");
    consumer.until("/metrics", |_, text| exported(text) == 5.0).await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_halves_partial_answers_and_what_is_given_up_are_seen() {
    let stage = Stage::new("traces-failing", 1).await;
    let (collector, endpoint) = (Collector::start().await, Endpoint::start().await);
    // A partial answer; its rest fails and is halved, and one of the halves is given up.
    endpoint.script([
        Answer::FailFrom(1),
        Answer::Status(500),
        Answer::Status(503),
        Answer::Status(503),
        Answer::Take,
    ]);
    put_rounds(&stage.simulator, 3, 0..1);
    let mut variables = variables(&collector.url, &endpoint.url);
    variables.extend([
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"),
        ("BISECT_BATCH_ON_FUNCTION_ERROR", "true"),
        ("MAXIMUM_RETRY_ATTEMPTS", "1"),
        ("ON_FAILURE", "none"),
    ]);
    let consumer = stage.consumer(&variables).await;
    let batch = complete(&collector, 1).await.remove(0);
    let root = &batch.root;
    assert_eq!(root.events(), ["bisect", "bisect", "retry", "give up"]);
    assert_eq!(root.attribute("streamgate.attempts"), "5");
    assert_eq!(root.attribute("streamgate.outcome"), "given_up");
    assert_eq!(root.attribute("error.type"), "given_up");
    assert!(root.is_error());
    let attempts: Vec<_> = batch
        .children("POST")
        .iter()
        .map(|span| {
            let of = |name: &str| span.attributes().remove(name);
            let count = of("messaging.batch.message_count").unwrap();
            let outcome = of("streamgate.outcome").unwrap();
            assert_eq!(of("error.type").is_some(), outcome != "success");
            assert_eq!(span.is_error(), outcome != "success");
            (count, of("http.response.status_code").unwrap(), outcome)
        })
        .collect();
    let expected = [
        ("3", "200", "partial"),
        ("2", "500", "error"),
        ("1", "503", "error"),
        ("1", "503", "error"),
        ("1", "200", "success"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(attempts, expected);
    let sent: Vec<_> = endpoint.invocations();
    let sent: Vec<_> = sent.iter().map(|one| one.header("traceparent").to_owned()).collect();
    let spans: Vec<_> = batch.children("POST").iter().map(|span| span.traceparent()).collect();
    assert_eq!(sent, spans, "each attempt has its own");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_exports_what_is_left_and_a_batch_that_it_cuts_off_says_so() {
    let stage = Stage::new("traces-stop", 1).await;
    let (collector, endpoint) = (Collector::start().await, Endpoint::start().await);
    put_rounds(&stage.simulator, 1, 0..1);
    let mut variables = variables(&collector.url, &endpoint.url);
    variables.extend([("OTEL_BSP_SCHEDULE_DELAY", "60000"), ("CHECKPOINT_INTERVAL", "5m")]);
    let consumer = stage.consumer(&variables).await;
    endpoint.until_distinct(1).await;
    endpoint.usually(Answer::Status(500));
    put_rounds(&stage.simulator, 1, 1..2);
    endpoint.until("a failed attempt", |all| all.len() >= 3).await;
    assert_eq!(collector.spans().len(), 0, "nothing is due");
    consumer.stop().await;
    let batches = batches(&collector.spans());
    let outcomes: Vec<_> =
        batches.iter().map(|batch| batch.root.attribute("streamgate.outcome")).collect();
    assert_eq!(outcomes, ["taken", "cut_off"]);
    assert!(!batches[0].child("checkpoint").is_error());
    assert!(batches[1].root.is_error() && batches[1].children("checkpoint").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_lambda_functions_get_the_trace_in_their_own_way() {
    let stage = Stage::new("traces-others", 1).await;
    let collector = Collector::start().await;
    let folder = std::env::temp_dir().join(format!("streamgate-traces-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let got = folder.join("got");
    // It writes down the line, and takes it.
    let script = folder.join("program");
    let text = format!(
        "#!/bin/sh\nwhile read -r line; do printf '%s\\n' \"$line\" >> {}; echo; done\n",
        got.display()
    );
    std::fs::write(&script, text).unwrap();
    let handler = format!("exec:sh {}", script.display());
    put_rounds(&stage.simulator, 1, 0..1);
    let consumer = stage.consumer(&variables(&collector.url, &handler)).await;
    let batch = complete(&collector, 1).await.remove(0);
    consumer.stop().await;
    let line: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&got).unwrap().trim()).unwrap();
    assert_eq!(line["traceparent"], batch.child("invoke").traceparent());
    assert_eq!(line["Records"].as_array().unwrap().len(), 1);
    std::fs::remove_dir_all(folder).unwrap();

    let emulator = Endpoint::start().await;
    let target = emulator.url.strip_suffix("/events?a=b").unwrap();
    put_rounds(&stage.simulator, 1, 1..2);
    let handler = format!("lambda+{target}");
    let collector = Collector::start().await;
    let consumer = stage.consumer(&variables(&collector.url, &handler)).await;
    let batch = complete(&collector, 1).await.remove(0);
    consumer.stop().await;
    let [invocation] = &emulator.invocations()[..] else { panic!("one invocation") };
    let span = batch.child("POST");
    assert_eq!(invocation.header("traceparent"), span.traceparent());
    assert_eq!(invocation.header("x-amzn-trace-id"), xray(span));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_refuses_or_hangs_costs_spans_and_no_delivery() {
    let stage = Stage::new("traces-away", 1).await;
    let (collector, endpoint) = (Collector::start().await, Endpoint::start().await);
    let nobody = format!("http://{}", free_port());
    let count = |text: &str, outcome: &str| {
        value_of(text, &format!("streamgate_trace_spans_total{{outcome=\"{outcome}\"}}"))
    };
    let (mut round, mut delivered) = (0, 0);
    for (url, mode, says) in [
        (&nobody, Mode::Take, "Connection refused"),
        (&collector.url, Mode::Refuse, "the collector answered 400"),
        (&collector.url, Mode::Hang, "timed out"),
    ] {
        collector.mode(mode);
        let mut variables = variables(url, &endpoint.url);
        variables.extend([
            ("BATCH_SIZE", "1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ]);
        let mut consumer = stage.consumer(&variables).await;
        put_rounds(&stage.simulator, 1, round..round + 50);
        (round, delivered) = (round + 50, delivered + 50);
        endpoint.until_distinct(delivered).await;
        consumer.until("/metrics", |_, text| count(text, "failed") >= 8.0).await;
        consumer.until("/metrics", |_, text| count(text, "dropped") > 0.0).await;
        consumer.until_metric("streamgate_records_delivered_total", |count| count == 50.0).await;
        consumer.signal("TERM");
        let ended = consumer.ended().await;
        assert_eq!(ended.code, Some(0), "{mode:?}: {:#?}", ended.stderr);
        let told = |line: &&String| line.contains("traces cannot be exported; their spans");
        let told: Vec<_> = ended.stderr.iter().filter(told).collect();
        assert!(told.len() == 1 && told[0].contains(says), "once, and why: {told:?}");
    }
    assert!(stage.progress().await.iter().all(|shard| shard.gaps.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_endpoint_there_is_no_thread_and_no_header_and_a_sampler_may_leave_all_out() {
    let stage = Stage::new("traces-off", 1).await;
    let (collector, endpoint) = (Collector::start().await, Endpoint::start().await);
    let threads = |process: &Process| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
        let names = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.filter_map(Result::ok).filter(|name| name.starts_with("OpenTelemetry")).count()
    };
    let consumer = stage.consumer(&[("HANDLER", &endpoint.url)]).await;
    put_rounds(&stage.simulator, 1, 0..1);
    endpoint.until_distinct(1).await;
    assert_eq!(threads(&consumer), 0);
    consumer.stop().await;
    assert_eq!(endpoint.invocations()[0].header("traceparent"), "");

    let mut variables = variables(&collector.url, &endpoint.url);
    variables.push(("OTEL_TRACES_SAMPLER", "always_off"));
    let consumer = stage.consumer(&variables).await;
    put_rounds(&stage.simulator, 1, 1..2);
    endpoint.until_distinct(2).await;
    // A thread names itself, and this one has nothing to do that could be waited for.
    within("the thread of the export", async {
        while threads(&consumer) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    consumer.stop().await;
    let told = endpoint.invocations()[1].header("traceparent").to_owned();
    assert!(told.starts_with("00-") && told.ends_with("-00"), "not sampled: {told}");
    assert_eq!(collector.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_that_is_not_spoken_ends_the_start_with_a_sentence() {
    let stage = Stage::new("traces-grpc", 1).await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let ended = stage.start(&variables).await.ended().await;
    assert_eq!(ended.code, Some(64));
    let said = ended.stderr.join("\n");
    assert!(
        said.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\", which is not spoken here"),
        "{said}"
    );
}

/// AWS's header for a span.
fn xray(seen: &Seen) -> String {
    let (trace, span) = (hex(&seen.span.trace_id), hex(&seen.span.span_id));
    format!("Root=1-{}-{};Parent={span};Sampled=1", &trace[..8], &trace[8..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lambda_function_finds_the_trace_where_tools_of_aws_look_for_it() {
    let stage = Stage::new("traces-lambda", 1).await;
    let collector = Collector::start().await;
    let got = std::env::temp_dir().join(format!("streamgate-traced-{}", std::process::id()));
    let folder = Path::new("tests/it/support/lambda");
    let traced = got.with_extension("traced");
    let named = [("GOT", got.to_str().unwrap()), ("TRACED", traced.to_str().unwrap())];
    let function = Function::start(folder, "function.handle", "5", &named).await;
    put_rounds(&stage.simulator, 1, 0..1);
    let mut variables = variables(&collector.url, &function.url);
    variables.push(("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"));
    let consumer = stage.consumer(&variables).await;
    let batch = complete(&collector, 1).await.remove(0);
    assert_eq!(batch.child("POST").attribute("http.response.status_code"), "200");
    consumer.stop().await;
    assert_eq!(std::fs::read_to_string(&traced).unwrap(), xray(batch.child("POST")));
    std::fs::remove_file(got).unwrap();
    std::fs::remove_file(traced).unwrap();
}
