//! Every metric, its name, help and labels, in one place.
//!
//! Owns the registry. Units are seconds and bytes. Label values come from closed sets
//! and are present at 0 from the start; there is no shard id in any label, for shards
//! rotate every few hours and would make series without bound.

use crate::aws::{AttemptObserver, AttemptOutcome};
use crate::progress::WriteUnitsObserver;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use std::sync::Arc;
use std::time::SystemTime;

/// The AWS operations a consumer may call, as AWS writes them.
pub const AWS_OPERATIONS: [&str; 7] = [
    "DescribeStream",
    "GetShardIterator",
    "GetRecords",
    "DescribeTable",
    "Query",
    "UpdateItem",
    "DeleteItem",
];

/// Why records are dropped: the settings MAXIMUM_RECORD_AGE_IN_SECONDS and
/// MAXIMUM_RETRY_ATTEMPTS.
pub const DROP_REASONS: [&str; 3] = ["age", "retries", "skipped"];

/// How an invocation of the handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvocationOutcome {
    /// The batch was handled.
    Success,
    /// The handler answered that some of its records failed.
    Partial,
    /// The handler answered that it failed.
    Error,
    /// No answer within `HANDLER_TIMEOUT`.
    Timeout,
    /// The handler could not be reached, or the connection broke.
    Unreachable,
}

impl InvocationOutcome {
    /// Every value.
    pub const ALL: [Self; 5] =
        [Self::Success, Self::Partial, Self::Error, Self::Timeout, Self::Unreachable];

    /// The metric's label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What a shard of this worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// For the first page.
    Waiting,
    /// Being read and delivered.
    Reading,
    /// Its current batch has failed and is tried again.
    Retrying,
    /// An operator has paused it.
    Paused,
    /// Delivered to its end.
    Ended,
}

impl ShardState {
    /// Every value.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Reading, Self::Retrying, Self::Paused, Self::Ended];

    /// The metric's label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Retrying => "retrying",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

/// Why a read of the stream is tried again.
pub const READ_RETRY_REASONS: [&str; 8] = [
    "expired_iterator",
    "trimmed",
    "not_found",
    "throttled",
    "denied",
    "invalid",
    "unavailable",
    "malformed",
];

/// A time as metrics have it.
pub(crate) fn epoch_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident($name:literal $(, $extra:expr)?);)+) => {
        /// The metrics of one process. Cheap to share behind an `Arc`.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        impl Metrics {
            /// All metrics, registered and at their initial values.
            pub fn new() -> Self {
                let registry = Registry::new();
                $(let $field = {
                    let help = concat!($($help),+).trim();
                    let metric = make::$kind($name, help $(, $extra)?);
                    registry.register(Box::new(metric.clone())).expect("names are unique");
                    metric
                };)+
                let metrics = Self { registry, $($field,)+ };
                metrics.initialise();
                metrics
            }
        }
    };
}

metrics! {
    /// Stream records read from the stream, the consumer's own progress items included.
    records_polled: IntCounter("streamgate_records_polled_total");
    /// Stream records of Streamgate's own progress items, recognised by their key and not delivered.
    records_own: IntCounter("streamgate_records_own_total");
    /// Stream records that FILTER_CRITERIA leaves out: the handler does not get them.
    records_filtered: IntCounter("streamgate_records_filtered_total");
    /// Stream records older than the starting position, read only where the endpoint cannot start by time, and not delivered.
    records_before_start: IntCounter("streamgate_records_before_start_total");
    /// Stream records handed to the handler; each attempt counts again.
    records_invoked: IntCounter("streamgate_records_invoked_total");
    /// Stream records in invocations that failed; each attempt counts again.
    records_failed: IntCounter("streamgate_records_failed_total");
    /// Stream records the handler took.
    records_delivered: IntCounter("streamgate_records_delivered_total");
    /// Stream records given up by policy and dropped, as ON_FAILURE=none has it, by why.
    records_dropped: IntCounterVec("streamgate_records_dropped_total", &["reason"]);
    /// Stream records given up by policy and kept with their payload, in the table or where ON_FAILURE has them posted.
    records_dead_lettered: IntCounter("streamgate_records_dead_lettered_total");
    /// Attempts to have records that were given up kept or posted, as ON_FAILURE has it, by how they ended; their shard waits until one is ok.
    dead_letter_attempts: IntCounterVec("streamgate_dead_letter_attempts_total", &["outcome"]);
    /// Stretches of a shard that left the stream before they were read: their records are lost to this consumer.
    gaps: IntCounter("streamgate_gaps_total");
    /// Invocations of the handler, by how they ended.
    invocations: IntCounterVec("streamgate_invocations_total", &["outcome"]);
    /// How long invocations of the handler took.
    invocation_duration: Histogram("streamgate_invocation_duration_seconds", &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0]);
    /// What HANDLER_TIMEOUT is: how long one invocation may take.
    handler_timeout: Gauge("streamgate_handler_timeout_seconds");
    /// Stream records in a batch, at its first attempt.
    batch_records: Histogram("streamgate_batch_records", &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0]);
    /// From the write of a batch's last stream record to its delivery; DynamoDB rounds write times down to the second.
    delivery_delay: Histogram("streamgate_delivery_delay_seconds", &[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 43200.0, 86400.0]);
    /// Age of the last stream record handled or waiting to be, the largest over the shards of this worker; 0 at the tip.
    iterator_age: Gauge("streamgate_iterator_age_seconds");
    /// Shards of this worker, by what they are doing.
    shards: IntGaugeVec("streamgate_shards", &["state"]);
    /// Shard leases this worker holds.
    leases_held: IntGauge("streamgate_leases_held");
    /// Leases this worker has taken.
    leases_taken: IntCounter("streamgate_leases_taken_total");
    /// Leases this worker found taken by another, or gave up because it could not show life.
    leases_lost: IntCounter("streamgate_leases_lost_total");
    /// Leases handed to another worker, at a stop or so that all carry about the same.
    leases_handed_over: IntCounter("streamgate_leases_handed_over_total");
    /// 1 in the worker that finds shards for all and adopts those that nobody has.
    leads: IntGauge("streamgate_leader");
    /// Writes of a shard's position, by how they ended.
    checkpoints: IntCounterVec("streamgate_checkpoints_total", &["outcome"]);
    /// Retries of reads of the stream, by why.
    read_retries: IntCounterVec("streamgate_read_retries_total", &["reason"]);
    /// When the stream last answered a read, in seconds since the epoch.
    last_poll: Gauge("streamgate_last_poll_timestamp_seconds");
    /// When a position was last written, in seconds since the epoch.
    last_checkpoint: Gauge("streamgate_last_checkpoint_timestamp_seconds");
    /// Attempts of AWS calls, by operation and how they ended.
    aws_requests: IntCounterVec("streamgate_aws_requests_total", &["operation", "outcome"]);
    /// Write capacity units that keeping progress has taken where the table is written directly, as DynamoDB tells them; refused conditions take some more, which it does not tell.
    table_write_units: Counter("streamgate_table_write_units_total");
    /// Spans of batches, by what became of them: exported, failed where the collector refused them or did not answer, dropped where too many waited. Without traces there are none.
    trace_spans: IntCounterVec("streamgate_trace_spans_total", &["outcome"]);
    /// Bytes of stream records held in memory, bounded by MAX_BUFFERED_BYTES.
    buffered_bytes: IntGauge("streamgate_buffered_bytes");
    /// Always 1; the version and source revision that run.
    build_info: IntGaugeVec("streamgate_build_info", &["version", "revision"]);
}

/// How metrics are made, named after their types so that the list above reads plainly.
#[allow(non_snake_case)]
mod make {
    use super::*;

    const VALID: &str = "names, help and labels are fixed and valid";

    pub fn IntCounter(name: &str, help: &str) -> super::IntCounter {
        super::IntCounter::new(name, help).expect(VALID)
    }
    pub fn Counter(name: &str, help: &str) -> super::Counter {
        super::Counter::new(name, help).expect(VALID)
    }
    pub fn IntGauge(name: &str, help: &str) -> super::IntGauge {
        super::IntGauge::new(name, help).expect(VALID)
    }
    pub fn Gauge(name: &str, help: &str) -> super::Gauge {
        super::Gauge::new(name, help).expect(VALID)
    }
    pub fn Histogram(name: &str, help: &str, buckets: &[f64]) -> super::Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        super::Histogram::with_opts(options).expect(VALID)
    }
    pub fn IntCounterVec(name: &str, help: &str, labels: &[&str]) -> super::IntCounterVec {
        super::IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
    }
    pub fn IntGaugeVec(name: &str, help: &str, labels: &[&str]) -> super::IntGaugeVec {
        super::IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
    }
}

impl Metrics {
    fn initialise(&self) {
        for outcome in InvocationOutcome::ALL {
            self.invocations.with_label_values(&[outcome.label()]);
        }
        for reason in DROP_REASONS {
            self.records_dropped.with_label_values(&[reason]);
        }
        for outcome in ["ok", "error"] {
            self.dead_letter_attempts.with_label_values(&[outcome]);
        }
        for state in ShardState::ALL {
            self.shards.with_label_values(&[state.label()]);
        }
        for outcome in ["ok", "lease_lost", "error"] {
            self.checkpoints.with_label_values(&[outcome]);
        }
        for reason in READ_RETRY_REASONS {
            self.read_retries.with_label_values(&[reason]);
        }
        for outcome in ["exported", "failed", "dropped"] {
            self.trace_spans.with_label_values(&[outcome]);
        }
        for operation in AWS_OPERATIONS {
            for outcome in AttemptOutcome::ALL {
                self.aws_requests.with_label_values(&[operation, outcome.label()]);
            }
        }
        let revision = option_env!("STREAMGATE_REVISION").unwrap_or("unknown");
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("registered once");
    }

    /// Counts AWS attempts; operations outside the closed set are not expected and left out.
    pub fn aws_observer(self: &Arc<Self>) -> AttemptObserver {
        let metrics = Arc::clone(self);
        Arc::new(move |operation, outcome| {
            if AWS_OPERATIONS.contains(&operation) {
                metrics.aws_requests.with_label_values(&[operation, outcome.label()]).inc();
            }
        })
    }

    /// Counts what the writes of progress cost.
    pub fn write_units_observer(self: &Arc<Self>) -> WriteUnitsObserver {
        let metrics = Arc::clone(self);
        Arc::new(move |units| metrics.table_write_units.inc_by(units))
    }

    /// The exposition text.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
