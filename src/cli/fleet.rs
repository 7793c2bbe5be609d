//! `streamgate status --all`: the whole consumer, as its progress has it.
//!
//! Owns the table of workers, shards and what operators have asked for. What one process
//! is doing at this moment is [`super::status`]'s.

use super::dead_letters::{failed, say};
use super::exit::Exit;
use clap::ArgMatches;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::aws;
use streamgate::config;
use streamgate::program::progress;
use streamgate::progress::orders::{MoveTo, Orders};
use streamgate::progress::redrives::Outcome;
use streamgate::progress::report::{Redriving, Retrying, Waiting};
use streamgate::progress::{Coordination, Position, Selection, ShardProgress};
use streamgate::source::ShardId;
use streamgate::telemetry::metrics::Metrics;

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let config = config::consumer(&super::lookup(matches), SystemTime::now())?;
    let metrics = Arc::new(Metrics::new());
    let aws = aws::load(Some(config.settings.stream.region()), metrics.aws_observer()).await;
    let store = progress(&config, &aws, &metrics)?;
    store.describe().await.map_err(failed)?;
    let shards = store.load(Selection::All).await.map_err(failed)?;
    let seen = store.coordination().await.map_err(failed)?;
    if matches.get_flag("json") {
        return say(&(to_json(&seen, &shards).to_string() + "\n"));
    }
    say(&table(&seen, &shards, SystemTime::now()))
}

/// All of it as one object.
pub(super) fn to_json(seen: &Coordination, shards: &[ShardProgress]) -> Value {
    let Coordination { stream, seeded, workers, orders } = seen;
    json!({
        "leader": stream.as_ref().and_then(|lease| lease.owner.as_ref()),
        "seeded": seeded,
        "workers": workers,
        "shards": shards,
        "orders": orders,
    })
}

fn ago(time: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(time).unwrap_or_default().as_secs();
    format!("{} ago", humantime::format_duration(Duration::from_secs(seconds)))
}

fn table(seen: &Coordination, shards: &[ShardProgress], now: SystemTime) -> String {
    let mut text = String::new();
    let leader = seen.stream.as_ref().and_then(|lease| lease.owner.as_ref());
    let mut rows = vec![["WORKER", "SHARDS", "BYTES/S", "BEHIND", ""].map(str::to_owned).to_vec()];
    for member in &seen.workers {
        let sign = &member.sign;
        let leads = (leader == Some(&sign.worker)).then_some("leads");
        let drains = sign.draining.then_some("stopping");
        rows.push(vec![
            sign.worker.to_string(),
            sign.shards.to_string(),
            sign.load.to_string(),
            humantime::format_duration(Duration::from_secs(sign.age_ms / 1000)).to_string(),
            leads.into_iter().chain(drains).collect::<Vec<_>>().join(", "),
        ]);
    }
    write_rows(&mut text, &rows);
    let mut rows =
        vec![["SHARD", "OWNER", "SINCE", "POSITION", "WRITTEN", ""].map(str::to_owned).to_vec()];
    for item in shards {
        let ended = item.position == Position::ShardEnd;
        let owner = item.lease.owner.as_ref().filter(|_| !ended);
        let missing =
            owner.filter(|owner| !seen.workers.iter().any(|member| member.sign.worker == **owner));
        let mut remarks = Vec::new();
        if seen.orders.pause(&item.shard).is_some() && !ended {
            remarks.push("paused".to_owned());
        }
        if missing.is_some() {
            remarks.push("its owner shows no life".to_owned());
        }
        if !item.gaps.is_empty() {
            remarks.push(format!("gaps: {}", item.gaps.len()));
        }
        rows.push(vec![
            item.shard.to_string(),
            owner.map_or_else(|| "-".to_owned(), ToString::to_string),
            owner.map_or_else(|| "-".to_owned(), |_| ago(item.since, now)),
            position(&item.position),
            ago(item.updated, now),
            remarks.join("; "),
        ]);
    }
    text.push('\n');
    write_rows(&mut text, &rows);
    write_reports(&mut text, seen);
    write_orders(&mut text, &seen.orders);
    text
}

/// What the workers' signs of life say of their work.
pub(super) fn write_reports(text: &mut String, seen: &Coordination) {
    let mut lines = Vec::new();
    for report in seen.workers.iter().map(|member| &member.sign.report) {
        for Retrying { shard, attempts, error, .. } in &report.retrying {
            lines.push(format!(
                "shard {shard}: batch failed {attempts} times, trying again: {error}"
            ));
        }
        let more = report.retrying_in_all.saturating_sub(report.retrying.len() as u64);
        if more > 0 {
            lines.push(format!("batches of {more} more shards failed and are tried again"));
        }
        if let Some(Redriving { of, tried, .. }) = &report.redriving {
            lines.push(format!("dead letters are handed over again: {tried} of {of}"));
        }
        for Waiting { shard, parent } in &report.waiting {
            lines.push(format!("shard {shard} waits until {parent} is read to its end"));
        }
        let more = report.waiting_in_all.saturating_sub(report.waiting.len() as u64);
        if more > 0 {
            lines.push(format!("{more} more shards wait for their parents"));
        }
    }
    if !lines.is_empty() {
        text.push('\n');
    }
    for line in lines {
        writeln!(text, "{line}").expect("a string takes it");
    }
}

fn position(position: &Position) -> String {
    match position {
        Position::TrimHorizon => "trim horizon".to_owned(),
        Position::AtTimestamp(time) => humantime::format_rfc3339_seconds(*time).to_string(),
        Position::After(number) => number.to_string(),
        Position::ShardEnd => "end".to_owned(),
    }
}

pub(super) fn write_orders(text: &mut String, orders: &Orders) {
    let whole = |shard: &Option<ShardId>| {
        shard.as_ref().map_or_else(|| "the stream".to_owned(), |shard| format!("shard {shard}"))
    };
    let mut lines = Vec::new();
    for pause in &orders.pauses {
        lines.push((format!("{} is paused", whole(&pause.shard)), &pause.asked));
    }
    for order in &orders.moves {
        let what = match order.to {
            MoveTo::Seek(to) => format!("shard {} is to go to {to}", order.shard),
            MoveTo::Skip(records) => format!("shard {} is to skip {records} records", order.shard),
        };
        lines.push((what, &order.asked));
    }
    for redrive in &orders.redrives {
        let which = match &redrive.letter {
            Some(letter) => format!("the dead letter {letter}"),
            None => "all dead letters".to_owned(),
        };
        let what = match &redrive.ended {
            None => format!("to be redriven: {which}"),
            Some(Outcome { taken, left, .. }) => {
                format!("redriven: {which}: {taken} taken, {left} left")
            }
        };
        lines.push((what, &redrive.asked));
    }
    if let Some(reset) = &orders.reset {
        lines.push((format!("the stream is to begin anew with {}", reset.to), &reset.asked));
    }
    if !lines.is_empty() {
        text.push('\n');
    }
    for (what, asked) in lines {
        let at = humantime::format_rfc3339_seconds(asked.at);
        writeln!(text, "{what}, as {} asked {at}", asked.by).expect("a string takes it");
    }
    if !orders.past.is_empty() {
        text.push_str("\nasked last:\n");
    }
    for past in &orders.past {
        let at = humantime::format_rfc3339_seconds(past.at);
        let (by, order) = (&past.request.by, &past.request.order);
        writeln!(text, "  {at} {by}: {order}").expect("a string takes it");
    }
}

/// Columns as wide as what stands in them.
pub(super) fn write_rows(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
            .expect("a string takes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamgate::progress::orders::{Order, Request};
    use streamgate::progress::{Heartbeat, Lease, Member};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn item(shard: &str, owner: Option<&str>, position: Position) -> ShardProgress {
        ShardProgress {
            shard: shard.into(),
            parent: None,
            lease: Lease { owner: owner.map(Into::into), counter: 1 },
            since: at(40),
            position,
            order: 0,
            updated: at(99),
            closed: false,
            gaps: Vec::new(),
            window: None,
        }
    }

    #[test]
    fn it_says_who_has_what_since_when_and_who_asked_for_what() {
        let sign =
            Heartbeat { shards: 1, load: 4096, age_ms: 61_500, ..Heartbeat::first("w1".into()) };
        let request =
            Request { order: Order::Pause(Some("s-1".into())), by: "ann".to_owned(), nonce: 1 };
        let orders = Orders::default().with(&request, at(50)).unwrap().unwrap();
        let seen = Coordination {
            stream: Some(Lease { owner: Some("w1".into()), counter: 3 }),
            seeded: None,
            workers: vec![Member { sign, announced: 0 }],
            orders,
        };
        let shards = [
            item("s-1", Some("w1"), Position::After("77".parse().unwrap())),
            item("s-2", Some("gone"), Position::TrimHorizon),
            item("s-3", Some("w1"), Position::ShardEnd),
        ];
        let text = table(&seen, &shards, at(100));
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "WORKER  SHARDS  BYTES/S  BEHIND",
                "w1      1       4096     1m 1s   leads",
                "",
                "SHARD  OWNER  SINCE   POSITION      WRITTEN",
                "s-1    w1     1m ago  77            1s ago   paused",
                "s-2    gone   1m ago  trim horizon  1s ago   its owner shows no life",
                "s-3    -      -       end           1s ago",
                "",
                "shard s-1 is paused, as ann asked 1970-01-01T00:00:50Z",
                "",
                "asked last:",
                "  1970-01-01T00:00:50Z ann: pause shard s-1",
            ]
        );
    }
}
