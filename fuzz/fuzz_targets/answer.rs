//! A handler's answer that may name failed records: whatever it is, it is read or refused.
//!
//! Invariants: what was read is what serde_json sees in the answer, and the words of a
//! refusal are ours. They go into logs, and an answer may hold items.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;
use streamgate::deliver::Response;

/// One answer for each thing that a refusal may say.
const REFUSED: [&[u8]; 5] =
    [b"OK", b"{", b"5", b"[]", br#"{"batchItemFailures":[{"itemIdentifier":5}]}"#];

static SENTENCES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let said = |answer| Response::read(answer).expect_err("no answer of the kind").message;
    REFUSED.iter().map(|answer| without_numbers(&said(answer))).collect()
});

fuzz_target!(|answer: &[u8]| {
    let read = Response::read(answer).map_err(|error| error.message);
    match &read {
        Err(message) => {
            let known = SENTENCES.contains(&without_numbers(message));
            assert!(known, "not a sentence of ours: {message}");
            // A line or a column of it, and not a number that stands in it.
            for number in message.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()) {
                let place: usize = number.parse().expect("a place");
                assert!(place <= answer.len() + 1, "{place} is no place in the answer: {message}");
            }
        }
        Ok(response) => {
            // What is passed over may be more than serde_json makes a value of.
            if let Ok(value) = serde_json::from_slice::<Value>(answer) {
                assert_eq!(*response, Response::failed(failures(&value)));
            }
        }
    }
    // White space around it says nothing.
    let padded = [b"\n ", answer, b" "].concat();
    assert_eq!(Response::read(&padded).ok(), read.ok());
});

fn without_numbers(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The records that failed by an answer which was read.
fn failures(answer: &Value) -> Vec<String> {
    assert!(answer.is_null() || answer.is_object(), "nothing else is an answer: {answer}");
    let list = answer.get("batchItemFailures").filter(|list| !list.is_null());
    let list = list.map(|list| list.as_array().expect("a list")).into_iter().flatten();
    list.map(|failure| failure["itemIdentifier"].as_str().expect("a text").to_owned()).collect()
}
