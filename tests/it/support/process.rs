//! `streamgate` as a process of its own: its environment, output, signals and listener.
//!
//! Owns starting and ending. A process starts with nothing of this environment. It is
//! killed when it is dropped, and by the reaper when the whole test binary is killed.

use serde_json::Value;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// Longer than anything takes on a busy machine, so that only a mistake gets here.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at something that cannot tell when it changes.
const PAUSE: Duration = Duration::from_millis(20);

/// A running `streamgate`, or another program over its library.
pub struct Process {
    child: Child,
    id: u32,
    pub stdout: Lines,
    pub stderr: Lines,
    address: Option<SocketAddr>,
    client: reqwest::Client,
}

/// How a process ended and all that it said.
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Process {
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_streamgate")), arguments, variables)
    }

    pub fn of(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let id = child.id().expect("it was not waited for");
        reaper(&format!("+ {id}"));
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Self { child, id, stdout, stderr, address: None, client: client() }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until it says where it listens.
    pub async fn listening(&mut self) -> SocketAddr {
        let find = |lines: &[String]| {
            let said = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            said.filter(|line| line["message"] == "listening")
                .find_map(|line| line["address"].as_str()?.parse().ok())
        };
        let address = self.stderr.find("the address it listens on", find).await;
        *self.address.insert(address)
    }

    /// Asks the listener.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = self.address.expect("it was waited for");
        let answer = self.client.get(format!("http://{address}{path}")).timeout(LIMIT).send();
        let answer = answer.await.expect("the listener answers");
        (answer.status().as_u16(), answer.text().await.expect("answers are text"))
    }

    pub async fn status(&self) -> Value {
        let (code, body) = self.get("/status").await;
        assert_eq!(code, 200);
        serde_json::from_str(&body).expect("the status is JSON")
    }

    /// Asks `path` until the answer satisfies `condition`.
    pub async fn until(&self, path: &str, condition: impl Fn(u16, &str) -> bool) -> String {
        within(&format!("what is awaited of {path}"), async {
            loop {
                let (code, body) = self.get(path).await;
                if condition(code, &body) {
                    return body;
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await
    }

    /// The value of a series, written as in the exposition: `name` or `name{label="value"}`.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        value_of(&text, series)
    }

    /// Waits until a series has such a value: it is counted a moment after a handler has answered.
    pub async fn until_metric(&self, series: &str, is: impl Fn(f64) -> bool) {
        self.until("/metrics", |_, text| is(value_of(text, series))).await;
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill")
            .args([format!("-{name}"), self.id.to_string()])
            .status();
        assert!(sent.expect("kill can be run").success(), "the process is there");
    }

    /// Waits for its end, by itself or after a signal.
    pub async fn ended(&mut self) -> Ended {
        let status = within("the end of the process", self.child.wait()).await;
        reaper(&format!("- {}", self.id));
        let code = status.expect("a child can be waited for").code();
        within("the end of its output", async {
            self.stdout.closed().await;
            self.stderr.closed().await;
        })
        .await;
        Ended { code, stdout: self.stdout.all(), stderr: self.stderr.all() }
    }

    /// A signal, and the clean end it asks for.
    pub async fn stop_with(mut self, signal: &str) -> Ended {
        self.signal(signal);
        let ended = self.ended().await;
        assert_eq!(ended.code, Some(0), "a stop is clean: {:#?}", ended.stderr);
        ended
    }

    /// SIGTERM, and the clean end it asks for.
    pub async fn stop(self) -> Ended {
        self.stop_with("TERM").await
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.signal("KILL");
        assert_eq!(self.ended().await.code, None);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            let lines = self.stderr.all();
            for line in &lines[lines.len().saturating_sub(20)..] {
                eprintln!("streamgate[{}]: {line}", self.id);
            }
        }
    }
}

/// An HTTP client that uses no proxy of this environment.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client can be made")
}

/// The value of a series in an exposition.
pub fn value_of(exposition: &str, series: &str) -> f64 {
    let mut lines = exposition.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(name, _)| *name == series);
    let (_, value) = found.unwrap_or_else(|| panic!("no series {series} in:\n{exposition}"));
    value.parse().expect("values are numbers")
}

/// Lines as they come out of a process.
#[derive(Clone, Default)]
pub struct Lines(Arc<Output>);

#[derive(Default)]
struct Output {
    /// The lines so far, and whether there will be no more.
    lines: Mutex<(Vec<String>, bool)>,
    more: Notify,
}

impl Lines {
    fn of(output: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.clone();
        tokio::spawn(async move {
            let mut read = BufReader::new(output).lines();
            while let Ok(Some(line)) = read.next_line().await {
                shared.0.lines.lock().unwrap().0.push(line);
                shared.0.more.notify_waiters();
            }
            shared.0.lines.lock().unwrap().1 = true;
            shared.0.more.notify_waiters();
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lines.lock().unwrap().0.clone()
    }

    /// Waits until `look` finds something in the lines so far.
    pub async fn find<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let found = self.wait(|lines, closed| match look(lines) {
            Some(found) => Some(Some(found)),
            None => closed.then_some(None),
        });
        let found = within(what, found).await;
        found.unwrap_or_else(|| panic!("the output ended without {what}: {:#?}", self.all()))
    }

    async fn closed(&self) {
        self.wait(|_, closed| closed.then_some(())).await;
    }

    async fn wait<T>(&self, look: impl Fn(&[String], bool) -> Option<T>) -> T {
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let found = {
                let lines = self.0.lines.lock().unwrap();
                look(&lines.0, lines.1)
            };
            if let Some(found) = found {
                return found;
            }
            more.await;
        }
    }
}

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited {LIMIT:?} for {what}"),
    }
}

/// Tells the reaper of a process begun or ended. It is a shell that kills what is left
/// when its standard input closes, as it does however this process ends.
fn reaper(line: &str) {
    static REAPER: OnceLock<Mutex<std::process::ChildStdin>> = OnceLock::new();
    const SCRIPT: &str = r#"
        trap '' INT TERM
        left=" "
        while read -r what id; do
            case $what in
                +) left="$left$id " ;;
                -) left="${left%% $id *} ${left#* $id }" ;;
            esac
        done
        [ "$left" = " " ] || kill -9 $left
    "#;
    let reaper = REAPER.get_or_init(|| {
        let child = std::process::Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Mutex::new(child.expect("there is a shell").stdin.take().expect("piped"))
    });
    let told = writeln!(reaper.lock().expect("no panic while held"), "{line}");
    told.expect("the reaper lives as long as this process");
}
