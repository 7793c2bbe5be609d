//! Errors between the consumer and the api: RFC 9457, with a code for programs.
//!
//! Owns the way from a [`ProgressError`] to JSON and back. Invariant: what the consumer
//! gets is what its store would have said, but that the sentence names the api.

use super::{ProgressError, TABLE_ACTIONS, WorkerId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The content type of errors (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for programs. Also a metric's label: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The condition failed; `owner` says who holds the lease.
    LeaseLost,
    /// AWS refused the api; `action` says what.
    AccessDenied,
    /// AWS did not accept the api's keys.
    Credentials,
    /// The table cannot hold progress.
    Unsuitable,
    /// The table does not answer, or not in time.
    Unavailable,
    /// The token is missing or another.
    Unauthorized,
    /// The api works on another table.
    WrongTable,
    /// The api keeps progress for other consumers.
    WrongConsumer,
    /// There is no version that both sides speak.
    WrongVersion,
    /// There is no such path or method.
    NoSuchRoute,
    /// There is such a path, but not with this method.
    WrongMethod,
    /// The body is larger than is read.
    TooLarge,
    /// The request cannot be read.
    Malformed,
}

impl ProblemCode {
    /// Every code.
    pub const ALL: [Self; 13] = [
        Self::LeaseLost,
        Self::AccessDenied,
        Self::Credentials,
        Self::Unsuitable,
        Self::Unavailable,
        Self::Unauthorized,
        Self::WrongTable,
        Self::WrongConsumer,
        Self::WrongVersion,
        Self::NoSuchRoute,
        Self::WrongMethod,
        Self::TooLarge,
        Self::Malformed,
    ];

    /// As JSON and metrics have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::LeaseLost => "lease_lost",
            Self::AccessDenied => "access_denied",
            Self::Credentials => "credentials",
            Self::Unsuitable => "unsuitable",
            Self::Unavailable => "unavailable",
            Self::Unauthorized => "unauthorized",
            Self::WrongTable => "wrong_table",
            Self::WrongConsumer => "wrong_consumer",
            Self::WrongVersion => "wrong_version",
            Self::NoSuchRoute => "no_such_route",
            Self::WrongMethod => "wrong_method",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }

    /// The status it is answered with, and that status's phrase.
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Self::LeaseLost => (409, "Conflict"),
            Self::AccessDenied => (403, "Forbidden"),
            Self::Credentials => (502, "Bad Gateway"),
            Self::Unsuitable | Self::WrongTable | Self::WrongConsumer | Self::WrongVersion => {
                (422, "Unprocessable Content")
            }
            Self::Unavailable => (503, "Service Unavailable"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::NoSuchRoute => (404, "Not Found"),
            Self::WrongMethod => (405, "Method Not Allowed"),
            Self::TooLarge => (413, "Content Too Large"),
            Self::Malformed => (400, "Bad Request"),
        }
    }
}

/// An error as RFC 9457 has it, with three members of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `about:blank`: the code says more than a page could.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status's phrase.
    pub title: String,
    /// The status.
    pub status: u16,
    /// A sentence for people.
    pub detail: String,
    /// What went wrong.
    pub code: ProblemCode,
    /// With `lease_lost`: who holds the lease; none when nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<WorkerId>,
    /// With `access_denied`: the IAM action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

impl Problem {
    /// A problem with a sentence about it.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let (status, title) = code.status();
        let (kind, title) = ("about:blank".to_owned(), title.to_owned());
        Self { kind, title, status, detail: detail.into(), code, owner: None, action: None }
    }
}

impl From<ProgressError> for Problem {
    fn from(error: ProgressError) -> Self {
        let detail = error.to_string();
        match error {
            ProgressError::LeaseLost { owner } => {
                Self { owner, ..Self::new(ProblemCode::LeaseLost, detail) }
            }
            ProgressError::AccessDenied { action, message } => Self {
                action: Some(action.to_owned()),
                ..Self::new(ProblemCode::AccessDenied, message)
            },
            ProgressError::Credentials(_) => Self::new(ProblemCode::Credentials, detail),
            ProgressError::Unsuitable(_) => Self::new(ProblemCode::Unsuitable, detail),
            ProgressError::Unavailable(_) => Self::new(ProblemCode::Unavailable, detail),
        }
    }
}

impl From<Problem> for ProgressError {
    fn from(problem: Problem) -> Self {
        let Problem { code, detail, owner, action, .. } = problem;
        match code {
            ProblemCode::LeaseLost => Self::LeaseLost { owner },
            ProblemCode::AccessDenied => {
                let known = |name: &String| TABLE_ACTIONS.into_iter().find(|known| known == name);
                match action.as_ref().and_then(known) {
                    Some(action) => {
                        Self::AccessDenied { action, message: format!("to the api: {detail}") }
                    }
                    None => Self::Unsuitable(format!("AWS refused the api a call: {detail}")),
                }
            }
            ProblemCode::Credentials => {
                Self::Credentials(format!("the api's, not this container's: {detail}"))
            }
            ProblemCode::Unavailable => Self::Unavailable(format!("the api answered: {detail}")),
            ProblemCode::Unsuitable
            | ProblemCode::WrongTable
            | ProblemCode::WrongConsumer
            | ProblemCode::WrongVersion
            | ProblemCode::Unauthorized
            | ProblemCode::NoSuchRoute
            | ProblemCode::WrongMethod
            | ProblemCode::TooLarge
            | ProblemCode::Malformed => Self::Unsuitable(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_back_as_what_it_was() {
        let there_and_back = |error: ProgressError| {
            let json = serde_json::to_string(&Problem::from(error)).unwrap();
            ProgressError::from(serde_json::from_str::<Problem>(&json).unwrap())
        };
        for owner in [None, Some(WorkerId::from("w1"))] {
            let back = there_and_back(ProgressError::LeaseLost { owner: owner.clone() });
            assert!(matches!(back, ProgressError::LeaseLost { owner: o } if o == owner));
        }
        for action in TABLE_ACTIONS {
            let message = "no".to_owned();
            let back = there_and_back(ProgressError::AccessDenied { action, message });
            assert!(matches!(back, ProgressError::AccessDenied { action: a, .. } if a == action));
        }
        let text = || "why".to_owned();
        let back = there_and_back(ProgressError::Unsuitable(text()));
        assert!(matches!(back, ProgressError::Unsuitable(why) if why == "why"));
        let back = there_and_back(ProgressError::Unavailable(text()));
        assert!(matches!(back, ProgressError::Unavailable(why) if why.contains("why")));
        let back = there_and_back(ProgressError::Credentials(text()));
        assert!(matches!(back, ProgressError::Credentials(why) if why.contains("why")));
    }

    #[test]
    fn labels_are_what_stands_in_the_json() {
        for code in ProblemCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.label());
        }
    }
}
