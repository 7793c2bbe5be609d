//! Asks the process of this container over its own listener.

use bytes::Bytes;
use clap::{Arg, ArgMatches};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use streamgate::config::{Command, SETTINGS};
use tokio::net::TcpStream;

/// An answer comes from memory; one that takes longer does not come.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Tens of thousands of shards.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `--listen`, with the variable `LISTEN` in its place.
pub fn listen_arg() -> Arg {
    Arg::new("LISTEN")
        .long("listen")
        .value_name("ADDRESS")
        .help("Where the process listens, as its own LISTEN says [env: LISTEN]")
}

/// Where to ask: where `LISTEN` says, else where each of `commands` listens by default.
///
/// # Errors
/// A sentence, when it says something else.
pub fn addresses(matches: &ArgMatches, commands: &[Command]) -> Result<Vec<SocketAddr>, String> {
    let given = super::lookup(matches)("LISTEN").filter(|text| !text.is_empty());
    let setting = SETTINGS.iter().find(|setting| setting.name == "LISTEN").expect("there is one");
    let texts = match given {
        Some(text) => vec![text],
        None => commands.iter().map(|command| setting.default_in(*command).to_owned()).collect(),
    };
    texts.iter().map(|text| address(text)).collect()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("LISTEN is {text:?}; an address and port (0.0.0.0:9090, [::]:9090) is allowed")
    })?;
    // A listener on every address is on this one too.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, address.port()))
}

/// The status and body of what `path` at `address` answers.
///
/// # Errors
/// A fragment, when no whole answer comes in time.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, Bytes), String> {
    let asking = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())
            .expect("a fixed request");
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    let timeout = tokio::time::timeout(TIMEOUT, asking).await;
    timeout.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}
