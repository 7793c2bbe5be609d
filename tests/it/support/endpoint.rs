//! A handler over HTTP in this process, which writes down what it gets and can be told
//! to misbehave in every way a server can.

use super::process::within;
use super::rig::{Got, distinct, read_event};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, LOCATION};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// What the handler does with an invocation.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// 200.
    Take,
    /// 200, this much later; it counts as taken when it comes.
    TakeLater(Duration),
    /// 200, and a partial batch response: this record of the batch failed, and so the rest.
    FailFrom(usize),
    /// 200, and this body. The records count as taken when it comes, whatever it says.
    Say(&'static str),
    /// This status and a short body.
    Status(u16),
    /// 503, and to be left alone for so many seconds.
    Busy(u64),
    /// 302 to `/elsewhere`.
    Redirect,
    /// Nothing, until [`Endpoint::release`]; 200 then.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// 200, some of the announced body, and the connection closes.
    Half,
    /// 200 and a body without end.
    Endless,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
    pub records: Vec<Got>,
    /// Whether it was answered with success.
    pub taken: bool,
}

impl Invocation {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// The server. It ends with the runtime of the test.
pub struct Endpoint {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    invocations: Mutex<Vec<Invocation>>,
    script: Mutex<VecDeque<Answer>>,
    usual: Mutex<Answer>,
    more: Notify,
    released: watch::Sender<bool>,
}

impl Endpoint {
    /// One that takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            invocations: Mutex::default(),
            script: Mutex::default(),
            usual: Mutex::new(Answer::Take),
            more: Notify::new(),
            released: watch::Sender::new(false),
        });
        let state = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Small answers must not wait for acknowledgements.
                stream.set_nodelay(true).expect("an open socket");
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    let service = service_fn(|request| handle(&state, request));
                    // A broken connection is the test's wish, or the other side's.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url: format!("http://{address}/events?a=b"), shared }
    }

    /// What it does from now on, once the script is played.
    pub fn usually(&self, answer: Answer) {
        *self.shared.usual.lock().unwrap() = answer;
    }

    /// What it does with the next invocations, one each.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.script.lock().unwrap().extend(answers);
    }

    /// What hangs is answered, and nothing hangs from now on.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    pub fn invocations(&self) -> Vec<Invocation> {
        self.shared.invocations.lock().unwrap().clone()
    }

    /// The records of all invocations that were taken.
    pub fn got(&self) -> Vec<Got> {
        let invocations = self.shared.invocations.lock().unwrap();
        invocations.iter().filter(|i| i.taken).flat_map(|i| i.records.clone()).collect()
    }

    /// Waits until `condition` holds of the invocations so far.
    pub async fn until(&self, what: &str, condition: impl Fn(&[Invocation]) -> bool) {
        let waiting = async {
            loop {
                let more = self.shared.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if condition(&self.shared.invocations.lock().unwrap()) {
                    return;
                }
                more.await;
            }
        };
        within(what, waiting).await;
    }

    /// Waits until so many different records were taken.
    pub async fn until_distinct(&self, count: usize) {
        let what = format!("{count} different records");
        self.until(&what, |invocations| {
            let taken = || invocations.iter().filter(|i| i.taken);
            taken().map(|i| i.records.len()).sum::<usize>() >= count
                && distinct(&taken().flat_map(|i| i.records.clone()).collect::<Vec<_>>()) >= count
        })
        .await;
    }
}

type Body = BoxBody<Bytes, io::Error>;

/// An error closes the connection.
async fn handle(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let scripted = shared.script.lock().unwrap().pop_front();
    let answer = scripted.unwrap_or_else(|| *shared.usual.lock().unwrap());
    let shard = head.headers.get("streamgate-shard-id").and_then(|id| id.to_str().ok());
    let invocation = Invocation {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        records: read_event(shard.unwrap_or_default(), payload(&body).as_bytes()),
        headers: head.headers,
        body,
        at: Instant::now(),
        taken: matches!(answer, Answer::Take | Answer::TakeLater(_) | Answer::Say(_)),
    };
    let index = {
        let mut invocations = shared.invocations.lock().unwrap();
        invocations.push(invocation);
        invocations.len() - 1
    };
    shared.more.notify_waiters();
    let response = Response::builder();
    let response = match answer {
        Answer::Take => response.body(text("")),
        Answer::Say(body) => response.body(text(body)),
        Answer::TakeLater(delay) => {
            tokio::time::sleep(delay).await;
            response.body(text(""))
        }
        Answer::FailFrom(first) => {
            let failed = {
                let mut invocations = shared.invocations.lock().unwrap();
                let records = &mut invocations[index].records;
                let failed = records[first].sequence_number.clone();
                records.truncate(first);
                invocations[index].taken = true;
                failed
            };
            shared.more.notify_waiters();
            let body = serde_json::json!({"batchItemFailures": [{"itemIdentifier": failed}]});
            let body = Full::from(body.to_string()).map_err(|never: Infallible| match never {});
            response.body(body.boxed())
        }
        Answer::Status(code) => response.status(code).body(text("no")),
        Answer::Busy(seconds) => {
            response.status(503).header("retry-after", seconds).body(text("busy"))
        }
        Answer::Redirect => response.status(302).header(LOCATION, "/elsewhere").body(text("")),
        Answer::Hang => {
            let mut released = shared.released.subscribe();
            released.wait_for(|released| *released).await.expect("the sender lives");
            shared.invocations.lock().unwrap()[index].taken = true;
            shared.more.notify_waiters();
            response.body(text(""))
        }
        Answer::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
        Answer::Half => {
            let chunks = [Ok(Frame::data(Bytes::from_static(b"ha"))), Err(broken())];
            let body = StreamBody::new(futures_util::stream::iter(chunks));
            response.header("content-length", "4").body(BodyExt::boxed(body))
        }
        Answer::Endless => {
            let chunk = || Ok(Frame::data(Bytes::from_static(&[b'x'; 16 << 10])));
            let body = futures_util::stream::repeat_with(chunk);
            response.body(BodyExt::boxed(StreamBody::new(body)))
        }
    };
    Ok(response.expect("fixed headers are valid"))
}

/// The event in a dead letter, or the body itself where it is the event.
fn payload(body: &[u8]) -> String {
    let letter: Result<serde_json::Value, _> = serde_json::from_slice(body);
    let payload = letter.ok().and_then(|letter| letter["payload"].as_str().map(str::to_owned));
    payload.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

fn text(text: &'static str) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed()
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
