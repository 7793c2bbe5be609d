//! A real Lambda function, with AWS' runtime client, behind a stand-in for the emulator that its
//! container image brings.
//!
//! Owns the process. Invariant: the runtime ends with it, and it with this binary, for its standard
//! input closes then.

use super::ministack::python;
use super::process::within;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A function and its emulator; they end when this is dropped.
pub struct Function {
    child: Child,
    /// What `HANDLER` is, to invoke it.
    pub url: String,
}

impl Function {
    /// The function of this name (`module.function`) in a folder, with a time-out in seconds.
    pub async fn start(
        folder: &Path,
        function: &str,
        seconds: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(python())
            .arg(root.join("tests/it/support/lambda/emulator.py"))
            .arg(seconds)
            .arg(root.join(folder))
            .arg(function)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the venv's python runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = within("the emulator's port", lines.next_line()).await.unwrap();
        let url = format!("lambda+http://127.0.0.1:{}", port.expect("it says its port"));
        Self { child, url }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Its standard input closes, and it takes the runtime with it.
        drop(self.child.stdin.take());
    }
}
