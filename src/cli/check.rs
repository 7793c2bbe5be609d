//! `streamgate check`: a line for each thing that is needed, or must not be.

use super::exit::Exit;
use super::{json, settings};
use clap::{ArgMatches, Command};
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::check::{self, Finding, Mark};
use streamgate::program::load_aws;
use streamgate::{aws, config};

pub fn command() -> Command {
    Command::new("check")
        .about("Looks whether a container has all that it needs and nothing more, with its own credentials")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("consumer")
                .about("Stream, progress, handler and role of the consumer")
                .args(settings(config::Command::Consumer))
                .arg(json("An object for each finding")),
        )
        .subcommand(
            Command::new("api")
                .about("Table and role of the api")
                .args(settings(config::Command::Api))
                .arg(json("An object for each finding")),
        )
}

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let as_json = matches.subcommand().is_some_and(|(_, matches)| matches.get_flag("json"));
    let uncounted: aws::AttemptObserver = Arc::new(|_, _| {});
    let findings = match matches.subcommand() {
        Some(("consumer", matches)) => {
            let config = config::consumer(&super::lookup(matches), SystemTime::now())?;
            let aws = aws::load(Some(config.settings.stream.region()), uncounted).await;
            check::consumer(&config, &aws).await
        }
        Some(("api", matches)) => {
            let config = config::api(&super::lookup(matches))?;
            let aws = load_aws(uncounted).await?;
            check::api(&config, &aws).await
        }
        _ => unreachable!("clap asks for a command it knows"),
    };
    let complete = Finding { mark: Mark::Good, what: "the configuration is complete".to_owned() };
    for finding in std::iter::once(&complete).chain(&findings) {
        match as_json {
            true => println!("{}", serde_json::json!(finding)),
            false => println!("{finding}"),
        }
    }
    let count = |mark| findings.iter().filter(|finding| finding.mark == mark).count();
    match (count(Mark::Bad), count(Mark::Open)) {
        (0, 0) => Ok(()),
        (0, open) => Err(Exit::Failed(format!("{open} things could not be found out"))),
        (bad, _) => Err(Exit::Failed(format!("{bad} faults"))),
    }
}
