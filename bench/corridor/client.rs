//! The floor of delivery: an HTTP client that posts the consumer's events, made beforehand.
//!
//! hyper without anything around it, on the consumer's kind of runtime, a connection that
//! is kept alive for each shard.

use super::Plan;
use super::floor::{ARN, describe, read_shard};
use super::process::{Part, Usage, tell_and_wait};
use super::server::Server;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Instant;
use streamgate::record::{EventEnvelope, parse_page};
use tokio::net::TcpStream;

/// Different bodies of a shard: more than caches hold, less than the whole stream.
const BODIES: usize = 16;

/// Measures the posting of a body for every page.
pub fn run(plan: &Plan, stream: SocketAddr, server: &Server) -> Usage {
    let (stream, posts) = (stream.to_string(), plan.pages.to_string());
    let mut part = Part::start(&["--client", &stream, &server.url(), &posts]);
    assert_eq!(part.hear(), "ready");
    let (before, started) = (part.process.cpu(), Instant::now());
    part.go();
    assert_eq!(part.hear(), "done");
    let usage = part.process.usage(started.elapsed());
    Usage { cpu: usage.cpu - before, ..usage }
}

/// Makes the bodies, tells so, posts them when told, and stays until it has been looked at.
pub fn post(stream: &str, url: &str, posts: &str) {
    let stream: SocketAddr = stream.parse().expect("an address");
    let posts: usize = posts.parse().expect("a number");
    let envelope = EventEnvelope::new(&ARN.parse().expect("an ARN"));
    let shards: Vec<Vec<Bytes>> = describe(stream)
        .expect("a listing")
        .iter()
        .map(|shard| {
            let mut bodies = Vec::new();
            read_shard(stream, shard, |page| {
                let page = parse_page(&Bytes::copy_from_slice(page)).expect("a page");
                bodies.push(Bytes::from(envelope.event(&page.records).to_vec()));
                bodies.len() < BODIES
            });
            bodies
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    tell_and_wait("ready");
    runtime.block_on(async {
        let posting = shards.into_iter().map(|bodies| {
            let bodies = bodies.into_iter().cycle().take(posts);
            tokio::spawn(post_all(url.to_owned(), bodies))
        });
        for posted in join_all(posting).await {
            posted.expect("posted");
        }
    });
    tell_and_wait("done");
}

async fn post_all(url: String, bodies: impl Iterator<Item = Bytes>) {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    for body in bodies {
        let request = Request::post("/")
            .header("host", address)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.expect("an answer");
    }
}
