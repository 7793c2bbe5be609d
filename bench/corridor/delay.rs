//! How long after its write a record is at the handler.
//!
//! Owns the rows of one consumer at the defaults whose shards are busy, were idle, or have
//! just been split, and when in each a record is put. The simulator does not split in
//! two here: every shard is rolled over into one child, so that a record's place is known.

use super::arrivals::{Arrivals, change_of, percentiles};
use super::floor::Connection;
use super::idle::settle;
use super::stage::{Consumer, Stage};
use std::thread;
use std::time::{Duration, Instant};

/// Busy: a record of the shard comes this often.
const BUSY: Duration = Duration::from_millis(50);
/// Were idle: so many shards, and a record of some shard comes this often, so that one that
/// got a record has been idle for seconds before it gets another.
const SHARDS: usize = 400;
const SPARSE: Duration = Duration::from_millis(40);
/// After a split: so many shards end at once, and so many records follow.
const PARENTS: usize = 4;
const RECORDS: usize = 8;

/// All three. `window`: how long each is looked at.
pub fn measure(window: Duration) {
    println!("from a record's write to the handler, default poll intervals (200 ms to 1 s)");
    println!("{:<26} {:>8} {:>8} {:>8} {:>8}", "", "records", "p50 ms", "p99 ms", "most ms");
    every("busy", 1, BUSY, window, |_| "busy".to_owned());
    every("were idle", SHARDS, SPARSE, window, |n| format!("item-{n}"));
    after_rollovers(window);
    println!();
}

/// A record every so often, of the item that `item` names.
fn every(what: &str, shards: usize, often: Duration, window: Duration, item: fn(u32) -> String) {
    let scene = Scene::set(shards);
    let mut stream = Connection::open(scene.stage.stream).expect("the simulator listens");
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < window {
        stream.post("/_simulator/put", "", &change_of(&item(sent))).expect("put");
        sent += 1;
        thread::sleep((often * sent).saturating_sub(began.elapsed()));
    }
    println!("{what:<26} {sent:>8} {}", percentiles(scene.handler.all(sent as usize)));
}

/// Every shard ends and has a child, whose records are there at once.
fn after_rollovers(window: Duration) {
    let scene = Scene::set(PARENTS);
    let mut stream = Connection::open(scene.stage.stream).expect("the simulator listens");
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < window {
        stream.post("/_simulator/rollover", "", r#"{"all":true}"#).expect("rolled over");
        for _ in 0..RECORDS {
            stream.post("/_simulator/put", "", &change_of(&format!("item-{sent}"))).expect("put");
            sent += 1;
        }
        scene.handler.all(sent);
        // Of no step with the polls.
        thread::sleep(Duration::from_secs(2).mul_f64(1.0 + fastrand::f64()));
    }
    println!("{:<26} {sent:>8} {}", "after a split", percentiles(scene.handler.all(sent)));
}

/// A consumer whose shards have found their pace.
struct Scene {
    stage: Stage,
    handler: Arrivals,
    _running: super::stage::Running,
}

impl Scene {
    fn set(shards: usize) -> Self {
        let stage = Stage::idle(shards);
        let handler = Arrivals::listen();
        let running = stage.start(&Consumer::new(&format!("http://{}/", handler.address)));
        settle(&running, shards);
        Self { stage, handler, _running: running }
    }
}
