//! Connections of one listener: how many, how long they may dawdle, how they end.
//!
//! Owns the bounds that keep memory bounded whoever connects. Knows no route.

use super::places::{InFlight, Place, Places};
use super::tls::Tls;
use crate::progress::problem::{PROBLEM_JSON, Problem, ProblemCode};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time. Consumers keep a few each.
const MAX_CONNECTIONS: usize = 1024;
/// Connections beyond those that are told so at a time; still others are just closed.
const MAX_REFUSALS: usize = 64;
/// How long one may take to ask before it is told.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The time a request's head may take to arrive, and a kept connection may be silent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection's buffer; also the bound of a request's head.
const BUFFER_BYTES: usize = 16 << 10;
/// How every TLS connection begins.
const TLS_HANDSHAKE: u8 = 0x16;
/// For the last bytes of an answer when the listener closes.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
/// The pause after a connection could not be accepted (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When a listener ends, in two steps.
#[derive(Clone)]
pub(super) struct Closing {
    /// From here on a connection is closed after the request in flight, and a new one
    /// after its first: callers find their way to another replica, if there is one.
    pub draining: CancellationToken,
    /// No further connection is accepted.
    pub closed: CancellationToken,
}

/// Serves `router` until it is closed, and requests in flight for at most `grace` after
/// it, which is asked for then. Gives whether all of them were finished.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    closing: &Closing,
    grace: impl FnOnce() -> Duration,
) -> bool {
    let (places, refusals) = (Places::new(MAX_CONNECTIONS), Places::new(MAX_REFUSALS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closing.closed.cancelled() => break,
            // Finished connections are taken off the set as they end.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Small answers must not wait for the reader's acknowledgements.
                let _ = stream.set_nodelay(true);
                match places.take() {
                    Some(place) => {
                        let (tls, router, closing) = (tls.clone(), router.clone(), closing.clone());
                        connections.spawn(async move {
                            match tls {
                                None => connection(stream, router, place, closing).await,
                                Some(tls) => encrypted(stream, &tls, router, place, closing).await,
                            }
                        });
                    }
                    None => {
                        let Some(place) = refusals.take() else { continue };
                        let detail = format!(
                            "all {MAX_CONNECTIONS} connections of this listener are taken by callers that are being served"
                        );
                        let problem = Problem::new(ProblemCode::Unavailable, detail);
                        connections.spawn(refuse(stream, place, problem));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(grace(), ended).await.is_ok()
}

/// A connection that begins with a handshake.
async fn encrypted(stream: TcpStream, tls: &Tls, router: Router, place: Place, closing: Closing) {
    let accepting = async {
        let mut first = [0];
        stream.peek(&mut first).await.ok()?;
        if first[0] != TLS_HANDSHAKE {
            return Some(Err(stream));
        }
        tls.acceptor().accept(stream).await.ok().map(Ok)
    };
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HEAD_TIMEOUT, accepting) => accepted.ok().flatten(),
        () = place.leave().cancelled() => return,
        () = closing.closed.cancelled() => return,
    };
    match accepted {
        // A handshake that failed is the client's business, and it has been told.
        None => {}
        Some(Ok(stream)) => connection(stream, router, place, closing).await,
        Some(Err(plain)) => {
            let detail = "this listener speaks TLS: API_URL begins with https:// here";
            refuse(plain, place, Problem::new(ProblemCode::Malformed, detail)).await;
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    place: Place,
    Closing { draining, closed }: Closing,
) {
    let place = Arc::new(place);
    let router = TowerToHyperService::new(router);
    let here = Arc::clone(&place);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let in_flight = here.request();
        request.extensions_mut().insert(Arc::clone(&here));
        let answering = router.call(request);
        async move {
            answering.await.map(|answer| answer.map(|body| Answer { body, _in_flight: in_flight }))
        }
    });
    // It may ask once. To be told to shut down before it did would close it unasked.
    let is_late = draining.is_cancelled();
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .keep_alive(!is_late)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // Broken connections are the client's business.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = place.leave().cancelled() => return,
        () = draining.cancelled(), if !is_late => serving.as_mut().graceful_shutdown(),
        () = closed.cancelled() => {}
    }
    tokio::select! {
        _ = serving.as_mut() => return,
        () = place.leave().cancelled() => return,
        () = closed.cancelled() => {}
    }
    if place.is_answered() {
        let _ = serving.await;
    } else {
        // It has asked for nothing, or not to the end, and is owed nothing but what may
        // still be on its way out.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, serving).await;
    }
}

/// An answer's body. Its request is in flight until the last of it has been sent.
struct Answer {
    body: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Answers with a problem whatever is asked.
async fn refuse(stream: TcpStream, place: Place, problem: Problem) {
    let answer = || {
        Response::builder()
            .status(problem.status)
            .header(header::CONTENT_TYPE, PROBLEM_JSON)
            .header(header::RETRY_AFTER, "1")
            .body(Body::from(serde_json::to_vec(&problem).expect("problems are plain data")))
            .expect("a fixed answer")
    };
    let service =
        service_fn(move |_: Request<Incoming>| std::future::ready(Ok::<_, Infallible>(answer())));
    let serving = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = tokio::time::timeout(REFUSAL_TIMEOUT, serving) => {}
        () = place.leave().cancelled() => {}
    }
}
