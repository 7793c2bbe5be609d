//! Commands and flags. Every setting is a variable and a flag; the flag counts.

mod api;
mod ask;
mod check;
mod consumer;
mod dead_letters;
mod exit;
mod fleet;
mod health;
#[cfg(feature = "local")]
mod local;
mod operate;
mod policy;
mod redrive;
mod simulate;
mod status;
mod watch;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::process::ExitCode;
use streamgate::config::{self, SETTINGS};
use streamgate::program;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(said) => return exit::said(&said),
    };
    program::run(async {
        match matches.subcommand() {
            Some(("consumer", matches)) => consumer::run(matches).await,
            Some(("api", matches)) => api::run(matches).await,
            #[cfg(feature = "local")]
            Some(("local", matches)) => local::run(matches).await,
            Some(("simulate", matches)) => simulate::run(matches).await,
            Some(("check", matches)) => check::run(matches).await,
            Some(("policy", matches)) => policy::run(matches),
            Some(("dead-letters", matches)) => dead_letters::run(matches).await,
            Some((name @ ("pause" | "resume" | "seek" | "skip"), matches)) => {
                operate::run(name, matches).await
            }
            Some(("health", matches)) => health::run(matches).await,
            Some(("status", matches)) => status::run(matches).await,
            _ => unreachable!("clap asks for a command it knows"),
        }
    })
}

fn command() -> Command {
    let command = Command::new("streamgate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs a DynamoDB stream's handler in your own containers")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("consumer")
                .about("Polls the stream, hands batches to the handler, keeps the progress")
                .args(settings(config::Command::Consumer)),
        )
        .subcommand(
            Command::new("api")
                .about("Keeps the progress of consumers in the table, for they need no right to it then")
                .args(settings(config::Command::Api)),
        )
        .subcommand(
            Command::new("simulate")
                .about("A simulated DynamoDB stream as a server, to try a handler or a consumer against")
                .args(simulate::args()),
        )
        .subcommand(check::command())
        .subcommand(policy::command())
        .subcommand(dead_letters::command())
        .subcommands(operate::commands())
        .subcommand(
            Command::new("health")
                .about("Exits with 0 when the consumer or api in this container is live")
                .args(health::args()),
        )
        .subcommand(
            Command::new("status")
                .about("Shows what the consumer in this container is doing, or all workers of its name: shards, owners, positions, age")
                .args(status::args()),
        );
    #[cfg(feature = "local")]
    let command = command.subcommand(
        Command::new("local")
            .about(
                "An embedded DynamoDB with a stream, the api and the consumer, in one process on 127.0.0.1",
            )
            .args(settings(config::Command::Local))
            .args(local::args()),
    );
    command
}

/// The flags of a command's settings.
fn settings(command: config::Command) -> impl Iterator<Item = Arg> {
    SETTINGS.iter().filter(move |setting| setting.commands.contains(&command)).map(move |setting| {
        let default = match setting.default_in(command) {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        Arg::new(setting.name)
            .long(setting.flag())
            .value_name(setting.value)
            .value_parser(value_parser!(String))
            .help(format!("{} [env: {}]{default}", setting.help, setting.name))
    })
}

/// `--json`: what else is text comes as JSON, an object a line; `help` says which.
fn json(help: &'static str) -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(help)
}

/// A setting's text: the flag, else the variable.
fn lookup(matches: &ArgMatches) -> impl Fn(&str) -> Option<String> + '_ {
    |name| {
        let flag = matches.try_get_one::<String>(name).ok().flatten().cloned();
        flag.or_else(|| std::env::var(name).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_speaks_json_but_those_that_speak_through_the_log() {
        let mut commands = vec![command()];
        let mut without = Vec::new();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let is_leaf = command.get_subcommands().next().is_none();
            if is_leaf && !command.get_arguments().any(|arg| arg.get_long() == Some("json")) {
                without.push(command.get_name().to_owned());
            }
        }
        without.sort();
        // LOG_FORMAT=json
        assert_eq!(without, ["api", "consumer"]);
    }
}
