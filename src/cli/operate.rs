//! `streamgate pause`, `resume`, `seek` and `skip`: what operators ask of a consumer.
//!
//! Runs with the consumer's configuration, as `dead-letters` does: what is asked goes where
//! progress is kept, and the workers that own the shards carry it out. Owns the words; what
//! can be asked is [`asking`]'s.

use super::dead_letters::{failed, say};
use super::exit::Exit;
use super::settings;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::aws;
use streamgate::config;
use streamgate::program::progress;
use streamgate::progress::ProgressError;
use streamgate::progress::asking::{self, MAX_BY_BYTES, is_name};
use streamgate::progress::orders::{Order, SeekTo};
use streamgate::source::ShardId;
use streamgate::telemetry::metrics::Metrics;

/// The four commands.
pub fn commands() -> [Command; 4] {
    let shard = || {
        Arg::new("shard")
            .long("shard")
            .value_name("ID")
            .help("This shard, as `status --all` shows it")
    };
    let by = || {
        Arg::new("by")
            .long("by")
            .value_name("NAME")
            .help("Who asks, to be kept with it [default: $USER at $HOSTNAME]")
    };
    let command = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .after_help("Takes the settings of `streamgate consumer`, as variables or flags, and runs best in its container.")
            .args(settings(config::Command::Consumer).map(|arg| arg.hide(true)))
            .arg(by())
            .arg(super::json("An object for each order"))
    };
    let to = Arg::new("to")
        .long("to")
        .value_name("WHERE")
        .required(true)
        .help("trim-horizon, latest, or a time as 2026-01-02T03:04:05Z");
    let records = Arg::new("records")
        .long("records")
        .value_name("NUMBER")
        .default_value("1")
        .value_parser(value_parser!(u64).range(1..=1_000_000))
        .help("How many that the handler would get next");
    let all = Arg::new("all")
        .long("all")
        .action(ArgAction::SetTrue)
        .conflicts_with("shard")
        .help("Every shard that is being read");
    [
        command("pause", "Stops the reading of a shard, or of the stream; leases are kept")
            .arg(shard()),
        command("resume", "Ends the pause of a shard, or all pauses").arg(shard()),
        command("seek", "Goes on elsewhere in a shard, or begins anew with the whole stream")
            .arg(shard())
            .arg(to),
        command(
            "skip",
            "Leaves out the records that come next in a shard: the handler does not get them",
        )
        .arg(shard().required_unless_present("all"))
        .arg(all)
        .arg(records),
    ]
}

pub async fn run(name: &str, matches: &ArgMatches) -> Result<(), Exit> {
    let shard = matches.get_one::<String>("shard").map(|id| ShardId::from(id.as_str()));
    let by = by(matches)?;
    let to = match name {
        "seek" => Some(seek_to(matches.get_one::<String>("to").expect("clap asks for it"))?),
        _ => None,
    };
    let as_json = matches.get_flag("json");
    let config = config::consumer(&super::lookup(matches), SystemTime::now())?;
    let metrics = Arc::new(Metrics::new());
    let aws = aws::load(Some(config.settings.stream.region()), metrics.aws_observer()).await;
    let store = progress(&config, &aws, &metrics)?;
    store.describe().await.map_err(failed)?;
    let orders = match (name, shard) {
        ("pause", shard) => vec![Order::Pause(shard)],
        ("resume", shard) => vec![Order::Resume(shard)],
        ("seek", None) => vec![Order::SeekStream(to.expect("read above"))],
        ("seek", Some(shard)) => vec![Order::SeekShard(shard, to.expect("read above"))],
        (_, shard) => {
            let records = *matches.get_one::<u64>("records").expect("it has a default");
            let shards = match shard {
                Some(shard) => vec![shard],
                None => asking::being_read(&*store).await.map_err(failed)?,
            };
            shards.into_iter().map(|shard| Order::Skip(shard, records)).collect()
        }
    };
    for order in orders {
        let (sentence, words) = (format!("asked to {order}\n"), order.to_string());
        let line = json!({"asked": words, "order": order, "by": by}).to_string() + "\n";
        let asked = asking::ask(&*store, order, &by, asking::nonce()).await;
        if let Err(ProgressError::Unavailable(why)) = asked {
            return Err(Exit::Failed(format!(
                "{why}; it may stand nevertheless: look at `streamgate status --all` before asking again"
            )));
        }
        asked.map_err(failed)?;
        say(if as_json { &line } else { &sentence })?;
    }
    if as_json {
        return Ok(());
    }
    say(
        "the owners of the shards carry it out with their next look; `streamgate status --all` shows it\n",
    )
}

fn by(matches: &ArgMatches) -> Result<String, Exit> {
    let by = matches.get_one::<String>("by").cloned().unwrap_or_else(|| {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let user = variable("USER").unwrap_or_else(|| "somebody".to_owned());
        variable("HOSTNAME").map_or(user.clone(), |host| format!("{user}@{host}"))
    });
    if is_name(&by) {
        return Ok(by);
    }
    Err(Exit::Usage(format!("--by is 1 to {MAX_BY_BYTES} bytes of text that is seen")))
}

fn seek_to(text: &str) -> Result<SeekTo, Exit> {
    match text {
        "trim-horizon" => Ok(SeekTo::TrimHorizon),
        "latest" => Ok(SeekTo::Latest),
        time => humantime::parse_rfc3339(time).map(SeekTo::AtTimestamp).map_err(|_| {
            Exit::Usage(format!(
                "--to is {time:?}; trim-horizon, latest or a time as 2026-01-02T03:04:05Z is allowed"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_seek_is_said_in_words_or_as_a_time() {
        assert!(matches!(seek_to("trim-horizon"), Ok(SeekTo::TrimHorizon)));
        assert!(matches!(seek_to("latest"), Ok(SeekTo::Latest)));
        assert!(matches!(seek_to("2026-01-02T03:04:05Z"), Ok(SeekTo::AtTimestamp(_))));
        for wrong in ["", "TRIM_HORIZON", "yesterday", "5"] {
            let Err(Exit::Usage(why)) = seek_to(wrong) else { panic!("{wrong}") };
            assert!(why.contains("trim-horizon, latest or a time"), "{why}");
        }
    }
}
