//! `streamgate dead-letters`: what was given up, with its payload, and its second chance.
//!
//! Runs with the consumer's configuration, in its container or where its variables are set,
//! for letters lie where its progress does and a redrive goes to its handler.

use super::exit::Exit;
use super::{json, redrive, settings};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::aws;
use streamgate::config;
use streamgate::consumer::ConsumerError;
use streamgate::program::progress;
use streamgate::progress::letters::{self, LetterId, Listed};
use streamgate::progress::{Progress, ProgressError};
use streamgate::telemetry::metrics::Metrics;

pub fn command() -> Command {
    let with_settings = |name: &'static str| {
        Command::new(name).args(settings(config::Command::Consumer).map(|arg| arg.hide(true)))
    };
    let id = || {
        Arg::new("id")
            .value_name("ID")
            .help("SHARD:FIRST-LAST:DIGEST, as `list` shows it")
            .num_args(1..)
    };
    let some = || {
        let all = Arg::new("all").long("all").action(ArgAction::SetTrue);
        [id().required_unless_present("all"), all.conflicts_with("id").help("All that there are")]
    };
    Command::new("dead-letters")
        .about("What was given up: shows it, hands it to the handler again, or removes it")
        .after_help("Each takes the settings of `streamgate consumer`, as variables or flags, and runs best in its container.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings("list")
                .about("Lists them, oldest records first, without their payloads")
                .arg(json("An object a line")),
        )
        .subcommand(
            with_settings("show")
                .about("Shows one with its payload, the event as the handler had it")
                .arg(id().required(true).num_args(1))
                .arg(json("One object, with the event in its member `payload`")),
        )
        .subcommand(
            with_settings("redrive")
                .about("Hands them to HANDLER again, in order, and removes what it takes")
                .args(some())
                .arg(json("An object a line")),
        )
        .subcommand(
            with_settings("delete")
                .about("Removes them for good")
                .args(some())
                .arg(json("One object")),
        )
}

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let Some((name, matches)) = matches.subcommand() else {
        unreachable!("clap asks for a command it knows")
    };
    let config = config::consumer(&super::lookup(matches), SystemTime::now())?;
    let metrics = Arc::new(Metrics::new());
    let aws = aws::load(Some(config.settings.stream.region()), metrics.aws_observer()).await;
    let store = progress(&config, &aws, &metrics)?;
    store.describe().await.map_err(failed)?;
    let all = letters::all(&*store).await.map_err(failed)?;
    let as_json = matches.get_flag("json");
    match name {
        "list" => list(&all, as_json),
        "show" => show(&*store, &wanted(matches, all)?, as_json).await,
        "redrive" => redrive::run(&config, store, wanted(matches, all)?, metrics, as_json).await,
        _ => delete(&*store, &wanted(matches, all)?, as_json).await,
    }
}

/// Those that the command line names, in the order in which they stand.
fn wanted(matches: &ArgMatches, all: Vec<Listed>) -> Result<Vec<Listed>, Exit> {
    let Some(ids) = matches.get_many::<String>("id") else { return Ok(all) };
    let mut ids = ids
        .map(|text| {
            let id = text.parse::<LetterId>();
            id.map(|id| id.to_string()).map_err(|error| Exit::Usage(format!("{text:?} {error}")))
        })
        .collect::<Result<BTreeSet<_>, _>>()?;
    let mut found = all;
    found.retain(|listed| ids.remove(&listed.letter.id.to_string()));
    match ids.first() {
        None => Ok(found),
        Some(id) => Err(Exit::Failed(format!(
            "there is no dead letter {id}; it may have been redriven or deleted"
        ))),
    }
}

fn list(all: &[Listed], as_json: bool) -> Result<(), Exit> {
    if as_json {
        let lines = all.iter().map(|listed| serde_json::json!(listed).to_string() + "\n");
        return say(&lines.collect::<String>());
    }
    if all.is_empty() {
        return say("there are no dead letters\n");
    }
    let mut text = String::new();
    for Listed { letter, whole } in all {
        writeln!(
            text,
            "{}\n    {} records given up {} ({}), {} attempts{}{}",
            letter.id,
            letter.records,
            humantime::format_rfc3339_seconds(letter.given_up_at),
            letter.reason.label(),
            letter.attempts,
            letter.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default(),
            if *whole { "" } else { " (not whole)" },
        )
        .expect("a string takes it");
    }
    say(&text)
}

async fn show(store: &dyn Progress, found: &[Listed], as_json: bool) -> Result<(), Exit> {
    let [listed] = found else { unreachable!("one id was asked for and found") };
    let payload = letters::payload(store, &listed.letter).await.map_err(failed)?;
    let payload = String::from_utf8_lossy(&payload).into_owned();
    let payload = RawValue::from_string(payload)
        .map_err(|error| Exit::Failed(format!("its payload is not JSON: {error}")))?;
    if as_json {
        #[derive(serde::Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            listed: &'a Listed,
            payload: &'a RawValue,
        }
        let shown = serde_json::to_string(&Shown { listed, payload: &payload });
        return say(&(shown.expect("plain data") + "\n"));
    }
    list(found, false)?;
    say(&format!("{payload}\n"))
}

async fn delete(store: &dyn Progress, found: &[Listed], as_json: bool) -> Result<(), Exit> {
    for Listed { letter, .. } in found {
        letters::remove(store, letter).await.map_err(failed)?;
    }
    match as_json {
        true => say(&(serde_json::json!({ "deleted": found.len() }).to_string() + "\n")),
        false => say(&format!("{} dead letters deleted\n", found.len())),
    }
}

/// A call to the store that failed; for one that did not answer, where to look.
pub(super) fn failed(error: ProgressError) -> Exit {
    match error {
        error @ ProgressError::Unavailable(_) => Exit::Failed(hint(error)),
        error => ConsumerError::of_store(error).into(),
    }
}

/// The same as a sentence, for who goes on.
pub(super) fn hint(error: ProgressError) -> String {
    match error {
        ProgressError::Unavailable(why) => format!(
            "{why}; does the api (API_URL) or the table run there, and does the network let this container reach it?"
        ),
        error => ConsumerError::of_store(error).to_string(),
    }
}

/// Writes to stdout; a reader that has gone, `| head`, is no fault.
pub(super) fn say(text: &str) -> Result<(), Exit> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Exit::Failed(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}
