//! A stream record as bytes: a slice of the answer it came in, with marks on it.
//!
//! Owns what may be known of a record without decoding it: sequence number, creation
//! time, keys, user identity. Attribute values are never turned into objects here or
//! downstream. Invariant: a `Record`'s slice is one complete JSON object and every
//! mark lies inside it.

mod cloud_event;
mod event;
mod page;
mod quotes;
mod scan;
mod sequence_number;

pub use cloud_event::CloudEvents;
pub use event::{Event, EventEnvelope, MAX_EVENT_BYTES};
pub use page::{MalformedPage, RawPage, parse_page};
pub(crate) use scan::{ScanError, Scanner};
pub use sequence_number::{NotASequenceNumber, SequenceNumber, compare};

use crate::budget::Charge;
use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One change of one item, as GetRecords answered it.
///
/// Holding a record holds the page it came in: pages are freed when the last of their
/// records is dropped.
#[derive(Clone)]
pub struct Record {
    bytes: Bytes,
    marks: Marks,
    /// Given back to the byte budget when the last record of the page is dropped.
    charge: Option<Arc<Charge>>,
}

/// Where things lie in a record's slice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marks {
    sequence_number: Range<u32>,
    /// The value of `dynamodb.Keys`.
    keys: Option<Range<u32>>,
    /// The member `"userIdentity"` from the quote of its key to the end of its value.
    user_identity: Option<Range<u32>>,
    /// Milliseconds since the epoch.
    created: Option<u64>,
    /// Emulators send `eventSourceARN` already; it must not appear twice.
    has_source_arn: bool,
}

impl Record {
    /// The record's JSON exactly as GetRecords answered it.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same as text.
    pub fn as_text(&self) -> &str {
        self.text(&(0..self.bytes.len() as u32))
    }

    /// The digits of the record's sequence number, without allocating.
    pub fn sequence_digits(&self) -> &str {
        self.text(&self.marks.sequence_number)
    }

    /// The record's sequence number.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.sequence_digits().parse().expect("checked when the page was parsed")
    }

    /// `ApproximateCreationDateTime`. DynamoDB rounds it down, to the second at best.
    pub fn created(&self) -> Option<SystemTime> {
        self.marks.created.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    /// The JSON of the item's keys, `{"PK":{"S":"…"},…}`.
    pub fn keys(&self) -> Option<&str> {
        self.marks.keys.as_ref().map(|keys| self.text(keys))
    }

    /// What the page it came in is charged to; it lives as long as a record of the page.
    pub(crate) fn page(&self) -> Option<&Arc<Charge>> {
        self.charge.as_ref()
    }

    /// Makes the record share in the charge for its page.
    pub(crate) fn charge(&mut self, charge: Arc<Charge>) {
        self.charge = Some(charge);
    }

    fn text(&self, range: &Range<u32>) -> &str {
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        std::str::from_utf8(bytes).expect("pages are checked to be UTF-8 and cut at ASCII")
    }
}

/// A hash of an item's keys, or of the one with this name: the same in whichever order they
/// stand.
pub(crate) fn keys_hash(keys: &str, only: Option<&str>) -> u64 {
    let mut scanner = Scanner::new(keys.as_bytes());
    let mut sum = 0_u64;
    let walked = scanner.object(|scanner, name| {
        let name = &keys[name];
        let value = &keys[scanner.value()?];
        if only.is_none_or(|key| key == name) {
            let mut hasher = DefaultHasher::new();
            (name, value).hash(&mut hasher);
            sum = sum.wrapping_add(hasher.finish());
        }
        Ok(())
    });
    debug_assert!(walked.is_ok(), "keys are JSON: the page was");
    sum
}

impl std::fmt::Debug for Record {
    /// Never shows item contents: records end up in debug output of larger things.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, {} bytes)", self.sequence_digits(), self.bytes.len())
    }
}
