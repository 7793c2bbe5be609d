//! The handler `lambda+http://…`: a Lambda container image behind the Runtime Interface
//! Emulator.
//!
//! Owns whose turn it is and the reading of its answers, in which errors of the function
//! come with status 200. Invariants: an emulator has one invocation at a time, also while
//! it works on one that nobody waits for any more, for a second one can end it; and an
//! answer that is not plainly a function's result counts as a failure.

use super::http::{EventBody, body, client, unreachable, with_headers};
use super::{Answers, Batch, Handler, HandlerError, Response};
use crate::telemetry::metrics::InvocationOutcome;
use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where the emulator is asked.
const PATH: &str = "2015-03-31/functions/function/invocations";
const FUNCTION_ERROR: &str = "x-amz-function-error";
/// As long as a function may take on Lambda, and a little more: then the emulator is
/// believed to be stuck, and is asked again.
const LONGEST: Duration = Duration::from_secs(15 * 60 + 30);
/// What is shown of an error's type, which the function chooses.
const MAX_TYPE_CHARS: usize = 64;
/// How the emulator says that a function took too long, with status 200.
const TIMED_OUT: &[u8] = b"Task timed out after ";

/// Invokes functions behind emulators.
pub struct LambdaHandler {
    client: Client,
    /// One permit for each target that is free.
    turns: Arc<Semaphore>,
    /// The targets that are free, the one that has been so longest first.
    free: Arc<Mutex<VecDeque<Url>>>,
    /// What is read of answers.
    answers: Answers,
}

/// A target in use; free again when dropped.
struct InUse {
    target: Url,
    free: Arc<Mutex<VecDeque<Url>>>,
}

impl LambdaHandler {
    /// Invokes the emulators at `targets`, each once at a time.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    pub fn new(targets: &[Url], answers: Answers) -> Result<Self, reqwest::Error> {
        let invocations = |target: &Url| {
            let base = target.as_str().trim_end_matches('/');
            format!("{base}/{PATH}").parse().expect("a URL with a longer path")
        };
        let free: VecDeque<Url> = targets.iter().map(invocations).collect();
        let turns = Arc::new(Semaphore::new(free.len()));
        Ok(Self { client: client()?, turns, free: Arc::new(Mutex::new(free)), answers })
    }

    fn take(&self) -> InUse {
        let target = self.free.lock().expect("no panic while held").pop_front();
        let target = target.expect("there are as many as turns");
        InUse { target, free: Arc::clone(&self.free) }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.free.lock().expect("no panic while held").push_back(self.target.clone());
    }
}

#[async_trait]
impl Handler for LambdaHandler {
    fn is_remote(&self) -> bool {
        true
    }

    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    async fn handle(
        &self,
        batch: &Batch<'_>,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let target = self.take();
        let mut request = self.client.post(target.target.clone());
        if let Some(trace) = &batch.trace {
            trace.posts_to(&target.target);
            request = with_headers(request, trace.traceparent(), trace.xray_for_lambda());
        }
        let request = request
            .timeout(LONGEST)
            .header(CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(EventBody::new(batch.event())));
        // By itself: who waits for it may give up, and then it goes on.
        let invocation = tokio::spawn(async move {
            let answer = request.send().await.map_err(unreachable)?;
            let status = answer.status();
            let is_error = answer.headers().contains_key(FUNCTION_ERROR);
            let result = body(answer, true).await?;
            // In this order: a turn without a target would find none.
            drop(target);
            drop(turn);
            Ok((status, is_error, result))
        });
        let ended = invocation.await.map_err(|error| HandlerError::failed(error.to_string()))?;
        let (status, is_error, result) = ended?;
        if let Some(trace) = &batch.trace {
            trace.answered(status.as_u16());
        }
        match status {
            // Somebody else invokes it.
            StatusCode::BAD_REQUEST => {
                Err(HandlerError::not_invoked("the function is busy with another invocation"))
            }
            StatusCode::OK => read(&result, is_error, self.answers),
            _ => Err(HandlerError::failed(format!("the function answered {status}"))),
        }
    }
}

/// What the emulator's answer with status 200 means.
fn read(result: &[u8], is_error: bool, answers: Answers) -> Result<Response, HandlerError> {
    /// How a function's error stands in its result. The message may hold anything, item
    /// contents too, and is left where it is.
    #[derive(Deserialize)]
    struct FunctionError {
        #[serde(rename = "errorType")]
        kind: Option<serde_json::Value>,
        #[serde(rename = "errorMessage")]
        message: Option<serde_json::Value>,
    }
    if result.trim_ascii().starts_with(TIMED_OUT) {
        let message = "the function took longer than its own time-out";
        return Err(HandlerError::new(InvocationOutcome::Timeout, message));
    }
    // A struct would be read from a list, too.
    let is_object = result.trim_ascii_start().starts_with(b"{");
    let error = serde_json::from_slice::<FunctionError>(result).ok().filter(|_| is_object);
    let error = error.filter(|error| error.kind.is_some() || error.message.is_some());
    if is_error || error.is_some() {
        let kind = error.and_then(|error| error.kind);
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("an error");
        let kind: String = kind.chars().take(MAX_TYPE_CHARS).collect();
        return Err(HandlerError::failed(format!(
            "the function failed with {kind}; its own log says more"
        )));
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(result).is_ok();
    if !is_json && !result.trim_ascii().is_empty() {
        return Err(HandlerError::failed("the function's result is not JSON"));
    }
    answers.read(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_come_with_status_200_are_errors() {
        let outcome = |body: &str, is_error| read(body.as_bytes(), is_error, Answers::default());
        for result in
            ["", "null", "{}", "\"done\"", "[1]", r#"["cat 7","y"]"#, r#"{"statusCode":500}"#, "\n"]
        {
            assert_eq!(outcome(result, false).unwrap(), Response::taken(), "{result}");
            let error = outcome(result, true).unwrap_err();
            assert!(!error.message.contains("cat"), "{error}");
        }
        let failed =
            r#"{"errorMessage":"cat 7 is secret","errorType":"ValueError","stackTrace":[]}"#;
        let error = outcome(failed, false).unwrap_err();
        assert!(error.message.contains("ValueError") && !error.message.contains("cat"), "{error}");
        assert!(
            outcome(r#"{"errorMessage":null,"errorType":"Runtime.ExitError"}"#, false).is_err()
        );
        assert!(outcome(r#"{"errorType":5,"errorMessage":"x"}"#, false).is_err());
        let long = format!(r#"{{"errorType":"{}"}}"#, "x".repeat(5000));
        assert!(outcome(&long, false).unwrap_err().message.len() < 200);
        let error = outcome("Task timed out after 3.00 seconds", false).unwrap_err();
        assert_eq!(error.outcome, InvocationOutcome::Timeout);
        for broken in ["{", "done", "<html>"] {
            assert!(outcome(broken, false).is_err(), "{broken}");
        }
        let partial = r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#;
        let failed = Response::failed(vec!["7".to_owned()]);
        assert_eq!(
            read(partial.as_bytes(), false, Answers { failures: true, state: false }).unwrap(),
            failed
        );
        assert_eq!(outcome(partial, false).unwrap(), Response::taken(), "when it is not asked for");
    }
}
