//! What a worker says of its work beside its sign of life, for people to look at.
//!
//! Owns the words and their bounds: an item is read with every look, and a write of more than
//! 1 kB costs more. Nobody decides anything by it. Invariant: it holds no item contents, and a
//! worker without trouble says a few numbers and nothing else.

use super::json;
use crate::source::ShardId;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::time::SystemTime;

/// The longest error that is told.
pub const MAX_TOLD_BYTES: usize = 120;
/// The shards that fail longest are named in so many bytes, those that wait in as many: together
/// with the rest of an item less than a write unit has.
const NAMED_BYTES: usize = 350;

/// What a worker reports. Items of before it was there have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Stream records that its handler has taken in this life.
    #[serde(default, with = "json::count", skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "json::count::schema")]
    pub delivered: u64,
    /// Stream records that were given up and kept in this life.
    #[serde(default, with = "json::count", skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "json::count::schema")]
    pub given_up: u64,
    /// Shards whose batch has failed and comes again: those that have failed longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retrying: Vec<Retrying>,
    /// How many there are.
    #[serde(default, with = "json::count", skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "json::count::schema")]
    pub retrying_in_all: u64,
    /// Shards that have no item yet, for their parent is not read to its end: said by the leader.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// How many there are.
    #[serde(default, with = "json::count", skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "json::count::schema")]
    pub waiting_in_all: u64,
    /// The redrive that it is carrying out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriving: Option<Redriving>,
}

/// A batch that fails and comes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retrying {
    /// The shard.
    pub shard: ShardId,
    /// Invocations that have failed.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub attempts: u64,
    /// What the last one failed with, shortened.
    pub error: String,
    /// When the first one failed (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub since: SystemTime,
}

/// A shard that may not be read yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The shard.
    pub shard: ShardId,
    /// Which is to be read to its end first.
    pub parent: ShardId,
}

/// How far a redrive has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redriving {
    /// Of this [`Redrive`](super::redrives::Redrive).
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub id: u64,
    /// Letters that it is about.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub of: u64,
    /// Letters that were handed over, taken or not.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub tried: u64,
}

impl Report {
    /// Names these shards as retrying, as many as have room.
    pub fn retries(&mut self, mut all: Vec<Retrying>) {
        self.retrying_in_all = all.len() as u64;
        all.sort_by(|a, b| (a.since, &a.shard).cmp(&(b.since, &b.shard)));
        for retrying in &mut all {
            retrying.since = super::item::kept(retrying.since);
            shorten(&mut retrying.error);
        }
        self.retrying = that_fit(all);
    }

    /// Names these shards as waiting, as many as have room.
    pub fn waits(&mut self, all: impl Iterator<Item = Waiting>) {
        let mut count = 0;
        self.waiting = that_fit(all.inspect(|_| count += 1));
        self.waiting_in_all = count;
    }
}

/// The first of them, in [`NAMED_BYTES`]; all are gone through.
fn that_fit<T: Serialize>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut left = Some(NAMED_BYTES);
    let fits = |one: &T| {
        let bytes = left.map(|_| serde_json::to_vec(one).expect("plain data").len() + 1);
        left = left.zip(bytes).and_then(|(left, bytes)| left.checked_sub(bytes));
        left.is_some()
    };
    all.into_iter().filter(fits).collect()
}

/// What a later version says in another way says nothing.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Report, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// To [`MAX_TOLD_BYTES`], on one line and without what JSON would write longer.
pub fn shorten(error: &mut String) {
    error.truncate(error.floor_char_boundary(MAX_TOLD_BYTES));
    if error.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        *error = error.replace(char::is_control, " ").replace(['"', '\\'], "'");
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_worker_without_trouble_says_little_and_one_with_much_is_bounded() {
        assert_eq!(serde_json::to_string(&Report::default()).unwrap(), "{}");
        let at = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        let retrying = |n: u64| Retrying {
            shard: format!("shardId-{n:020}-00000000").as_str().into(),
            attempts: n,
            error: "é\n\"\\".repeat(500),
            since: at(1000 - n),
        };
        let waiting = |n: u64| Waiting {
            shard: format!("shardId-{n:020}-00000000").as_str().into(),
            parent: "shardId-00000000000000000000-00000000".into(),
        };
        let mut report = Report { delivered: 1 << 50, ..Report::default() };
        report.retries((0..100).map(retrying).collect());
        report.waits((0..100).map(waiting));
        assert_eq!((report.retrying_in_all, report.waiting_in_all), (100, 100));
        assert_eq!(report.retrying[0].since, at(901), "those that have failed longest");
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.len() < 850, "with the other members of an item a write unit: {}", text.len());
        assert!(!report.retrying.is_empty() && !report.waiting.is_empty());
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn a_report_of_a_later_version_says_nothing_and_keeps_nobody_from_reading_the_sign() {
        let sign = crate::progress::Heartbeat::first("w".into());
        let mut text = serde_json::to_value(&sign).unwrap();
        for report in [serde_json::json!({"retrying": "many"}), serde_json::json!(7)] {
            text["report"] = report;
            let read: crate::progress::Heartbeat = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(read, sign);
        }
    }
}
