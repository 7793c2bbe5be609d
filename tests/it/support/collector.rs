//! An OTLP collector in this process, which reads what it is sent as a real one would and can
//! be told to refuse it or to hang.

use super::process::within;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What it does with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Takes it.
    Take,
    /// 400: it is not to be sent again.
    Refuse,
    /// Never answers.
    Hang,
}

/// The server. It ends with the runtime of the test.
#[derive(Clone)]
pub struct Collector {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    spans: Mutex<Vec<Seen>>,
    asked: Mutex<Vec<HeaderMap>>,
    more: Notify,
}

/// A span as it came, with what came around it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub span: Span,
    pub resource: BTreeMap<String, String>,
}

impl Seen {
    pub fn name(&self) -> &str {
        &self.span.name
    }

    /// Its attributes, all as text.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        as_text(&self.span.attributes)
    }

    pub fn attribute(&self, name: &str) -> String {
        let missing = || panic!("no {name}: {:#?}", self.span);
        self.attributes().remove(name).unwrap_or_else(missing)
    }

    pub fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == SpanStatus::Error)
    }

    /// W3C's header for it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", hex(&self.span.trace_id), hex(&self.span.span_id))
    }

    pub fn events(&self) -> Vec<&str> {
        self.span.events.iter().map(|event| event.name.as_str()).collect()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn as_text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => panic!("an attribute of a kind that is not sent: {other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Take),
            spans: Mutex::default(),
            asked: Mutex::default(),
            more: Notify::new(),
        });
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub fn mode(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// All spans that it has taken.
    pub fn spans(&self) -> Vec<Seen> {
        self.shared.spans.lock().unwrap().clone()
    }

    /// The headers of all exports, taken or not.
    pub fn asked(&self) -> Vec<HeaderMap> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits until `condition` holds of the spans so far.
    pub async fn until(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        self.wait(what, || condition(&self.shared.spans.lock().unwrap())).await;
        self.spans()
    }

    async fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        within(what, async {
            loop {
                let more = self.shared.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if is_so() {
                    return;
                }
                more.await;
            }
        })
        .await;
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let content = headers[header::CONTENT_TYPE].to_str().expect("text").to_owned();
    shared.asked.lock().unwrap().push(headers);
    shared.more.notify_waiters();
    let mode = *shared.mode.lock().unwrap();
    match mode {
        Mode::Take => {}
        Mode::Refuse => return StatusCode::BAD_REQUEST.into_response(),
        Mode::Hang => std::future::pending().await,
    }
    let request = match content.as_str() {
        "application/x-protobuf" => ExportTraceServiceRequest::decode(body).expect("protobuf"),
        "application/json" => serde_json::from_slice(&body).expect("OTLP's JSON"),
        other => panic!("an export as {other}"),
    };
    for of in request.resource_spans {
        let resource = as_text(&of.resource.expect("who sends them").attributes);
        for scope in of.scope_spans {
            assert_eq!(scope.scope.expect("by what they are made").name, "streamgate");
            let seen = scope.spans.into_iter();
            let seen = seen.map(|span| Seen { span, resource: resource.clone() });
            shared.spans.lock().unwrap().extend(seen);
        }
    }
    shared.more.notify_waiters();
    let response = ExportTraceServiceResponse::default();
    match content.as_str() {
        "application/json" => axum::Json(response).into_response(),
        _ => ([(header::CONTENT_TYPE, content)], response.encode_to_vec()).into_response(),
    }
}
