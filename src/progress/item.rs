//! What stands in progress items, apart from their keys.
//!
//! Owns attribute names and the reading and writing of their values, in a form that
//! knows no SDK. Every name begins with `sg_`: the table, its indexes and its
//! time-to-live attribute are the application's, and an attribute that met one of them
//! with another type would be refused. Invariant: what is written here can be read here,
//! and what cannot be read is an error that names the item, never a default.

use super::keys::{ItemKey, SHARD_SORT_PREFIX, WORKER_SORT_PREFIX};
use super::letters::DeadLetter;
use super::orders::Orders;
use super::{Gap, Heartbeat, Lease, Member, OpenWindow, Position, ShardProgress, WorkerId};
use crate::record::SequenceNumber;
use crate::source::ShardId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The format written, in [`VERSION`]. A later one that cannot be read as this gets
/// another number.
pub(super) const FORMAT: u64 = 1;

pub(super) const VERSION: &str = "sg_v";
pub(super) const OWNER: &str = "sg_owner";
pub(super) const COUNTER: &str = "sg_counter";
pub(super) const POSITION: &str = "sg_position";
/// When the position was written, in milliseconds since the epoch.
pub(super) const UPDATED: &str = "sg_updated";
/// The last write's [`super::Checkpoint::step`]; none since the lease was taken.
pub(super) const STEP: &str = "sg_step";
pub(super) const PARENT: &str = "sg_parent";
pub(super) const GAPS: &str = "sg_gaps";
/// The last gap as text, by which a repeated write of it is recognised.
pub(super) const LAST_GAP: &str = "sg_last_gap";
/// The tumbling window that is open at the position, as JSON; none where none is.
pub(super) const WINDOW: &str = "sg_window";
pub(super) const SEEDED: &str = "sg_seeded";
/// Where shards begin that have no item; none means at their beginning.
pub(super) const BEGIN: &str = "sg_begin";
/// Since when the owner has had the lease, in milliseconds since the epoch.
pub(super) const SINCE: &str = "sg_since";
/// The last operator's move that was carried out.
pub(super) const ORDER: &str = "sg_order";
/// What operators have asked for, as JSON.
pub(super) const ORDERS: &str = "sg_orders";
/// The shard took no more records when its item was made.
pub(super) const CLOSED: &str = "sg_closed";
pub(super) const BEAT: &str = "sg_beat";
pub(super) const FAILOVER_MS: &str = "sg_failover_ms";
pub(super) const SHARDS: &str = "sg_shards";
pub(super) const LOAD: &str = "sg_load";
pub(super) const AGE_MS: &str = "sg_age_ms";
pub(super) const DRAINING: &str = "sg_draining";
pub(super) const NOTED: &str = "sg_noted";
/// Counted by others.
pub(super) const ANNOUNCED: &str = "sg_announced";
/// What a dead letter says, as JSON.
pub(super) const LETTER: &str = "sg_letter";
/// Whether all of a dead letter is there.
pub(super) const WHOLE: &str = "sg_whole";
/// A dead letter's payload, or a part of it.
pub(super) const PAYLOAD: &str = "sg_payload";

const GAP_AFTER: &str = "after";
const GAP_RESUMED_AT: &str = "resumed_at";
const GAP_FOUND_AT: &str = "found_at";

const TRIM_HORIZON: &str = "TRIM_HORIZON";
const SHARD_END: &str = "SHARD_END";
const AT_TIMESTAMP_PREFIX: &str = "AT_TIMESTAMP:";
const AFTER_PREFIX: &str = "AFTER:";

/// The attribute values that progress is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A number, in digits.
    Number(String),
    Bool(bool),
    Bytes(Bytes),
    List(Vec<Value>),
    Map(Attributes),
    /// A type that progress never writes.
    Foreign,
}

/// An item, or a map in one.
pub(super) type Attributes = BTreeMap<String, Value>;

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// An item of ours that says something we did not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the progress item {} / {} cannot be read: {what}; mend or delete it (deleting it gives up what it says)",
    key.partition,
    key.sort
)]
pub(super) struct UnreadableItem {
    key: ItemKey,
    what: String,
}

/// Milliseconds since the epoch; a time before it is the epoch.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `time` as every store keeps it: to the millisecond.
pub(super) fn kept(time: SystemTime) -> SystemTime {
    from_millis(millis(time))
}

/// `position` as every store keeps it.
pub(super) fn kept_position(position: &Position) -> Position {
    match position {
        Position::AtTimestamp(time) => Position::AtTimestamp(kept(*time)),
        other => other.clone(),
    }
}

/// `gap` as every store keeps it.
pub(super) fn kept_gap(gap: &Gap) -> Gap {
    Gap { found_at: kept(gap.found_at), ..gap.clone() }
}

/// A position in one word.
pub(super) fn position_text(position: &Position) -> String {
    match position {
        Position::TrimHorizon => TRIM_HORIZON.to_owned(),
        Position::AtTimestamp(time) => format!("{AT_TIMESTAMP_PREFIX}{}", millis(*time)),
        Position::After(number) => format!("{AFTER_PREFIX}{number}"),
        Position::ShardEnd => SHARD_END.to_owned(),
    }
}

/// A window as [`WINDOW`].
pub(super) fn window_text(window: &OpenWindow) -> String {
    serde_json::to_string(window).expect("plain data")
}

/// `window` as every store keeps it.
pub(super) fn kept_window(window: &OpenWindow) -> OpenWindow {
    OpenWindow { start: kept(window.start), end: kept(window.end), ..window.clone() }
}

/// A gap as an element of [`GAPS`].
pub(super) fn gap_value(gap: &Gap) -> Value {
    let mut map = Attributes::from([(GAP_FOUND_AT.to_owned(), Value::from(millis(gap.found_at)))]);
    for (name, number) in [(GAP_AFTER, &gap.after), (GAP_RESUMED_AT, &gap.resumed_at)] {
        if let Some(number) = number {
            map.insert(name.to_owned(), Value::from(number.as_str()));
        }
    }
    Value::Map(map)
}

/// A gap as [`LAST_GAP`].
pub(super) fn gap_mark(gap: &Gap) -> String {
    let text = |number: &Option<SequenceNumber>| {
        number.as_ref().map_or_else(|| "-".to_owned(), SequenceNumber::to_string)
    };
    format!("{} {} {}", millis(gap.found_at), text(&gap.after), text(&gap.resumed_at))
}

/// One item being read.
pub(super) struct Reader<'a> {
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
        };
        Ok(Member { sign, announced: self.number_or_none(ANNOUNCED)?.unwrap_or_default() })
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

    /// Whether [`gap_mark`] of the last gap is `mark`.
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

pub(super) fn from_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

pub(super) fn parse_position(text: &str) -> Option<Position> {
    match text {
        TRIM_HORIZON => Some(Position::TrimHorizon),
        SHARD_END => Some(Position::ShardEnd),
        _ => match text.strip_prefix(AFTER_PREFIX) {
            Some(number) => number.parse().ok().map(Position::After),
            None => {
                let millis = text.strip_prefix(AT_TIMESTAMP_PREFIX)?.parse().ok()?;
                Some(Position::AtTimestamp(from_millis(millis)))
            }
        },
    }
}

fn parse_gap(value: &Value) -> Option<Gap> {
    let Value::Map(map) = value else { return None };
    let number = |name| match map.get(name) {
        None => Some(None),
        Some(Value::Text(text)) => text.parse().ok().map(Some),
        Some(_) => None,
    };
    let Some(Value::Number(found_at)) = map.get(GAP_FOUND_AT) else { return None };
    Some(Gap {
        after: number(GAP_AFTER)?,
        resumed_at: number(GAP_RESUMED_AT)?,
        found_at: from_millis(found_at.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = SequenceNumber> {
        "[0-9]{1,40}".prop_map(|digits| digits.parse().unwrap())
    }

    /// Times a SystemTime can hold everywhere, below the millisecond too.
    fn time() -> impl Strategy<Value = SystemTime> {
        (0..u64::from(u32::MAX) * 1_000_000)
            .prop_map(|micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros))
    }

    fn gap() -> impl Strategy<Value = Gap> {
        let numbers = (proptest::option::of(number()), proptest::option::of(number()), time());
        numbers.prop_map(|(after, resumed_at, found_at)| Gap { after, resumed_at, found_at })
    }

    proptest! {
        #[test]
        fn positions_are_read_as_they_were_written(
            position in prop_oneof![
                Just(Position::TrimHorizon),
                Just(Position::ShardEnd),
                time().prop_map(Position::AtTimestamp),
                number().prop_map(Position::After),
            ]
        ) {
            let read = parse_position(&position_text(&position));
            prop_assert_eq!(read, Some(kept_position(&position)));
        }

        #[test]
        fn gaps_are_read_as_they_were_written(gap in gap(), other in gap()) {
            prop_assert_eq!(parse_gap(&gap_value(&gap)), Some(kept_gap(&gap)));
            if gap_mark(&gap) == gap_mark(&other) {
                prop_assert_eq!(kept_gap(&gap), kept_gap(&other));
            }
        }

        #[test]
        fn any_text_as_position_is_survived(text in ".*") {
            parse_position(&text);
        }
    }

    fn key() -> ItemKey {
        ItemKey { partition: "streamgate#c#l#07".to_owned(), sort: "shard#s-1".to_owned() }
    }

    fn item(changes: &[(&str, Option<Value>)]) -> Attributes {
        let mut item: Attributes = [
            (VERSION, Value::from(1)),
            (COUNTER, Value::from(3)),
            (POSITION, Value::from("TRIM_HORIZON")),
            (UPDATED, Value::from(1_700_000_000_123)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        for (name, value) in changes {
            match value {
                Some(value) => item.insert((*name).to_owned(), value.clone()),
                None => item.remove(*name),
            };
        }
        item
    }

    #[test]
    fn the_least_item_is_a_released_shard() {
        let (key, item) = (key(), item(&[]));
        let shard = Reader::new(&key, &item).unwrap().shard().unwrap();
        assert_eq!(
            shard,
            ShardProgress {
                shard: ShardId::from("s-1"),
                parent: None,
                lease: Lease { owner: None, counter: 3 },
                since: SystemTime::UNIX_EPOCH,
                position: Position::TrimHorizon,
                order: 0,
                updated: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
                closed: false,
                gaps: Vec::new(),
                window: None,
            }
        );
    }

    #[test]
    fn an_unreadable_item_is_named_with_what_is_wrong() {
        let wrong = |changes: &[(&str, Option<Value>)]| {
            let (key, item) = (key(), item(changes));
            Reader::new(&key, &item).and_then(|reader| reader.shard()).unwrap_err().to_string()
        };
        for (changes, what) in [
            ((VERSION, None), "sg_v is missing"),
            ((VERSION, Some(Value::from(2))), "it has format 2 and this version knows format 1"),
            ((COUNTER, Some(Value::from("3"))), "sg_counter is not a number"),
            ((COUNTER, Some(Value::Number("-1".to_owned()))), "sg_counter is -1"),
            ((OWNER, Some(Value::from(1))), "sg_owner is not a string"),
            ((POSITION, None), "sg_position is missing"),
            ((POSITION, Some(Value::from("AFTER:x"))), "sg_position is \"AFTER:x\""),
            ((UPDATED, Some(Value::Foreign)), "sg_updated is not a number"),
            ((GAPS, Some(Value::from("x"))), "sg_gaps is not a list"),
            ((GAPS, Some(Value::List(vec![Value::Foreign]))), "sg_gaps[0] is not a map"),
        ] {
            let sentence = wrong(&[changes]);
            assert!(
                sentence.starts_with(
                    "the progress item streamgate#c#l#07 / shard#s-1 cannot be read: "
                ) && sentence.contains(what),
                "{sentence}"
            );
        }
    }
}
