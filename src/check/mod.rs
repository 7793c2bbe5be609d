//! `streamgate check`: whether a container has what it needs, and nothing more.
//!
//! Owns what is asked and how answers are judged. Asks with the container's own
//! credentials and changes nothing: reads read little, and a write carries a condition
//! that no item meets. Invariant: good means that AWS itself said so; what could not be
//! asked is open, which is not good.

mod api;
mod consumer;
mod probe;

pub use api::api;
pub use consumer::consumer;

use probe::Access;
use serde::Serialize;
use std::fmt;

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub mark: Mark,
    /// A sentence about it.
    pub what: String,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Mark {
    /// As it should be.
    #[serde(rename = "ok")]
    Good,
    /// Not as it should be: the sentence says what to do.
    #[serde(rename = "fault")]
    Bad,
    /// It could not be found out.
    #[serde(rename = "open")]
    Open,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Good => "ok   ",
            Mark::Bad => "FAULT",
            Mark::Open => "?    ",
        };
        write!(f, "{mark} {}", self.what)
    }
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { mark: Mark::Good, what: what.into() }
    }

    fn bad(what: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, what: what.into() }
    }

    fn open(what: impl Into<String>) -> Self {
        Self { mark: Mark::Open, what: what.into() }
    }
}

/// A call that the container makes: `container` names it as `streamgate policy` does.
fn needed(action: &str, on: &str, container: &str, access: Access) -> Finding {
    match access {
        Access::Granted => Finding::good(format!("granted, as needed: {action} on {on}")),
        Access::Refused(why) => Finding::bad(format!(
            "missing: {action} on {on}: {why}; the role has to allow it (`streamgate policy {container}` prints what is enough)"
        )),
        Access::Unknown(why) => {
            Finding::open(format!("{action} on {on} could not be asked for: {why}"))
        }
    }
}

/// A call that the container must not be able to make.
fn unneeded(action: &str, on: &str, container: &str, access: Access) -> Finding {
    match access {
        Access::Refused(_) => Finding::good(format!("refused, as it should be: {action} on {on}")),
        Access::Granted => Finding::bad(format!(
            "over-privileged: {action} on {on} is allowed, and this container never needs it; take it out of the role (`streamgate policy {container}` prints what is enough)"
        )),
        Access::Unknown(why) => {
            Finding::open(format!("whether {action} on {on} is refused could not be asked: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_answer_is_good_or_bad_by_what_is_needed() {
        let refused = || Access::Refused("not authorized".to_owned());
        let judged = |finding: Finding| (finding.mark, finding.to_string());
        let action = "dynamodb:GetRecords";
        let on = "the stream";
        assert_eq!(
            judged(needed(action, on, "consumer", Access::Granted)),
            (Mark::Good, "ok    granted, as needed: dynamodb:GetRecords on the stream".to_owned())
        );
        let (mark, line) = judged(needed(action, on, "consumer", refused()));
        assert!(mark == Mark::Bad && line.contains("not authorized"), "{line}");
        assert!(line.starts_with("FAULT missing") && line.contains("streamgate policy consumer"));
        assert_eq!(judged(unneeded(action, on, "api", refused())).0, Mark::Good);
        let (mark, line) = judged(unneeded(action, on, "api", Access::Granted));
        assert!(mark == Mark::Bad && line.contains("take it out of the role"), "{line}");
        for finding in [needed, unneeded] {
            let unknown = Access::Unknown("no network".to_owned());
            assert_eq!(finding(action, on, "api", unknown).mark, Mark::Open);
        }
    }
}
