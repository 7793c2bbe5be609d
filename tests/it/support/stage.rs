//! What a consumer process stands on: the simulator served over HTTP as its stream and a
//! table of its own. As a rule that is in the shared embedded DynamoDB, with dummy keys;
//! with STREAMGATE_TEST_ROLES=1 it is in the ministack that judges policies, and every
//! process has a session of its container's role there.

use super::api::TOKEN;
use super::process::{Ended, Process};
use super::rig::arn;
use super::roles::{self, Keys};
use super::terminal::Terminal;
use super::{NewTable, dynoxide, sdk_config_as};
use aws_config::SdkConfig;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use streamgate::arn::StreamArn;
use streamgate::progress::{
    ApiToken, ClientProgress, ClientSettings, Progress, Selection, ShardProgress, TableProgress,
    TableSettings,
};
use streamgate::simulator::Simulator;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// A stream and a table. The simulator's server ends with the runtime of the test.
pub struct Stage {
    pub simulator: Simulator,
    pub streams: SocketAddr,
    pub tables: SocketAddr,
    pub table: String,
    /// Sessions by the policy of their role; nobody here has one without the switch.
    sessions: Option<Mutex<HashMap<String, Keys>>>,
}

impl Stage {
    /// With a stream of so many shards and a table named after the test.
    pub async fn new(table: &str, shards: usize) -> Self {
        Self::with(table, Simulator::builder(arn()).shards(shards).seed(7).build()).await
    }

    pub async fn with(table: &str, simulator: Simulator) -> Self {
        let under_roles = roles::are_asked_for();
        if under_roles {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            let except = roles::exceptions().find(|(name, _)| *name == test);
            assert_eq!(except, None, "does not run under roles");
        }
        Self::on(table, simulator, under_roles).await
    }

    /// With one shard, under the roles whatever the switch says.
    pub async fn under_roles(table: &str) -> Self {
        Self::on(table, Simulator::builder(arn()).build(), true).await
    }

    async fn on(table: &str, simulator: Simulator, under_roles: bool) -> Self {
        let sessions = under_roles.then(Mutex::default);
        let tables = if sessions.is_some() { roles::server() } else { dynoxide::shared() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let streams = listener.local_addr().expect("it is bound");
        let served = simulator.clone();
        tokio::spawn(async move { served.serve(listener, CancellationToken::new()).await });
        let stage = Self { simulator, streams, tables, table: table.to_owned(), sessions };
        stage.make(NewTable::named(table)).await;
        stage
    }

    /// Makes a table beside the stage's own.
    pub async fn make(&self, table: NewTable<'_>) {
        table.create(&self.root().await).await;
    }

    /// What tests themselves look into the table with: the root user of the stream's account.
    async fn root(&self) -> SdkConfig {
        let stream = self.simulator.stream();
        sdk_config_as(stream.account(), stream.region(), self.tables).await
    }

    /// The keys of a container's role with these variables, where it has one.
    pub async fn keys(&self, container: &str, variables: &[(&str, &str)]) -> Option<Keys> {
        let mut sessions = self.sessions.as_ref()?.lock().await;
        let stream = self.simulator.stream();
        let mut all = vec![
            ("STREAM_ARN", stream.as_str()),
            ("TABLE_NAME", &self.table),
            ("AWS_REGION", stream.region()),
            ("AWS_ACCOUNT_ID", stream.account()),
        ];
        all.extend(variables);
        let policy: Value = roles::policy(container, &all).await;
        let known = policy.to_string();
        if !sessions.contains_key(&known) {
            let name = format!("{}-{}", self.table, sessions.len());
            let keys = roles::session_in(stream.account(), &name, &policy).await;
            sessions.insert(known.clone(), keys);
        }
        sessions.get(&known).cloned()
    }

    /// Starts a consumer; `variables` are added and count over what the stage gives.
    pub async fn start(&self, variables: &[(&str, &str)]) -> Process {
        self.command(&["consumer"], variables).await
    }

    /// Starts a command that has the consumer's settings.
    pub async fn command(&self, command: &[&str], variables: &[(&str, &str)]) -> Process {
        self.as_consumer(variables, |all| Process::start(command, all)).await
    }

    /// Starts a command that has the consumer's settings on a terminal.
    pub async fn terminal(&self, command: &[&str], variables: &[(&str, &str)]) -> Terminal {
        let keys = self.keys("consumer", variables).await;
        let keys = keys.as_ref().map_or(Vec::new(), |keys| keys.variables().to_vec());
        let variables = [&keys, variables].concat();
        let stream = self.simulator.stream();
        let start = |all: &[(&str, &str)]| {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let all: Vec<(String, String)> =
            with_variables(stream, &self.table, self.streams, self.tables, &variables, start);
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Terminal::start(command, &all).await
    }

    /// Starts another program that consumes.
    pub async fn start_program(&self, program: &Path, variables: &[(&str, &str)]) -> Process {
        self.as_consumer(variables, |all| Process::of(program, &[], all)).await
    }

    async fn as_consumer(
        &self,
        variables: &[(&str, &str)],
        start: impl FnOnce(&[(&str, &str)]) -> Process,
    ) -> Process {
        let keys = self.keys("consumer", variables).await;
        let keys = keys.as_ref().map_or(Vec::new(), |keys| keys.variables().to_vec());
        let variables = [&keys, variables].concat();
        let stream = self.simulator.stream();
        with_variables(stream, &self.table, self.streams, self.tables, &variables, start)
    }

    /// Runs `streamgate check consumer` to its end.
    pub async fn check(&self, variables: &[(&str, &str)]) -> Ended {
        self.command(&["check", "consumer"], variables).await.ended().await
    }

    /// Starts a consumer and waits until it listens.
    pub async fn consumer(&self, variables: &[(&str, &str)]) -> Process {
        let mut process = self.start(variables).await;
        process.listening().await;
        process
    }

    /// Starts the api on the table and waits until it listens.
    pub async fn api(&self, private: SocketAddr, variables: &[(&str, &str)]) -> Process {
        let keys = self.keys("api", variables).await;
        let keys = keys.as_ref().map_or(Vec::new(), |keys| keys.variables().to_vec());
        let region = self.simulator.stream().region();
        api(&self.table, region, self.tables, private, &[&keys, variables].concat()).await
    }

    /// What a consumer of the stream asks the api at `private` with.
    pub fn client(&self, private: SocketAddr) -> ClientProgress {
        let settings = ClientSettings {
            urls: vec![format!("http://{private}").parse().expect("an address is a URL")],
            ca: Vec::new(),
            token: ApiToken::new(TOKEN).expect("long enough"),
            table: self.table.clone(),
            consumer: "streamgate".to_owned(),
            label: self.simulator.stream().label().to_owned(),
        };
        ClientProgress::new(settings).expect("a client can be made")
    }

    /// The progress as it stands in the table.
    pub async fn progress(&self) -> Vec<ShardProgress> {
        self.store().await.load(Selection::All).await.expect("the table answers")
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
        TableProgress::new(&self.root().await, settings)
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
    let start = |all: &[(&str, &str)]| Process::start(&["consumer"], all);
    with_variables(stream, table, streams, tables, variables, start)
}

/// Starts what has the consumer's settings in its environment.
pub fn with_variables<T>(
    stream: &StreamArn,
    table: &str,
    streams: SocketAddr,
    tables: SocketAddr,
    variables: &[(&str, &str)],
    start: impl FnOnce(&[(&str, &str)]) -> T,
) -> T {
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
