//! The floor of reading: the same pages over as many connections, bodies read and dropped.

use super::Plan;
use super::process::{Part, Usage, tell_and_wait};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

/// The stream that the simulator is.
pub const ARN: &str =
    "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000";

/// A signature that the simulator takes: it looks at its shape.
pub const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";

/// Measures it.
pub fn run(plan: &Plan, stream: SocketAddr) -> Usage {
    let started = Instant::now();
    let mut part = Part::start(&["--floor", &stream.to_string(), &plan.pages.to_string()]);
    let bytes: usize = part.hear().parse().expect("a number of bytes");
    assert!(bytes >= plan.total() * plan.bytes / 2, "the pages were read: {bytes}");
    part.process.usage(started.elapsed())
}

/// Reads so many pages of every shard on a connection and thread of its own, tells the bytes, and
/// stays until it has been looked at. A shard that stays open has no last one.
pub fn read(address: &str, pages: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    let pages: usize = pages.parse().expect("a number");
    let readers: Vec<_> = describe(address)
        .expect("a listing")
        .into_iter()
        .map(|shard| {
            thread::spawn(move || {
                let (mut bytes, mut read) = (0, 0);
                read_shard(address, &shard, |page| {
                    (bytes, read) = (bytes + page.len(), read + 1);
                    read < pages
                });
                bytes
            })
        })
        .collect();
    let bytes: usize = readers.into_iter().map(|reader| reader.join().expect("read")).sum();
    tell_and_wait(&bytes.to_string());
}

/// The ids of the stream's shards.
pub fn describe(address: SocketAddr) -> std::io::Result<Vec<String>> {
    let mut connection = Connection::open(address)?;
    let (mut ids, mut behind) = (Vec::new(), String::new());
    loop {
        let request = format!(r#"{{"StreamArn":"{ARN}"{behind}}}"#);
        let listing = connection.call("DescribeStream", &request)?;
        let listing: serde_json::Value = serde_json::from_slice(listing)?;
        let listing = &listing["StreamDescription"];
        let shards = listing["Shards"].as_array().into_iter().flatten();
        ids.extend(shards.filter_map(|shard| Some(shard["ShardId"].as_str()?.to_owned())));
        let Some(last) = listing["LastEvaluatedShardId"].as_str() else { return Ok(ids) };
        behind = format!(r#","ExclusiveStartShardId":"{last}""#);
    }
}

/// Gives the shard's pages to `take` until that has enough, or to the shard's end.
pub fn read_shard(address: SocketAddr, shard: &str, mut take: impl FnMut(&[u8]) -> bool) {
    let mut connection = Connection::open(address).expect("the simulator listens");
    let request = format!(
        r#"{{"StreamArn":"{ARN}","ShardId":"{shard}","ShardIteratorType":"TRIM_HORIZON"}}"#
    );
    let answer = connection.call("GetShardIterator", &request).expect("an iterator");
    let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
    let mut iterator = answer["ShardIterator"].as_str().map(str::to_owned);
    while let Some(token) = iterator {
        let request = format!(r#"{{"ShardIterator":"{token}","Limit":1000}}"#);
        let page = connection.call("GetRecords", &request).expect("a page");
        if !take(page) {
            return;
        }
        let member = br#""NextShardIterator":""#;
        // At the end of the page; looking from there keeps the floor a floor.
        iterator = memchr::memmem::rfind(page, member).map(|at| {
            let rest = &page[at + member.len()..];
            let end = memchr::memchr(b'"', rest).expect("a string");
            String::from_utf8_lossy(&rest[..end]).into_owned()
        });
    }
}

/// HTTP with nothing between the caller and the socket.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 2 << 20] })
    }

    fn call(&mut self, operation: &str, body: &str) -> std::io::Result<&[u8]> {
        let headers = format!(
            "X-Amz-Target: DynamoDBStreams_20120810.{operation}\r\nContent-Type: application/x-amz-json-1.0\r\nAuthorization: {AUTHORIZATION}\r\nX-Amz-Date: 20260101T000000Z\r\n"
        );
        self.post("/", &headers, body)
    }

    pub fn post(&mut self, path: &str, headers: &str, body: &str) -> std::io::Result<&[u8]> {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        self.stream.write_all(format!("{head}{body}").as_bytes())?;
        let (mut filled, mut whole) = (0, None);
        loop {
            if let Some((start, end)) = whole
                && filled >= end
            {
                return Ok(&self.buffer[start..end]);
            }
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if whole.is_none()
                && let Some(at) = memchr::memmem::find(&self.buffer[..filled], b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(&self.buffer[..at]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length: usize = length.and_then(|l| l.trim().parse().ok()).expect("a length");
                whole = Some((at + 4, at + 4 + length));
            }
        }
    }
}
