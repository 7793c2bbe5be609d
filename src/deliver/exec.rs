//! The handler `exec:program args`: child processes that get an event a line and answer a
//! line each.
//!
//! Owns the children: one for each batch at a time, kept for the next one, ended with
//! this process. Their stderr is this process'; of its environment they get all but the
//! secrets of progress and signatures. Invariant: a child whose answer did not come, or not as one line, is ended and
//! never asked again; so an answer is always that of the batch before it.

use super::http::MAX_ANSWER_BYTES as MOST;
use super::{Answers, Batch, Handler, HandlerError, Response};
use crate::telemetry::metrics::InvocationOutcome;
use async_trait::async_trait;
use futures_util::FutureExt;
use std::process::Stdio;
use std::sync::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;
use tracing::info;

/// The longest line that is read as an answer.
const MAX_ANSWER_BYTES: u64 = MOST as u64;

/// Who works for a batch has no business with the progress. What OpenTelemetry's variables say
/// stays, headers of the collector included: its own spans may go there.
const SECRETS: [&str; 2] = ["API_TOKEN", "HANDLER_SECRET"];

/// Runs a program for the batches.
pub struct ExecHandler {
    program: String,
    arguments: Vec<String>,
    /// Children that wait for a batch; the last one that answered is asked first.
    idle: Mutex<Vec<Worker>>,
    /// What is read of answers.
    answers: Answers,
}

/// A child. It is killed when this is dropped, in the middle of a batch or not.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl ExecHandler {
    /// Runs `program`, a path or a name on the `PATH`; nothing is started yet.
    pub fn new(program: String, arguments: Vec<String>, answers: Answers) -> Self {
        Self { program, arguments, idle: Mutex::default(), answers }
    }

    fn worker(&self) -> Result<Worker, HandlerError> {
        while let Some(mut worker) = self.idle() {
            match worker.unfit() {
                None => return Ok(worker),
                Some(why) => info!(program = self.program, why, "another child is started"),
            }
        }
        let mut command = Command::new(&self.program);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        let started = command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = started.map_err(|error| {
            HandlerError::not_invoked(format!("{} cannot be started: {error}", self.program))
        })?;
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Worker { child, stdin, stdout })
    }

    fn idle(&self) -> Option<Worker> {
        self.idle.lock().expect("no panic while held").pop()
    }
}

#[async_trait]
impl Handler for ExecHandler {
    fn is_remote(&self) -> bool {
        true
    }

    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let mut worker = self.worker()?;
        // Line breaks may stand between JSON tokens, never inside strings.
        let mut line = batch.event_with_traceparent().to_vec();
        line.iter_mut().filter(|b| matches!(**b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        line.push(b'\n');
        let answer = worker.ask(&line).await?;
        self.idle.lock().expect("no panic while held").push(worker);
        self.answers.read(&answer)
    }
}

impl Worker {
    /// Why it cannot be asked, where that is so: a batch must not pay for what its child did
    /// while it had none.
    fn unfit(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Some(format!("the one before ended ({status})")),
            Err(error) => return Some(error.to_string()),
        }
        let said = self.stdout.fill_buf().now_or_never()?;
        Some(match said {
            Ok([]) => "the one before closed its stdout".to_owned(),
            Ok(_) => "the one before wrote to stdout without being asked".to_owned(),
            Err(error) => error.to_string(),
        })
    }

    /// Hands a line over and waits for the one that answers it. Both at once: a program
    /// may begin to answer before it has read all.
    async fn ask(&mut self, line: &[u8]) -> Result<Vec<u8>, HandlerError> {
        let Self { child, stdin, stdout } = self;
        let mut answer = Vec::new();
        let mut bounded = stdout.take(MAX_ANSWER_BYTES + 1);
        let writing = async {
            stdin.write_all(line).await?;
            stdin.flush().await
        };
        let reading = bounded.read_until(b'\n', &mut answer);
        let (written, read) = tokio::join!(writing, reading);
        if answer.pop() == Some(b'\n') && written.is_ok() && read.is_ok() {
            if !stdout.buffer().is_empty() {
                let message = "the program answered more than one line";
                return Err(HandlerError::failed(message));
            }
            return Ok(answer);
        }
        if answer.len() as u64 >= MAX_ANSWER_BYTES {
            let message = format!("the program's answer is longer than {MAX_ANSWER_BYTES} bytes");
            return Err(HandlerError::failed(message));
        }
        // Its output has ended, so it has too, or is about to.
        let how = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let message = format!("the program ended before it answered ({how}); its stderr says more");
        Err(HandlerError::new(InvocationOutcome::Error, message))
    }
}
