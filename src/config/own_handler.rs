//! The settings of a consumer whose handler is Rust code of the same program.
//!
//! Owns which settings have no meaning then. Invariant: none of them is accepted and
//! ignored.

use super::consumer::{ConsumerConfig, read};
use super::values::{Fault, Faults};
use std::time::SystemTime;

/// The way to a handler elsewhere. How long it may take and what becomes of what it does
/// not take are settings as ever.
const ELSEWHERE: [&str; 4] =
    ["HANDLER", "HANDLER_FORMAT", "HANDLER_SECRET", "FUNCTION_RESPONSE_TYPES"];

/// Reads what [`super::consumer()`] reads, but for the settings of a handler elsewhere: they are
/// refused, and what [`ConsumerConfig`] says of them means nothing. Contacts nothing.
///
/// # Errors
/// Every fault there is, not just the first.
pub fn own_handler(
    lookup: &dyn Fn(&str) -> Option<String>,
    now: SystemTime,
) -> Result<ConsumerConfig, Faults> {
    let is_set = |name: &&str| lookup(name).is_some_and(|value| !value.is_empty());
    let what = "is set, but this program is its own handler; take it out";
    let fault = |name| Fault { name, what: what.to_owned() };
    let refused: Vec<_> = ELSEWHERE.into_iter().filter(is_set).map(fault).collect();
    let rest = |name: &str| if ELSEWHERE.contains(&name) { None } else { lookup(name) };
    match read(&rest, now, true) {
        Ok(config) if refused.is_empty() => Ok(config),
        Ok(_) => Err(Faults(refused)),
        Err(Faults(others)) => Err(Faults(refused.into_iter().chain(others).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str =
        "arn:aws:dynamodb:eu-central-1:123456789012:table/people/stream/2026-01-02T03:04:05.678";

    fn faults(set: &[(&str, &str)]) -> Vec<&'static str> {
        let lookup = |name: &str| {
            let (_, value) = set.iter().find(|(n, _)| *n == name)?;
            Some((*value).to_owned())
        };
        let read = own_handler(&lookup, SystemTime::now());
        let Faults(faults) = read.err().unwrap_or(Faults(Vec::new()));
        faults.iter().map(|fault| fault.name).collect()
    }

    #[test]
    fn settings_of_a_handler_elsewhere_are_refused_and_no_others() {
        let good = [("STREAM_ARN", ARN), ("TABLE_NAME", "people"), ("HANDLER_TIMEOUT", "5s")];
        assert_eq!(faults(&good), [""; 0]);
        assert_eq!(faults(&[&good[..], &[("HANDLER", "")]].concat()), [""; 0]);
        for (name, value) in [
            ("HANDLER", "log"),
            ("HANDLER_FORMAT", "cloudevents"),
            ("HANDLER_SECRET", "x"),
            ("FUNCTION_RESPONSE_TYPES", "x"),
        ] {
            assert_eq!(faults(&[&good[..], &[(name, value)]].concat()), [name]);
        }
        let both = [("HANDLER", "ftp://x"), ("STREAM_ARN", ARN), ("BATCH_SIZE", "0")];
        assert_eq!(faults(&both), ["HANDLER", "TABLE_NAME", "BATCH_SIZE"]);
    }
}
