//! Spans of batches, for a collector that speaks OTLP.
//!
//! Owns their names and attributes, and all types of OpenTelemetry. What happens to a batch is
//! told by the rooms on a record's way, each through an `Option` of a handle from here: where
//! there is none, nothing is done, and nothing of this is set up. Invariants: a span holds no
//! item contents or keys, and nobody who tells of one waits for anything.

mod batch;
mod export;
mod settings;

pub use batch::{AttemptTrace, BatchTrace, CheckpointTrace};
pub use settings::{Encoding, Propagators, Queue, Sampler, TraceSettings};

use crate::arn::StreamArn;
use crate::telemetry::metrics::Metrics;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracer, SdkTracerProvider};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// A stop waits so long for the last spans: less than the five seconds that platforms are told to
/// leave after `SHUTDOWN_GRACE`.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// That of `opentelemetry_sdk`: a test compares it with the lock file.
const SDK_VERSION: &str = "0.33.1";
/// The registry of OpenTelemetry has names for SQS, SNS and Kafka, and none for this.
const SYSTEM: &str = "aws.dynamodb_streams";

/// The traces of one process. Cheap to clone.
#[derive(Clone)]
pub struct Traces(Arc<Inner>);

struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// `process` and the table's name: what all spans of batches are called.
    name: String,
    /// What is the same in all of them.
    attributes: Vec<KeyValue>,
    propagators: Propagators,
}

/// Traces could not be set up; nothing was contacted.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The TLS or connection setup of this machine.
    #[error("the HTTP client for traces could not be set up: {0}")]
    Client(#[source] reqwest::Error),
    /// The exporter does not take what the settings say.
    #[error("the exporter of traces could not be set up: {0}")]
    Exporter(String),
}

impl Traces {
    /// Begins the export, on a thread of its own and on the runtime that this is called in.
    ///
    /// # Errors
    /// [`TracesError`] where it cannot be set up.
    pub fn start(
        settings: &TraceSettings,
        stream: &StreamArn,
        consumer: &str,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, TracesError> {
        let resource = settings.resource.iter();
        let resource = resource.map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", consumer.to_owned()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("telemetry.sdk.language", "rust"),
                KeyValue::new("telemetry.sdk.name", "opentelemetry"),
                KeyValue::new("telemetry.sdk.version", SDK_VERSION),
            ])
            .with_attributes(resource)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Box::<dyn opentelemetry_sdk::trace::ShouldSample>::from(
                SdkSampler::from(settings.sampler),
            ))
            .with_resource(resource)
            .with_span_processor(export::processor(settings, metrics)?)
            .build();
        let scope = InstrumentationScope::builder("streamgate")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let attributes = vec![
            KeyValue::new("messaging.system", SYSTEM),
            KeyValue::new("messaging.destination.name", stream.table().to_owned()),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.consumer.group.name", consumer.to_owned()),
            KeyValue::new("streamgate.stream.arn", stream.to_string()),
        ];
        Ok(Self(Arc::new(Inner {
            tracer: provider.tracer_with_scope(scope),
            provider,
            name: format!("process {}", stream.table()),
            attributes,
            propagators: settings.propagators,
        })))
    }

    /// Exports what is left, within a bound, and ends the export. Spans that end later are
    /// dropped.
    pub async fn close(self) {
        let provider = self.0.provider.clone();
        let closing =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS));
        let closed = tokio::time::timeout(LAST_SPANS, closing).await;
        if !matches!(closed, Ok(Ok(Ok(())))) {
            warn!("the last spans could not be exported before the end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_sdk_is_that_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        let package = format!("name = \"opentelemetry_sdk\"\nversion = \"{SDK_VERSION}\"");
        assert!(lock.contains(&package), "{package}");
    }
}
