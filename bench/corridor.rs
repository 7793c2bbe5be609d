//! What reading a stream costs: the consumer's CPU and memory beside a floor, in one run.
//!
//! `cargo bench --bench corridor` starts the simulator's load mode, a table, and then in
//! turn the floor (the same pages over as many connections, bodies read and dropped) and
//! `streamgate consumer` with a handler that only counts. CPU seconds and peak memory are
//! the operating system's account of the measured process (Linux, /proc). Figures of one
//! run belong together; compare ratios, not runs. See bench/README.md.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_streamgate");
const ARN: &str =
    "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000";
const TABLE: &str = "progress";

/// What is read, and how often it is measured.
struct Plan {
    shards: usize,
    pages: usize,
    records: usize,
    bytes: usize,
    rounds: usize,
}

impl Plan {
    fn total(&self) -> usize {
        self.shards * self.pages * self.records
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--floor") {
        return floor(&arguments[at + 1]);
    }
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let plan = Plan {
        shards: number("--shards", 4),
        pages: number("--pages", 115),
        records: number("--records", 700),
        bytes: number("--bytes", 1400),
        rounds: number("--rounds", 3),
    };
    measure(&plan);
}

fn measure(plan: &Plan) {
    let (_simulator, stream) = simulator(plan);
    let table = table();
    println!(
        "{} records of {} bytes in {} shards, pages of {}; handler counts",
        plan.total(),
        plan.bytes,
        plan.shards,
        plan.records
    );
    println!(
        "{:<28} {:>7} {:>7} {:>14} {:>10} {:>10}",
        "", "wall s", "CPU s", "records/CPU-s", "MB/CPU-s", "peak MiB"
    );
    let mut ratios = Vec::new();
    for _ in 0..plan.rounds {
        let floor = run_floor(plan, stream);
        floor.print("floor: sockets, dropped", plan);
        let ours = run_consumer(plan, stream, table);
        ours.print("streamgate consumer", plan);
        ratios.push(ours.cpu / floor.cpu);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "CPU, consumer over floor: median {:.2} of {} rounds",
        ratios[ratios.len() / 2],
        plan.rounds
    );
}

struct Usage {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
}

impl Usage {
    fn print(&self, what: &str, plan: &Plan) {
        let records = plan.total() as f64;
        let megabytes = records * plan.bytes as f64 / 1e6;
        println!(
            "{what:<28} {:>7.2} {:>7.2} {:>14.0} {:>10.0} {:>10.1}",
            self.wall,
            self.cpu,
            records / self.cpu,
            megabytes / self.cpu,
            self.peak_mib
        );
    }
}

/// A child that is killed when the run ends or panics.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// CPU seconds and peak memory so far.
    fn usage(&self, wall: Duration) -> Usage {
        let proc = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).expect("Linux")
        };
        let stat = proc("stat");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        // utime and stime, in ticks of a hundredth of a second on every Linux we know.
        let ticks: f64 =
            fields[11..13].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
        let status = proc("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kib: f64 = peak.trim().trim_end_matches(" kB").parse().expect("KiB");
        Usage { wall: wall.as_secs_f64(), cpu: ticks / 100.0, peak_mib: kib / 1024.0 }
    }
}

fn simulator(plan: &Plan) -> (Process, SocketAddr) {
    let mut child = Command::new(BINARY)
        .args(["simulate", "--listen", "127.0.0.1:0", "--stream-arn", ARN])
        .args(["--shards", &plan.shards.to_string(), "--load-pages", &plan.pages.to_string()])
        .args([
            "--load-records",
            &plan.records.to_string(),
            "--load-bytes",
            &plan.bytes.to_string(),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the simulator starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let line = lines.next().expect("a line").expect("text");
    thread::spawn(move || lines.for_each(drop));
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
    let address: SocketAddr = address.and_then(|a| a.parse().ok()).expect("an address");
    // The address is told before the pages are made; the first answer comes after.
    while describe(address).is_err() {
        thread::park_timeout(Duration::from_millis(50));
    }
    (Process(child), address)
}

fn describe(address: SocketAddr) -> std::io::Result<()> {
    let mut connection = Connection::open(address)?;
    connection.call("DescribeStream", &format!(r#"{{"StreamArn":"{ARN}"}}"#)).map(drop)
}

/// A table for the progress, in this process, so that its cost is not measured.
fn table() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    let database = dynoxide::Database::memory().expect("SQLite");
    let request = serde_json::json!({
        "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}, {"AttributeName": "SK", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
    });
    database.create_table(serde_json::from_value(request).expect("a request")).expect("a table");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let _ =
                dynoxide::server::serve_with_shutdown(listener, database, std::future::pending())
                    .await;
        });
    });
    address
}

fn run_consumer(plan: &Plan, stream: SocketAddr, table: SocketAddr) -> Usage {
    let name = format!("bench-{:x}", Instant::now().elapsed().as_nanos() ^ fastrand::u128(..));
    let started = Instant::now();
    let mut child = Command::new(BINARY)
        .arg("consumer")
        .env_clear()
        .envs([
            ("STREAM_ARN", ARN),
            ("TABLE_NAME", TABLE),
            ("CONSUMER_NAME", &name[..32]),
            ("HANDLER", "discard"),
            ("BATCH_SIZE", "1000"),
            ("LISTEN", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("AWS_ACCESS_KEY_ID", "bench"),
            ("AWS_SECRET_ACCESS_KEY", "bench"),
            ("AWS_ENDPOINT_URL_DYNAMODB", &format!("http://{table}")),
            ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", &format!("http://{stream}")),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the consumer starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let process = Process(child);
    let listening =
        lines.by_ref().map(|line| line.expect("text")).find(|line| line.contains("listening"));
    let line: serde_json::Value =
        serde_json::from_str(&listening.expect("it listens")).expect("JSON");
    thread::spawn(move || lines.for_each(drop));
    let address: SocketAddr =
        line["address"].as_str().and_then(|a| a.parse().ok()).expect("an address");
    loop {
        let delivered = scrape(address, "streamgate_records_delivered_total");
        if delivered >= plan.total() as f64 {
            assert_eq!(delivered, plan.total() as f64, "nothing twice");
            return process.usage(started.elapsed());
        }
        assert!(started.elapsed() < Duration::from_secs(300), "stuck at {delivered}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn scrape(address: SocketAddr, metric: &str) -> f64 {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
    value.expect("the metric is there")
}

fn run_floor(plan: &Plan, stream: SocketAddr) -> Usage {
    let started = Instant::now();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--floor", &stream.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the floor starts");
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut said).expect("told");
    let bytes: usize = said.trim().parse().expect("a number of bytes");
    assert!(bytes >= plan.total() * plan.bytes / 2, "the pages were read: {bytes}");
    Process(child).usage(started.elapsed())
}

/// Reads every shard on a connection and thread of its own, tells the bytes, and stays
/// until it has been looked at.
fn floor(address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    let mut connection = Connection::open(address).expect("the simulator listens");
    let listing = connection.call("DescribeStream", &format!(r#"{{"StreamArn":"{ARN}"}}"#));
    let listing: serde_json::Value =
        serde_json::from_slice(listing.expect("a listing")).expect("JSON");
    let shards = listing["StreamDescription"]["Shards"].as_array().expect("shards");
    let readers: Vec<_> = shards
        .iter()
        .map(|shard| {
            let id = shard["ShardId"].as_str().expect("an id").to_owned();
            thread::spawn(move || drop_shard(address, &id))
        })
        .collect();
    let bytes: usize = readers.into_iter().map(|reader| reader.join().expect("read")).sum();
    println!("{bytes}");
    std::io::stdout().flush().expect("told");
    let _ = std::io::stdin().read(&mut [0]);
}

fn drop_shard(address: SocketAddr, shard: &str) -> usize {
    let mut connection = Connection::open(address).expect("the simulator listens");
    let request = format!(
        r#"{{"StreamArn":"{ARN}","ShardId":"{shard}","ShardIteratorType":"TRIM_HORIZON"}}"#
    );
    let answer = connection.call("GetShardIterator", &request).expect("an iterator");
    let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
    let mut iterator = answer["ShardIterator"].as_str().map(str::to_owned);
    let mut bytes = 0;
    while let Some(token) = iterator {
        let request = format!(r#"{{"ShardIterator":"{token}","Limit":1000}}"#);
        let page = connection.call("GetRecords", &request).expect("a page");
        bytes += page.len();
        let member = br#""NextShardIterator":""#;
        // At the end of the page; looking from there keeps the floor a floor.
        iterator = memchr::memmem::rfind(page, member).map(|at| {
            let rest = &page[at + member.len()..];
            let end = memchr::memchr(b'"', rest).expect("a string");
            String::from_utf8_lossy(&rest[..end]).into_owned()
        });
    }
    bytes
}

/// HTTP with nothing between the caller and the socket.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 2 << 20] })
    }

    fn call(&mut self, operation: &str, body: &str) -> std::io::Result<&[u8]> {
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: DynamoDBStreams_20120810.{operation}\r\nContent-Type: application/x-amz-json-1.0\r\nAuthorization: AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\nX-Amz-Date: 20260101T000000Z\r\nContent-Length: {length}\r\n\r\n"
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
                return Err(std::io::ErrorKind::UnexpectedEof.into());
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
