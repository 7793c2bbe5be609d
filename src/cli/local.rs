//! `streamgate local`: everything in one process on 127.0.0.1.

use super::consumer::{handler, listen, serve_while, start_logging};
use super::exit::Exit;
use super::signals::drain_on_signal;
use clap::{Arg, ArgMatches, value_parser};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::config;
use streamgate::consumer::Consumer;
use streamgate::local::{Local, LocalSettings, REGION, stream_arn};
use streamgate::progress::TableProgress;
use streamgate::simulator::reshard;
use streamgate::source::AwsSource;
use streamgate::telemetry::http::View;
use streamgate::telemetry::metrics::Metrics;
use streamgate::telemetry::status::Board;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The flags that only `local` has.
pub fn args() -> Vec<Arg> {
    let port = |id: &'static str, default: &'static str, help: &'static str| {
        Arg::new(id)
            .long(id)
            .value_name("PORT")
            .value_parser(value_parser!(u16))
            .default_value(default)
            .help(help)
    };
    vec![
        port("port", "8000", "Where the table is served on 127.0.0.1; 0 for any free port"),
        port(
            "stream-port",
            "8001",
            "Where the stream is served, with the simulator's admin interface",
        ),
        Arg::new("split-every")
            .long("split-every")
            .value_name("DURATION")
            .value_parser(super::simulate::duration())
            .help("Split a shard this often, to watch resharding (10s, 1m)"),
    ]
}

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let now = SystemTime::now();
    let given = super::lookup(matches);
    let table = given("TABLE_NAME").filter(|name| !name.is_empty()).unwrap_or("people".into());
    let label = humantime::format_rfc3339_millis(now).to_string().replace('Z', "");
    let arn = stream_arn(&table, &label);
    let lookup = |name: &str| match name {
        "STREAM_ARN" => Some(arn.clone()),
        "TABLE_NAME" => Some(table.clone()),
        "LISTEN" => given(name).or_else(|| Some("127.0.0.1:9090".into())),
        // Nothing of the AWS environment counts here.
        "AWS_REGION" => None,
        // Its table is its own.
        "API_URL" | "API_TOKEN" | "API_TOKEN_FILE" => None,
        // The embedded stream costs nothing: look often, so that a record shows at once.
        "POLL_INTERVAL_MIN" => given(name).or_else(|| Some("50ms".into())),
        "POLL_INTERVAL_MAX" => given(name).or_else(|| Some("200ms".into())),
        _ => given(name),
    };
    let config = config::consumer(&lookup, now)?;
    start_logging(config.log_format, &config.log_filter)?;
    let drain = drain_on_signal().map_err(|error| Exit::Failed(error.to_string()))?;
    let stop = CancellationToken::new();
    let _stop_all = stop.clone().drop_guard();
    let (tables, streams) = (bind(matches, "port").await?, bind(matches, "stream-port").await?);
    let status = listen("LISTEN", config.listen).await?;
    let settings = LocalSettings {
        table: config.table.clone(),
        partition_key: config.partition_key.clone(),
        sort_key: config.sort_key.clone(),
    };
    let local =
        Local::start(settings, config.settings.stream.clone(), tables, streams, stop.clone())
            .await
            .map_err(|error| Exit::Failed(error.to_string()))?;

    let metrics = Arc::new(Metrics::new());
    let board = Arc::new(Board::new());
    let source = AwsSource::new(
        &local.stream_config(metrics.aws_observer()).await,
        config.settings.stream.clone(),
    );
    let progress = TableProgress::new(
        &local.table_config(metrics.aws_observer()).await,
        config.table_settings(),
    );
    let handler = handler(&config)?;
    eprint!("{}", greeting(&config, &local, &status)?);
    if let Some(interval) = matches.get_one::<Duration>("split-every").copied() {
        let simulator = local.simulator.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            reshard(&simulator, interval, 0).await;
        }));
    }
    let consumer = Consumer::new(
        config.settings,
        Arc::new(source),
        Arc::new(progress),
        handler,
        Arc::clone(&metrics),
        Arc::clone(&board),
    );
    let result = serve_while(status, View { metrics, board }, consumer.run(drain)).await?;
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), local.stopped()).await;
    result.map_err(Exit::from)
}

async fn bind(matches: &ArgMatches, flag: &str) -> Result<TcpListener, Exit> {
    let port = *matches.get_one::<u16>(flag).expect("has a default");
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        Exit::Failed(format!("port {port} cannot be opened: {error}; choose another with --{flag} (0 takes any free one)"))
    })
}

fn greeting(
    config: &config::ConsumerConfig,
    local: &Local,
    status: &TcpListener,
) -> Result<String, Exit> {
    let status = status.local_addr().map_err(|error| Exit::Failed(error.to_string()))?;
    let (table, pk, sk) = (&config.table, &config.partition_key, &config.sort_key);
    let (tables, streams) = (local.table_address, local.stream_address);
    let item = format!(r#"{{"{pk}":{{"S":"hello"}},"{sk}":{{"S":"world"}},"n":{{"N":"1"}}}}"#);
    Ok(format!(
        "\
Table {table} at http://{tables}, its stream at http://{streams}, status at http://{status}/status
  {arn}
Write an item, and its record appears here (run it again with another n for a MODIFY):
  curl -s http://{tables} -H 'X-Amz-Target: DynamoDB_20120810.PutItem' -H 'Content-Type: application/x-amz-json-1.0' -d '{{\"TableName\":\"{table}\",\"Item\":{item}}}'
or with the AWS CLI:
  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws dynamodb put-item --region {REGION} --endpoint-url http://{tables} --table-name {table} --item '{item}'
Ctrl-C stops.
",
        arn = config.settings.stream
    ))
}
