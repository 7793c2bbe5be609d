//! Where progress lies in the table, and how its items are told from the application's.
//!
//! Owns key values only; attributes are [`super::item`]'s. Control items share one
//! partition; shards are spread over several, because one partition takes about 1,000
//! writes a second. Invariant: every partition key begins with [`OWN_PREFIX`], and the
//! bucket of a shard never changes, or its progress would be lost.

use super::letters::LetterId;
use super::{LeaseKey, WorkerId};
use crate::source::ShardId;

/// How every partition key of ours begins. The application may not use it for its own.
pub const OWN_PREFIX: &str = "streamgate#";

/// Over how many partition keys shards are spread. Part of the format: never changed.
pub(super) const SHARD_BUCKETS: u64 = 16;

pub(super) const STREAM_SORT: &str = "stream";
pub(super) const ORDERS_SORT: &str = "orders";
pub(super) const WORKER_SORT_PREFIX: &str = "worker#";
const LETTER_SORT_PREFIX: &str = "letter#";
const PART_SORT_PREFIX: &str = "part#";
pub(super) const SHARD_SORT_PREFIX: &str = "shard#";

/// The two key values of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemKey {
    pub partition: String,
    pub sort: String,
}

/// The keys of one consumer of one stream.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    control: String,
}

impl Namespace {
    pub fn new(consumer: &str, label: &str) -> Self {
        Self { control: format!("{OWN_PREFIX}{consumer}#{label}") }
    }

    /// The partition of the stream's lease and the heartbeats.
    pub fn control(&self) -> &str {
        &self.control
    }

    pub fn orders(&self) -> ItemKey {
        ItemKey { partition: self.control.clone(), sort: ORDERS_SORT.to_owned() }
    }

    /// The partitions of all shards.
    pub fn shard_partitions(&self) -> impl Iterator<Item = String> {
        (0..SHARD_BUCKETS).map(|bucket| self.shard_partition(bucket))
    }

    pub fn shard(&self, shard: &ShardId) -> ItemKey {
        ItemKey {
            partition: self.shard_partition(bucket(shard.as_str())),
            sort: format!("{SHARD_SORT_PREFIX}{shard}"),
        }
    }

    pub fn worker(&self, worker: &WorkerId) -> ItemKey {
        ItemKey { partition: self.control.clone(), sort: format!("{WORKER_SORT_PREFIX}{worker}") }
    }

    pub fn lease(&self, key: &LeaseKey) -> ItemKey {
        match key {
            LeaseKey::Stream => {
                ItemKey { partition: self.control.clone(), sort: STREAM_SORT.to_owned() }
            }
            LeaseKey::Shard(shard) => self.shard(shard),
        }
    }

    /// The partitions of all dead letters, in order.
    pub fn letter_partitions(&self) -> impl Iterator<Item = String> {
        (0..SHARD_BUCKETS).map(|bucket| self.letter_partition(bucket))
    }

    /// How the sort keys of letters begin, and those of their parts do not.
    pub fn letter_prefix(&self) -> &'static str {
        LETTER_SORT_PREFIX
    }

    pub fn letter(&self, id: &LetterId) -> ItemKey {
        self.of_letter(id, format!("{LETTER_SORT_PREFIX}{}", in_order(id)))
    }

    pub fn letter_part(&self, id: &LetterId, part: u64) -> ItemKey {
        self.of_letter(id, format!("{PART_SORT_PREFIX}{}#{part:02}", in_order(id)))
    }

    fn of_letter(&self, id: &LetterId, sort: String) -> ItemKey {
        ItemKey { partition: self.letter_partition(bucket(id.shard.as_str())), sort }
    }

    fn letter_partition(&self, bucket: u64) -> String {
        format!("{}#letters#{bucket:02}", self.control)
    }

    fn shard_partition(&self, bucket: u64) -> String {
        format!("{}#{bucket:02}", self.control)
    }
}

/// The partition keys of one consumer of one stream and no other's, as patterns for
/// `dynamodb:LeadingKeys`.
pub fn leading_keys(consumer: &str, label: &str) -> [String; 2] {
    let Namespace { control } = Namespace::new(consumer, label);
    let shards = format!("{control}#*");
    [control, shards]
}

/// The partition keys of one consumer, whichever the stream, as a pattern for
/// `dynamodb:LeadingKeys`.
pub fn leading_keys_of(consumer: &str) -> String {
    format!("{OWN_PREFIX}{consumer}#*")
}

/// A letter's id in the order of its shard: as text, numbers of as many digits are.
fn in_order(id: &LetterId) -> String {
    let LetterId { shard, first, last, digest } = id;
    format!("{shard}#{:0>40}#{:0>40}#{digest:016x}", first.as_str(), last.as_str())
}

/// FNV-1a's upper half: its lower bits see only the lower bits of each byte.
fn bucket(shard: &str) -> u64 {
    let hash = shard.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 32) % SHARD_BUCKETS
}

/// Whether `name` may name a consumer: 1 to 64 of `a-z A-Z 0-9 _ . -`. It stands between
/// `#` in keys, so it may hold none.
pub fn valid_consumer_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether a stream record is of an item of ours, by the JSON of its keys
/// (`{"PK":{"S":"streamgate#…"},…}`) and the name of the table's partition key. Such
/// records are never delivered: with the stream on the same table every checkpoint
/// comes back as one.
pub fn is_own(keys_json: &str, partition_key: &str) -> bool {
    let bytes = keys_json.as_bytes();
    // With an escape in it the text may hide the prefix, or the name of the key.
    if memchr::memchr(b'\\', bytes).is_none()
        && memchr::memmem::find(bytes, OWN_PREFIX.as_bytes()).is_none()
    {
        return false;
    }
    let Ok(keys) = serde_json::from_str::<serde_json::Value>(keys_json) else { return false };
    keys.get(partition_key)
        .and_then(|value| value.get("S"))
        .and_then(|text| text.as_str())
        .is_some_and(|text| text.starts_with(OWN_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_stand_as_documented() {
        let space = Namespace::new("savealife", "2026-01-02T03:04:05.678");
        let shard = ShardId::from("shardId-00000001414562045508-2bac9cd2");
        // The buckets are part of the format: these numbers may never change.
        assert_eq!(
            space.shard(&shard),
            ItemKey {
                partition: "streamgate#savealife#2026-01-02T03:04:05.678#12".to_owned(),
                sort: "shard#shardId-00000001414562045508-2bac9cd2".to_owned(),
            }
        );
        assert_eq!(
            space.worker(&WorkerId::from("w1")),
            ItemKey {
                partition: "streamgate#savealife#2026-01-02T03:04:05.678".to_owned(),
                sort: "worker#w1".to_owned(),
            }
        );
        let id: LetterId = "s-1:9-10:00000000000000ff".parse().unwrap();
        let letters = "streamgate#savealife#2026-01-02T03:04:05.678#letters#09";
        let numbers = format!("{:0>40}#{:0>40}#{:0>16}", 9, 10, "ff");
        let letter = space.letter(&id);
        assert_eq!(
            (letter.partition.as_str(), letter.sort),
            (letters, format!("letter#s-1#{numbers}"))
        );
        let part = space.letter_part(&id, 7);
        assert_eq!(
            (part.partition.as_str(), part.sort),
            (letters, format!("part#s-1#{numbers}#07"))
        );
        assert_eq!(space.lease(&LeaseKey::Stream).sort, "stream");
        assert_eq!(space.lease(&LeaseKey::Shard(shard.clone())), space.shard(&shard));
    }

    #[test]
    fn shards_spread_evenly() {
        let mut counts = [0; SHARD_BUCKETS as usize];
        for n in 0..1600_u64 {
            let id = format!("shardId-{:020}-{:08x}", 1_414_562_045_508 + n, n * 40_503);
            counts[bucket(&id) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (60..=150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_consumer_name_fits_between_hashes() {
        for name in ["a", "streamgate", "A.b_c-9", &"x".repeat(64)] {
            assert!(valid_consumer_name(name), "{name}");
        }
        for name in ["", "a#b", "a b", "é", "a/b", &"x".repeat(65)] {
            assert!(!valid_consumer_name(name), "{name}");
        }
    }

    #[test]
    fn own_items_are_recognised_however_they_are_written() {
        for keys in [
            r#"{"PK":{"S":"streamgate#c#l"},"SK":{"S":"stream"}}"#,
            r#" { "SK" : {"S":"x"}, "PK" : { "S" : "streamgate#c" } } "#,
            r#"{"PK":{"S":"streamgate\u0023c"},"SK":{"S":"x"}}"#,
            r#"{"\u0050K":{"S":"\u0073treamgate#"}}"#,
        ] {
            assert!(is_own(keys, "PK"), "{keys}");
        }
    }

    #[test]
    fn the_applications_items_are_not_ours() {
        for keys in [
            r#"{"PK":{"S":"person#1"},"SK":{"S":"streamgate#c"}}"#,
            r#"{"PK":{"S":"Streamgate#c"},"SK":{"S":"x"}}"#,
            r#"{"PK":{"S":"a streamgate#c"}}"#,
            r#"{"PK":{"S":"\"},\"PK\":{\"S\":\"streamgate#"}}"#,
            r#"{"PK":{"B":"streamgate#"}}"#,
            r#"{"pk":{"S":"streamgate#c"}}"#,
            r#"{"PK":{"S":"streamgate#"#,
            r#"{"PK":{"N":"1"},"streamgate#":{"S":"streamgate#"}}"#,
            "",
        ] {
            assert!(!is_own(keys, "PK"), "{keys}");
        }
    }

    /// Any JSON text of `text`, with each character escaped or not.
    fn json(text: &str, escape: &[bool]) -> String {
        let mut units = [0; 2];
        let inner: String = text
            .chars()
            .zip(escape.iter().cycle())
            .flat_map(|(c, escape)| {
                let written = if *escape || c == '"' || c == '\\' || c.is_control() {
                    c.encode_utf16(&mut units).iter().map(|u| format!("\\u{u:04x}")).collect()
                } else {
                    c.to_string()
                };
                written.chars().collect::<Vec<_>>()
            })
            .collect();
        format!("\"{inner}\"")
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            any::<String>().prop_map(|rest| format!("{OWN_PREFIX}{rest}")),
            any::<String>().prop_map(|rest| format!("{rest}{OWN_PREFIX}")),
            Just("streamgat".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn own_exactly_when_the_partition_key_has_the_prefix(
            partition in value(),
            sort in value(),
            name in prop_oneof![Just("PK".to_owned()), Just("id".to_owned()), value()],
            sort_first: bool,
            escape in proptest::collection::vec(any::<bool>(), 1..8),
        ) {
            prop_assume!(name != "SK");
            let partition_member = format!("{}:{{\"S\":{}}}", json(&name, &escape), json(&partition, &escape));
            let sort_member = format!("\"SK\":{{\"S\":{}}}", json(&sort, &escape));
            let keys = if sort_first {
                format!("{{{sort_member},{partition_member}}}")
            } else {
                format!("{{{partition_member},{sort_member}}}")
            };
            prop_assert_eq!(is_own(&keys, &name), partition.starts_with(OWN_PREFIX), "{}", keys);
            prop_assert!(!is_own(&keys, "another name"));
        }

        #[test]
        fn any_text_at_all_is_survived(text in ".*") {
            is_own(&text, "PK");
        }
    }
}
