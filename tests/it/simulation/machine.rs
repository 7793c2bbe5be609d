//! One worker on a machine of its own: a runtime with a clock that moves only when the world
//! lets it, and a time of day that may be wrong.
//!
//! Owns how a process dies, stands still and wakes up. A machine that is frozen is not run at
//! all, neither the worker's tasks nor its timers; when it wakes up, all the time that has
//! passed passes for it at once, as after SIGSTOP or on a stalled host.

use super::handler::Hands;
use super::line::Line;
use super::link::Link;
use super::world::{World, epoch};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::clock;
use streamgate::consumer::{Consumer, ConsumerError, ConsumerSettings};
use streamgate::telemetry::metrics::Metrics;
use streamgate::telemetry::status::Board;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Only tokio's clock, paused. There is no I/O, so that a step costs no call of the system.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

pub struct Machine {
    runtime: Runtime,
    drain: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
    /// What its time of day is ahead of the world's, in seconds.
    pub ahead: i64,
    /// It stands still until then.
    frozen_until: Option<Duration>,
    /// What has passed meanwhile.
    missed: Duration,
}

impl Machine {
    pub fn start(world: &Arc<World>, number: usize, settings: ConsumerSettings, seed: u64) -> Self {
        let runtime = runtime();
        let consumer = Consumer::new(
            settings,
            Arc::new(Line::new(Arc::clone(world), number)),
            Arc::new(Link::new(Arc::clone(world), number)),
            Arc::new(Hands::new(Arc::clone(world), number, seed)),
            Arc::new(Metrics::new()),
            Arc::new(Board::new()),
        );
        let drain = CancellationToken::new();
        let task = runtime.spawn(consumer.run(drain.clone()));
        Self { runtime, drain, task, ahead: 0, frozen_until: None, missed: Duration::ZERO }
    }

    /// Lets `tick` pass, from `now` on. Gives the worker's end, when it has ended.
    pub fn step(&mut self, now: Duration, tick: Duration) -> Option<Result<(), String>> {
        if self.frozen_until.is_some_and(|until| now < until) {
            self.missed += tick;
            return None;
        }
        self.frozen_until = None;
        let missed = std::mem::take(&mut self.missed);
        let time = self.time(now);
        self.runtime.block_on(async {
            clock::set(time - missed);
            if !missed.is_zero() {
                tokio::time::advance(missed).await;
            }
            tokio::time::sleep(tick).await;
        });
        if !self.task.is_finished() {
            return None;
        }
        let ended = self.runtime.block_on(&mut self.task);
        Some(match ended {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("it panicked: {panic}")),
        })
    }

    /// Nothing of it runs until then.
    pub fn freeze(&mut self, until: Duration) {
        self.frozen_until = Some(until);
    }

    /// It goes on, if it stood still.
    pub fn thaw(&mut self) -> bool {
        self.frozen_until.take().is_some()
    }

    /// Asks for a clean stop.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    fn time(&self, now: Duration) -> SystemTime {
        let ahead = Duration::from_secs(self.ahead.unsigned_abs());
        let time = epoch() + now;
        if self.ahead < 0 { time - ahead } else { time + ahead }
    }
}
