//! `streamgate status`: what the consumer in this container is doing.
//!
//! Owns that one look, and the flags of those that look further: `fleet` and `watch`.

use super::exit::Exit;
use super::{ask, fleet, json, settings, simulate, watch};
use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;
use streamgate::config::Command;

/// The flags of `status`.
pub fn args() -> impl Iterator<Item = Arg> {
    let json = json("One object: as the consumer serves it at /status, or of all workers");
    let all = Arg::new("all")
        .long("all")
        .action(ArgAction::SetTrue)
        .help("All workers of the consumer's name, as its progress has them: takes the settings of `streamgate consumer`");
    let watch = Arg::new("watch")
        .long("watch")
        .action(ArgAction::SetTrue)
        .help("All workers on the terminal, looked at again and again, with lineage, dead letters and orders; with --json a line for each look. Takes the settings of `streamgate consumer`; without STREAM_ARN it shows the consumer in this container alone");
    let interval = Arg::new("interval")
        .long("interval")
        .value_name("DURATION")
        .value_parser(simulate::duration())
        .default_value("2s")
        .requires("watch")
        .help("With --watch: the wait between two looks");
    let settings = settings(Command::Consumer).map(|arg| arg.hide(true));
    let settings = settings.filter(|arg| arg.get_id() != "LISTEN");
    [ask::listen_arg(), json, all, watch, interval].into_iter().chain(settings)
}

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    if matches.get_flag("watch") {
        return watch::run(matches).await;
    }
    if matches.get_flag("all") {
        return fleet::run(matches).await;
    }
    let addresses = ask::addresses(matches, &[Command::Consumer]).map_err(Exit::Usage)?;
    let (read, body) = ask_for_it(addresses[0]).await.map_err(Exit::Failed)?;
    if matches.get_flag("json") {
        println!("{}", String::from_utf8_lossy(&body));
    } else {
        print!("{}", table(&read));
    }
    Ok(())
}

/// What the consumer at `address` answers, read and as it came.
///
/// # Errors
/// A sentence, where there is none.
pub(super) async fn ask_for_it(address: SocketAddr) -> Result<(Status, Bytes), String> {
    let asked = ask::get(address, "/status").await;
    let (status, body) = asked.map_err(|why| {
        format!("no consumer answers at {address}: {why}; run this where one runs, with its LISTEN")
    })?;
    match (status, serde_json::from_slice(&body)) {
        (200, Ok(read)) => Ok((read, body)),
        _ => Err(format!(
            "{address} does not answer as a consumer does (status {status}); the api keeps progress and has none of its own"
        )),
    }
}

/// What `/status` answers, as far as it is shown.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Status {
    pub role: String,
    troubles: BTreeMap<String, String>,
    pub shards: BTreeMap<String, Shard>,
}

/// One of its shards.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Shard {
    pub parent: Option<String>,
    pub state: String,
    pub owner: Option<String>,
    position: String,
    pub iterator_age_seconds: f64,
    failed_attempts: Option<u32>,
    last_error: Option<String>,
    trouble: Option<String>,
    pub gaps: u32,
}

impl Shard {
    pub fn remarks(&self) -> String {
        let error = self.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let attempts = self
            .failed_attempts
            .map(|count| format!("batch failed {count} times, trying again{error}"));
        let gaps = (self.gaps > 0).then(|| format!("gaps: {}", self.gaps));
        let all = [attempts, self.trouble.clone(), gaps];
        all.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

fn table(status: &Status) -> String {
    let mut text = format!("{}\n", status.role);
    for (part, why) in &status.troubles {
        writeln!(text, "not ready, {part}: {why}").expect("a string takes it");
    }
    let heads = ["SHARD", "STATE", "OWNER", "POSITION", "AGE", ""];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for (id, shard) in &status.shards {
        let age = Duration::from_secs(shard.iterator_age_seconds.max(0.0) as u64);
        rows.push(vec![
            id.clone(),
            shard.state.clone(),
            shard.owner.clone().unwrap_or_else(|| "-".to_owned()),
            shard.position.clone(),
            humantime::format_duration(age).to_string(),
            shard.remarks(),
        ]);
    }
    fleet::write_rows(&mut text, &rows);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_shard_says_who_has_it_and_what_is_wrong() {
        let status = serde_json::json!({
            "role": "active", "ready": false, "troubles": {"progress": "the api: no answer"},
            "shards": {
                "shardId-1": {"state": "reading", "owner": "w1", "position": "TRIM_HORIZON",
                    "iterator_age_seconds": 3723.9, "failed_attempts": 4, "last_error": "status 500",
                    "gaps": 0},
                "shardId-22": {"state": "waiting", "position": "AFTER", "iterator_age_seconds": 0.0,
                    "trouble": "GetRecords: no", "gaps": 2},
            }
        });
        let lines = table(&serde_json::from_value(status).unwrap());
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(
            lines,
            [
                "active",
                "not ready, progress: the api: no answer",
                "SHARD       STATE    OWNER  POSITION      AGE",
                "shardId-1   reading  w1     TRIM_HORIZON  1h 2m 3s  batch failed 4 times, trying again: status 500",
                "shardId-22  waiting  -      AFTER         0s        GetRecords: no; gaps: 2",
            ]
        );
    }
}
