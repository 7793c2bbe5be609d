//! The reading of progress items.
//!
//! Owns what each kind of item says. Invariant: what cannot be read is an error that names
//! the item, never a default.

use super::names::*;
use super::{Attributes, UnreadableItem, Value, from_millis, parse_gap, parse_position};
use crate::progress::keys::{ItemKey, SHARD_SORT_PREFIX, WORKER_SORT_PREFIX};
use crate::progress::letters::DeadLetter;
use crate::progress::orders::Orders;
use crate::progress::report::Report;
use crate::progress::{
    Gap, Heartbeat, Lease, Member, OpenWindow, Position, ShardProgress, WorkerId,
};
use crate::source::ShardId;
use bytes::Bytes;

/// One item being read.
pub(in crate::progress) struct Reader<'a> {
    key: &'a ItemKey,
    item: &'a Attributes,
}

impl<'a> Reader<'a> {
    /// Begins to read an item; its format must be known.
    pub fn new(key: &'a ItemKey, item: &'a Attributes) -> Result<Self, UnreadableItem> {
        let reader = Self { key, item };
        match reader.number(VERSION)? {
            FORMAT => Ok(reader),
            other => Err(reader.wrong(format!(
                "it has format {other} and this version knows format {FORMAT} only"
            ))),
        }
    }

    /// The lease the item keeps.
    pub fn lease(&self) -> Result<Lease, UnreadableItem> {
        let owner = self.optional_text(OWNER)?.map(WorkerId::from);
        Ok(Lease { owner, counter: self.number(COUNTER)? })
    }

    /// Where shards begin that have no item, once the starting position has been carried out.
    pub fn seeded(&self) -> Result<Option<Position>, UnreadableItem> {
        if !self.is(SEEDED)? {
            return Ok(None);
        }
        Ok(Some(self.optional_position(BEGIN)?.unwrap_or(Position::TrimHorizon)))
    }

    /// What a dead letter says.
    pub fn letter(&self) -> Result<DeadLetter, UnreadableItem> {
        let text = self.optional_text(LETTER)?.unwrap_or_default();
        serde_json::from_str(text).map_err(|error| self.wrong(format!("{LETTER}: {error}")))
    }

    /// What operators have asked for.
    pub fn orders(&self) -> Result<Orders, UnreadableItem> {
        let text = self.optional_text(ORDERS)?.unwrap_or_default();
        serde_json::from_str(text).map_err(|error| self.wrong(format!("{ORDERS}: {error}")))
    }

    /// Whether all of a dead letter is there.
    pub fn whole(&self) -> Result<bool, UnreadableItem> {
        self.is(WHOLE)
    }

    /// A dead letter's payload, if it stands here.
    pub fn payload(&self) -> Result<Option<Bytes>, UnreadableItem> {
        match self.item.get(PAYLOAD) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes.clone())),
            Some(_) => Err(self.wrong(format!("{PAYLOAD} is not binary"))),
        }
    }

    fn is(&self, name: &str) -> Result<bool, UnreadableItem> {
        match self.item.get(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.wrong(format!("{name} is not true or false"))),
        }
    }

    pub fn member(&self) -> Result<Member, UnreadableItem> {
        let sign = Heartbeat {
            worker: WorkerId::from(self.sort_after(WORKER_SORT_PREFIX)?),
            beat: self.number(BEAT)?,
            failover_ms: self.number_or_none(FAILOVER_MS)?.unwrap_or_default(),
            shards: self.number_or_none(SHARDS)?.unwrap_or_default(),
            load: self.number_or_none(LOAD)?.unwrap_or_default(),
            age_ms: self.number_or_none(AGE_MS)?.unwrap_or_default(),
            draining: self.is(DRAINING)?,
            noted: self.number_or_none(NOTED)?.unwrap_or_default(),
            report: self.report(),
        };
        Ok(Member { sign, announced: self.number_or_none(ANNOUNCED)?.unwrap_or_default() })
    }

    /// Nobody decides anything by it, and a later version may say it in another way: what cannot
    /// be read says nothing.
    fn report(&self) -> Report {
        let text = self.optional_text(REPORT).ok().flatten();
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The last beat.
    pub fn beat(&self) -> Result<u64, UnreadableItem> {
        self.number(BEAT)
    }

    pub fn shard(&self) -> Result<ShardProgress, UnreadableItem> {
        Ok(ShardProgress {
            shard: ShardId::from(self.sort_after(SHARD_SORT_PREFIX)?),
            parent: self.optional_text(PARENT)?.map(ShardId::from),
            lease: self.lease()?,
            since: from_millis(self.number_or_none(SINCE)?.unwrap_or_default()),
            position: self.position()?,
            order: self.number_or_none(ORDER)?.unwrap_or_default(),
            updated: from_millis(self.number(UPDATED)?),
            closed: self.is(CLOSED)?,
            gaps: self.gaps()?,
            window: self.window()?,
        })
    }

    /// The last step under the lease, if there was one.
    pub fn step(&self) -> Result<Option<u64>, UnreadableItem> {
        self.number_or_none(STEP)
    }

    pub fn position(&self) -> Result<Position, UnreadableItem> {
        self.optional_position(POSITION)?
            .ok_or_else(|| self.wrong(format!("{POSITION} is missing")))
    }

    fn optional_position(&self, name: &str) -> Result<Option<Position>, UnreadableItem> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        let position = parse_position(text).ok_or_else(|| {
            self.wrong(format!(
                "{name} is {text:?}, expected {TRIM_HORIZON}, {AT_TIMESTAMP_PREFIX}MILLISECONDS, {AFTER_PREFIX}SEQUENCE_NUMBER or {SHARD_END}"
            ))
        })?;
        Ok(Some(position))
    }

    fn number_or_none(&self, name: &str) -> Result<Option<u64>, UnreadableItem> {
        self.item.contains_key(name).then(|| self.number(name)).transpose()
    }

    /// Whether [`gap_mark`](super::gap_mark) of the last gap is `mark`.
    pub fn last_gap_is(&self, mark: &str) -> Result<bool, UnreadableItem> {
        Ok(self.optional_text(LAST_GAP)? == Some(mark))
    }

    fn gaps(&self) -> Result<Vec<Gap>, UnreadableItem> {
        match self.item.get(GAPS) {
            None => Ok(Vec::new()),
            Some(Value::List(gaps)) => gaps
                .iter()
                .enumerate()
                .map(|(at, gap)| {
                    parse_gap(gap).ok_or_else(|| {
                        self.wrong(format!(
                            "{GAPS}[{at}] is not a map of {GAP_FOUND_AT} and sequence numbers {GAP_AFTER} and {GAP_RESUMED_AT}"
                        ))
                    })
                })
                .collect(),
            Some(_) => Err(self.wrong(format!("{GAPS} is not a list"))),
        }
    }

    fn window(&self) -> Result<Option<OpenWindow>, UnreadableItem> {
        let text = self.optional_text(WINDOW)?;
        let read = text.map(serde_json::from_str).transpose();
        read.map_err(|error| self.wrong(format!("{WINDOW}: {error}")))
    }

    fn sort_after(&self, prefix: &str) -> Result<&'a str, UnreadableItem> {
        self.key
            .sort
            .strip_prefix(prefix)
            .filter(|rest| !rest.is_empty())
            .ok_or_else(|| self.wrong(format!("its sort key does not begin with {prefix}")))
    }

    fn optional_text(&self, name: &str) -> Result<Option<&'a str>, UnreadableItem> {
        match self.item.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(format!("{name} is not a string"))),
        }
    }

    fn number(&self, name: &str) -> Result<u64, UnreadableItem> {
        match self.item.get(name) {
            Some(Value::Number(digits)) => digits
                .parse()
                .map_err(|_| self.wrong(format!("{name} is {digits}, expected a whole number"))),
            Some(_) => Err(self.wrong(format!("{name} is not a number"))),
            None => Err(self.wrong(format!("{name} is missing"))),
        }
    }

    fn wrong(&self, what: String) -> UnreadableItem {
        UnreadableItem { key: self.key.clone(), what }
    }
}
