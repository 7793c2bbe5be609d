//! What happened, line by line: for people when a seed fails, and as a digest that says
//! whether two runs were the same.
//!
//! Invariant: a line holds nothing that differs between runs of a seed.

use std::collections::VecDeque;
use std::fmt::{Arguments, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Lines that are shown of a run that failed.
const TAIL: usize = 120;

#[derive(Default)]
pub struct Trace(Mutex<State>);

#[derive(Default)]
struct State {
    now: Duration,
    lines: u64,
    tail: VecDeque<String>,
    /// Its keys are fixed, so it gives the same in every process.
    hasher: DefaultHasher,
    is_shown: bool,
}

impl Trace {
    /// One that also shows every line at once.
    pub fn shown(is_shown: bool) -> Self {
        Self(Mutex::new(State { is_shown, ..State::default() }))
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    pub fn set_now(&self, now: Duration) {
        self.lock().now = now;
    }

    pub fn note(&self, what: Arguments<'_>) {
        let mut state = self.lock();
        let mut line = if state.tail.len() < TAIL {
            String::new()
        } else {
            state.tail.pop_front().unwrap_or_default()
        };
        line.clear();
        let now = state.now.as_secs_f64();
        write!(line, "{now:9.3}  {what}").expect("writing to a string cannot fail");
        if state.is_shown {
            eprintln!("{line}");
        }
        state.hasher.write(line.as_bytes());
        state.lines += 1;
        state.tail.push_back(line);
    }

    /// Equal for two runs in which the same happened.
    pub fn digest(&self) -> (u64, u64) {
        let state = self.lock();
        (state.lines, state.hasher.finish())
    }

    pub fn tail(&self) -> String {
        self.lock().tail.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }
}
