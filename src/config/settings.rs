//! The list of settings: one row each, from which flags, defaults, help and the
//! reference in `docs/configuration.md` come.

use super::traces;

/// A command that takes settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `streamgate consumer`
    Consumer,
    /// `streamgate local`
    Local,
    /// `streamgate api`
    Api,
}

/// One environment variable, which is also a flag.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// What kind of value it takes, for help texts.
    pub value: &'static str,
    /// What holds when it is not set, exactly as it would be written; empty for none.
    pub default: &'static str,
    /// Commands in which another default holds.
    pub elsewhere: &'static [(Command, &'static str)],
    /// One sentence: meaning and bounds.
    pub help: &'static str,
    /// Which commands take it.
    pub commands: &'static [Command],
}

impl Setting {
    /// The flag: `--batch-size` for `BATCH_SIZE`.
    pub fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }

    /// What holds in `command` when it is not set; empty for none.
    pub fn default_in(&self, command: Command) -> &'static str {
        let other = self.elsewhere.iter().find(|(at, _)| *at == command);
        other.map_or(self.default, |(_, default)| default)
    }
}

const CONSUMER: &[Command] = &[Command::Consumer];
const API: &[Command] = &[Command::Api];
const CONSUMER_AND_API: &[Command] = &[Command::Consumer, Command::Api];
pub(super) const BOTH: &[Command] = &[Command::Consumer, Command::Local];
const ALL: &[Command] = &[Command::Consumer, Command::Local, Command::Api];

pub(super) const fn setting(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    commands: &'static [Command],
    help: &'static str,
) -> Setting {
    Setting { name, value, default, elsewhere: &[], help, commands }
}

/// Every setting, in the order of the reference.
pub const SETTINGS: &[Setting] = &{
    let mut all = [ROWS[0]; ROWS.len() + traces::ROWS.len()];
    let mut row = 0;
    while row < all.len() {
        all[row] = if row < ROWS.len() { ROWS[row] } else { traces::ROWS[row - ROWS.len()] };
        row += 1;
    }
    all
};

/// Those that are Streamgate's own.
const ROWS: &[Setting] = &[
    setting(
        "STREAM_ARN",
        "ARN",
        "",
        CONSUMER,
        "The stream to read: the table's LatestStreamArn. Required.",
    ),
    setting(
        "TABLE_NAME",
        "NAME",
        "",
        ALL,
        "The table that keeps the progress. Required; `local` creates `people` unless told otherwise.",
    ),
    setting(
        "API_URL",
        "URL",
        "",
        CONSUMER,
        "The private listener of `streamgate api`, which keeps the progress; several replicas, or what stands before them, with commas between: while one does not answer another is asked. Without it the consumer writes the table itself.",
    ),
    setting(
        "API_CA_FILE",
        "PATH",
        "",
        CONSUMER,
        "With API_URL=https://…: a PEM file of the authorities that may vouch for the api, and no others; without it those this machine trusts.",
    ),
    setting(
        "API_TOKEN",
        "TOKEN",
        "",
        CONSUMER_AND_API,
        "The secret both containers share: 16 to 1024 visible ASCII characters. `api` needs it or API_TOKEN_FILE, `consumer` with API_URL.",
    ),
    setting(
        "API_TOKEN_FILE",
        "PATH",
        "",
        CONSUMER_AND_API,
        "A file that holds the token, in place of API_TOKEN; white space around it does not count.",
    ),
    setting(
        "CONSUMER_NAME",
        "NAME",
        "streamgate",
        ALL,
        "Keeps apart the progress of consumers of one stream: 1 to 64 of a-z A-Z 0-9 _ . -; for `api` those it keeps progress for, with commas between.",
    ),
    setting(
        "TABLE_PARTITION_KEY",
        "NAME",
        "PK",
        ALL,
        "The name of the table's partition key, a string.",
    ),
    setting("TABLE_SORT_KEY", "NAME", "SK", ALL, "The name of the table's sort key, a string."),
    setting(
        "HANDLER",
        "WHERE",
        "log",
        BOTH,
        "Who gets the records: `log` (one a line on stdout), `discard` (counts only), http://… or https://…, lambda+http://host:port, a Lambda image with its emulator, several with commas between, or exec:program and its arguments.",
    ),
    setting(
        "HANDLER_FORMAT",
        "FORMAT",
        "lambda",
        BOTH,
        "What an http handler is sent: `lambda`, the event a Lambda function gets, or `cloudevents`, a batch of CloudEvents 1.0 in JSON with a record in each.",
    ),
    setting(
        "HANDLER_TIMEOUT",
        "DURATION",
        "60s",
        BOTH,
        "How long one invocation of the handler may take, 1ms to 15m.",
    ),
    setting(
        "HANDLER_SECRET",
        "SECRETS",
        "",
        BOTH,
        "Signs requests to an http handler (Standard Webhooks): whsec_ and 24 to 64 bytes in base64; while one is replaced, both with a space between.",
    ),
    setting(
        "STARTING_POSITION",
        "POSITION",
        "TRIM_HORIZON",
        BOTH,
        "Where to begin when there is no progress yet: TRIM_HORIZON, LATEST or AT_TIMESTAMP.",
    ),
    setting(
        "STARTING_POSITION_TIMESTAMP",
        "TIME",
        "",
        BOTH,
        "With AT_TIMESTAMP: RFC 3339 in UTC (2026-01-02T03:04:05Z) or seconds since the epoch; not in the future.",
    ),
    setting(
        "FILTER_CRITERIA",
        "JSON",
        "",
        BOTH,
        "Which records the handler gets, as Lambda has it: {\"Filters\":[{\"Pattern\":\"…\"}]}, up to 10, of which one has to match; the others are counted and passed over.",
    ),
    setting(
        "BATCH_SIZE",
        "COUNT",
        "100",
        BOTH,
        "The most stream records in a batch, 1 to 10000; a batch is also closed at 6 MB.",
    ),
    setting(
        "MAXIMUM_BATCHING_WINDOW_IN_SECONDS",
        "SECONDS",
        "0",
        BOTH,
        "How long a batch that is not full waits for more, 0 to 300.",
    ),
    setting(
        "PARALLELIZATION_FACTOR",
        "COUNT",
        "1",
        BOTH,
        "How many batches of a shard are delivered at the same time, 1 to 10; those of a partition key stay one after the other.",
    ),
    setting(
        "TUMBLING_WINDOW_IN_SECONDS",
        "SECONDS",
        "0",
        BOTH,
        "How long a tumbling window is, to 900: its batches get the state that the last answer carried, and the handler is told when it is over. 0: there are none.",
    ),
    setting(
        "MAXIMUM_RETRY_ATTEMPTS",
        "COUNT",
        "-1",
        BOTH,
        "How often a failed batch is tried again before its records are given up, 0 to 10000; -1 for ever. A handler that is not reached costs none.",
    ),
    setting(
        "MAXIMUM_RECORD_AGE_IN_SECONDS",
        "SECONDS",
        "-1",
        BOTH,
        "Records older than this are given up, tried or not, 60 to 604800; -1 never.",
    ),
    setting(
        "BISECT_BATCH_ON_FUNCTION_ERROR",
        "BOOLEAN",
        "false",
        BOTH,
        "Whether a failed batch is halved and its halves are tried, which costs no retry: true or false.",
    ),
    setting(
        "FUNCTION_RESPONSE_TYPES",
        "TYPES",
        "",
        BOTH,
        "ReportBatchItemFailures: an answer may name the records that failed; the first of them and what comes after it comes again.",
    ),
    setting(
        "ON_FAILURE",
        "WHERE",
        "",
        BOTH,
        "What becomes of records that are given up: `api`, or `table` without an api, keeps them with their payload beside the progress; http(s)://… has them posted there; the shard waits until they are taken. `none` drops and counts them. Not set: api or table.",
    ),
    setting(
        "POLL_INTERVAL_MIN",
        "DURATION",
        "200ms",
        BOTH,
        "The wait between reads of a shard that has records but is not behind, 10ms to 1m.",
    ),
    setting(
        "POLL_INTERVAL_MAX",
        "DURATION",
        "1s",
        BOTH,
        "What the wait grows to on an idle shard, from POLL_INTERVAL_MIN to 5m.",
    ),
    setting(
        "FAILOVER_TIME",
        "DURATION",
        "10s",
        BOTH,
        "The silence after which a worker's shards are for others, 1s to 10m.",
    ),
    setting(
        "CHECKPOINT_INTERVAL",
        "DURATION",
        "1s",
        BOTH,
        "A shard's position is written at most this often, 10ms to 5m; at shard end and at a stop always.",
    ),
    setting(
        "MAX_BUFFERED_BYTES",
        "SIZE",
        "64MiB",
        BOTH,
        "Bytes of stream records held in memory over all shards, 1MiB to 64GiB.",
    ),
    setting(
        "SHUTDOWN_GRACE",
        "DURATION",
        "25s",
        ALL,
        "How long a stop may take to finish what is in flight, 1s to 1h.",
    ),
    Setting {
        elsewhere: &[(Command::Api, "0.0.0.0:8080")],
        ..setting(
            "LISTEN",
            "ADDRESS",
            "0.0.0.0:9090",
            ALL,
            "Where /healthz, /readyz, /metrics and, but for `api`, /status are served; `local` takes 127.0.0.1:9090 unless told otherwise.",
        )
    },
    setting(
        "PRIVATE_LISTEN",
        "ADDRESS",
        "0.0.0.0:8081",
        API,
        "Where consumers have their progress kept, behind the token; reachable for them and nobody else.",
    ),
    setting(
        "TLS_CERT_FILE",
        "PATH",
        "",
        API,
        "The certificate of the private listener and its chain, PEM; it speaks TLS 1.3 then and nothing else. Seen within seconds when it is replaced.",
    ),
    setting("TLS_KEY_FILE", "PATH", "", API, "The key of that certificate, PEM."),
    setting(
        "PAGE",
        "BOOLEAN",
        "true",
        API,
        "Whether the private listener serves a page for people at /page, behind a sign-in with the token: true or false.",
    ),
    setting(
        "METRICS_EMF",
        "BOOLEAN",
        "false",
        CONSUMER,
        "Whether a line a minute on stdout carries metrics to CloudWatch (embedded metric format): true or false.",
    ),
    setting(
        "LOG_FORMAT",
        "FORMAT",
        "",
        ALL,
        "json or text; text on a terminal and json elsewhere.",
    ),
    setting(
        "RUST_LOG",
        "FILTER",
        "info",
        ALL,
        "What is logged, as a tracing filter: warn, info, streamgate=debug.",
    ),
];
