//! How the simulated service behaves, as far as that can change while it runs.
//!
//! Owns the defaults (AWS's, where they are known) and the check of new values. What is
//! fixed at creation (shards, first sequence number, seed) belongs to the builder.

use super::Refused;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// In which order DescribeStream lists shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingOrder {
    /// Oldest first, as AWS does.
    #[default]
    Creation,
    /// Youngest first, so that children come before their parents: AWS promises no order.
    ChildrenFirst,
}

/// How the simulated service behaves. The JSON names are the admin interface's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long an iterator can be used.
    #[serde(rename = "iterator_life_ms", with = "millis")]
    pub iterator_life: Duration,
    /// The age at which records are trimmed, and closed shards forgotten.
    #[serde(rename = "retention_ms", with = "millis")]
    pub retention: Duration,
    /// The most records in one GetRecords answer, however many are asked for.
    pub page_records: usize,
    /// The most bytes of records in one answer; one record is always given.
    pub page_bytes: usize,
    /// The most shards in one DescribeStream answer.
    pub listing_page: usize,
    /// In which order shards are listed.
    pub listing_order: ListingOrder,
    /// How long children stay unlisted after their parent closed.
    #[serde(rename = "child_lag_ms", with = "millis")]
    pub child_lag: Duration,
    /// How long a closed shard still lists as open.
    #[serde(rename = "parent_lag_ms", with = "millis")]
    pub parent_lag: Duration,
    /// Whether the page with a closed shard's last records comes without a next iterator,
    /// as on AWS. Otherwise an empty page follows it.
    pub last_page_has_records: bool,
    /// Empty pages that every new iterator answers before the first record.
    pub empty_pages: u32,
    /// Whether AT_TIMESTAMP is known; older endpoints refuse it.
    pub at_timestamp: bool,
    /// Whether DescribeStream knows the CHILD_SHARDS filter; older endpoints ignore it.
    pub child_filter: bool,
    /// GetRecords calls that may be under way on one shard at a time; `None` for no bound.
    /// A call is under way only while it is worked on, which without a `slow` fault is
    /// hardly any time: see also `reads_per_second`.
    pub readers_per_shard: Option<u32>,
    /// GetRecords calls a shard answers within any one second; `None` for no bound.
    pub reads_per_second: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            iterator_life: Duration::from_secs(15 * 60),
            retention: Duration::from_secs(24 * 60 * 60),
            page_records: 1000,
            page_bytes: 1024 * 1024,
            listing_page: 100,
            listing_order: ListingOrder::default(),
            child_lag: Duration::ZERO,
            parent_lag: Duration::ZERO,
            last_page_has_records: true,
            empty_pages: 0,
            at_timestamp: true,
            child_filter: true,
            readers_per_shard: Some(2),
            reads_per_second: None,
        }
    }
}

impl Settings {
    /// These settings with the members of the JSON object `patch` in place of their own.
    pub(super) fn patched(&self, patch: &Value) -> Result<Self, Refused> {
        let Value::Object(patch) = patch else {
            return Err(Refused::new("settings must be a JSON object"));
        };
        let mut whole = serde_json::to_value(self).expect("settings are JSON");
        let members = whole.as_object_mut().expect("a struct is an object");
        members.extend(patch.iter().map(|(name, value)| (name.clone(), value.clone())));
        let settings: Self =
            serde_json::from_value(whole).map_err(|error| Refused::new(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    pub(super) fn check(&self) -> Result<(), Refused> {
        for (name, value, most) in [
            ("page_records", self.page_records, 1000),
            ("page_bytes", self.page_bytes, 16 * 1024 * 1024),
            ("listing_page", self.listing_page, 100),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Refused::new(format!("{name} must be from 1 to {most}, not {value}")));
            }
        }
        if self.readers_per_shard == Some(0) || self.reads_per_second == Some(0) {
            return Err(Refused::new(
                "readers_per_shard and reads_per_second must be at least 1, or null for no bound",
            ));
        }
        Ok(())
    }
}

/// Durations as whole milliseconds.
pub(super) mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        // Bounded so that adding it to a time cannot overflow.
        let bounded = u64::deserialize(from)?.min(u64::from(u32::MAX) * 1000);
        Ok(Duration::from_millis(bounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_changes_its_members_only() {
        let settings = Settings::default()
            .patched(&json!({"iterator_life_ms": 5, "readers_per_shard": null}))
            .unwrap();
        let expected = Settings {
            iterator_life: Duration::from_millis(5),
            readers_per_shard: None,
            ..Settings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_patch_that_makes_no_sense_is_refused() {
        for patch in [
            json!([]),
            json!({"iterator_life": 5}),
            json!({"page_records": 1001}),
            json!({"listing_page": 0}),
            json!({"child_lag_ms": -1}),
            json!({"reads_per_second": 0}),
            json!({"listing_order": "random"}),
        ] {
            assert!(Settings::default().patched(&patch).is_err(), "{patch}");
        }
    }
}
