//! `streamgate health`: whether the process in this container is live.
//!
//! Owns where it is asked. Containers that share a network, as those of one pod do, see
//! each other's listeners: there it has to be told which one is meant.

use super::ask;
use super::exit::Exit;
use clap::{Arg, ArgMatches};
use streamgate::config::Command;

/// The arguments of `health`.
pub fn args() -> [Arg; 3] {
    let container = Arg::new("container")
        .value_name("CONTAINER")
        .value_parser(["consumer", "api"])
        .help("Whose listener to ask, where both share a network and LISTEN is not set");
    [container, ask::listen_arg(), super::json("One object with the address that answers")]
}

/// Quiet when it is. Where nothing says which container this is, either will do.
pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let container = matches.get_one::<String>("container").map(String::as_str);
    let commands: &[Command] = match container {
        Some("consumer") => &[Command::Consumer],
        Some("api") => &[Command::Api],
        _ => &[Command::Consumer, Command::Api],
    };
    let addresses = ask::addresses(matches, commands);
    let mut tried = Vec::new();
    for address in addresses.map_err(Exit::Usage)? {
        match ask::get(address, "/healthz").await {
            Ok((200, _)) => {
                if matches.get_flag("json") {
                    println!("{}", serde_json::json!({"live": true, "address": address}));
                }
                return Ok(());
            }
            Ok((status, _)) => tried.push(format!("{address} answers with status {status}")),
            Err(why) => tried.push(format!("{address}: {why}")),
        }
    }
    Err(Exit::Failed(format!(
        "nothing live answers here ({}); set LISTEN as it is set for the consumer or api",
        tried.join("; ")
    )))
}
