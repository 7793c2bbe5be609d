//! The api's metrics.
//!
//! Owns their registry. As with the consumer's, label values come from closed sets and
//! are present at 0 from the start.

use crate::aws::{AttemptObserver, AttemptOutcome};
use crate::progress::WriteUnitsObserver;
use crate::progress::problem::ProblemCode;
use crate::progress::wire::Call;
use prometheus::{Counter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use std::sync::Arc;

/// The AWS operations the api may call, as AWS writes them.
pub const TABLE_OPERATIONS: [&str; 4] = ["DescribeTable", "Query", "UpdateItem", "DeleteItem"];

/// A request's route that is none of the calls.
pub(super) const HELLO: &str = "hello";
/// The description of the interface.
pub(super) const OPENAPI: &str = "openapi";
/// All that belongs to the page.
pub(super) const PAGE: &str = "page";
/// A request whose route is not known, or that was not let in far enough to tell.
pub(super) const OTHER: &str = "other";
/// The outcome of a request that was answered without a problem.
pub(super) const OK: &str = "ok";

/// The metrics of one api.
pub struct ApiMetrics {
    registry: Registry,
    progress_requests: IntCounterVec,
    table_requests: IntCounterVec,
    table_write_units: Counter,
}

impl ApiMetrics {
    /// All metrics, registered and at their initial values.
    pub fn new() -> Self {
        const VALID: &str = "names, help and labels are fixed and valid";
        let registry = Registry::new();
        let counter = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
            registry.register(Box::new(counter.clone())).expect(VALID);
            counter
        };
        let progress_requests = counter(
            "streamgate_progress_requests_total",
            "Requests at the private listener, by route and how they were answered; a batch of checkpoints counts as ok when each position has its own result.",
            &["route", "outcome"],
        );
        let table_requests = counter(
            "streamgate_table_requests_total",
            "Attempts of AWS calls on the table, by operation and how they ended.",
            &["operation", "outcome"],
        );
        let table_write_units = Counter::new(
            "streamgate_table_write_units_total",
            "Write capacity units that keeping progress has taken, as DynamoDB tells them; refused conditions take some more, which it does not tell.",
        )
        .expect(VALID);
        registry.register(Box::new(table_write_units.clone())).expect(VALID);
        let routes = Call::ALL.map(Call::name).into_iter().chain([HELLO, OPENAPI, PAGE, OTHER]);
        for route in routes {
            let outcomes = ProblemCode::ALL.map(ProblemCode::label).into_iter().chain([OK]);
            for outcome in outcomes {
                progress_requests.with_label_values(&[route, outcome]);
            }
        }
        for operation in TABLE_OPERATIONS {
            for outcome in AttemptOutcome::ALL {
                table_requests.with_label_values(&[operation, outcome.label()]);
            }
        }
        let build = Opts::new(
            "streamgate_build_info",
            "Always 1; the version and source revision that run.",
        );
        let build = IntGaugeVec::new(build, &["version", "revision"]).expect(VALID);
        let revision = option_env!("STREAMGATE_REVISION").unwrap_or("unknown");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        registry.register(Box::new(build)).expect(VALID);
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect(VALID);
        Self { registry, progress_requests, table_requests, table_write_units }
    }

    pub(super) fn request(&self, route: &str, outcome: &str) {
        self.progress_requests.with_label_values(&[route, outcome]).inc();
    }

    /// Counts AWS attempts; operations outside the closed set are not expected and left out.
    pub fn aws_observer(self: &Arc<Self>) -> AttemptObserver {
        let metrics = Arc::clone(self);
        Arc::new(move |operation, outcome| {
            if TABLE_OPERATIONS.contains(&operation) {
                metrics.table_requests.with_label_values(&[operation, outcome.label()]).inc();
            }
        })
    }

    /// Counts what the writes of the stores cost.
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

impl Default for ApiMetrics {
    fn default() -> Self {
        Self::new()
    }
}
