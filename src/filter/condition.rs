//! What a pattern asks of one value, and whether the value meets it.
//!
//! Owns the operators, as Lambda's filters have them. Values are looked at as they stand
//! in the record's text; one with an escape in it is the only one that is copied.

use super::number::Decimal;
use std::borrow::Cow;

/// One element of a leaf's array.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// A string, its characters.
    Text(String),
    /// A number, `true`, `false` or `null`: exactly these characters.
    Token(String),
    /// `prefix`
    Prefix(String),
    /// `suffix`
    Suffix(String),
    /// `equals-ignore-case`, in lower case.
    IgnoreCase(String),
    /// `anything-but`: none of these, which are [`Self::Text`] or [`Self::Token`].
    AnythingBut(Vec<Condition>),
    /// `numeric`: all of these hold. `in_text`: for numbers that stand in strings, as
    /// DynamoDB's do.
    Numeric { tests: Vec<(Comparison, Decimal)>, in_text: bool },
    /// `exists: true`: any value.
    Exists,
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// As patterns write it.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, value: &Decimal, bound: &Decimal) -> bool {
        match self {
            Self::Equal => value == bound,
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
        }
    }
}

/// A value that is neither an object nor an array.
#[derive(Clone, Debug)]
pub(super) enum Scalar<'a> {
    /// A string's characters.
    Text(Cow<'a, str>),
    /// Anything else, as it is written.
    Token(&'a str),
}

impl<'a> Scalar<'a> {
    /// From a complete JSON value; `None` for objects and arrays.
    pub fn read(json: &'a str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'{' | b'[' => None,
            b'"' => {
                let inner = &json[1..json.len() - 1];
                if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
                    return Some(Self::Text(Cow::Borrowed(inner)));
                }
                // A lone surrogate is no text: as it is written it equals nothing.
                let unescaped = serde_json::from_str(json).map(Cow::Owned);
                Some(unescaped.map_or(Self::Token(json), Self::Text))
            }
            _ => Some(Self::Token(json)),
        }
    }
}

impl Condition {
    /// Whether `value` meets it.
    pub fn holds(&self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Text(wanted), Scalar::Text(text)) => wanted == text,
            (Self::Token(wanted), Scalar::Token(token)) => wanted == token,
            (Self::Prefix(prefix), Scalar::Text(text)) => text.starts_with(prefix.as_str()),
            (Self::Suffix(suffix), Scalar::Text(text)) => text.ends_with(suffix.as_str()),
            (Self::IgnoreCase(wanted), Scalar::Text(text)) => text.to_lowercase() == *wanted,
            (Self::AnythingBut(refused), value) => !refused.iter().any(|one| one.holds(value)),
            (Self::Numeric { tests, in_text }, value) => {
                let digits = match value {
                    Scalar::Text(text) if *in_text => text.as_ref(),
                    Scalar::Token(token) if !*in_text => token,
                    _ => return false,
                };
                Decimal::parse(digits).is_some_and(|value| {
                    tests.iter().all(|(test, bound)| test.holds(&value, bound))
                })
            }
            _ => false,
        }
    }
}
