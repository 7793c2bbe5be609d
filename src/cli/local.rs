//! `streamgate local`: a DynamoDB, the api and the consumer in one process on 127.0.0.1.

use super::consumer::handler;
use super::exit::Exit;
use axum::Router;
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};
use streamgate::config::{self, ConsumerConfig};
use streamgate::local::{Local, LocalIndex, LocalSettings, REGION, stream_arn};
use streamgate::program::{PairListeners, drain_on_signal, listen, new_token, pair, start_logging};
use streamgate::simulator::reshard;
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
        super::json("Where everything is as one object, on stderr"),
        port("port", "8000", "Where the table is served on 127.0.0.1; 0 for any free port"),
        port(
            "stream-port",
            "8001",
            "Where the stream is served, with the simulator's admin interface",
        ),
        port("api-port", "8080", "Where the api serves health and metrics"),
        port("private-port", "8081", "Where the api keeps the consumer's progress"),
        Arg::new("dynamodb-only")
            .long("dynamodb-only")
            .action(ArgAction::SetTrue)
            .help("Serve the table and its stream, for an api and a consumer that run elsewhere"),
        Arg::new("bind")
            .long("bind")
            .value_name("ADDRESS")
            .value_parser(value_parser!(IpAddr))
            .requires("dynamodb-only")
            .help("The address to serve them on; in a container 0.0.0.0 [default: 127.0.0.1]"),
        Arg::new("stream-label")
            .long("stream-label")
            .value_name("TIME")
            .value_parser(stream_label())
            .help("The end of the stream's ARN, 2026-01-02T03:04:05.678 [default: the time of the start]"),
        Arg::new("index")
            .long("index")
            .value_name("NAME=PARTITION,SORT")
            .action(ArgAction::Append)
            .value_parser(ValueParser::new(index))
            .help("A global secondary index of the table, with the names of its keys, both strings; may be given several times"),
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
    let label = matches.get_one::<String>("stream-label").cloned();
    let label =
        label.unwrap_or_else(|| humantime::format_rfc3339_millis(now).to_string().replace('Z', ""));
    let arn = stream_arn(&table, &label);
    let lookup = |name: &str| match name {
        "STREAM_ARN" => Some(arn.clone()),
        "TABLE_NAME" => Some(table.clone()),
        "LISTEN" => given(name).or_else(|| Some("127.0.0.1:9090".into())),
        // Nothing of the AWS environment counts here.
        "AWS_REGION" => None,
        // Its api and the token for it are its own.
        "API_URL" | "API_TOKEN" | "API_TOKEN_FILE" => None,
        // To the consumer's settings, whose api is joined on below, it is the table.
        "ON_FAILURE" => given(name).map(|text| if text == "api" { "table".into() } else { text }),
        // The embedded stream costs nothing: look often, so that a record shows at once.
        "POLL_INTERVAL_MIN" => given(name).or_else(|| Some("50ms".into())),
        "POLL_INTERVAL_MAX" => given(name).or_else(|| Some("200ms".into())),
        _ => given(name),
    };
    let config = config::consumer(&lookup, now)?;
    start_logging(config.log_format, &config.log_filter)?;
    let drain = drain_on_signal()?;
    let stop = CancellationToken::new();
    let _stop_all = stop.clone().drop_guard();
    let (tables, streams) = (bind(matches, "port").await?, bind(matches, "stream-port").await?);
    let settings = LocalSettings {
        table: config.table.clone(),
        partition_key: config.partition_key.clone(),
        sort_key: config.sort_key.clone(),
        indexes: matches.get_many("index").into_iter().flatten().cloned().collect(),
    };
    let local =
        Local::start(settings, config.settings.stream.clone(), tables, streams, stop.clone())
            .await
            .map_err(|error| Exit::Failed(error.to_string()))?;
    if let Some(interval) = matches.get_one::<Duration>("split-every").copied() {
        let simulator = local.simulator.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            reshard(&simulator, interval, 0).await;
        }));
    }
    let result = if matches.get_flag("dynamodb-only") {
        greet(matches, &config, &local, None);
        drain.cancelled().await;
        Ok(())
    } else {
        both(matches, config, &local, drain).await
    };
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), local.stopped()).await;
    result
}

/// The addresses are said before anything runs, and after all ports could be opened.
async fn both(
    matches: &ArgMatches,
    config: ConsumerConfig,
    local: &Local,
    drain: CancellationToken,
) -> Result<(), Exit> {
    let status = listen("LISTEN", config.listen).await?;
    let (public, private) =
        (bind(matches, "api-port").await?, bind(matches, "private-port").await?);
    let (token, secret) = new_token()?;
    let (of_status, of_public, of_private) = (of(&status)?, of(&public)?, of(&private)?);
    let addresses = Addresses { status: of_status, public: of_public, private: of_private, secret };
    let handler = handler(&config)?;
    greet(matches, &config, local, Some(addresses));
    let listeners = PairListeners { status, public, private, token: Some(token) };
    pair(config, handler, |_| Router::new(), local, listeners, drain).await
}

fn index(text: &str) -> Result<LocalIndex, &'static str> {
    let named = text.split_once('=');
    let index = named.and_then(|(name, keys)| Some((name, keys.split_once(',')?)));
    match index {
        Some((name, (partition, sort))) if ![name, partition, sort].contains(&"") => {
            let [name, partition_key, sort_key] = [name, partition, sort].map(str::to_owned);
            Ok(LocalIndex { name, partition_key, sort_key })
        }
        _ => Err("an index is written as by-city=city,PK"),
    }
}

fn stream_label() -> ValueParser {
    ValueParser::new(|text: &str| {
        // As the service writes it: without the zone, and to the millisecond.
        match humantime::parse_rfc3339(&format!("{text}Z")) {
            Ok(_) if text.len() == "2026-01-02T03:04:05.678".len() => Ok(text.to_owned()),
            _ => Err("a time like 2026-01-02T03:04:05.678 is allowed"),
        }
    })
}

fn of(listener: &TcpListener) -> Result<SocketAddr, Exit> {
    listener.local_addr().map_err(|error| Exit::Failed(error.to_string()))
}

async fn bind(matches: &ArgMatches, flag: &str) -> Result<TcpListener, Exit> {
    let ip = matches.get_one::<IpAddr>("bind").copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let port = *matches.get_one::<u16>(flag).expect("has a default");
    TcpListener::bind((ip, port)).await.map_err(|error| {
        Exit::Failed(format!("port {port} cannot be opened: {error}; choose another with --{flag} (0 takes any free one)"))
    })
}

/// Where the pair is.
struct Addresses {
    status: SocketAddr,
    public: SocketAddr,
    private: SocketAddr,
    /// The token of this run, for the page: everything here is on this machine and ends with it.
    secret: String,
}

/// On stderr: stdout is for the handler `log`.
fn greet(matches: &ArgMatches, config: &ConsumerConfig, local: &Local, pair: Option<Addresses>) {
    if !matches.get_flag("json") {
        eprint!("{}", greeting(config, local, pair));
        return;
    }
    let url = |address: SocketAddr| format!("http://{address}");
    let mut all = serde_json::json!({
        "table": config.table,
        "stream": config.settings.stream.as_str(),
        "tables": url(local.table_address),
        "streams": url(local.stream_address),
    });
    if let Some(Addresses { status, public, private, secret }) = pair {
        all["page"] = format!("{}/page/", url(private)).into();
        all["token"] = secret.into();
        all["consumer"] = url(status).into();
        all["api"] = url(public).into();
        all["private"] = url(private).into();
    }
    eprintln!("{all}");
}

fn greeting(config: &ConsumerConfig, local: &Local, pair: Option<Addresses>) -> String {
    let (table, pk, sk) = (&config.table, &config.partition_key, &config.sort_key);
    let (tables, streams) = (local.table_address, local.stream_address);
    let pair = pair.map_or_else(String::new, |Addresses { status, public, private, secret }| {
        format!(
            "Consumer at http://{status}/status, api at http://{public}/metrics\nPage at http://{private}/page/, sign in with {secret}\n"
        )
    });
    let item = format!(r#"{{"{pk}":{{"S":"hello"}},"{sk}":{{"S":"world"}},"n":{{"N":"1"}}}}"#);
    format!(
        "\
Table {table} at http://{tables}, its stream at http://{streams}
  {arn}
{pair}Write an item, and its record appears here (run it again with another n for a MODIFY):
  curl -s http://{tables} -H 'X-Amz-Target: DynamoDB_20120810.PutItem' -H 'Content-Type: application/x-amz-json-1.0' -d '{{\"TableName\":\"{table}\",\"Item\":{item}}}'
or with the AWS CLI:
  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws dynamodb put-item --region {REGION} --endpoint-url http://{tables} --table-name {table} --item '{item}'
Ctrl-C stops.
",
        arn = config.settings.stream
    )
}
