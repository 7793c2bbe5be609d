//! What stands in progress items, apart from their keys.
//!
//! Owns attribute names and the reading and writing of their values, in a form that
//! knows no SDK. Every name begins with `sg_`: the table, its indexes and its
//! time-to-live attribute are the application's, and an attribute that met one of them
//! with another type would be refused. Invariant: what is written here can be read here,
//! and what cannot be read is an error that names the item, never a default.

mod names;
mod reader;

pub(super) use names::*;
pub(super) use reader::Reader;

use super::keys::ItemKey;
use super::{Gap, OpenWindow, Position};
use crate::record::SequenceNumber;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

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

/// [`millis`] as a time.
pub(super) fn from_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

/// A position from [`position_text`].
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

/// A gap from [`gap_value`].
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
    use super::super::{Lease, ShardProgress};
    use super::*;
    use crate::record::SequenceNumber;
    use crate::source::ShardId;
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
