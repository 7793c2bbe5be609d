//! A program on a terminal: what it draws, the keys it gets, and how it leaves the terminal.

use super::ministack::python;
use super::process::within;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Enters the alternate screen, and leaves it.
const SCREEN: [&str; 2] = ["\x1b[?1049h", "\x1b[?1049l"];

/// `streamgate` on a terminal of 80 by 24. It ends when this is dropped.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    drawn: ChildStdout,
    said: Lines<BufReader<ChildStderr>>,
    program: u32,
    text: String,
}

/// How it ended.
pub struct Left {
    pub code: Option<i32>,
    /// Everything that was drawn.
    pub text: String,
    /// Whether the terminal's modes are as they were before.
    pub is_as_before: bool,
}

impl Left {
    /// The alternate screen was entered and left.
    pub fn left_the_screen(&self) -> bool {
        let [entered, left] = SCREEN.map(|code| self.text.rfind(code));
        entered.is_some() && left > entered
    }
}

impl Terminal {
    pub async fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/terminal.py"))
            .arg(env!("CARGO_BIN_EXE_streamgate"))
            .args(arguments)
            .env_clear()
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the venv's python runs");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        let line = within("the program's number", said.next_line()).await.expect("it is read");
        let program = line.expect("it is said").parse().expect("a number");
        let (keys, drawn) =
            (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, keys, drawn, said, program, text: String::new() }
    }

    /// Waits until this was drawn.
    pub async fn until(&mut self, text: &str) {
        within(&format!("{text:?} on the terminal"), async {
            while !self.text.contains(text) {
                assert!(self.draw().await, "it ended without {text:?}: {}", self.text);
            }
        })
        .await;
    }

    async fn draw(&mut self) -> bool {
        let mut bytes = [0; 8192];
        let count = self.drawn.read(&mut bytes).await.expect("a pipe");
        self.text += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Types.
    pub async fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.expect("it reads");
        self.keys.flush().await.expect("it reads");
    }

    /// Sends a signal: `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill")
            .args([format!("-{name}"), self.program.to_string()])
            .status();
        assert!(sent.expect("kill can be run").success(), "the program is there");
    }

    /// Waits for its end.
    pub async fn left(mut self) -> Left {
        within("the end of the program", async {
            while self.draw().await {}
            let last = self.said.next_line().await.expect("it is read");
            let is_as_before = last.expect("it is said") == "as before";
            let code = self.child.wait().await.expect("a child can be waited for").code();
            Left { code, text: self.text, is_as_before }
        })
        .await
    }
}
