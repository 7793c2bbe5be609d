//! A call that the SDK has made, made again with another body.
//!
//! What the SDK does anew for each call costs several times what an empty GetRecords needs. So it
//! makes the first, and teaches: the endpoint it resolved, its headers and its signature's scope
//! are kept, and later calls repeat them over the same connections, with a body, a time and a
//! signature of their own. Owns what was learned, and until when it is good. Mends nothing: what
//! is not answered well is the SDK's again, and so is the next lesson. Invariant: only what we
//! would have signed just as the SDK did is repeated, with credentials that the SDK's provider
//! handed out and would not replace yet.

use super::http::{BodySlot, error_code};
use super::signing::{Authorization, Key, format_time, parse_time};
use crate::clock;
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// The SDK asks its provider again so long before credentials expire, and a little more.
const BEFORE_EXPIRY: Duration = Duration::from_secs(15);
/// And after so long where they do not say when they expire.
const WITHOUT_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// A time that is off by no more is the same time: signatures have whole seconds.
const SAME_TIME: i64 = 2;

const DATE: &str = "x-amz-date";
const LENGTH: &str = "content-length";
const INVOCATION: &str = "amz-sdk-invocation-id";
const AUTHORIZATION: &str = "authorization";
/// Which try of how many the SDK has come to. Not signed, for it is added later.
const TRY: &str = "amz-sdk-request";

/// What was learned of one operation. Travels as a request extension with the SDK's calls, to
/// be taught by those that go well. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Repeats(Arc<Inner>);

struct Inner {
    patience: Duration,
    /// What the provider handed out last, and until when that is good.
    credentials: Mutex<Option<(Credentials, SystemTime)>>,
    form: Mutex<Option<Arc<Form>>>,
}

/// The service's reason not to answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: String,
    pub message: String,
}

impl Repeats {
    /// With the configuration for the client whose calls are to be repeated. `None` where the
    /// SDK may not try a call twice: then nobody mends one that went wrong.
    pub fn new(config: &SdkConfig) -> Option<(Self, SdkConfig)> {
        if config.retry_config()?.max_attempts() < 2 {
            return None;
        }
        let patience = config.timeout_config()?.operation_attempt_timeout()?;
        let inner = Inner { patience, credentials: Mutex::default(), form: Mutex::default() };
        let repeats = Self(Arc::new(inner));
        let provider = Overheard { inner: config.credentials_provider()?, by: repeats.clone() };
        let provider = SharedCredentialsProvider::new(provider);
        let config = config.to_builder().credentials_provider(provider).build();
        Some((repeats, config))
    }

    /// Makes the call once, with `body`. `None` where it is the SDK's to make: nothing was learned
    /// yet, it is not good any more, or it did not lead to an answer.
    pub async fn call(&self, body: String) -> Option<Result<Bytes, Refusal>> {
        let form = self.0.form.lock().expect("no panic while held").clone()?;
        let now = clock::now();
        let request = if now < form.until { form.request(body, now) } else { None };
        let Some(mut request) = request else { return self.forget() };
        let slot = BodySlot::default();
        request.add_extension(slot.clone());
        let answer = tokio::time::timeout(self.0.patience, form.connector.call(request)).await;
        let Ok(Ok(answer)) = answer else { return self.forget() };
        if let Some(body) = slot.take() {
            return Some(Ok(body));
        }
        match answer.body().bytes().and_then(Refusal::read) {
            Some(refusal) if answer.status().is_client_error() => Some(Err(refusal)),
            _ => self.forget(),
        }
    }

    /// What was learned led to no answer: the SDK is to find out why, and to teach anew.
    pub fn forget<T>(&self) -> Option<T> {
        *self.0.form.lock().expect("no panic while held") = None;
        None
    }

    /// Keeps what the SDK sent and was answered to, where we would have signed it as it did.
    pub(super) fn learn(&self, sent: &Sent, connector: SharedHttpConnector) {
        let credentials = self.0.credentials.lock().expect("no panic while held").clone();
        let form = credentials.and_then(|it| Form::of(sent, connector, it));
        if form.is_none() {
            tracing::debug!("a call of the SDK's cannot be repeated");
        }
        *self.0.form.lock().expect("no panic while held") = form.map(Arc::new);
    }
}

impl Refusal {
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(alias = "Message")]
            message: Option<String>,
        }
        let code = error_code(body)?;
        let message = serde_json::from_slice::<Body>(body).ok()?.message;
        Some(Self { message: message.unwrap_or_else(|| code.clone()), code })
    }
}

/// The provider of the SDK's credentials; what it hands out is noted.
struct Overheard {
    inner: SharedCredentialsProvider,
    by: Repeats,
}

impl fmt::Debug for Overheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl ProvideCredentials for Overheard {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let credentials: provider::Result = self.inner.provide_credentials().await;
            let credentials = credentials?;
            let longest = clock::now() + WITHOUT_EXPIRY;
            let until = credentials.expiry().map_or(longest, |expiry| expiry.min(longest));
            let noted = (credentials.clone(), until - BEFORE_EXPIRY);
            *self.by.0.credentials.lock().expect("no panic while held") = Some(noted);
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.inner.fallback_on_interrupt()
    }
}

/// A request of the SDK's as it was sent.
pub(super) struct Sent {
    uri: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    at: SystemTime,
}

impl Sent {
    /// `None` for one whose signature would have to be read in another way.
    pub fn of(request: &HttpRequest) -> Option<Self> {
        if request.method() != "POST" || request.uri().contains('?') {
            return None;
        }
        let headers = request.headers().iter();
        Some(Self {
            uri: request.uri().to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: Bytes::copy_from_slice(request.body().bytes()?),
            at: clock::now(),
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What stays the same from one call to the next.
struct Form {
    connector: SharedHttpConnector,
    uri: hyper::Uri,
    /// Less those that change.
    headers: Vec<(String, String)>,
    /// Names in the order of the signature, which is that of the alphabet, and the values of
    /// those that stay the same.
    signed: Vec<(String, Option<String>)>,
    signed_headers: String,
    /// Seconds by which the SDK found our clock to be slow.
    slow: i64,
    key: Mutex<Arc<Key>>,
    credentials: Credentials,
    until: SystemTime,
}

/// What changes.
struct Changing<'a> {
    time: &'a str,
    length: &'a str,
    invocation: &'a str,
}

impl Form {
    fn of(
        sent: &Sent,
        connector: SharedHttpConnector,
        (credentials, until): (Credentials, SystemTime),
    ) -> Option<Self> {
        let authorization = Authorization::parse(sent.header(AUTHORIZATION)?)?;
        let uri: hyper::Uri = sent.uri.parse().ok()?;
        let time = sent.header(DATE)?;
        let slow = parse_time(time)? - seconds(sent.at);
        let changes = |name: &str| matches!(name, DATE | LENGTH | INVOCATION | AUTHORIZATION | TRY);
        let signed = authorization.signed_headers.split(';').map(|name| {
            let value = match name {
                "host" => sent.header(name).or(host(&uri)),
                _ => sent.header(name),
            };
            Some((name.to_owned(), if changes(name) { None } else { Some(value?.to_owned()) }))
        });
        let form = Self {
            connector,
            headers: sent.headers.iter().filter(|(name, _)| !changes(name)).cloned().collect(),
            signed: signed.collect::<Option<_>>()?,
            signed_headers: authorization.signed_headers.to_owned(),
            slow: if slow.abs() <= SAME_TIME { 0 } else { slow },
            key: Mutex::new(Arc::new(authorization.key(&credentials)?)),
            credentials,
            until,
            uri,
        };
        let length = sent.body.len().to_string();
        let invocation = sent.header(INVOCATION).unwrap_or_default();
        let head = form.head(&Changing { time, length: &length, invocation });
        let signature = form.key(time).sign(&head, &sent.body, time);
        (signature == authorization.signature).then_some(form)
    }

    fn request(&self, body: String, now: SystemTime) -> Option<HttpRequest> {
        let time = format_time(seconds(now) + self.slow)?;
        let length = body.len().to_string();
        let invocation = invocation();
        let head = self.head(&Changing { time: &time, length: &length, invocation: &invocation });
        let key = self.key(&time);
        let signature = key.sign(&head, body.as_bytes(), &time);
        let authorization = key.authorization(&self.signed_headers, &signature);
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").ok()?;
        request.set_uri(self.uri.clone()).ok()?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.try_insert(name.clone(), value.clone()).ok()?;
        }
        for (name, value) in [
            (DATE, time),
            (LENGTH, length),
            (INVOCATION, invocation),
            (AUTHORIZATION, authorization),
        ] {
            headers.try_insert(name, value).ok()?;
        }
        Some(request)
    }

    /// The canonical form of a request but for its body.
    fn head(&self, changing: &Changing<'_>) -> String {
        let mut head = format!("POST\n{}\n\n", self.uri.path());
        for (name, value) in &self.signed {
            let value = match (value, name.as_str()) {
                (Some(value), _) => value,
                (None, DATE) => changing.time,
                (None, LENGTH) => changing.length,
                (None, _) => changing.invocation,
            };
            for part in [name, ":", value.trim(), "\n"] {
                head.push_str(part);
            }
        }
        head.push('\n');
        head.push_str(&self.signed_headers);
        head
    }

    /// The key of the day; a new one when that is over.
    fn key(&self, time: &str) -> Arc<Key> {
        let mut key = self.key.lock().expect("no panic while held");
        if let Some(next) = key.of_day(time, &self.credentials) {
            *key = Arc::new(next);
        }
        Arc::clone(&key)
    }
}

/// As it is sent, without the port that the scheme implies.
fn host(uri: &hyper::Uri) -> Option<&str> {
    let is_implied = matches!(
        (uri.scheme_str(), uri.port_u16()),
        (Some("http"), Some(80)) | (Some("https"), Some(443))
    );
    if is_implied { uri.host() } else { Some(uri.authority()?.as_str()) }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A random UUID, by which the service tells calls apart.
fn invocation() -> String {
    let random = fastrand::u128(..) & !(0xf000_u128 << 64) | 0x4000_u128 << 64;
    let hex = format!("{:032x}", random & !(0xc000_u128 << 48) | 0x8000_u128 << 48);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
