//! The handler `http(s)://…`: posts the event, or CloudEvents, a 2xx answer takes the batch.
//!
//! Owns the request and the reading of the answer; what a partial one means is
//! [`super::partial`]'s. Redirects are not followed and count as failures, as do broken
//! connections and answers that never end.

use super::{Answers, Batch, Handler, HandlerError, Response, Secrets};
use crate::causes;
use crate::clock;
use crate::record::{CloudEvents, Event, Record};
use crate::source::ShardId;
use crate::telemetry::metrics::InvocationOutcome;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, InvalidHeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Url, redirect};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedSemaphorePermit;

/// The answer's body is read up to this: an unread body would cost the connection, an
/// endless one is not waited for. Lambda's bound; a window's state has 1 MB.
pub(super) const MAX_ANSWER_BYTES: usize = 6 << 20;
/// Slices are joined up to this: a write takes sixteen buffers at most, so that an event in
/// slices of a record each would cost a call for every few of them, and copying is cheaper.
const FRAME_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Posts batches to a URL.
pub struct HttpHandler {
    client: Client,
    url: Url,
    consumer: HeaderValue,
    /// What is read of answers.
    answers: Answers,
    /// `HANDLER_FORMAT=cloudevents`: what batches are sent as, in place of Lambda's event.
    cloud_events: Option<CloudEvents>,
    /// `HANDLER_SECRET`: requests are signed.
    secrets: Option<Secrets>,
}

/// The handler could not be set up; nothing was contacted.
#[derive(Debug, thiserror::Error)]
pub enum HttpHandlerError {
    /// The TLS or connection setup of this machine.
    #[error("the HTTP client could not be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// The consumer's name cannot be a header.
    #[error("the consumer's name cannot be sent as a header: {0}")]
    Name(#[from] InvalidHeaderValue),
}

impl HttpHandler {
    /// Posts to `url`; `answers` says what is read of the answers.
    /// Proxies of the environment are not used: a handler is a neighbour.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded or `consumer` is not a header value.
    pub fn new(url: Url, consumer: &str, answers: Answers) -> Result<Self, HttpHandlerError> {
        let (client, consumer) = (client()?, HeaderValue::from_str(consumer)?);
        Ok(Self { client, url, consumer, answers, cloud_events: None, secrets: None })
    }

    /// Sends batches as CloudEvents, where there is a form for them. A batch with a window is
    /// sent without it.
    #[must_use]
    pub fn as_cloud_events(mut self, cloud_events: Option<CloudEvents>) -> Self {
        self.cloud_events = cloud_events;
        self
    }

    /// Signs requests, where there are secrets.
    #[must_use]
    pub fn signed(mut self, secrets: Option<Secrets>) -> Self {
        self.secrets = secrets;
        self
    }
}

/// A request that says to which trace it belongs. Signatures are of the body alone.
pub(super) fn with_headers(
    mut request: RequestBuilder,
    traceparent: Option<&str>,
    xray: Option<&str>,
) -> RequestBuilder {
    for (name, value) in [("traceparent", traceparent), ("X-Amzn-Trace-Id", xray)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    request
}

/// A client for handlers.
pub(super) fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .user_agent(concat!("streamgate/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .no_proxy()
        .build()
}

/// What stays the same when records are sent again, in letters that a signature allows.
pub(super) fn identity(shard: &ShardId, records: &[Record]) -> String {
    let digits = |record: Option<&Record>| record.map_or("", Record::sequence_digits).to_owned();
    format!("{shard}_{}_{}", digits(records.first()), digits(records.last()))
}

#[async_trait]
impl Handler for HttpHandler {
    fn is_remote(&self) -> bool {
        true
    }

    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let (event, content_type) = match &self.cloud_events {
            None => (batch.event(), "application/json"),
            Some(form) => (batch.cloud_events(form), CloudEvents::CONTENT_TYPE),
        };
        let mut request = self.client.post(self.url.clone());
        if let Some(trace) = &batch.trace {
            trace.posts_to(&self.url);
            request = with_headers(request, trace.traceparent(), trace.xray());
        }
        if let Some(secrets) = &self.secrets {
            let headers = secrets.sign(batch.identity(), clock::now(), &event);
            request = request
                .header("webhook-id", headers.id)
                .header("webhook-timestamp", headers.timestamp)
                .header("webhook-signature", headers.signature);
        }
        let answer = request
            .header(CONTENT_TYPE, content_type)
            .header("Streamgate-Shard-Id", batch.shard.as_str())
            .header("Streamgate-Attempt", batch.attempt)
            .header("Streamgate-Consumer", self.consumer.clone())
            .body(reqwest::Body::wrap(EventBody::new(event)))
            .send()
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        if let Some(trace) = &batch.trace {
            trace.answered(status.as_u16());
        }
        let wait = retry_after(answer.headers(), clock::now());
        let body = body(answer, self.answers.are_read() && status.is_success()).await?;
        if !status.is_success() {
            let error = HandlerError::failed(format!("the handler answered {status}"));
            return Err(error.retry_after(wait));
        }
        self.answers.read(&body)
    }
}

/// `Retry-After`: seconds, or a time to wait for; anything else says nothing.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    let until = || httpdate::parse_http_date(text).ok()?.duration_since(now).ok();
    seconds.or_else(until)
}

/// Reads an answer's body to its end; gives it if it is to be `kept`.
pub(super) async fn body(
    mut answer: reqwest::Response,
    kept: bool,
) -> Result<BytesMut, HandlerError> {
    let (mut body, mut read) = (BytesMut::new(), 0);
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            return Err(HandlerError::failed(format!(
                "the handler's answer is larger than {MAX_ANSWER_BYTES} bytes"
            )));
        }
        if kept {
            body.extend_from_slice(&chunk);
        }
    }
    Ok(body)
}

pub(super) fn unreachable(error: reqwest::Error) -> HandlerError {
    // Without a connection it has not seen the batch; with a broken one it may have.
    let was_connected = !error.is_connect();
    // The URL may hold a password.
    let message = causes::in_a_line(&error.without_url());
    if was_connected {
        HandlerError::new(InvocationOutcome::Unreachable, message)
    } else {
        HandlerError::not_invoked(message)
    }
}

/// An event's slices as a request body of known length, written without joining them.
pub(super) struct EventBody {
    slices: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl EventBody {
    pub fn new(event: Event) -> Self {
        Self { left: event.len() as u64, slices: event.into_slices().into_iter() }
    }
}

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.slices.next() else { return Poll::Ready(None) };
        let next = |slices: &std::vec::IntoIter<Bytes>| slices.as_slice().first().map(Bytes::len);
        let mut frame = first;
        if next(&self.slices).is_some_and(|next| frame.len() + next <= FRAME_BYTES) {
            let left = usize::try_from(self.left).unwrap_or(FRAME_BYTES);
            let mut joined = BytesMut::with_capacity(FRAME_BYTES.min(left));
            joined.extend_from_slice(&frame);
            while next(&self.slices).is_some_and(|next| joined.len() + next <= FRAME_BYTES) {
                joined.extend(self.slices.next());
            }
            frame = joined.freeze();
        }
        self.left -= frame.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_the_event_in_few_pieces() {
        for size in [1, 1_000, FRAME_BYTES - 10, FRAME_BYTES + 10] {
            let page = (0..200).map(|n| {
                let filler = "x".repeat(if n % 3 == 0 { size } else { 20 });
                format!(r#"{{"f":"{filler}","dynamodb":{{"SequenceNumber":"{n}"}}}}"#)
            });
            let page = format!(r#"{{"Records":[{}]}}"#, page.collect::<Vec<_>>().join(","));
            let records = crate::record::parse_page(&Bytes::from(page)).unwrap().records;
            let arn = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap();
            let event = crate::record::EventEnvelope::new(&arn).event(&records);
            let expected = event.to_vec();
            let mut body = EventBody::new(event);
            let (mut sent, mut frames) = (Vec::new(), 0);
            while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
                let frame = frame.unwrap().into_data().unwrap();
                assert!(!frame.is_empty());
                sent.extend_from_slice(&frame);
                frames += 1;
            }
            assert_eq!(sent, expected);
            assert!(http_body::Body::is_end_stream(&body));
            assert!(frames <= 2 * expected.len() / FRAME_BYTES + 2, "{frames} of {size}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_time_and_anything_else_says_nothing() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        let later = httpdate::fmt_http_date(now + Duration::from_secs(90));
        assert_eq!(read(&later), Some(Duration::from_secs(90)));
        for nothing in ["", "-1", "soon", "1.5", &httpdate::fmt_http_date(SystemTime::UNIX_EPOCH)] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        let day = Some(Duration::from_secs(86_400));
        let error = HandlerError::failed("busy").retry_after(day);
        assert_eq!(error.retry_after, Some(super::super::MAX_RETRY_AFTER));
    }
}
