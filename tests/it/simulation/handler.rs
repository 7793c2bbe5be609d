//! The handler of one worker: takes its time, fails now and then, and tells the judge.

use super::judge::digits;
use super::names::short;
use super::world::World;
use async_trait::async_trait;
use fastrand::Rng;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamgate::deliver::{Batch, Handler, HandlerError, Response};
use streamgate::source::ShardId;
use tokio::sync::OwnedSemaphorePermit;

/// How handlers fare now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    /// The most milliseconds that a batch takes.
    pub takes: u64,
    /// The share of batches that fail.
    pub fails: f64,
    /// The share of batches that take longer than the handler may.
    pub hangs: f64,
}

pub struct Hands {
    world: Arc<World>,
    worker: usize,
    random: Mutex<Rng>,
}

impl Hands {
    pub fn new(world: Arc<World>, worker: usize, seed: u64) -> Self {
        Self { world, worker, random: Mutex::new(Rng::with_seed(seed)) }
    }

    /// How long this batch takes, and whether it fails then.
    fn fate(&self) -> (Duration, bool) {
        let Mood { takes, fails, hangs } = self.world.mood();
        let mut random = self.random.lock().expect("no panic while held");
        let takes = match random.f64() < hangs {
            true => Duration::from_secs(3600),
            false => Duration::from_millis(random.u64(0..=takes)),
        };
        (takes, random.f64() < fails)
    }
}

#[async_trait]
impl Handler for Hands {
    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let Self { world, worker, .. } = self;
        let records = batch.records().iter();
        let numbers: Vec<u128> = records.map(|record| digits(record.sequence_digits())).collect();
        let (at, attempt) = (short(&batch.shard), batch.attempt);
        let range = format!("{:?} to {:?}", numbers.first(), numbers.last());
        world.trace.note(format_args!("w{worker} handles of {at} {range}, attempt {attempt}"));
        let (owner, now) = (world.table.owner(&batch.shard), world.trace.now());
        let orders = world.table.snapshot().coordination.orders;
        if let Some(fault) = world.sight.fault(*worker, &batch.shard, &orders, now) {
            world.judge().fault(format!("w{worker} was handed of {at}: {fault}"));
        }
        let pass = world.judge().begin(*worker, &batch.shard, &numbers, owner, now);
        let _under_way = UnderWay { hands: self, shard: &batch.shard };
        let (takes, fails) = self.fate();
        tokio::time::sleep(takes).await;
        if fails {
            return Err(HandlerError::failed("told to fail"));
        }
        world.trace.note(format_args!("w{worker} took of {at} {range}"));
        world.judge().taken(&batch.shard, &numbers, pass);
        Ok(Response::taken())
    }
}

/// A batch that is through, or that nobody waits for any more, when this is dropped.
struct UnderWay<'a> {
    hands: &'a Hands,
    shard: &'a ShardId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.hands.world.judge().turns.end(self.hands.worker, self.shard);
    }
}
