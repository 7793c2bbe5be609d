//! A GetRecords answer: whatever it is, it is taken apart or refused, and what it was taken
//! apart into can be put together again as an event.
//!
//! Invariants: of a JSON text everything cut out is JSON; the one leniency is raw control
//! characters in strings. An event is as long as it says and no longer than its records
//! cost, and it can be read as a page of the same records.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use std::sync::LazyLock;
use streamgate::record::{EventEnvelope, Record, SequenceNumber, parse_page};

static ENVELOPE: LazyLock<EventEnvelope> = LazyLock::new(|| {
    let arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/cats/stream/2026-01-01T00:00:00.000";
    EventEnvelope::new(&arn.parse().expect("an ARN"))
});

fuzz_target!(|body: &[u8]| {
    let body = Bytes::copy_from_slice(body);
    let Ok(page) = parse_page(&body) else { return };
    let strict = is_json(&body);
    assert!(strict || is_json(&printable(&body)), "taken and not JSON");
    for record in &page.records {
        look_at(record, strict);
    }

    let event = ENVELOPE.event(&page.records);
    let text = Bytes::from(event.to_vec());
    assert_eq!(event.len(), text.len());
    assert_eq!(event.slices().concat(), text);
    let cost: usize = page.records.iter().map(|record| ENVELOPE.cost(record)).sum();
    assert!(event.len() <= EventEnvelope::EMPTY + cost, "longer than was reckoned");
    assert!(is_json(&text) || !strict && is_json(&printable(&text)), "the event is not JSON");

    // An event has the form of a page, and nothing is left to be added to it.
    let again = parse_page(&text).expect("an event is a page").records;
    assert_eq!(again.len(), page.records.len());
    for (one, other) in page.records.iter().zip(&again) {
        assert_eq!(one.sequence_digits(), other.sequence_digits());
        assert_eq!((one.keys(), one.created()), (other.keys(), other.created()));
    }
    assert_eq!(ENVELOPE.event(&again).to_vec(), text);
});

fn look_at(record: &Record, strict: bool) {
    let text = record.as_text();
    assert!(text.starts_with('{') && text.ends_with('}'), "not an object");
    assert_eq!(text.as_bytes(), record.as_bytes());
    assert!(!strict || is_json(text.as_bytes()), "cut out and not JSON");
    if let Some(keys) = record.keys() {
        assert!(text.contains(keys));
        assert!(!strict || is_json(keys.as_bytes()), "keys that are not JSON");
    }
    let number: SequenceNumber = record.sequence_number();
    assert_eq!(number.as_str(), record.sequence_digits());
    let alone = ENVELOPE.record(record);
    assert_eq!(alone.len(), alone.to_vec().len());
    assert!(!strict || is_json(&alone.to_vec()), "not JSON in the event");
}

/// Whether serde_json sees one value in it. Without building it, so that neither depth nor
/// the size of numbers counts.
fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// The text with blanks for its control characters.
fn printable(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&byte| byte.max(b' ')).collect()
}
