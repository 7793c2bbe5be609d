//! A whole DynamoDB on 127.0.0.1, in this process: a table and its stream.
//!
//! Owns the joining of two parts that are each good at one thing: dynoxide keeps the
//! items, the stream simulator is fed with every change and can do what no emulator of
//! DynamoDB does, split shards for instance. Nothing is kept when the process ends.

mod changes;
mod table;

use crate::arn::StreamArn;
use crate::aws::{AttemptObserver, client_settings};
use crate::simulator::Simulator;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The region in the ARNs of the embedded DynamoDB.
pub const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";

/// What the embedded DynamoDB is made of.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The one table that has a stream.
    pub table: String,
    /// Its partition key, a string.
    pub partition_key: String,
    /// Its sort key, a string.
    pub sort_key: String,
    /// Its global secondary indexes.
    pub indexes: Vec<LocalIndex>,
}

/// A global secondary index of all attributes.
#[derive(Clone, Debug)]
pub struct LocalIndex {
    /// Its name.
    pub name: String,
    /// Its partition key, a string.
    pub partition_key: String,
    /// Its sort key, a string.
    pub sort_key: String,
}

/// A running embedded DynamoDB. Stops when the token it was started with is cancelled.
pub struct Local {
    /// Where the table is served.
    pub table_address: SocketAddr,
    /// Where the stream is served, and the simulator's admin interface.
    pub stream_address: SocketAddr,
    /// The stream, to be split or disturbed.
    pub simulator: Simulator,
    tasks: TaskTracker,
}

/// The embedded DynamoDB could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct LocalError {
    what: &'static str,
    why: String,
}

impl LocalError {
    fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// The ARN of the stream of `table` in the embedded DynamoDB. `label` is the time at
/// which it was enabled.
pub fn stream_arn(table: &str, label: &str) -> String {
    format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}/stream/{label}")
}

impl Local {
    /// Creates the table and serves it on `table`, its stream on `stream`.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(
        settings: LocalSettings,
        stream_arn: StreamArn,
        table: TcpListener,
        stream: TcpListener,
        stop: CancellationToken,
    ) -> Result<Self, LocalError> {
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| LocalError::new("the listener", error))
        };
        let (table_address, stream_address) = (address(&table)?, address(&stream)?);
        let simulator = Simulator::builder(stream_arn).build();
        let tasks = TaskTracker::new();
        tasks.spawn(table::start(settings, simulator.clone(), table, stop.clone()).await?);
        let served = simulator.clone();
        tasks.spawn(async move { served.serve(stream, stop).await });
        tasks.close();
        Ok(Self { table_address, stream_address, simulator, tasks })
    }

    /// Waits until everything has stopped.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// Configuration for a client of the table.
    pub async fn table_config(&self, observer: AttemptObserver) -> SdkConfig {
        config(self.table_address, observer).await
    }

    /// Configuration for a client of the stream.
    pub async fn stream_config(&self, observer: AttemptObserver) -> SdkConfig {
        config(self.stream_address, observer).await
    }
}

/// Nothing of the AWS environment counts here: neither keys nor endpoints.
async fn config(address: SocketAddr, observer: AttemptObserver) -> SdkConfig {
    client_settings(aws_config::defaults(BehaviorVersion::latest()), observer)
        .region(Region::new(REGION))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new("local", "local", None, None, "streamgate local"))
        .load()
        .await
}
