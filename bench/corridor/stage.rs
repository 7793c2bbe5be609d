//! What a consumer is measured on: the simulator's load mode, a table, and the consumer.
//!
//! Owns how they are started and when a consumer is done: when every record is delivered,
//! or dropped by the filter, and none was delivered twice.

use super::Plan;
use super::floor::{ARN, describe};
use super::process::{Process, Usage};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_streamgate");
const TABLE: &str = "progress";

/// A `streamgate consumer` to run.
#[derive(Clone)]
pub struct Consumer {
    binary: String,
    settings: Vec<(&'static str, String)>,
    expected: Option<usize>,
}

impl Consumer {
    /// Ours, with this HANDLER.
    pub fn new(handler: &str) -> Self {
        let settings = vec![("HANDLER", handler.to_owned())];
        Self { binary: BINARY.to_owned(), settings, expected: None }
    }

    /// With this setting, too.
    pub fn set(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Of another binary.
    pub fn of(mut self, binary: &str) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// Of which so many records reach the handler, and not all.
    pub fn expecting(mut self, records: usize) -> Self {
        self.expected = Some(records);
        self
    }
}

/// A stream and a table.
pub struct Stage {
    pub stream: SocketAddr,
    table: SocketAddr,
    pub simulator: Process,
}

/// A consumer that runs.
pub struct Running {
    pub process: Process,
    address: SocketAddr,
}

/// What a consumer has asked of AWS since its start.
#[derive(Clone, Copy, Default)]
pub struct Calls {
    /// GetRecords that were answered.
    pub reads: usize,
    /// All calls, those on the table too, failed attempts included.
    pub all: usize,
    /// Write units that the table said they took.
    pub write_units: usize,
}

impl Calls {
    /// Those since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads - earlier.reads,
            all: self.all - earlier.all,
            write_units: self.write_units - earlier.write_units,
        }
    }

    /// Those of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            all: self.all + other.all,
            write_units: self.write_units + other.write_units,
        }
    }
}

impl Running {
    /// What it has asked of AWS.
    pub fn calls(&self) -> Calls {
        let [reads, all, write_units] = self.scrape([
            r#"streamgate_aws_requests_total{operation="GetRecords",outcome="ok"}"#,
            "streamgate_aws_requests_total",
            "streamgate_table_write_units_total",
        ]);
        Calls { reads, all, write_units }
    }

    /// What these counters and gauges stand at, over all labels where none are named; 0 for
    /// one that the binary does not have.
    pub fn scrape<const N: usize>(&self, metrics: [&str; N]) -> [usize; N] {
        scrape(self.address, metrics)
    }
}

impl Stage {
    /// With the pages of the plan.
    pub fn new(plan: &Plan) -> Self {
        let Plan { shards, pages, records, bytes, open, .. } = plan;
        let sizes = [
            ("--shards", shards),
            ("--load-pages", pages),
            ("--load-records", records),
            ("--load-bytes", bytes),
        ];
        let sizes = sizes.iter().flat_map(|(flag, size)| [(*flag).to_owned(), size.to_string()]);
        Self::with(&sizes.chain(open.then(|| "--load-open".to_owned())).collect::<Vec<_>>())
    }

    /// With so many open shards that hold nothing.
    pub fn idle(shards: usize) -> Self {
        Self::with(&["--shards".to_owned(), shards.to_string()])
    }

    fn with(flags: &[String]) -> Self {
        let (simulator, stream) = simulator(flags);
        Self { stream, table: table(), simulator }
    }

    /// Runs a consumer over the whole stream.
    pub fn run(&self, consumer: &Consumer, plan: &Plan) -> Usage {
        let started = Instant::now();
        let running = self.start(consumer);
        let expected = consumer.expected.unwrap_or(plan.total());
        loop {
            let [delivered, filtered] = running.scrape([
                "streamgate_records_delivered_total",
                "streamgate_records_filtered_total",
            ]);
            if delivered + filtered >= plan.total() {
                assert_eq!(delivered + filtered, plan.total(), "nothing twice");
                assert_eq!(delivered, expected, "what the handler is to get");
                return running.process.usage(started.elapsed());
            }
            assert!(started.elapsed() < Duration::from_secs(300), "stuck at {delivered}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Starts a consumer that has no progress yet, and waits until it listens.
    pub fn start(&self, consumer: &Consumer) -> Running {
        let name = format!("bench-{:016x}", fastrand::u64(..));
        let mut child = Command::new(&consumer.binary)
            .arg("consumer")
            .env_clear()
            .envs([
                ("STREAM_ARN", ARN),
                ("TABLE_NAME", TABLE),
                ("CONSUMER_NAME", &name),
                ("LISTEN", "127.0.0.1:0"),
                ("LOG_FORMAT", "json"),
                ("AWS_ACCESS_KEY_ID", "bench"),
                ("AWS_SECRET_ACCESS_KEY", "bench"),
                ("AWS_ENDPOINT_URL_DYNAMODB", &format!("http://{}", self.table)),
                ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", &format!("http://{}", self.stream)),
            ])
            .envs(consumer.settings.iter().map(|(name, value)| (name, value)))
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
        Running { process, address }
    }
}

fn simulator(flags: &[String]) -> (Process, SocketAddr) {
    let mut child = Command::new(BINARY)
        .args(["simulate", "--listen", "127.0.0.1:0", "--stream-arn", ARN])
        .args(flags)
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

/// A table for the progress, in this process, so that its cost is not measured.
fn table() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
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

fn scrape<const N: usize>(address: SocketAddr, metrics: [&str; N]) -> [usize; N] {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let value = |metric: &str| {
        let of = |line: &str| {
            let rest = line.strip_prefix(metric)?;
            let value = rest.rsplit(' ').next().filter(|_| rest.starts_with([' ', '{']));
            value?.parse::<usize>().ok()
        };
        text.lines().filter_map(of).sum()
    };
    metrics.map(value)
}
