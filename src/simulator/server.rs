//! The simulator over HTTP: DynamoDB Streams' protocol at `/`, and the admin interface.
//!
//! Owns connections and what the wire adds to a call: target header, signature, content
//! type, error bodies, and faults of the connection. A call must be signed for
//! `dynamodb`, as forgetting that is a mistake worth finding; the signature itself is
//! not verified, so any keys will do. For tests and local use: listen on loopback.

use super::read::ApiError;
use super::{Operation, Reply, Simulator, admin};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// The largest request of the service's protocol that is read.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
const TARGET_PREFIX: &str = "DynamoDBStreams_20120810.";
/// Answered as the containers answer it, for the same probes.
const HEALTH: &str = "/healthz";
/// The time a half answer is given to leave before the connection is cut.
const HALF_ANSWER_LINGER: Duration = Duration::from_millis(20);
/// The time calls under way are given once the server is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Simulator {
    /// Serves the stream's protocol at `/` and the admin interface under `/_simulator/`
    /// until `stop`. Calls under way are given a second to end.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                // Finished connections are taken off the set as they end.
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(self.clone(), stream, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        // What hangs by request is cut off when the set is dropped.
        let _ = tokio::time::timeout(STOP_GRACE, ended).await;
    }
}

async fn connection(simulator: Simulator, stream: TcpStream, stop: CancellationToken) {
    // Small answers must not wait for the reader's acknowledgements.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| handle(&simulator, request));
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // Broken connections are the client's business, or were asked for.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// An error ends the connection without an answer.
async fn handle(
    simulator: &Simulator,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Closed> {
    if let Some(what) = request.uri().path().strip_prefix(admin::PREFIX) {
        let what = what.to_owned();
        return Ok(admin::handle(simulator, &what, request).await);
    }
    if request.uri().path() == HEALTH {
        return Ok(response(StatusCode::OK, ReplyBody::whole(Bytes::from_static(b"live\n"))));
    }
    let reply = match read(request).await {
        Ok((operation, body)) => simulator.answer(operation, &body).await,
        Err(error) => Reply::Refused(error),
    };
    match reply {
        Reply::Answer(body) => Ok(response(StatusCode::OK, ReplyBody::whole(body))),
        Reply::Half(body) => Ok(response(StatusCode::OK, ReplyBody::half(&body))),
        Reply::Refused(error) => Ok(refusal(&error)),
        Reply::Reset => Err(Closed),
    }
}

/// Takes the call out of a request, or refuses as the service's front door does.
async fn read(request: Request<Incoming>) -> Result<(Operation, Bytes), ApiError> {
    if request.uri().path() != "/" || request.method() != Method::POST {
        return Err(ApiError {
            status: 404,
            code: "UnknownOperationException",
            message: "calls are POST /; the admin interface is under /_simulator/".into(),
        });
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let operation = match header("x-amz-target").and_then(|it| it.strip_prefix(TARGET_PREFIX)) {
        Some("ListStreams") => Operation::ListStreams,
        Some("DescribeStream") => Operation::DescribeStream,
        Some("GetShardIterator") => Operation::GetShardIterator,
        Some("GetRecords") => Operation::GetRecords,
        _ => {
            return Err(ApiError::client("UnknownOperationException", "unknown X-Amz-Target"));
        }
    };
    let signed = header(AUTHORIZATION.as_str()).is_some_and(|authorization| {
        authorization.starts_with("AWS4-HMAC-SHA256 ")
            && authorization.contains("/dynamodb/aws4_request")
    });
    if !signed {
        return Err(ApiError::client(
            "MissingAuthenticationTokenException",
            "Request is missing Authentication Token",
        ));
    }
    let body = whole(request, MAX_REQUEST_BYTES).await?;
    Ok((operation, body))
}

/// A request's body, if it is no larger than `most`.
pub(super) async fn whole(request: Request<Incoming>, most: usize) -> Result<Bytes, ApiError> {
    match Limited::new(request.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError {
            status: 413,
            code: "RequestEntityTooLargeException",
            message: format!("the request is larger than {most} bytes"),
        }),
        Err(error) => Err(ApiError::client("SerializationException", error.to_string())),
    }
}

fn refusal(error: &ApiError) -> Response<ReplyBody> {
    let body = json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{}", error.code),
        "message": error.message,
    });
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    response(status, ReplyBody::whole(body.to_string().into()))
}

fn response(status: StatusCode, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    // Logs of clients show it; nothing depends on its value.
    let id = format!("{:032X}", fastrand::u128(..));
    headers.insert("x-amzn-requestid", HeaderValue::from_str(&id).expect("hex is a header value"));
    response
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed by request")]
struct Closed;

/// Whether a body breaks off.
enum Cut {
    Never,
    /// Once the half is handed over. The wait begins only then, so that the connection
    /// has a turn to send it.
    Due,
    Lingering(Pin<Box<Sleep>>),
}

/// A body that arrives, or one that announces its whole length and breaks off.
pub(super) struct ReplyBody {
    data: Option<Bytes>,
    announced: u64,
    cut: Cut,
}

impl ReplyBody {
    pub fn whole(body: Bytes) -> Self {
        Self { announced: body.len() as u64, data: Some(body), cut: Cut::Never }
    }

    fn half(body: &Bytes) -> Self {
        Self {
            announced: body.len() as u64,
            data: Some(body.slice(..body.len() / 2)),
            cut: Cut::Due,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(data) = self.data.take() {
            self.announced -= data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if matches!(self.cut, Cut::Due) {
            self.cut = Cut::Lingering(Box::pin(tokio::time::sleep(HALF_ANSWER_LINGER)));
        }
        match &mut self.cut {
            Cut::Never | Cut::Due => Poll::Ready(None),
            Cut::Lingering(linger) => {
                ready!(linger.as_mut().poll(context));
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && matches!(self.cut, Cut::Never)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
