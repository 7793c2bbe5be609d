//! The handler `lambda+http://…`: a Lambda container image behind the Runtime Interface
//! Emulator.
//!
//! Owns whose turn it is (the emulator takes one invocation at a time) and the reading
//! of its answers, in which errors of the function come with status 200. Invariant: an
//! answer that is not plainly a function's result counts as a failure.

use super::http::{EventBody, body, client, unreachable};
use super::{Batch, Handler, HandlerError, Response, partial};
use crate::telemetry::metrics::InvocationOutcome;
use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where the emulator is asked.
const PATH: &str = "2015-03-31/functions/function/invocations";
const FUNCTION_ERROR: &str = "x-amz-function-error";
/// How the emulator says that a function took too long, with status 200.
const TIMED_OUT: &[u8] = b"Task timed out after ";

/// Invokes functions behind emulators.
pub struct LambdaHandler {
    client: Client,
    targets: Vec<Url>,
    /// One permit for each target that nobody invokes.
    turns: Arc<Semaphore>,
    free: Mutex<Vec<usize>>,
    /// `FUNCTION_RESPONSE_TYPES=ReportBatchItemFailures`: results are read.
    partial: bool,
}

/// A target in use; free again when dropped.
struct InUse<'a> {
    handler: &'a LambdaHandler,
    target: usize,
}

impl LambdaHandler {
    /// Invokes the emulators at `targets`, each once at a time.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    pub fn new(targets: &[Url], partial: bool) -> Result<Self, reqwest::Error> {
        let invocations = |target: &Url| {
            let base = target.as_str().trim_end_matches('/');
            format!("{base}/{PATH}").parse().expect("a URL with a longer path")
        };
        let targets: Vec<Url> = targets.iter().map(invocations).collect();
        Ok(Self {
            client: client()?,
            turns: Arc::new(Semaphore::new(targets.len())),
            free: Mutex::new((0..targets.len()).rev().collect()),
            targets,
            partial,
        })
    }

    fn take(&self) -> InUse<'_> {
        let target = self.free.lock().expect("no panic while held").pop();
        InUse { handler: self, target: target.expect("there are as many as turns") }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.handler.free.lock().expect("no panic while held").push(self.target);
    }
}

#[async_trait]
impl Handler for LambdaHandler {
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    async fn handle(&self, batch: &Batch<'_>) -> Result<Response, HandlerError> {
        let target = self.take();
        let answer = self
            .client
            .post(self.targets[target.target].clone())
            .header(CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(EventBody::new(batch.event())))
            .send()
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        let is_error = answer.headers().contains_key(FUNCTION_ERROR);
        let result = body(answer, true).await?;
        match status {
            // It is at work, on an invocation that we gave up waiting for perhaps.
            StatusCode::BAD_REQUEST => {
                Err(HandlerError::not_invoked("the function is busy with another invocation"))
            }
            StatusCode::OK => read(&result, is_error, self.partial),
            _ => Err(HandlerError::failed(format!("the function answered {status}"))),
        }
    }
}

/// What the emulator's answer with status 200 means.
fn read(result: &[u8], is_error: bool, partial: bool) -> Result<Response, HandlerError> {
    /// How a function's error stands in its result. The message may hold anything, item
    /// contents too, and is left where it is.
    #[derive(Deserialize)]
    struct FunctionError {
        #[serde(rename = "errorType")]
        kind: Option<String>,
        #[serde(rename = "errorMessage")]
        message: Option<serde_json::Value>,
    }
    if result.trim_ascii().starts_with(TIMED_OUT) {
        let message = "the function took longer than its own time-out";
        return Err(HandlerError::new(InvocationOutcome::Timeout, message));
    }
    let error = serde_json::from_slice::<FunctionError>(result).ok();
    let error = error.filter(|error| error.kind.is_some() || error.message.is_some());
    if is_error || error.is_some() {
        let kind = error.and_then(|error| error.kind).unwrap_or_else(|| "an error".to_owned());
        return Err(HandlerError::failed(format!(
            "the function failed with {kind}; its own log says more"
        )));
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(result).is_ok();
    if !is_json && !result.trim_ascii().is_empty() {
        return Err(HandlerError::failed("the function's result is not JSON"));
    }
    if partial { partial::read(result) } else { Ok(Response::taken()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_come_with_status_200_are_errors() {
        let outcome = |body: &str, is_error| read(body.as_bytes(), is_error, false);
        for result in ["", "null", "{}", "\"done\"", "[1]", r#"{"statusCode":500}"#, "\n"] {
            assert_eq!(outcome(result, false).unwrap(), Response::taken(), "{result}");
            assert!(outcome(result, true).is_err(), "{result}");
        }
        let failed =
            r#"{"errorMessage":"cat 7 is secret","errorType":"ValueError","stackTrace":[]}"#;
        let error = outcome(failed, false).unwrap_err();
        assert!(error.message.contains("ValueError") && !error.message.contains("cat"), "{error}");
        assert!(
            outcome(r#"{"errorMessage":null,"errorType":"Runtime.ExitError"}"#, false).is_err()
        );
        let error = outcome("Task timed out after 3.00 seconds", false).unwrap_err();
        assert_eq!(error.outcome, InvocationOutcome::Timeout);
        for broken in ["{", "done", "<html>"] {
            assert!(outcome(broken, false).is_err(), "{broken}");
        }
        let partial = r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#;
        let failed = Response::failed(vec!["7".to_owned()]);
        assert_eq!(read(partial.as_bytes(), false, true).unwrap(), failed);
        assert_eq!(outcome(partial, false).unwrap(), Response::taken(), "when it is not asked for");
    }
}
