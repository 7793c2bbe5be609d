//! Settings of the way to the handler: who it is, what it is sent, how requests are signed,
//! and what becomes of batches that it does not take.
//!
//! Owns their bounds and what goes with what. Invariant: records can be given up only
//! where a setting says what becomes of them.

use super::values::Values;
use crate::arn::StreamArn;
use crate::deliver::{LetterBox, OnFailure, RetrySettings, Secrets};
use crate::record::CloudEvents;
use reqwest::Url;
use std::time::Duration;

/// Who gets the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerConfig {
    /// One record a line on stdout.
    Log,
    /// Nobody; they are counted.
    Discard,
    /// An HTTP server.
    Http(Url),
    /// A program, run as child processes, and its arguments.
    Exec(String, Vec<String>),
    /// Lambda functions behind Runtime Interface Emulators.
    Lambda(Vec<Url>),
}

/// A value as it was given, but where it may hold a password.
fn shown(text: &str) -> String {
    if text.contains('@') { "something else".to_owned() } else { format!("{text:?}") }
}

pub(super) fn handler(text: &str) -> Result<HandlerConfig, String> {
    match text {
        "log" => return Ok(HandlerConfig::Log),
        "discard" => return Ok(HandlerConfig::Discard),
        _ => {}
    }
    if text.starts_with("lambda+http") {
        let target = |target: &str| {
            let url = target.trim().strip_prefix("lambda+").and_then(|url| Url::parse(url).ok());
            url.filter(|url| {
                let rest = (url.path(), url.query(), url.fragment());
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && rest == ("/", None, None)
            })
        };
        let targets: Option<Vec<_>> = text.split(',').map(target).collect();
        return targets.map(HandlerConfig::Lambda).ok_or_else(|| {
            format!(
                "is {}; lambda+http://host:port is allowed, without path or query, several with commas between",
                shown(text)
            )
        });
    }
    if let Some(line) = text.strip_prefix("exec:") {
        let mut words = line.split_whitespace().map(str::to_owned);
        return match words.next() {
            Some(program) => Ok(HandlerConfig::Exec(program, words.collect())),
            None => Err("names no program; exec:program, with arguments after it, is allowed (their spaces part them; quotes mean nothing)".to_owned()),
        };
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(HandlerConfig::Http(url))
        }
        _ => Err(format!(
            "is {}; log, discard, http://…, https://…, lambda+http://… and exec:program are allowed",
            shown(text)
        )),
    }
}

/// Retries, and where what is given up goes: nothing is dropped that was not asked for.
pub(super) fn retries(values: &mut Values<'_>) -> Option<(RetrySettings, OnFailure)> {
    const RETRIES: &str = "MAXIMUM_RETRY_ATTEMPTS";
    const AGE: &str = "MAXIMUM_RECORD_AGE_IN_SECONDS";
    const ON_FAILURE: &str = "ON_FAILURE";
    let max_retries = values.number_or_never(RETRIES, 0, 10_000);
    let max_age = values.number_or_never(AGE, 60, 604_800);
    let bisect = values.boolean("BISECT_BATCH_ON_FUNCTION_ERROR");
    let has_api = values.get("API_URL").is_some();
    let on_failure = values.read(ON_FAILURE, |text| on_failure(text, has_api));
    let retries = RetrySettings {
        max_retries: max_retries?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        max_age: max_age?.map(Duration::from_secs),
        bisect: bisect?,
    };
    Some((retries, on_failure.unwrap_or_default()))
}

fn on_failure(text: &str, has_api: bool) -> Result<OnFailure, String> {
    match (text, has_api) {
        ("none", _) => return Ok(OnFailure::Drop),
        ("api", true) | ("table", false) => return Ok(OnFailure::Keep),
        ("api", false) => {
            return Err("is \"api\", but API_URL is not set; without an api it is table".to_owned());
        }
        ("table", true) => {
            return Err("is \"table\", but API_URL is set, and this container has no right to the table; with an api it is api".to_owned());
        }
        _ => {}
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            LetterBox::new(url)
                .map(OnFailure::Post)
                .map_err(|error| format!("cannot be used: {error}"))
        }
        _ => Err(format!("is {}; api, table, http(s)://… and none are allowed", shown(text))),
    }
}

/// Windows go with a handler that answers, and one batch of a shard at a time: the state is
/// handed from one to the next. `handler`: none where it is not known, or is Rust code.
pub(super) fn tumbling_window(
    values: &mut Values<'_>,
    handler: Option<&HandlerConfig>,
    parallelization: Option<u64>,
) -> Option<Option<Duration>> {
    const WINDOW: &str = "TUMBLING_WINDOW_IN_SECONDS";
    let window = values.number(WINDOW, 0, 900)?;
    let is_set = window > 0;
    if is_set && parallelization.is_some_and(|factor| factor > 1) {
        values.fault(WINDOW, "is set, and PARALLELIZATION_FACTOR too: the state of a shard's window goes from one batch to the next; take one of them out");
    }
    let is_silent = matches!(handler, Some(HandlerConfig::Log | HandlerConfig::Discard));
    if is_set && is_silent {
        values.fault(WINDOW, "is set, but HANDLER does not answer, and so keeps no state; http(s)://…, lambda+http://… and exec:program do");
    }
    Some(is_set.then(|| Duration::from_secs(window)))
}

/// CloudEvents go to whoever has not said what a batch has to be: Lambda functions and programs
/// are written for Lambda's event, and so is the state of a window. The inner `None` is Lambda's
/// event.
pub(super) fn cloud_events(
    values: &mut Values<'_>,
    handler: Option<&HandlerConfig>,
    stream: Option<&StreamArn>,
) -> Option<Option<CloudEvents>> {
    const FORMAT: &str = "HANDLER_FORMAT";
    let is_set = values.read(FORMAT, |text| match text {
        "lambda" => Ok(false),
        "cloudevents" => Ok(true),
        _ => Err(format!("is {text:?}; lambda and cloudevents are allowed")),
    })?;
    if !is_set {
        return Some(None);
    }
    if handler.is_some_and(|handler| !matches!(handler, HandlerConfig::Http(_))) {
        values.fault(FORMAT, "is cloudevents, but HANDLER is no http://… or https://…; the others get Lambda's event");
    }
    let window = values.text("TUMBLING_WINDOW_IN_SECONDS");
    if window.is_some_and(|seconds| seconds != "0") {
        values.fault(FORMAT, "is cloudevents, and TUMBLING_WINDOW_IN_SECONDS is set: a window and its state are members of Lambda's event; take one of them out");
    }
    stream.map(CloudEvents::of).map(Some)
}

/// Secrets go with requests that are signed.
pub(super) fn handler_secrets(
    values: &mut Values<'_>,
    handler: Option<&HandlerConfig>,
) -> Option<Secrets> {
    const SECRET: &str = "HANDLER_SECRET";
    // It is not repeated.
    let secrets = values.read(SECRET, |text| {
        Secrets::parse(text).ok_or_else(|| {
            "has another form; whsec_ and 24 to 64 bytes in base64 are allowed, several with spaces between (echo whsec_$(openssl rand -base64 32) makes one)".to_owned()
        })
    });
    let is_http = handler.is_none_or(|handler| matches!(handler, HandlerConfig::Http(_)));
    if secrets.is_some() && !is_http {
        values.fault(
            SECRET,
            "is set, but HANDLER is no http://… or https://… whose requests could be signed",
        );
    }
    secrets
}
