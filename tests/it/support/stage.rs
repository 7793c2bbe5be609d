//! What a consumer process stands on: the simulator served over HTTP as its stream, a
//! table of its own in the shared embedded DynamoDB, dummy keys.

use super::api::TOKEN;
use super::process::{Ended, Process};
use super::rig::arn;
use super::{NewTable, dynoxide, sdk_config};
use std::net::SocketAddr;
use std::path::Path;
use streamgate::arn::StreamArn;
use streamgate::progress::{Progress, ShardProgress, TableProgress, TableSettings};
use streamgate::simulator::Simulator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A stream and a table. The simulator's server ends with the runtime of the test.
pub struct Stage {
    pub simulator: Simulator,
    pub streams: SocketAddr,
    pub tables: SocketAddr,
    pub table: String,
}

impl Stage {
    /// With a stream of so many shards and a table named after the test.
    pub async fn new(table: &str, shards: usize) -> Self {
        Self::with(table, Simulator::builder(arn()).shards(shards).seed(7).build()).await
    }

    pub async fn with(table: &str, simulator: Simulator) -> Self {
        let tables = dynoxide::shared();
        NewTable::named(table).create(&sdk_config(tables).await).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let streams = listener.local_addr().expect("it is bound");
        let served = simulator.clone();
        tokio::spawn(async move { served.serve(listener, CancellationToken::new()).await });
        Self { simulator, streams, tables, table: table.to_owned() }
    }

    /// Starts a consumer; `variables` are added and count over what the stage gives.
    pub fn start(&self, variables: &[(&str, &str)]) -> Process {
        let stream = self.simulator.stream();
        consumer(stream, &self.table, self.streams, self.tables, variables)
    }

    /// Starts a command that has the consumer's settings.
    pub fn command(&self, command: &[&str], variables: &[(&str, &str)]) -> Process {
        let stream = self.simulator.stream();
        of_consumer(command, stream, &self.table, self.streams, self.tables, variables)
    }

    /// Starts another program that consumes.
    pub fn start_program(&self, program: &Path, variables: &[(&str, &str)]) -> Process {
        let stream = self.simulator.stream();
        let start = |all: &[(&str, &str)]| Process::of(program, &[], all);
        with_variables(stream, &self.table, self.streams, self.tables, variables, start)
    }

    /// Runs `streamgate check consumer` to its end.
    pub async fn check(&self, variables: &[(&str, &str)]) -> Ended {
        self.command(&["check", "consumer"], variables).ended().await
    }

    /// Starts a consumer and waits until it listens.
    pub async fn consumer(&self, variables: &[(&str, &str)]) -> Process {
        let mut process = self.start(variables);
        process.listening().await;
        process
    }

    /// Starts the api on the table and waits until it listens.
    pub async fn api(&self, private: SocketAddr, variables: &[(&str, &str)]) -> Process {
        let region = self.simulator.stream().region();
        api(&self.table, region, self.tables, private, variables).await
    }

    /// The progress as it stands in the table.
    pub async fn progress(&self) -> Vec<ShardProgress> {
        self.store().await.load().await.expect("the table answers")
    }

    /// Where the consumer keeps its progress, for a look at it.
    pub async fn store(&self) -> TableProgress {
        let settings = TableSettings {
            table: self.table.clone(),
            partition_key: "PK".to_owned(),
            sort_key: "SK".to_owned(),
            consumer: "streamgate".to_owned(),
            label: self.simulator.stream().label().to_owned(),
        };
        TableProgress::new(&sdk_config(self.tables).await, settings)
    }
}

/// Starts `streamgate api` with dummy keys and waits until it listens.
pub async fn api(
    table: &str,
    region: &str,
    tables: SocketAddr,
    private: SocketAddr,
    variables: &[(&str, &str)],
) -> Process {
    let (tables, private) = (format!("http://{tables}"), private.to_string());
    let mut all = vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", region),
        ("AWS_ENDPOINT_URL_DYNAMODB", &tables),
        ("TABLE_NAME", table),
        ("API_TOKEN", TOKEN),
        ("LISTEN", "127.0.0.1:0"),
        ("PRIVATE_LISTEN", &private),
    ];
    all.extend(variables);
    let mut process = Process::start(&["api"], &all);
    process.listening().await;
    process
}

/// Starts `streamgate consumer` with dummy keys and these endpoints.
pub fn consumer(
    stream: &StreamArn,
    table: &str,
    streams: SocketAddr,
    tables: SocketAddr,
    variables: &[(&str, &str)],
) -> Process {
    of_consumer(&["consumer"], stream, table, streams, tables, variables)
}

/// Starts a command that has the consumer's settings.
fn of_consumer(
    command: &[&str],
    stream: &StreamArn,
    table: &str,
    streams: SocketAddr,
    tables: SocketAddr,
    variables: &[(&str, &str)],
) -> Process {
    let start = |all: &[(&str, &str)]| Process::start(command, all);
    with_variables(stream, table, streams, tables, variables, start)
}

/// Starts what has the consumer's settings in its environment.
fn with_variables(
    stream: &StreamArn,
    table: &str,
    streams: SocketAddr,
    tables: SocketAddr,
    variables: &[(&str, &str)],
    start: impl FnOnce(&[(&str, &str)]) -> Process,
) -> Process {
    let (streams, tables) = (format!("http://{streams}"), format!("http://{tables}"));
    let mut all = vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", stream.region()),
        ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", &streams),
        ("AWS_ENDPOINT_URL_DYNAMODB", &tables),
        ("STREAM_ARN", stream.as_str()),
        ("TABLE_NAME", table),
        ("LISTEN", "127.0.0.1:0"),
        ("POLL_INTERVAL_MIN", "20ms"),
        ("POLL_INTERVAL_MAX", "100ms"),
    ];
    all.extend(variables);
    start(&all)
}
