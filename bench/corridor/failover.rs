//! How long a shard's records wait when the worker that reads it goes.
//!
//! Owns the rows of two consumers of a name, one of which is killed or stopped: the time
//! from then until the other delivers the first record of a shard that was the first's, and
//! what of AWS the two ask for before, and the other to take over all shards.

use super::arrivals::{Arrivals, change_of};
use super::floor::Connection;
use super::stage::{Calls, Consumer, Running, Stage};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A record of the shard that is followed comes this often.
const EVERY: Duration = Duration::from_millis(50);
/// Nobody waits for longer.
const LIMIT: Duration = Duration::from_secs(300);

/// How a worker goes.
#[derive(Clone, Copy)]
enum End {
    /// As `kill -9`.
    Killed,
    /// By SIGTERM.
    Stopped,
}

/// What one end has shown.
struct Outcome {
    /// From the end to the first record by the other.
    took: Duration,
    /// Of both, in the window before it.
    before: Calls,
    /// Of the other, from the end until it reads all shards.
    takeover: Calls,
}

/// Both ends, for streams of so many open shards, so many times each.
///
/// `window`: how long the two are looked at before.
pub fn measure(open: &[usize], rounds: usize, window: Duration) {
    println!("from the end of one of two workers to the first record of its shard by the other");
    println!(
        "{:<26} {:>6} {:>8} {:>9} {:>8} {:>12} {:>11} {:>9} {:>9} {:>10}",
        "",
        "times",
        "least s",
        "median s",
        "most s",
        "GetRecords/h",
        "all calls/h",
        "writes/h",
        "its calls",
        "its writes"
    );
    for &shards in open {
        for end in [End::Killed, End::Stopped] {
            let mut all: Vec<Outcome> = (0..rounds).map(|_| once(shards, end, window)).collect();
            all.sort_by_key(|outcome| outcome.took);
            let what = match end {
                End::Killed => format!("killed, {shards} shards"),
                End::Stopped => format!("stopped, {shards} shards"),
            };
            let [least, median, most] =
                [0, rounds / 2, rounds - 1].map(|at| all[at].took.as_secs_f64());
            let Outcome { before, takeover, .. } = &all[rounds / 2];
            let hourly = |count: usize| count as f64 / window.as_secs_f64() * 3600.0;
            println!(
                "{what:<26} {rounds:>6} {least:>8.2} {median:>9.2} {most:>8.2} {:>12.0} {:>11.0} {:>9.0} {:>9} {:>10}",
                hourly(before.reads),
                hourly(before.all),
                hourly(before.write_units),
                takeover.all - takeover.reads,
                takeover.write_units,
            );
        }
    }
    println!();
}

fn once(shards: usize, end: End, window: Duration) -> Outcome {
    let stage = Stage::idle(shards);
    let handler = Arrivals::listen();
    let url = format!("http://{}/", handler.address);
    let consumer = Consumer::new(&url).set("CONSUMER_NAME", "bench-failover");
    let workers = [stage.start(&consumer), stage.start(&consumer)];
    share(&workers, shards);
    let both = || workers[0].calls().and(workers[1].calls());
    let calls = both();
    thread::sleep(window);
    let before = both().since(calls);
    let mut stream = Connection::open(stage.stream).expect("the simulator listens");
    let mut put = || {
        stream.post("/_simulator/put", "", &change_of("hot")).expect("put");
    };
    put();
    let handled = handler.until(1);
    let delivers = |worker: &Running| worker.scrape([DELIVERED]) == [1];
    // It is counted after the handler has answered.
    let at = loop {
        match workers.iter().position(delivers) {
            Some(at) => break at,
            None => thread::sleep(EVERY),
        }
    };
    let [mut going, staying] = workers;
    let staying = if at == 0 { staying } else { std::mem::replace(&mut going, staying) };
    let (ended, calls) = (Instant::now(), staying.calls());
    match end {
        End::Killed => drop(going),
        End::Stopped => {
            let pid = going.process.0.id().to_string();
            let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
            assert!(told.success());
            thread::spawn(move || {
                let mut going = going;
                going.process.0.wait()
            });
        }
    }
    // What the one that goes had in flight is not the other's.
    while staying.scrape([DELIVERED]) == [0] {
        assert!(ended.elapsed() < LIMIT, "nobody goes on");
        put();
        thread::sleep(EVERY);
    }
    let took = ended.elapsed();
    assert!(handler.until(handled + 1) > handled);
    while staying.scrape([READING]) != [shards] {
        assert!(ended.elapsed() < LIMIT, "not all shards are read");
        thread::sleep(EVERY);
    }
    Outcome { took, before, takeover: staying.calls().since(calls) }
}

const DELIVERED: &str = "streamgate_records_delivered_total";
const READING: &str = r#"streamgate_shards{state="reading"}"#;

/// Waits until both read about half of the shards.
fn share(workers: &[Running; 2], shards: usize) {
    let started = Instant::now();
    loop {
        let reading = workers.each_ref().map(|worker| worker.scrape([READING])[0]);
        let [one, other] = reading;
        if one + other == shards && one.abs_diff(other) <= 1 + shards / 20 {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{reading:?} of {shards}");
        thread::sleep(Duration::from_millis(200));
    }
}
