//! What every shard is doing now, for `/status`, `/readyz` and the gauges.
//!
//! Owns the picture, not the truth: rooms report here and never read back. Invariant:
//! it holds no item contents.

use super::metrics::{Metrics, ShardState};
use crate::clock;
use crate::progress::Position;
use crate::progress::report::{Retrying, shorten};
use crate::source::{ShardId, SourceOperation};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// The picture of one process.
#[derive(Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    role: Role,
    shards: BTreeMap<ShardId, ShardStatus>,
    /// Why the process is not ready, by part.
    troubles: BTreeMap<Part, String>,
    /// Operations that have worked since the start.
    proved: Vec<SourceOperation>,
}

/// Whether this worker reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Role {
    /// Not far enough yet to know.
    #[default]
    Starting,
    /// One of the consumer's workers: it reads its share of the shards, which may be none.
    Active,
    /// Finishing what is in flight.
    Draining,
}

/// A part the process cannot do its work without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Not connected to anything yet.
    Start,
    /// The DynamoDB stream's listing of its shards.
    Stream,
    /// Reading shards.
    Shards,
    /// The store of progress, as the signs of life meet it.
    Progress,
    /// The store of progress, as the positions meet it.
    Checkpoints,
}

/// One shard as shown.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    /// The shard it continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it is doing.
    pub state: ShardState,
    /// Who reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How far it has been delivered, in memory.
    pub position: String,
    /// Seconds since the write of the record last handled or being handled; 0 at the tip.
    pub iterator_age_seconds: f64,
    /// Attempts of the batch being delivered, when it has failed at least once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<u32>,
    /// What the last of them failed with, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Why it cannot be read at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Gaps found since this process began to read it.
    pub gaps: u32,
    /// Batches of it that have failed and come again.
    #[serde(skip)]
    retrying: u32,
    /// Since when there is one.
    #[serde(skip)]
    retrying_since: Option<SystemTime>,
    /// The oldest record read and not delivered, or the last one delivered while more wait.
    #[serde(skip)]
    behind_since: Option<SystemTime>,
}

impl Board {
    /// A picture with everything unknown.
    pub fn new() -> Self {
        let board = Self::default();
        board.trouble(Part::Start, "starting");
        board
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }

    /// Says whether this worker reads.
    pub fn role(&self, role: Role) {
        self.lock().role = role;
    }

    /// Shows a shard, or changes how it is shown.
    pub fn shard(&self, shard: &ShardId, change: impl FnOnce(&mut ShardStatus)) {
        let mut inner = self.lock();
        let status = inner.shards.entry(shard.clone()).or_insert_with(|| ShardStatus {
            parent: None,
            state: ShardState::Waiting,
            owner: None,
            position: "TRIM_HORIZON".to_owned(),
            iterator_age_seconds: 0.0,
            failed_attempts: None,
            last_error: None,
            trouble: None,
            gaps: 0,
            retrying: 0,
            retrying_since: None,
            behind_since: None,
        });
        change(status);
    }

    /// Changes how a shard is shown, if it is.
    pub fn known(&self, shard: &ShardId, change: impl FnOnce(&mut ShardStatus)) {
        if let Some(status) = self.lock().shards.get_mut(shard) {
            change(status);
        }
    }

    /// Shows a shard no more.
    pub fn forget(&self, shard: &ShardId) {
        self.lock().shards.remove(shard);
    }

    /// Shows no shards: another worker has them.
    pub fn forget_all(&self) {
        self.lock().shards.clear();
    }

    /// `part` does not work; the process is not ready until it does.
    pub fn trouble(&self, part: Part, why: &str) {
        self.lock().troubles.insert(part, why.to_owned());
    }

    /// `part` works. Gives whether it did not before.
    pub fn well(&self, part: Part) -> bool {
        self.lock().troubles.remove(&part).is_some()
    }

    /// Why the process is not ready; empty when it is.
    pub fn troubles(&self) -> BTreeMap<Part, String> {
        self.lock().troubles()
    }

    /// `operation` has worked: a refusal from now on is not a missing permission at start.
    pub fn prove(&self, operation: SourceOperation) {
        let mut inner = self.lock();
        if !inner.proved.contains(&operation) {
            inner.proved.push(operation);
        }
    }

    /// Whether `operation` has worked since the start.
    pub fn is_proved(&self, operation: SourceOperation) -> bool {
        self.lock().proved.contains(&operation)
    }

    /// The largest iterator age of the shards that are shown.
    pub fn age(&self, now: SystemTime) -> Duration {
        self.lock().shards.values().map(|shard| shard.age(now)).max().unwrap_or_default()
    }

    /// Batches that have failed and come again, one a shard.
    pub fn retrying(&self) -> Vec<Retrying> {
        let retrying = |(shard, status): (&ShardId, &ShardStatus)| {
            Some(Retrying {
                shard: shard.clone(),
                attempts: status.failed_attempts?.into(),
                error: status.last_error.clone().unwrap_or_default(),
                since: status.retrying_since?,
            })
        };
        self.lock().shards.iter().filter_map(retrying).collect()
    }

    /// Brings the gauges that are computed when looked at up to date.
    pub fn measure(&self, metrics: &Metrics, now: SystemTime) {
        let inner = self.lock();
        let age = inner.shards.values().map(|s| s.age(now)).max().unwrap_or_default();
        metrics.iterator_age.set(age.as_secs_f64());
        for state in ShardState::ALL {
            let count = inner.shards.values().filter(|s| s.state == state).count();
            metrics.shards.with_label_values(&[state.label()]).set(count as i64);
        }
    }

    /// The picture as JSON.
    pub fn to_json(&self, now: SystemTime) -> serde_json::Value {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            role: &'a Role,
            ready: bool,
            troubles: &'a BTreeMap<Part, String>,
            shards: BTreeMap<&'a str, ShardStatus>,
        }
        let inner = self.lock();
        let troubles = inner.troubles();
        let shown = |status: &ShardStatus| ShardStatus {
            iterator_age_seconds: status.age(now).as_secs_f64(),
            ..status.clone()
        };
        serde_json::to_value(Whole {
            role: &inner.role,
            ready: troubles.is_empty(),
            troubles: &troubles,
            shards: inner.shards.iter().map(|(id, s)| (id.as_str(), shown(s))).collect(),
        })
        .expect("the picture is plain data")
    }
}

impl Inner {
    /// All troubles; those of shards as one, or a thousand shards would say the same.
    fn troubles(&self) -> BTreeMap<Part, String> {
        let mut troubles = self.troubles.clone();
        let mut shards = self.shards.values().filter_map(|status| status.trouble.as_ref());
        if let Some(first) = shards.next() {
            let count = 1 + shards.count();
            troubles.insert(Part::Shards, format!("{count} cannot be read: {first}"));
        }
        troubles
    }
}

impl ShardStatus {
    /// It cannot be read, and why.
    pub fn trouble(&mut self, why: &str) {
        self.trouble = Some(why.to_owned());
    }

    /// It can be read.
    pub fn well(&mut self) {
        self.trouble = None;
    }

    /// One of its batches has failed for the first time and comes again.
    pub fn retry_begins(&mut self) {
        self.retrying += 1;
        self.retrying_since.get_or_insert_with(clock::now);
        self.state = ShardState::Retrying;
    }

    /// A batch has failed so often, at last with `error`.
    pub fn failed(&mut self, attempts: u32, mut error: String) {
        shorten(&mut error);
        (self.failed_attempts, self.last_error) = (Some(attempts), Some(error));
    }

    /// That batch is through.
    pub fn retry_ends(&mut self) {
        self.retrying = self.retrying.saturating_sub(1);
        if self.retrying == 0 {
            self.state = ShardState::Reading;
            (self.failed_attempts, self.last_error, self.retrying_since) = (None, None, None);
        }
    }

    fn age(&self, now: SystemTime) -> Duration {
        self.behind_since.and_then(|since| now.duration_since(since).ok()).unwrap_or_default()
    }

    /// Records are waiting or being handled, the oldest of them written at `since`.
    pub fn behind(&mut self, since: Option<SystemTime>) {
        self.behind_since = since;
    }

    /// Shows `position` as delivered.
    pub fn at(&mut self, position: &Position) {
        self.position = match position {
            Position::TrimHorizon => "TRIM_HORIZON".to_owned(),
            Position::AtTimestamp(time) => humantime::format_rfc3339_millis(*time).to_string(),
            Position::After(number) => number.to_string(),
            Position::ShardEnd => "SHARD_END".to_owned(),
        };
    }
}
