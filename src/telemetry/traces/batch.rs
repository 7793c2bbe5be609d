//! The spans of one batch: its waits, and each of its attempts.
//!
//! ```text
//!  process orders      ├───────────────────────────────────┤
//!    read              ├─────┤                                  first read .. batch made
//!    queued                  ├──┤                               made .. being delivered
//!    invoke, POST               ├────┤      ├────┤               an attempt each
//!    checkpoint                                        ├────┤   through .. position durable
//! ```
//!
//! Owns when each begins and ends. Invariant: each ends once, also where what it tells of is
//! cut off: it says so then.

use super::Traces;
use crate::budget::Charge;
use crate::clock;
use crate::record::{Record, SequenceNumber};
use crate::source::ShardId;
use crate::telemetry::metrics::InvocationOutcome;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use reqwest::Url;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const ERROR_TYPE: &str = "error.type";
const OUTCOME: &str = "streamgate.outcome";
const COUNT: &str = "messaging.batch.message_count";

/// One batch on its way through the handler. When it is dropped without [`Self::through`] it
/// was cut off.
pub struct BatchTrace {
    traces: Traces,
    /// With the batch's span in it.
    context: Context,
    /// When the batch was through, for those who still wait for its checkpoint.
    delivered: Arc<OnceLock<SystemTime>>,
    attempts: AtomicU32,
    given_up: AtomicU64,
    /// As the letter that it is was left.
    left: AtomicBool,
    is_through: bool,
}

/// The wait of a batch for its position to be durable.
pub struct CheckpointTrace {
    traces: Traces,
    context: Context,
    delivered: Arc<OnceLock<SystemTime>>,
    /// The last record of the batch.
    last: SequenceNumber,
    is_told: bool,
}

/// One invocation of the handler. When it is dropped without [`Self::end`] it was cut off.
pub struct AttemptTrace {
    context: Context,
    status: AtomicU32,
    has_ended: bool,
    traceparent: String,
    /// `X-Amzn-Trace-Id`
    xray: String,
    traces: Traces,
}

impl Traces {
    /// A batch that is about to be handed over, and was made at `made`; without records, the
    /// end of a window.
    pub fn batch(&self, shard: &ShardId, records: &[Record], made: Instant) -> BatchTrace {
        // Spans have the time of day; what is known is how long ago things were.
        let (now, instant) = (clock::now(), Instant::now());
        let at = |then: Instant| now.checked_sub(instant - then).unwrap_or(now);
        let read = records.first().and_then(Record::page).map(|page: &Arc<Charge>| page.since());
        let read = read.map_or(made, |read| read.min(made));
        let mut attributes = self.0.attributes.clone();
        attributes.push(KeyValue::new("messaging.destination.partition.id", shard.to_string()));
        attributes.extend(extent(records));
        let builder = SpanBuilder::from_name(self.0.name.clone())
            .with_kind(SpanKind::Consumer)
            .with_start_time(at(read))
            .with_attributes(attributes);
        let span = self.0.tracer.build_with_context(builder, &Context::new());
        let trace = BatchTrace {
            traces: self.clone(),
            context: Context::new().with_span(span),
            delivered: Arc::default(),
            attempts: AtomicU32::new(0),
            given_up: AtomicU64::new(0),
            left: AtomicBool::new(false),
            is_through: false,
        };
        if !records.is_empty() {
            self.wait("read", &trace.context, at(read), at(made));
        }
        self.wait("queued", &trace.context, at(made), now);
        trace
    }

    fn wait(&self, name: &'static str, batch: &Context, from: SystemTime, to: SystemTime) {
        let builder = SpanBuilder::from_name(name).with_start_time(from);
        self.0.tracer.build_with_context(builder, batch).end_with_timestamp(to);
    }
}

/// How many records there are, and from where to where.
fn extent(records: &[Record]) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new(COUNT, records.len() as i64)];
    if let (Some(first), Some(last)) = (records.first(), records.last()) {
        let digits = |record: &Record| record.sequence_digits().to_owned();
        attributes.push(KeyValue::new("streamgate.sequence_number.first", digits(first)));
        attributes.push(KeyValue::new("streamgate.sequence_number.last", digits(last)));
    }
    attributes
}

impl BatchTrace {
    /// The wait for the position behind these records, to be told when it is durable.
    pub fn checkpoint(&self, records: &[Record]) -> Option<CheckpointTrace> {
        let last = records.last()?.sequence_number();
        let is_recorded = self.context.span().is_recording();
        is_recorded.then(|| CheckpointTrace {
            traces: self.traces.clone(),
            context: self.context.clone(),
            delivered: Arc::clone(&self.delivered),
            last,
            is_told: false,
        })
    }

    /// These records are handed to the handler now, which is in another process or in this one.
    pub fn attempt(&self, records: &[Record], attempt: u32, is_remote: bool) -> AttemptTrace {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let mut attributes = extent(records);
        attributes.push(KeyValue::new("streamgate.attempt", i64::from(attempt)));
        let kind = if is_remote { SpanKind::Client } else { SpanKind::Internal };
        let builder = SpanBuilder::from_name("invoke").with_kind(kind).with_attributes(attributes);
        let span = self.traces.0.tracer.build_with_context(builder, &self.context);
        let context = Context::new().with_span(span);
        let (traceparent, xray) = headers(&context);
        let (status, traces) = (AtomicU32::new(0), self.traces.clone());
        AttemptTrace { context, status, has_ended: false, traceparent, xray, traces }
    }

    /// What failed comes again, after a wait; `bisected`: its first half comes.
    pub fn retry(&self, bisected: bool, wait: Duration) {
        let name = if bisected { "bisect" } else { "retry" };
        let wait = KeyValue::new("streamgate.retry_in_ms", wait.as_millis() as i64);
        self.context.span().add_event(name, vec![wait]);
    }

    /// So many records are given up, and why.
    pub fn given_up(&self, records: usize, reason: &'static str) {
        self.given_up.fetch_add(records as u64, Ordering::Relaxed);
        let attributes = vec![
            KeyValue::new("streamgate.records", records as i64),
            KeyValue::new("streamgate.reason", reason),
        ];
        self.context.span().add_event("give up", attributes);
    }

    /// A dead letter that was handed over again and not taken, or not all of it.
    pub fn left(self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Every record of it was taken or given up.
    pub fn through(mut self) {
        self.is_through = true;
        let _ = self.delivered.set(clock::now());
    }
}

impl Drop for BatchTrace {
    fn drop(&mut self) {
        let (attempts, given_up) = (*self.attempts.get_mut(), *self.given_up.get_mut());
        let (outcome, fault) = match (self.is_through, given_up) {
            (true, 0) => ("taken", None),
            (true, _) => ("given_up", Some(format!("{given_up} records were given up"))),
            (false, _) if *self.left.get_mut() => {
                ("left", Some("the dead letter, or what is left of it, stays".to_owned()))
            }
            (false, _) => ("cut_off", Some("the batch was cut off and comes again".to_owned())),
        };
        let span = self.context.span();
        span.set_attribute(KeyValue::new("streamgate.attempts", i64::from(attempts)));
        span.set_attribute(KeyValue::new(OUTCOME, outcome));
        if let Some(fault) = fault {
            span.set_attribute(KeyValue::new(ERROR_TYPE, outcome));
            span.set_status(Status::error(fault));
        }
        let end = self.delivered.get().copied();
        span.end_with_timestamp(end.unwrap_or_else(clock::now));
    }
}

impl CheckpointTrace {
    /// The last record of the batch.
    pub fn last(&self) -> &SequenceNumber {
        &self.last
    }

    /// A position at or behind [`Self::last`] is durable.
    pub fn durable(mut self) {
        self.end(None);
        self.is_told = true;
    }

    fn end(&self, fault: Option<&'static str>) {
        let now = clock::now();
        let delivered = self.delivered.get().copied().unwrap_or(now);
        let builder = SpanBuilder::from_name("checkpoint").with_start_time(delivered.min(now));
        let mut span = self.traces.0.tracer.build_with_context(builder, &self.context);
        if let Some(fault) = fault {
            span.set_attribute(KeyValue::new(ERROR_TYPE, "not_written"));
            span.set_status(Status::error(fault));
        }
        span.end_with_timestamp(now);
    }
}

impl Drop for CheckpointTrace {
    fn drop(&mut self) {
        // A batch that was cut off says so itself.
        if !self.is_told && self.delivered.get().is_some() {
            self.end(Some("the shard was let go before its position was written"));
        }
    }
}

impl AttemptTrace {
    /// W3C's `traceparent` of this attempt.
    pub fn traceparent(&self) -> Option<&str> {
        self.traces.0.propagators.trace_context.then_some(&*self.traceparent)
    }

    /// AWS's `X-Amzn-Trace-Id` of this attempt, where `OTEL_PROPAGATORS` asks for it.
    pub fn xray(&self) -> Option<&str> {
        self.traces.0.propagators.xray.then_some(&*self.xray)
    }

    /// The same for a Lambda function, which hears of no other header; not where
    /// `OTEL_PROPAGATORS` asks for none.
    pub fn xray_for_lambda(&self) -> Option<&str> {
        let propagators = self.traces.0.propagators;
        (propagators.xray || propagators.trace_context).then_some(&*self.xray)
    }

    /// It is a POST to this URL, of which a user, a password and a query are nobody's business.
    pub fn posts_to(&self, url: &Url) {
        let span = self.context.span();
        if !span.is_recording() {
            return;
        }
        let mut shown = url.clone();
        shown.set_query(None);
        // An HTTP URL has room for both.
        let _ = shown.set_username("").and_then(|()| shown.set_password(None));
        span.update_name("POST");
        span.set_attribute(KeyValue::new("http.request.method", "POST"));
        span.set_attribute(KeyValue::new("url.full", shown.to_string()));
        if let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) {
            span.set_attribute(KeyValue::new("server.address", host.to_owned()));
            span.set_attribute(KeyValue::new("server.port", i64::from(port)));
        }
    }

    /// The answer has this status.
    pub fn answered(&self, status: u16) {
        self.status.store(status.into(), Ordering::Relaxed);
        let status = KeyValue::new("http.response.status_code", i64::from(status));
        self.context.span().set_attribute(status);
    }

    /// It ended so; `error` has no item contents.
    pub fn end(mut self, outcome: InvocationOutcome, error: Option<String>) {
        self.has_ended = true;
        self.ends(outcome.label(), error);
    }

    fn ends(&self, outcome: &'static str, error: Option<String>) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new(OUTCOME, outcome));
        if let Some(error) = error {
            // As HTTP's conventions have it: the status where that is the error.
            let error_type = match self.status.load(Ordering::Relaxed) {
                status @ 400.. => status.to_string(),
                _ => outcome.to_owned(),
            };
            span.set_attribute(KeyValue::new(ERROR_TYPE, error_type));
            span.set_status(Status::error(error));
        }
        span.end();
    }
}

impl Drop for AttemptTrace {
    fn drop(&mut self) {
        if !self.has_ended {
            self.ends("cut_off", Some("it was cut off before it was answered".to_owned()));
        }
    }
}

/// `traceparent` and `X-Amzn-Trace-Id`, which name the same span.
fn headers(context: &Context) -> (String, String) {
    let span = context.span();
    let of = span.span_context();
    let (trace, id) = (of.trace_id().to_string(), of.span_id());
    let sampled = u8::from(of.is_sampled());
    let (time, rest) = trace.split_at(8);
    (
        format!("00-{trace}-{id}-{sampled:02x}"),
        format!("Root=1-{time}-{rest};Parent={id};Sampled={sampled}"),
    )
}
