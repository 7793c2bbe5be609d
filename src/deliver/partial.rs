//! An answer's body: which records failed, and the state of their window.
//!
//! Owns how `{"batchItemFailures":[{"itemIdentifier":"…"}]}` is read, as Lambda reads it.
//! Invariant: what cannot be understood means that the whole batch failed, for a record
//! that comes twice is better than one that is lost.

use super::{HandlerError, Response};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The answer; what else it may hold is passed over.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "batchItemFailures", default)]
    failures: Option<Vec<Value>>,
    /// Present and `null` is a state, too.
    #[serde(default, deserialize_with = "present")]
    state: Option<Box<RawValue>>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

impl Response {
    /// What a partial batch response says; an empty answer is one, too.
    ///
    /// # Errors
    /// When it is no answer of the kind: then the whole batch failed. The message repeats
    /// nothing of it.
    pub fn read(answer: &[u8]) -> Result<Self, HandlerError> {
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::taken());
        }
        // A struct would be read from it, too, and from an empty one as complete success.
        if answer.trim_ascii_start().starts_with(b"[") {
            return Err(HandlerError::failed(
                "the handler's answer is a list and not a partial batch response",
            ));
        }
        let answer: Option<Answer> = serde_json::from_slice(answer).map_err(|error| {
            // Its own words would repeat what was answered, which may hold items.
            let (kind, line, column) = (error.classify(), error.line(), error.column());
            HandlerError::failed(format!(
                "the handler's answer is not a partial batch response: {kind:?} at line {line} column {column}"
            ))
        })?;
        let Answer { failures, state } = answer.unwrap_or(Answer { failures: None, state: None });
        let failures = failures.unwrap_or_default();
        let identifier = |failure: &Value| match failure.get("itemIdentifier") {
            Some(Value::String(identifier)) if !identifier.is_empty() => Ok(identifier.clone()),
            _ => Err(HandlerError::failed(
                "the handler's answer names a failure without itemIdentifier, so the whole batch counts as failed",
            )),
        };
        let failed = failures.iter().map(identifier).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { failed, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_read_as_lambda_reads_it() {
        // Complete success.
        for body in [
            "",
            " \n",
            "null",
            "{}",
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
            r#"{"statusCode":200}"#,
        ] {
            assert_eq!(Response::read(body.as_bytes()).unwrap(), Response::taken(), "{body}");
        }
        // Complete failure.
        for body in [
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"bad_key":"5"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"5"},{"itemIdentifier":5}]}"#,
            r#"{"batchItemFailures":["5"]}"#,
            r#"{"batchItemFailures":{}}"#,
            r#""OK""#,
            "OK",
            "[",
            "[]",
            " [null]",
            r#"[[{"itemIdentifier":"5"}]]"#,
        ] {
            let error = Response::read(body.as_bytes()).unwrap_err();
            assert!(!error.message.contains("OK"), "an answer may hold items: {error}");
        }
        let body = r#"{"batchItemFailures":[{"itemIdentifier":"7"},{"itemIdentifier":"5"}],"x":1}"#;
        let failed = ["7", "5"].map(str::to_owned).to_vec();
        assert_eq!(Response::read(body.as_bytes()).unwrap(), Response::failed(failed));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_or_refused(body: Vec<u8>, text in ".{0,200}") {
            let _ = Response::read(&body);
            let _ = Response::read(text.as_bytes());
        }
    }
}
