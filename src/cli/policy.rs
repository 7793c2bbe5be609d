//! `streamgate policy`: the least that the role of a container has to allow.

use super::exit::Exit;
use clap::{Arg, ArgMatches, Command};
use streamgate::config::{Faults, SETTINGS, api_policy, consumer_policy};
use streamgate::policy::Policy;

type Read = fn(&dyn Fn(&str) -> Option<String>) -> Result<Policy, Faults>;

pub fn command() -> Command {
    Command::new("policy")
        .about(
            "Prints the IAM policy that a container's role needs, for the configuration in force",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("consumer")
                .about("Read the stream; without API_URL also keep progress in the table")
                .args(["STREAM_ARN", "TABLE_NAME", "CONSUMER_NAME", "API_URL"].map(setting))
                .args([log_group(), on_a_line()]),
        )
        .subcommand(
            Command::new("api")
                .about("Keep the progress of its consumers in the table")
                .args(["TABLE_NAME", "CONSUMER_NAME"].map(setting))
                .arg(arg("AWS_REGION", "REGION", "Where the table is"))
                .arg(arg("AWS_ACCOUNT_ID", "ID", "Whose the table is, twelve digits"))
                .args([log_group(), on_a_line()]),
        )
}

fn log_group() -> Arg {
    let help = "Where the container itself writes logs, as with FireLens; not needed with ECS' awslogs driver or Kubernetes";
    arg("LOG_GROUP", "NAME", help)
}

fn on_a_line() -> Arg {
    super::json("The policy on one line; it is JSON in any case")
}

/// A setting of the container's, here with its short meaning only.
fn setting(name: &'static str) -> Arg {
    let setting = SETTINGS.iter().find(|setting| setting.name == name).expect("a setting");
    arg(name, setting.value, setting.help)
}

fn arg(name: &'static str, value: &'static str, help: &str) -> Arg {
    Arg::new(name)
        .long(name.to_ascii_lowercase().replace('_', "-"))
        .value_name(value)
        .help(format!("{help} [env: {name}]"))
}

pub fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let (read, matches): (Read, _) = match matches.subcommand() {
        Some(("consumer", matches)) => (consumer_policy, matches),
        Some(("api", matches)) => (api_policy, matches),
        _ => unreachable!("clap asks for a command it knows"),
    };
    let policy = read(&super::lookup(matches))?;
    match matches.get_flag("json") {
        true => println!("{}", serde_json::json!(policy)),
        false => println!("{}", policy.to_json()),
    }
    Ok(())
}
