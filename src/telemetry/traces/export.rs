//! The way of finished spans to the collector.
//!
//! Owns its bounds and its counting. Invariants: handing a span over waits for nothing, for
//! what does not fit into the queue is dropped; a collector that refuses or hangs costs its own
//! spans and nothing else; it is told once in the log when exports begin to fail.

use super::TracesError;
use super::settings::TraceSettings;
use crate::causes;
use crate::telemetry::metrics::Metrics;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, redirect};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::{info, warn};

/// A collector's answer says how many spans it has refused, and little else.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The queue of finished spans and the thread that exports them, within a runtime, which
/// makes the requests.
pub(super) fn processor(
    settings: &TraceSettings,
    metrics: &Arc<Metrics>,
) -> Result<Counted, TracesError> {
    // Headers with a vendor's key go to the address of the settings and nowhere else.
    let mut client = Client::builder().timeout(settings.timeout).redirect(redirect::Policy::none());
    for certificate in &settings.ca {
        client = client.add_root_certificate(certificate.clone());
    }
    let state = Arc::new(State::default());
    let collector = Collector {
        client: client.build().map_err(TracesError::Client)?,
        runtime: Handle::current(),
        headers: settings.headers.clone(),
        state: Arc::clone(&state),
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(collector)
        .with_endpoint(settings.endpoint.as_str())
        .with_protocol(settings.encoding.into())
        .with_timeout(settings.timeout)
        .with_retry_policy(RetryPolicy::recommended())
        .build()
        .map_err(|error| TracesError::Exporter(error.to_string()))?;
    let metrics = Arc::clone(metrics);
    let exporter = CountedExporter {
        inner: exporter,
        state: Arc::clone(&state),
        metrics: Arc::clone(&metrics),
    };
    let queue = settings.queue;
    let bounds = BatchConfigBuilder::default()
        .with_max_queue_size(queue.most)
        .with_max_export_batch_size(queue.export)
        .with_scheduled_delay(queue.delay)
        .build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(bounds).build();
    Ok(Counted { inner, most: queue.most, state, metrics })
}

/// What both ends of the queue know.
#[derive(Debug, Default)]
struct State {
    /// Spans that were handed over and not exported yet.
    waiting: AtomicUsize,
    /// The last export failed.
    is_failing: AtomicBool,
    /// Why the last request did not come through.
    cause: Mutex<Option<String>>,
}

/// The SDK's queue, which tells nobody what it drops.
pub(super) struct Counted {
    inner: BatchSpanProcessor,
    most: usize,
    state: Arc<State>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted").field("state", &self.state).finish_non_exhaustive()
    }
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.state.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.state.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.trace_spans.with_label_values(&["dropped"]).inc();
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what became of spans, and says when that changes.
struct CountedExporter {
    inner: opentelemetry_otlp::SpanExporter,
    state: Arc<State>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for CountedExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CountedExporter")
    }
}

impl SpanExporter for CountedExporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let count = spans.len();
        let exported = self.inner.export(spans).await;
        self.state.waiting.fetch_sub(count, Ordering::Relaxed);
        let outcome = if exported.is_ok() { "exported" } else { "failed" };
        self.metrics.trace_spans.with_label_values(&[outcome]).inc_by(count as u64);
        let was_failing = self.state.is_failing.swap(exported.is_err(), Ordering::Relaxed);
        let cause = self.state.cause.lock().expect("no panic while held").take();
        match &exported {
            Err(error) if !was_failing => {
                let why = cause.unwrap_or_else(|| error.to_string());
                warn!(
                    %why,
                    "traces cannot be exported; their spans are dropped and counted, deliveries go on"
                );
            }
            Ok(()) if was_failing => info!("traces can be exported again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The exporter's thread has no runtime: its requests are made on the process'.
struct Collector {
    client: Client,
    runtime: Handle,
    headers: HeaderMap,
    state: Arc<State>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = reqwest::Request::try_from(request)?;
        // Of the exporter's only what says how the body is written: it reads the environment by
        // itself, and a flag counts over that.
        let written = request.headers_mut().remove(CONTENT_TYPE);
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(written.map(|written| (CONTENT_TYPE, written)));
        let asked = self.runtime.spawn(ask(self.client.clone(), request)).await?;
        let cause = match &asked {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answered {}", answer.status())),
            Err(why) => Some(why.clone()),
        };
        *self.state.cause.lock().expect("no panic while held") = cause;
        Ok(asked?)
    }
}

/// One request. Its error is a sentence without the URL, which may hold a password.
async fn ask(client: Client, request: reqwest::Request) -> Result<Response<Bytes>, String> {
    let told = |error: reqwest::Error| causes::in_a_line(&error.without_url());
    let mut answer = client.execute(request).await.map_err(told)?;
    let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("the collector's answer is larger than {MAX_ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
