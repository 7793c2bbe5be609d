//! Which of the calls on the wire are the SDK's and which repeat one of its.

use super::*;
use crate::clock;
use aws_config::retry::RetryConfig;
use aws_sdk_dynamodbstreams::config::{Credentials, SharedCredentialsProvider};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

const PAGE: &str = r#"{"Records":[],"NextShardIterator":"next"}"#;

/// An endpoint that answers as it is told to, and well when it is told nothing.
#[derive(Clone, Default)]
struct Endpoint {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<(HeaderMap, serde_json::Value)>>>,
    /// Refuses all but the SDK's own calls.
    strict: bool,
}

enum Answer {
    Status(u16, &'static str),
    /// An error by a service whose clock is this far ahead.
    Ahead(Duration, &'static str),
    /// The connection breaks.
    Broken,
}

impl Endpoint {
    async fn source(&self, retries: RetryConfig) -> AwsSource {
        self.source_until(retries, None).await
    }

    /// With credentials that expire then.
    async fn source_until(&self, retries: RetryConfig, expiry: Option<SystemTime>) -> AwsSource {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let endpoint = endpoint.clone();
                let service = service_fn(move |request| endpoint.clone().answer(request));
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        let config = aws::load(Some("eu-central-1"), Arc::new(|_, _| {})).await;
        let keys = Credentials::new("key", "secret", Some("token".into()), expiry, "test");
        let config = config
            .into_builder()
            .endpoint_url(format!("http://{address}"))
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .retry_config(retries.with_initial_backoff(Duration::from_millis(1)))
            .build();
        let stream = "arn:aws:dynamodb:eu-central-1:1:table/cats/stream/2026";
        AwsSource::new(&config, stream.parse().unwrap())
    }

    async fn answer(self, request: Request<Incoming>) -> std::io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let is_refused = self.strict && !head.headers.contains_key("amz-sdk-request");
        let asked = (head.headers, serde_json::from_slice(&body).unwrap());
        self.asked.lock().unwrap().push(asked);
        let answer = match is_refused {
            true => Some(Answer::Status(400, r#"{"__type":"x#AccessDeniedException"}"#)),
            false => self.answers.lock().unwrap().pop_front(),
        };
        let mut response = Response::new(Full::default());
        let (status, text) = match answer {
            None => (200, PAGE),
            Some(Answer::Status(status, text)) => (status, text),
            Some(Answer::Ahead(by, text)) => {
                let date = httpdate::fmt_http_date(SystemTime::now() + by);
                response.headers_mut().insert("date", date.parse().unwrap());
                (400, text)
            }
            Some(Answer::Broken) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        };
        *response.status_mut() = status.try_into().unwrap();
        *response.body_mut() = Full::from(text);
        Ok(response)
    }

    fn next(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    /// Of the calls since this was asked last, which were the SDK's own.
    fn by_sdk(&self) -> Vec<bool> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.iter().map(|(headers, _)| headers.contains_key("amz-sdk-request")).collect()
    }
}

async fn read(source: &AwsSource) -> Result<(), SourceErrorKind> {
    let page = source.records(&ShardIterator::from("it\"er|1".to_owned())).await;
    page.map(|page| assert!(page.next.is_some())).map_err(|error| error.kind)
}

#[tokio::test]
async fn the_first_call_is_the_sdks_and_later_ones_say_the_same() {
    let endpoint = Endpoint::default();
    let source = endpoint.source(RetryConfig::standard()).await;
    for _ in 0..3 {
        read(&source).await.unwrap();
    }
    let asked = endpoint.asked.lock().unwrap().clone();
    assert_eq!(endpoint.by_sdk(), [true, false, false]);
    let [first, second, third] = &asked[..] else { panic!("three calls") };
    assert_eq!((&first.1, &first.1), (&second.1, &third.1));
    let names = |headers: &HeaderMap| {
        let names = headers.keys().map(ToString::to_string);
        names.filter(|name| name != "amz-sdk-request").collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&first.0), names(&second.0));
    for same in ["content-type", "x-amz-target", "x-amz-security-token", "user-agent", "host"] {
        assert_eq!(first.0[same], second.0[same], "{same}");
    }
    let invocation = "amz-sdk-invocation-id";
    assert_ne!(second.0[invocation], third.0[invocation]);
    assert_eq!(second.0[invocation].len(), first.0[invocation].len());
}

#[tokio::test]
async fn what_another_try_would_not_change_is_not_tried_again() {
    let endpoint = Endpoint::default();
    let source = endpoint.source(RetryConfig::standard()).await;
    read(&source).await.unwrap();
    endpoint.by_sdk();
    for (body, kind) in [
        (r#"{"__type":"x#ExpiredIteratorException"}"#, SourceErrorKind::ExpiredIterator),
        (r#"{"__type":"x#TrimmedDataAccessException"}"#, SourceErrorKind::Trimmed),
        (r#"{"__type":"x#ResourceNotFoundException"}"#, SourceErrorKind::NotFound),
        (r#"{"__type":"x#ThrottlingException","message":"slow"}"#, SourceErrorKind::Throttled),
    ] {
        endpoint.next(Answer::Status(400, body));
        assert_eq!(read(&source).await, Err(kind));
        assert_eq!(endpoint.by_sdk(), [false], "{kind:?}");
    }
}

#[tokio::test]
async fn what_else_goes_wrong_is_the_sdks_which_teaches_anew() {
    let endpoint = Endpoint::default();
    let source = endpoint.source(RetryConfig::standard()).await;
    read(&source).await.unwrap();
    for answer in [
        Answer::Status(500, r#"{"__type":"x#InternalServerError"}"#),
        Answer::Status(503, "<html>"),
        Answer::Status(400, "<html>"),
        Answer::Status(400, r#"{"__type":"x#ExpiredTokenException"}"#),
        Answer::Status(400, r#"{"__type":"x#InvalidSignatureException"}"#),
        Answer::Status(400, r#"{"__type":"x#AccessDeniedException"}"#),
        Answer::Status(302, ""),
        Answer::Broken,
    ] {
        endpoint.by_sdk();
        endpoint.next(answer);
        read(&source).await.unwrap();
        read(&source).await.unwrap();
        assert_eq!(endpoint.by_sdk(), [false, true, false]);
    }
    // A page that is none is not the transport's: it is read again by the reader.
    endpoint.next(Answer::Status(200, "{}"));
    assert_eq!(read(&source).await, Err(SourceErrorKind::Malformed));
    assert_eq!(endpoint.by_sdk(), [false]);
}

#[tokio::test]
async fn a_clock_that_the_sdk_found_wrong_is_corrected_in_what_repeats_it() {
    let endpoint = Endpoint::default();
    let source = endpoint.source(RetryConfig::standard()).await;
    let ahead = Duration::from_secs(7200);
    endpoint.next(Answer::Ahead(ahead, r#"{"__type":"x#InvalidSignatureException"}"#));
    read(&source).await.unwrap();
    read(&source).await.unwrap();
    let asked = endpoint.asked.lock().unwrap().clone();
    assert_eq!(endpoint.by_sdk(), [true, true, false]);
    let hour = |at: usize| {
        let date = asked[at].0["x-amz-date"].to_str().unwrap();
        date[9..11].parse::<u32>().unwrap()
    };
    assert_eq!((hour(0) + 2) % 24, hour(2), "two hours later");
    assert_eq!(
        asked[1].0["x-amz-date"].as_bytes()[..13],
        asked[2].0["x-amz-date"].as_bytes()[..13]
    );
}

#[tokio::test]
async fn credentials_that_the_sdk_would_replace_are_not_used() {
    let endpoint = Endpoint::default();
    let source = endpoint.source(RetryConfig::standard()).await;
    read(&source).await.unwrap();
    read(&source).await.unwrap();
    // They do not say when they expire: the provider is asked again after a quarter of an hour.
    clock::set(SystemTime::now() + Duration::from_secs(15 * 60));
    read(&source).await.unwrap();
    assert_eq!(endpoint.by_sdk(), [true, false, true]);
}

#[tokio::test]
async fn credentials_of_a_role_are_used_for_as_long_as_the_sdk_uses_them() {
    let (endpoint, hour) = (Endpoint::default(), Duration::from_secs(3600));
    let start = SystemTime::now();
    let source = endpoint.source_until(RetryConfig::standard(), Some(start + 6 * hour)).await;
    read(&source).await.unwrap();
    for hours in 0..6 {
        clock::set(start + hours * hour);
        read(&source).await.unwrap();
    }
    assert_eq!(endpoint.by_sdk(), [true, false, false, false, false, false, false]);
    // The SDK's own clock has not moved: it is its to say that they are good still.
    clock::set(start + 6 * hour);
    read(&source).await.unwrap();
    read(&source).await.unwrap();
    assert_eq!(endpoint.by_sdk(), [true, true]);
}

/// A proxy, say, that wants what only the SDK sends.
#[tokio::test]
async fn where_nothing_that_repeats_a_call_is_answered_it_is_not_tried_for_ever() {
    let endpoint = Endpoint { strict: true, ..Endpoint::default() };
    let source = endpoint.source(RetryConfig::standard()).await;
    for _ in 0..6 {
        read(&source).await.unwrap();
    }
    assert_eq!(
        endpoint.by_sdk(),
        [true, false, true, false, true, false, true, true, true],
        "three lessons, and then no more"
    );
}

#[tokio::test]
async fn without_a_second_try_every_call_is_the_sdks() {
    let endpoint = Endpoint::default();
    let source = endpoint.source(RetryConfig::disabled()).await;
    for _ in 0..3 {
        read(&source).await.unwrap();
    }
    assert_eq!(endpoint.by_sdk(), [true, true, true]);
}
