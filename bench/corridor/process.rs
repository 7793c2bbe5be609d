//! Child processes and what they have used, by the operating system's account (Linux, /proc).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What a process took for its work.
pub struct Usage {
    pub wall: f64,
    pub cpu: f64,
    pub peak_mib: f64,
}

/// A child that is killed when the run ends or panics.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// CPU seconds and peak memory so far.
    pub fn usage(&self, wall: Duration) -> Usage {
        Usage { wall: wall.as_secs_f64(), cpu: self.cpu(), peak_mib: self.mib("VmHWM:") }
    }

    /// What a line of its `status` says of its memory.
    pub fn mib(&self, line: &str) -> f64 {
        let status = self.proc("status");
        let kib = status.lines().find_map(|text| text.strip_prefix(line)).expect("the line");
        let kib: f64 = kib.trim().trim_end_matches(" kB").parse().expect("KiB");
        kib / 1024.0
    }

    /// How many sockets it has.
    pub fn sockets(&self) -> usize {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("Linux");
        let is_socket = |link: &std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
        let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(is_socket).count()
    }

    /// CPU seconds so far, of user and system.
    pub fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        // utime and stime, in ticks of a hundredth of a second on every Linux we know.
        let ticks: f64 =
            fields[11..13].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
        ticks / 100.0
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).expect("Linux")
    }
}

/// A part of this program in a process of its own, with which lines are exchanged.
pub struct Part {
    pub process: Process,
    says: BufReader<ChildStdout>,
}

impl Part {
    /// Starts it.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the part starts");
        let says = BufReader::new(child.stdout.take().expect("piped"));
        Self { process: Process(child), says }
    }

    /// Waits for the next line that it says.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("told");
        line.trim().to_owned()
    }

    /// Lets it go on from where it waits.
    pub fn go(&mut self) {
        self.process.0.stdin.as_mut().expect("piped").write_all(b"\n").expect("it waits");
    }
}

/// In a part: says `line` and waits until it may go on, or is killed.
pub fn tell_and_wait(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("told");
    let _ = std::io::stdin().read_line(&mut String::new());
}
