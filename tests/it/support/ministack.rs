//! ministack: a DynamoDB with streams over the wire, as a Python process.

use super::free_port;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Names the venv that holds ministack; without it, where `scripts/test` puts it.
const VENV_VARIABLE: &str = "STREAMGATE_TEST_VENV";
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running instance. Dropping it kills it, and so does the end of this process: its
/// launcher watches the pipe that is its standard input.
pub struct Ministack {
    child: Child,
    address: SocketAddr,
}

impl Ministack {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When it is not installed; the message says how to install it.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let address = free_port();
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(python())
            .arg(root.join("tests/it/support/run_ministack.py"))
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", address.port().to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the venv's python runs");
        let begun = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = child.try_wait().expect("a child can be asked for its end") {
                panic!("ministack ended at its start: {status}");
            }
            assert!(begun.elapsed() < START_LIMIT, "ministack did not answer in {START_LIMIT:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Self { child, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one instance of this binary.
pub fn shared() -> SocketAddr {
    static SHARED: OnceLock<Ministack> = OnceLock::new();
    SHARED.get_or_init(|| Ministack::start(&[])).address()
}

pub fn python() -> PathBuf {
    let venv = std::env::var_os(VENV_VARIABLE).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-venv"),
        PathBuf::from,
    );
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "ministack is not installed in {}: run scripts/test once, or set {VENV_VARIABLE} to a venv with tests/requirements.txt in it",
        venv.display()
    );
    python
}
