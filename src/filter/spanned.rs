//! A pattern's text as a tree whose nodes know where they stand.
//!
//! Owns positions, so that a fault can be pointed at. Invariant: it is JSON, and of a key
//! that comes twice the last counts, as Lambda has it.

use crate::record::{ScanError, Scanner};
use std::ops::Range;

/// A node and the byte at which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned {
    pub at: usize,
    pub json: Json,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Object(Vec<(String, Spanned)>),
    Array(Vec<Spanned>),
    Text(String),
    /// A number, `true`, `false` or `null`, as it is written.
    Token(String),
}

impl Json {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object(_) => "an object",
            Self::Array(_) => "an array",
            Self::Text(_) => "text",
            Self::Token(token) => match token.as_bytes().first() {
                Some(b't' | b'f') => "true or false",
                Some(b'n') => "null",
                _ => "a number",
            },
        }
    }
}

/// Reads a whole text.
///
/// # Errors
/// When it is not JSON.
pub(super) fn read(text: &str) -> Result<Spanned, ScanError> {
    let mut scanner = Scanner::new(text.as_bytes());
    let root = value(text, &mut scanner)?;
    scanner.end()?;
    Ok(root)
}

fn value(text: &str, scanner: &mut Scanner<'_>) -> Result<Spanned, ScanError> {
    let (at, json) = match scanner.peek()? {
        b'{' => {
            let mut members: Vec<(String, Spanned)> = Vec::new();
            let span = scanner.object(|scanner, key| {
                let name = unquoted(text, key.start - 1..key.end + 1)?;
                members.retain(|(other, _)| *other != name);
                members.push((name, value(text, scanner)?));
                Ok(())
            })?;
            (span.start, Json::Object(members))
        }
        b'[' => {
            let mut elements = Vec::new();
            let span = scanner.array(|scanner| {
                elements.push(value(text, scanner)?);
                Ok(())
            })?;
            (span.start, Json::Array(elements))
        }
        b'"' => {
            let span = scanner.value()?;
            (span.start, Json::Text(unquoted(text, span)?))
        }
        _ => {
            let span = scanner.value()?;
            (span.start, Json::Token(text[span].to_owned()))
        }
    };
    Ok(Spanned { at, json })
}

/// A string's characters. The scanner lets pass what stands for none.
fn unquoted(text: &str, quoted: Range<usize>) -> Result<String, ScanError> {
    let at = quoted.start;
    let what = "a string with a raw control character or half a surrogate pair";
    serde_json::from_str(&text[quoted]).map_err(|_| ScanError::new(what, at))
}
