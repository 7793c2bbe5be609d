//! What shards cost that bring nothing, and what they cost one that does.
//!
//! Owns the rows of idle shards: a consumer that is settled, looked at for a while, beside
//! a poller that makes the same calls; and the delay of one shard's records among them.

use super::arrivals::{Arrivals, change_of, percentiles};
use super::floor::Connection;
use super::poller::Poller;
use super::stage::{Consumer, Running, Stage};
use std::thread;
use std::time::{Duration, Instant};

/// Calls of a shard until its wait has grown to the longest: 200, 400, 800 ms, a second.
const SETTLED: usize = 6;
/// A record of the busy shard comes this often.
const EVERY: Duration = Duration::from_millis(50);

/// How much of it is measured.
pub struct Idle {
    /// Open shards of a stream, one after the other.
    pub open: Vec<usize>,
    /// How long a settled consumer is looked at.
    pub window: Duration,
    /// `POLL_INTERVAL_MAX`.
    pub interval: Duration,
    /// Of another binary, too.
    pub against: Option<String>,
}

impl Idle {
    fn consumer(&self, handler: &str) -> Consumer {
        let interval = format!("{}ms", self.interval.as_millis());
        Consumer::new(handler).set("POLL_INTERVAL_MAX", &interval)
    }

    /// Memory, connections, CPU and calls of consumers that have nothing to do.
    pub fn measure(&self) {
        println!(
            "idle shards for {:?}, POLL_INTERVAL_MAX={:?}, HANDLER=discard",
            self.window, self.interval
        );
        println!(
            "{:<26} {:>8} {:>8} {:>8} {:>7} {:>12} {:>10} {:>8} {:>11} {:>9}",
            "",
            "RSS MiB",
            "peak",
            "sockets",
            "CPU %",
            "GetRecords/h",
            "us a call",
            "over",
            "all calls/h",
            "writes/h"
        );
        for &shards in &self.open {
            let stage = Stage::idle(shards);
            let mut poller = Poller::start(stage.stream, self.interval);
            thread::sleep(self.interval * 2);
            let ((from, before), began) = (poller.account(), Instant::now());
            thread::sleep(self.window);
            let (to, after) = poller.account();
            let wall = began.elapsed().as_secs_f64();
            let (calls, cpu) = ((to - from) as f64, after - before);
            let floor = cpu / calls;
            drop(poller);
            println!(
                "{:<26} {:>8} {:>8} {:>8} {:>7.2} {:>12.0} {:>10.1}",
                format!("floor, {shards}"),
                "",
                "",
                "",
                cpu / wall * 100.0,
                calls / wall * 3600.0,
                floor * 1e6
            );
            if let Some(binary) = &self.against {
                let theirs = self.consumer("discard").of(binary);
                self.row(&format!("the other binary, {shards}"), &stage, &theirs, shards, floor);
            }
            self.row(
                &format!("consumer, {shards}"),
                &stage,
                &self.consumer("discard"),
                shards,
                floor,
            );
        }
        println!();
    }

    fn row(&self, what: &str, stage: &Stage, consumer: &Consumer, shards: usize, floor: f64) {
        let running = stage.start(consumer);
        settle(&running, shards);
        let (before, cpu, began) = (running.calls(), running.process.cpu(), Instant::now());
        thread::sleep(self.window);
        let (calls, cpu) = (running.calls().since(before), running.process.cpu() - cpu);
        let wall = began.elapsed().as_secs_f64();
        let (reads, hourly) = (calls.reads as f64, |count: usize| count as f64 / wall * 3600.0);
        println!(
            "{what:<26} {:>8.1} {:>8.1} {:>8} {:>7.2} {:>12.0} {:>10.1} {:>8.2} {:>11.0} {:>9.0}",
            running.process.mib("VmRSS:"),
            running.process.mib("VmHWM:"),
            running.process.sockets(),
            cpu / wall * 100.0,
            hourly(calls.reads),
            cpu / reads * 1e6,
            cpu / reads / floor,
            hourly(calls.all),
            hourly(calls.write_units),
        );
    }

    /// The delay from the write of a record to the handler, of one shard that has some all
    /// the time.
    pub fn measure_hot(&self) {
        println!("one shard with a record every {EVERY:?}, the others idle, for {:?}", self.window);
        println!("{:<26} {:>8} {:>8} {:>8} {:>8}", "", "records", "p50 ms", "p99 ms", "most ms");
        for &shards in [1].iter().chain(&self.open) {
            if let Some(binary) = &self.against {
                let what = format!("the other binary, {shards}");
                self.hot_row(&what, shards, |consumer| consumer.of(binary));
            }
            self.hot_row(&format!("consumer, {shards}"), shards, |consumer| consumer);
        }
        println!();
    }

    fn hot_row(&self, what: &str, shards: usize, of: impl Fn(Consumer) -> Consumer) {
        let stage = Stage::idle(shards);
        let handler = Arrivals::listen();
        let running = stage.start(&of(self.consumer(&format!("http://{}/", handler.address))));
        settle(&running, shards);
        let mut stream = Connection::open(stage.stream).expect("the simulator listens");
        let mut put = || {
            stream.post("/_simulator/put", "", &change_of("hot")).expect("put");
        };
        // The first one finds an idle shard.
        put();
        handler.all(1);
        let (began, mut sent) = (Instant::now(), 1);
        while began.elapsed() < self.window {
            put();
            thread::sleep((EVERY * sent).saturating_sub(began.elapsed()));
            sent += 1;
        }
        let delays = handler.all(sent as usize).split_off(1);
        println!("{what:<26} {sent:>8} {}", percentiles(delays));
    }
}

/// Waits until every shard is read and its polls have found their pace.
pub fn settle(running: &Running, shards: usize) {
    let started = Instant::now();
    loop {
        let [reading] = running.scrape([r#"streamgate_shards{state="reading"}"#]);
        let calls = running.calls().reads;
        if reading == shards && calls >= SETTLED * shards {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(300), "{reading} read, {calls} calls");
        thread::sleep(Duration::from_millis(200));
    }
}
