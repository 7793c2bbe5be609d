//! What a call of the SDK's looked like on its way, and the next one made in its likeness.
//!
//! Owns what stays the same from one to the next and what changes, and the check that we would
//! have signed the first just as the SDK did. Knows no answer. Invariant: where a single header
//! is not understood there is no form.

use super::super::signing::{Authorization, Key, format_time, parse_time};
use crate::clock;
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// A time that is off by no more is the same time: signatures have whole seconds.
const SAME_TIME: i64 = 2;

const DATE: &str = "x-amz-date";
const LENGTH: &str = "content-length";
const INVOCATION: &str = "amz-sdk-invocation-id";
const AUTHORIZATION: &str = "authorization";
/// Which try of how many the SDK has come to. Not signed, for it is added later.
const TRY: &str = "amz-sdk-request";
/// A digest of the body: one that is signed changes with it.
const DIGEST: &str = "x-amz-content-sha256";

/// A request of the SDK's as it was sent.
pub(in crate::aws) struct Sent {
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
pub(super) struct Form {
    pub connector: SharedHttpConnector,
    /// A call in its likeness was answered: what it goes wrong with later is not its own.
    pub proved: AtomicBool,
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
    pub until: SystemTime,
}

/// What changes.
struct Changing<'a> {
    time: &'a str,
    length: &'a str,
    invocation: &'a str,
}

impl Form {
    /// What is in `sent`, by `credentials` that are good until then.
    pub fn of(
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
        if authorization.signed_headers.split(';').any(|name| name == DIGEST) {
            return None;
        }
        let form = Self {
            connector,
            proved: AtomicBool::new(false),
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

    /// The next call, with this body.
    pub fn request(&self, body: String, now: SystemTime) -> Option<HttpRequest> {
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
