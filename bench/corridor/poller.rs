//! The floor of polling: as many shards read as often, over hyper and nothing else.
//!
//! A task for each shard asks once a second, jittered as the consumer's polls are, over a
//! pool of kept connections, looks for the next iterator and drops the rest. Nothing is
//! signed. The consumer's runtime, so that waking up costs both the same.

use super::floor::{ARN, AUTHORIZATION, describe};
use super::process::{Part, tell_and_wait};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// As many as the consumer has under way at the most.
const CALLS_AT_ONCE: usize = 64;

/// A poller in a process of its own.
pub struct Poller(Part);

impl Poller {
    /// Starts one on a stream and waits until every shard has an iterator.
    pub fn start(stream: SocketAddr, interval: Duration) -> Self {
        let interval = interval.as_millis().to_string();
        let mut part = Part::start(&["--poller", &stream.to_string(), &interval]);
        assert_eq!(part.hear(), "ready");
        Self(part)
    }

    /// Its calls and CPU seconds so far.
    pub fn account(&mut self) -> (usize, f64) {
        self.0.go();
        let calls = self.0.hear().parse().expect("a number");
        (calls, self.0.process.cpu())
    }
}

struct Pool {
    address: SocketAddr,
    kept: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    places: Semaphore,
    calls: AtomicUsize,
}

/// Polls until it is killed, and tells the calls whenever it is asked.
pub fn poll(address: &str, interval: &str) {
    let address = address.parse().expect("an address");
    let interval = Duration::from_millis(interval.parse().expect("milliseconds"));
    let shards = describe(address).expect("a listing");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (kept, places) = (Mutex::default(), Semaphore::new(CALLS_AT_ONCE));
    let pool = Arc::new(Pool { address, kept, places, calls: AtomicUsize::new(0) });
    let opened: Vec<_> = shards
        .into_iter()
        .map(|shard| {
            let pool = Arc::clone(&pool);
            runtime.spawn(async move { (pool.iterator(&shard).await, pool) })
        })
        .collect();
    for opening in opened {
        let (iterator, pool) = runtime.block_on(opening).expect("opened");
        runtime.spawn(async move { pool.read(iterator, interval).await });
    }
    tell_and_wait("ready");
    loop {
        tell_and_wait(&pool.calls.load(Relaxed).to_string());
    }
}

impl Pool {
    async fn iterator(&self, shard: &str) -> String {
        let request = format!(
            r#"{{"StreamArn":"{ARN}","ShardId":"{shard}","ShardIteratorType":"TRIM_HORIZON"}}"#
        );
        let answer = self.call("GetShardIterator", request).await;
        text_after(&answer, br#""ShardIterator":""#)
    }

    async fn read(&self, mut iterator: String, interval: Duration) {
        let mut next = Instant::now() + interval.mul_f64(fastrand::f64());
        loop {
            tokio::time::sleep_until(next).await;
            let request = format!(r#"{{"ShardIterator":"{iterator}","Limit":1000}}"#);
            let page = self.call("GetRecords", request).await;
            self.calls.fetch_add(1, Relaxed);
            iterator = text_after(&page, br#""NextShardIterator":""#);
            next = Instant::now() + interval.mul_f64(1.0 - fastrand::f64() / 10.0);
        }
    }

    async fn call(&self, operation: &str, body: String) -> Bytes {
        let _place = self.places.acquire().await.expect("never closed");
        let kept = self.kept.lock().expect("no panic while held").pop();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await,
        };
        let request = Request::post("/")
            .header("host", "localhost")
            .header("x-amz-target", format!("DynamoDBStreams_20120810.{operation}"))
            .header("content-type", "application/x-amz-json-1.0")
            .header("authorization", AUTHORIZATION)
            .header("x-amz-date", "20260101T000000Z")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        sender.ready().await.expect("a connection that is kept");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("an answer").to_bytes();
        self.kept.lock().expect("no panic while held").push(sender);
        body
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }
}

fn text_after(page: &[u8], member: &[u8]) -> String {
    let at = memchr::memmem::rfind(page, member).expect("an open shard goes on");
    let rest = &page[at + member.len()..];
    let end = memchr::memchr(b'"', rest).expect("a string");
    String::from_utf8_lossy(&rest[..end]).into_owned()
}
