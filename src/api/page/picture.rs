//! What the page shows of a consumer of a stream, from what its progress says.
//!
//! Owns the form in which it travels: all of it once, then what has changed. Pure. Invariant: no
//! item contents, no state of a window, and with a thousand shards it fits the first view: ids
//! without what they all begin with, parents and owners as numbers.

use super::history::Series;
use crate::progress::orders::Orders;
use crate::progress::{Coordination, Gap, Heartbeat, Position, ShardProgress, WorkerId};
use crate::source::ShardId;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How the ids of DynamoDB's shards begin.
const PREFIX: &str = "shardId-";

/// What was seen at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// Workers and orders.
    pub seen: Coordination,
    /// For how long each worker's beat has stood still.
    pub silent: BTreeMap<WorkerId, Duration>,
    /// In the order of their ids.
    pub shards: Vec<ShardProgress>,
}

impl Picture {
    /// The signs of those who are not believed dead.
    pub fn living(&self) -> impl Iterator<Item = &Heartbeat> {
        let lives = |sign: &&Heartbeat| {
            let silent = self.silent.get(&sign.worker).copied().unwrap_or_default();
            silent.as_millis() < u128::from(sign.failover_ms.max(1))
        };
        self.seen.workers.iter().map(|member| &member.sign).filter(lives)
    }

    /// All of it.
    pub fn whole(&self, now: SystemTime, history: &Series) -> Value {
        let mut all = self.about(now, self.shards.iter());
        all["orders"] = orders(&self.seen.orders);
        all["history"] = json!(history);
        all
    }

    /// What has changed since `before`; times and workers always stand in it.
    pub fn since(&self, before: &Self, now: SystemTime, history: Option<&Series>) -> Value {
        // Both are in the order of their ids.
        let (mut old, mut changed, mut gone) =
            (before.shards.iter().peekable(), Vec::new(), Vec::new());
        for shard in &self.shards {
            while let Some(left) = old.next_if(|left| left.shard < shard.shard) {
                gone.push(&left.shard);
            }
            if old.next_if(|same| same.shard == shard.shard) != Some(shard) {
                changed.push(shard);
            }
        }
        gone.extend(old.map(|left| &left.shard));
        let mut all = self.about(now, changed.into_iter());
        all["gone"] = json!(gone);
        if self.seen.orders != before.seen.orders {
            all["orders"] = orders(&self.seen.orders);
        }
        if let Some(history) = history {
            all["history"] = json!(history);
        }
        all
    }

    fn about<'a>(
        &self,
        now: SystemTime,
        shards: impl Iterator<Item = &'a ShardProgress> + Clone,
    ) -> Value {
        let names: Vec<&ShardId> = shards.clone().map(|item| &item.shard).collect();
        let prefix = match names.iter().all(|name| name.as_str().starts_with(PREFIX)) {
            true => PREFIX,
            false => "",
        };
        let mut owners: Vec<&WorkerId> = Vec::new();
        let mut rows = Vec::new();
        for item in shards {
            let owner = item.lease.owner.as_ref().map(|owner| {
                owners.iter().position(|known| *known == owner).unwrap_or_else(|| {
                    owners.push(owner);
                    owners.len() - 1
                })
            });
            let parent = item.parent.as_ref().map(|parent| match names.binary_search(&parent) {
                Ok(row) => Parent::Row(row),
                Err(_) => Parent::Id(parent),
            });
            let short = item.shard.as_str().strip_prefix(prefix).unwrap_or_default();
            let written = (seconds(item.since), seconds(item.updated));
            let position = position(&item.position);
            rows.push(Row(short, parent, owner, written.0, written.1, position, &item.gaps));
        }
        let workers: Vec<Worker<'_>> =
            self.seen.workers.iter().map(|m| self.worker(&m.sign)).collect();
        json!({
            "at": millis(now),
            "leader": self.seen.stream.as_ref().and_then(|lease| lease.owner.as_ref()),
            "workers": workers,
            "prefix": prefix,
            "owners": owners,
            "rows": rows,
        })
    }

    fn worker<'a>(&self, sign: &'a Heartbeat) -> Worker<'a> {
        let silent = self.silent.get(&sign.worker).copied().unwrap_or_default();
        Worker { sign, silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX) }
    }
}

#[derive(Serialize)]
struct Worker<'a> {
    #[serde(flatten)]
    sign: &'a Heartbeat,
    silent_ms: u64,
}

/// Id, parent, owner, since when it has that, when its position was written, the position, gaps.
#[derive(Serialize)]
struct Row<'a>(&'a str, Option<Parent<'a>>, Option<usize>, u64, u64, String, &'a [Gap]);

/// A row of the same message, or an id.
#[derive(Serialize)]
#[serde(untagged)]
enum Parent<'a> {
    Row(usize),
    Id(&'a ShardId),
}

/// Without what only stores need.
fn orders(orders: &Orders) -> Value {
    let Orders { pauses, moves, reset, redrives, past, .. } = orders;
    json!({ "pauses": pauses, "moves": moves, "reset": reset, "redrives": redrives, "past": past })
}

/// A sequence number as it is; other positions begin with a letter.
fn position(position: &Position) -> String {
    match position {
        Position::TrimHorizon => "trim horizon".to_owned(),
        Position::AtTimestamp(time) => format!("at {}", humantime::format_rfc3339_seconds(*time)),
        Position::After(number) => number.to_string(),
        Position::ShardEnd => "end".to_owned(),
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(time: SystemTime) -> u64 {
    millis(time) / 1000
}

#[cfg(test)]
mod tests {
    use super::super::history::History;
    use super::*;
    use crate::progress::{Lease, Member, OpenWindow};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn item(shard: &str, parent: Option<&str>, owner: Option<&str>) -> ShardProgress {
        let state = "\"secret\"".to_owned();
        ShardProgress {
            shard: shard.into(),
            parent: parent.map(ShardId::from),
            lease: Lease { owner: owner.map(WorkerId::from), counter: 1 },
            since: at(1_700_000_000),
            position: Position::After("140540000000000206328".parse().unwrap()),
            order: 0,
            updated: at(1_700_000_009),
            closed: false,
            gaps: Vec::new(),
            window: Some(OpenWindow { start: at(0), end: at(1), state }),
        }
    }

    fn picture(shards: Vec<ShardProgress>) -> Picture {
        Picture { shards, ..Picture::default() }
    }

    #[test]
    fn a_change_says_what_is_new_what_has_moved_and_what_is_gone() {
        let before = picture(vec![
            item("shardId-1", None, Some("w")),
            item("shardId-2", None, Some("w")),
            item("shardId-4", None, None),
        ]);
        let mut after = picture(vec![
            item("shardId-2", None, Some("w")),
            item("shardId-3", Some("shardId-2"), Some("v")),
            item("shardId-4", None, Some("v")),
        ]);
        let said = after.since(&before, at(2_000_000_000), None);
        assert_eq!(said["gone"], json!(["shardId-1"]));
        assert_eq!((&said["prefix"], &said["owners"]), (&json!("shardId-"), &json!(["v"])));
        let times = json!([1_700_000_000, 1_700_000_009, "140540000000000206328", []]);
        let row = |id: &str, parent: Value| {
            let mut row = vec![json!(id), parent, json!(0)];
            row.extend(times.as_array().unwrap().clone());
            Value::Array(row)
        };
        let rows = [row("3", json!("shardId-2")), row("4", Value::Null)];
        assert_eq!(said["rows"], json!(rows));
        assert!(said.get("orders").is_none() && said.get("history").is_none(), "{said}");
        after.shards.push(item("other", Some("shardId-3"), None));
        after.shards.sort_by(|a, b| a.shard.cmp(&b.shard));
        let whole = after.whole(at(0), &History::new(at(0)).series(None));
        assert_eq!((&whole["prefix"], &whole["rows"][0][1]), (&json!(""), &json!(2)));
        assert!(!whole.to_string().contains("secret"), "a window's state is of items");
    }

    #[test]
    fn a_thousand_shards_fit_the_first_view() {
        let id = |n: usize| format!("shardId-{n:020}-{:08x}", n * 7919);
        let worker =
            |n: usize| format!("orders-streamgate-consumer-7d9f8b6c5d-{n:05}-0123456789abcdef");
        let shards = (0..1000)
            .map(|n| {
                item(&id(n), (n >= 500).then(|| id(n - 500)).as_deref(), Some(&worker(n % 10)))
            })
            .collect();
        let mut all = picture(shards);
        all.seen.workers = (0..10)
            .map(|n| Member { sign: Heartbeat::first(worker(n).as_str().into()), announced: 0 })
            .collect();
        let bytes = all.whole(at(0), &History::new(at(0)).series(None)).to_string().len();
        assert!(bytes < 100_000, "{bytes}");
    }

    #[test]
    fn who_is_silent_for_its_failover_time_counts_no_more() {
        let sign =
            |worker: &str| Heartbeat { failover_ms: 1000, ..Heartbeat::first(worker.into()) };
        let mut all = Picture::default();
        all.seen.workers = ["a", "b"].map(|w| Member { sign: sign(w), announced: 0 }).to_vec();
        all.silent.insert("a".into(), Duration::from_secs(1));
        all.silent.insert("b".into(), Duration::from_millis(999));
        assert_eq!(all.living().map(|sign| sign.worker.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            all.whole(at(0), &History::new(at(0)).series(None))["workers"][0]["silent_ms"],
            1000
        );
    }
}
