//! The HTTP client under the SDK: counts every attempt, and can keep an answer's body.
//!
//! Owns one trick: a request that carries a [`BodySlot`] has the body of its successful
//! answer put there, and the SDK is given `{}` to decode instead. Signing, endpoints,
//! credentials, retries and typed errors stay the SDK's; only its decoding of records
//! into attribute maps, which costs more than everything else together, is left out.
//! Errors go through untouched. A request that carries [`Repeats`] is shown to them where it
//! went well.

use super::is_throttle;
use super::repeat::{Repeats, Sent};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::fmt;
use std::sync::{Arc, Mutex};

/// No answer of the two services comes near this; more is a broken or hostile endpoint.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// How one HTTP attempt ended. A closed set: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// 2xx.
    Ok,
    /// Told to slow down.
    Throttled,
    /// Refused for lack of permission or bad credentials.
    Denied,
    /// A condition on a write did not hold.
    ConditionFailed,
    /// Any other 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// No whole answer: connection, TLS, time.
    TransportError,
}

impl AttemptOutcome {
    /// Every value, for metrics that are present at 0.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Throttled,
        Self::Denied,
        Self::ConditionFailed,
        Self::ClientError,
        Self::ServerError,
        Self::TransportError,
    ];

    /// The metric's label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::ConditionFailed => "condition_failed",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::TransportError => "transport_error",
        }
    }
}

/// Told of each attempt: the operation as AWS writes it (`GetRecords`), and its end.
pub type AttemptObserver = Arc<dyn Fn(&str, AttemptOutcome) + Send + Sync>;

/// Where a successful answer's body is left. Travels as a request extension.
#[derive(Clone, Default)]
pub(crate) struct BodySlot(Arc<Mutex<Option<Bytes>>>);

impl BodySlot {
    /// The body of the last successful answer.
    pub fn take(&self) -> Option<Bytes> {
        self.0.lock().expect("no panic while held").take()
    }

    fn put(&self, body: Bytes) {
        *self.0.lock().expect("no panic while held") = Some(body);
    }
}

/// The SDK's own HTTPS client with this file's two additions.
#[derive(Clone)]
pub(crate) struct CountingClient {
    inner: SharedHttpClient,
    observer: AttemptObserver,
}

impl CountingClient {
    pub fn new(observer: AttemptObserver) -> Self {
        let inner = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        Self { inner, observer }
    }
}

impl fmt::Debug for CountingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingClient")
    }
}

impl HttpClient for CountingClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(CountingConnector {
            inner: self.inner.http_connector(settings, components),
            observer: Arc::clone(&self.observer),
        })
    }
}

#[derive(Clone)]
struct CountingConnector {
    inner: SharedHttpConnector,
    observer: AttemptObserver,
}

impl fmt::Debug for CountingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingConnector")
    }
}

impl HttpConnector for CountingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request
            .headers()
            .get("x-amz-target")
            .and_then(|target| target.rsplit_once('.'))
            .map(|(_, operation)| operation.to_owned());
        let slot = request.extension::<BodySlot>().cloned();
        // A copy is made only of what may teach something.
        let lesson = request.extension::<Repeats>().and_then(|repeats| {
            Some((repeats.clone(), Sent::of(&request)?, SharedHttpConnector::new(self.clone())))
        });
        // Credential providers use this client too; their calls have no target.
        let attempt = operation.map(|operation| Attempt {
            operation,
            observer: Arc::clone(&self.observer),
            outcome: AttemptOutcome::TransportError,
        });
        let answer = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let Some(mut attempt) = attempt else { return answer.await };
            let mut response = answer.await?;
            let status = response.status();
            if status.is_success() {
                if let Some(slot) = slot {
                    slot.put(read_whole(&mut response).await?);
                    *response.body_mut() = SdkBody::from("{}");
                }
                attempt.outcome = AttemptOutcome::Ok;
                if let Some((repeats, sent, connector)) = lesson {
                    repeats.learn(&sent, connector);
                }
            } else {
                let body = read_whole(&mut response).await?;
                attempt.outcome = match status.as_u16() {
                    500.. => AttemptOutcome::ServerError,
                    _ => judge(&body),
                };
                *response.body_mut() = SdkBody::from(body);
            }
            Ok(response)
        })
    }
}

/// Reports on drop, so that an attempt the SDK gives up on (time-out) is counted too.
struct Attempt {
    operation: String,
    observer: AttemptObserver,
    outcome: AttemptOutcome,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        (self.observer)(&self.operation, self.outcome);
    }
}

/// The code in the body of an error.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        #[serde(rename = "__type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    let Body { kind } = serde_json::from_slice(body).ok()?;
    Some(kind.rsplit('#').next().unwrap_or_default().to_owned())
}

fn judge(error_body: &[u8]) -> AttemptOutcome {
    match error_code(error_body).as_deref().unwrap_or_default() {
        code if is_throttle(code) => AttemptOutcome::Throttled,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException" => AttemptOutcome::Denied,
        "ConditionalCheckFailedException" => AttemptOutcome::ConditionFailed,
        _ => AttemptOutcome::ClientError,
    }
}

async fn read_whole(response: &mut HttpResponse) -> Result<Bytes, ConnectorError> {
    let expected: Option<usize> =
        response.headers().get("content-length").and_then(|length| length.parse().ok());
    let mut body = std::mem::replace(response.body_mut(), SdkBody::taken());
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ConnectorError::io)?;
        let Ok(data) = frame.into_data() else { continue };
        match first.take() {
            None if joined.is_empty() => {
                first = Some(data);
                continue;
            }
            Some(head) => {
                joined.reserve(
                    expected.unwrap_or_default().clamp(head.len() + data.len(), MAX_BODY_BYTES),
                );
                joined.extend_from_slice(&head);
            }
            None => {}
        }
        joined.extend_from_slice(&data);
        if joined.len() > MAX_BODY_BYTES {
            return Err(ConnectorError::io(
                format!("the answer is larger than {MAX_BODY_BYTES} bytes").into(),
            ));
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}
