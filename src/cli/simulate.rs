//! `streamgate simulate`: the stream simulator as a server.

use super::exit::Exit;
use clap::{Arg, ArgAction, ArgMatches, builder::ValueParser, value_parser};
use std::net::SocketAddr;
use std::time::Duration;
use streamgate::arn::StreamArn;
use streamgate::program::drain_on_signal;
use streamgate::simulator::{LoadOptions, SimulateOptions, simulate};
use streamgate::telemetry::logging::{self, LogFormat};
use tokio::net::TcpListener;

const ARN: &str =
    "arn:aws:dynamodb:us-east-1:000000000000:table/people/stream/2026-01-01T00:00:00.000";

/// The flags of `simulate`.
pub fn args() -> Vec<Arg> {
    vec![
        super::json("Where it is as one object, on stderr"),
        arg(
            "listen",
            "ADDRESS",
            value_parser!(SocketAddr),
            "Where to serve the stream and the admin interface",
        )
        .default_value("127.0.0.1:8001"),
        arg(
            "stream-arn",
            "ARN",
            ValueParser::new(|text: &str| text.parse::<StreamArn>().map_err(|e| e.to_string())),
            "The stream to be",
        )
        .default_value(ARN),
        arg("shards", "COUNT", value_parser!(usize), "Shards open at the start, 1 to 10000")
            .default_value("1"),
        arg(
            "split-every",
            "DURATION",
            duration(),
            "Split a random shard this often, 100ms or more",
        ),
        arg("iterator-life", "DURATION", duration(), "How long an iterator can be used")
            .default_value("15m"),
        arg(
            "seed",
            "NUMBER",
            value_parser!(u64),
            "Makes ids, the choice of shards and faults repeat",
        )
        .default_value("0"),
        arg(
            "load-pages",
            "COUNT",
            value_parser!(usize),
            "Load mode: pages made beforehand in each shard",
        ),
        arg(
            "load-records",
            "COUNT",
            value_parser!(usize),
            "Load mode: records in each page, 1 to 1000",
        )
        .default_value("700"),
        arg(
            "load-bytes",
            "BYTES",
            value_parser!(usize),
            "Load mode: about the size of a record on the wire",
        )
        .default_value("1400"),
        Arg::new("load-open")
            .long("load-open")
            .action(ArgAction::SetTrue)
            .help("Load mode: leave the shards open behind the last page"),
    ]
}

fn arg(
    id: &'static str,
    value: &'static str,
    parser: impl Into<ValueParser>,
    help: &'static str,
) -> Arg {
    Arg::new(id).long(id).value_name(value).value_parser(parser.into()).help(help)
}

/// A duration with a unit, for flags.
pub(super) fn duration() -> ValueParser {
    ValueParser::new(|text: &str| {
        humantime::parse_duration(text).map_err(|error| error.to_string())
    })
}

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    logging::start(LogFormat::fitting(), "info".parse().expect("a filter"));
    let get = |id: &str| *matches.get_one::<usize>(id).expect("has a default");
    let load = matches.get_one::<usize>("load-pages").map(|&pages| LoadOptions {
        pages,
        records_per_page: get("load-records"),
        record_bytes: get("load-bytes"),
        open: matches.get_flag("load-open"),
        ..LoadOptions::default()
    });
    let stream: &StreamArn = matches.get_one("stream-arn").expect("has a default");
    let options = SimulateOptions {
        shards: get("shards"),
        split_every: matches.get_one::<Duration>("split-every").copied(),
        seed: *matches.get_one("seed").expect("has a default"),
        iterator_life: *matches.get_one("iterator-life").expect("has a default"),
        load,
        ..SimulateOptions::new(stream.clone())
    };
    let listen: SocketAddr = *matches.get_one("listen").expect("has a default");
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Exit::Failed(format!("{listen} cannot be opened: {error}; choose another with --listen (port 0 takes any free one)"))
    })?;
    let address = listener.local_addr().map_err(|error| Exit::Failed(error.to_string()))?;
    let stop = drain_on_signal()?;
    let admin = format!("http://{address}/_simulator/state");
    match matches.get_flag("json") {
        true => eprintln!(
            "{}",
            serde_json::json!({"stream": stream.as_str(), "url": format!("http://{address}"), "admin": admin})
        ),
        false => eprintln!("Stream {stream} at http://{address}, its admin interface at {admin}"),
    }
    simulate(options, listener, stop).await.map_err(|error| Exit::Failed(error.to_string()))
}
