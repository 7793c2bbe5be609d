//! `streamgate health`: whether the process in this container is live.

use super::ask;
use super::exit::Exit;
use clap::ArgMatches;
use streamgate::config::Command;

/// Quiet when it is. Where `LISTEN` is not set, either container's default will do.
pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let addresses = ask::addresses(matches, &[Command::Consumer, Command::Api]);
    let mut tried = Vec::new();
    for address in addresses.map_err(Exit::Usage)? {
        match ask::get(address, "/healthz").await {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => tried.push(format!("{address} answers with status {status}")),
            Err(why) => tried.push(format!("{address}: {why}")),
        }
    }
    Err(Exit::Failed(format!(
        "nothing live answers here ({}); set LISTEN as it is set for the consumer or api",
        tried.join("; ")
    )))
}
