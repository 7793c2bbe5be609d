//! Sequence numbers: opaque position tokens that order as integers.
//!
//! Owns their order. DynamoDB's are 21 to 40 digits and lengths differ within one
//! stream, so text order is wrong and `u128` is one digit short of the longest.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most digits that are taken for a sequence number (DynamoDB's own bound).
pub const MAX_DIGITS: usize = 40;

/// The place of a record in its shard lineage. Numbers grow along a lineage but are not
/// consecutive, and mean nothing across lineages.
#[derive(Clone)]
pub struct SequenceNumber(Arc<str>);

/// The text is not a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number: expected 1 to 40 decimal digits")]
pub struct NotASequenceNumber;

impl SequenceNumber {
    /// The digits exactly as DynamoDB wrote them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `digits` has the form of a sequence number.
pub(crate) fn is_valid(digits: &[u8]) -> bool {
    (1..=MAX_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

/// Orders two texts of decimal digits as the integers they write.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl FromStr for SequenceNumber {
    type Err = NotASequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_valid(text.as_bytes()) { Ok(Self(text.into())) } else { Err(NotASequenceNumber) }
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// By value, as `Ord` has it: a leading zero changes nothing.
impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SequenceNumber {}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_chain_of_a_real_stream_is_in_order() {
        let chain =
            ["20500000000000000910398", "820400000000000001192334", "1683700000000000001135967"];
        let numbers: Vec<SequenceNumber> = chain.iter().map(|n| n.parse().unwrap()).collect();
        assert!(numbers.is_sorted());
        assert!(!chain.is_sorted(), "text order would be wrong, which is the point");
    }

    #[test]
    fn refuses_what_is_not_digits_or_too_long() {
        for text in ["", "12a", "-1", "+1", " 1", &"9".repeat(41)] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text:?}");
        }
        assert!("9".repeat(40).parse::<SequenceNumber>().is_ok());
    }

    proptest! {
        #[test]
        fn orders_as_integers(a: u128, b: u128, zeros in 0..1usize) {
            let text = |n: u128| format!("{}{n}", "0".repeat(zeros));
            prop_assert_eq!(compare(&text(a), &b.to_string()), a.cmp(&b));
        }
    }
}
