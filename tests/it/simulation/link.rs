//! A worker's way to the table: its calls go to one of several api replicas, and from there
//! to the table.
//!
//! Owns where an answer may be lost and an effect come late. The patience of each side is the
//! real one's. Invariant: what a call does is done by the store alone, wholly or not at all; a
//! call may be done more than once, and long after its caller has given up or died.

use super::names::{key_name, position_name, short};
use super::network::Node;
use super::world::World;
use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use std::sync::Arc;
use std::time::Duration;
use streamgate::progress::orders::{Orders, Request};
use streamgate::progress::{
    Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, MemoryProgress, NewShard, Position,
    Progress, ProgressError, Selection, ShardProgress, WorkerId,
};
use streamgate::source::ShardId;
use tokio::sync::oneshot;

/// As the client of the api has it.
const CLIENT_PATIENCE: Duration = Duration::from_secs(12);
/// As the api has it with the table.
const API_PATIENCE: Duration = Duration::from_secs(10);

/// A call as the table sees it.
#[derive(Clone)]
pub struct Call {
    /// Who asked.
    pub worker: usize,
    /// For the trace.
    pub what: String,
    /// The lease that the write says it is made under.
    pub under: Option<(LeaseKey, Lease)>,
}

/// What a call does with the store.
pub type Effect<T> = Arc<dyn Fn(&MemoryProgress) -> Answer<T> + Send + Sync>;

pub type Answer<T> = Result<T, ProgressError>;

/// What a replica does for a caller.
type Work<T> = Arc<dyn Fn(Arc<World>, usize) -> BoxFuture<'static, Answer<T>> + Send + Sync>;

/// One worker's view of the store of progress.
pub struct Link {
    world: Arc<World>,
    worker: usize,
}

impl Link {
    pub fn new(world: Arc<World>, worker: usize) -> Self {
        Self { world, worker }
    }

    /// One call that is one call of the table too.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        under: Option<(LeaseKey, &Lease)>,
        effect: impl Fn(&MemoryProgress) -> Answer<T> + Send + Sync + 'static,
    ) -> Answer<T> {
        let under = under.map(|(key, lease)| (key, lease.clone()));
        let call = Call { worker: self.worker, what: what.into(), under };
        let effect: Effect<T> = Arc::new(effect);
        self.ask(Arc::new(move |world, api| {
            table(world, api, call.clone(), Arc::clone(&effect)).boxed()
        }))
        .await
    }

    /// Asks a replica, and another where the first cannot be reached.
    async fn ask<T: Send + 'static>(&self, work: Work<T>) -> Answer<T> {
        let network = &self.world.network;
        let mut failed = None;
        for _ in 0..2 {
            let api = network.choose_api(failed);
            let (answer, answered) = oneshot::channel();
            let (world, worker) = (Arc::clone(&self.world), self.worker);
            let serving = serve(world, worker, api, Arc::clone(&work));
            self.world.handle.spawn(async move {
                if let Some(reply) = serving.await {
                    let _ = answer.send(reply);
                }
            });
            match tokio::time::timeout(CLIENT_PATIENCE, answered).await {
                Ok(Ok(reply)) => return reply,
                Ok(Err(_)) => failed = Some(api),
                Err(_) => return unavailable("the api: no answer in time"),
            }
        }
        unavailable("the api: the connection broke")
    }
}

/// From a worker to a replica and back. `None` when the connection breaks.
async fn serve<T: Send + 'static>(
    world: Arc<World>,
    worker: usize,
    api: usize,
    work: Work<T>,
) -> Option<Answer<T>> {
    let (client, server) = (Node::Worker(worker), Node::Api(api));
    world.network.carry(client, server).await.then_some(())?;
    let life = world.network.reach(api).await?;
    let reply = tokio::time::timeout(API_PATIENCE, work(Arc::clone(&world), api)).await;
    let reply = reply.unwrap_or_else(|_| unavailable("the table: no answer in time"));
    // It may have crashed or hung meanwhile.
    (world.network.reach(api).await? == life).then_some(())?;
    world.network.carry(server, client).await.then_some(())?;
    Some(reply)
}

/// From a replica to the table and back, once more where the connection breaks.
async fn table<T: Send + 'static>(
    world: Arc<World>,
    api: usize,
    call: Call,
    effect: Effect<T>,
) -> Answer<T> {
    for _ in 0..2 {
        let (answer, answered) = oneshot::channel();
        // By itself: what is under way arrives though nobody waits for it any more.
        let arriving = arrive(Arc::clone(&world), api, call.clone(), Arc::clone(&effect), answer);
        world.handle.spawn(arriving);
        if let Ok(reply) = answered.await {
            return reply;
        }
    }
    unavailable("the table: the connection broke")
}

async fn arrive<T: Send + 'static>(
    world: Arc<World>,
    api: usize,
    call: Call,
    effect: Effect<T>,
    answer: oneshot::Sender<Answer<T>>,
) {
    if !world.network.carry(Node::Api(api), Node::Table).await {
        return;
    }
    let (is_throttled, again) = world.network.at_the_table();
    let reply = match is_throttled {
        true => unavailable("the table: throttled"),
        false => world.table.serve(&world, &call, &*effect),
    };
    if let Some(after) = again {
        let (world, call) = (Arc::clone(&world), Call { what: call.what + " again", ..call });
        world.clone().handle.spawn(async move {
            tokio::time::sleep(after).await;
            let _ = world.table.serve(&world, &call, &*effect);
        });
    }
    if world.network.carry(Node::Table, Node::Api(api)).await {
        let _ = answer.send(reply);
    }
}

fn unavailable<T>(why: &str) -> Answer<T> {
    Err(ProgressError::Unavailable(why.to_owned()))
}

/// What a store in memory answers at once.
pub fn done<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("memory does not wait")
}

/// A selection that can be kept.
#[derive(Clone)]
enum Which {
    All,
    Of(WorkerId),
    These(Vec<ShardId>),
}

impl Which {
    fn of(which: Selection<'_>) -> Self {
        match which {
            Selection::All => Self::All,
            Selection::Of(worker) => Self::Of(worker.clone()),
            Selection::These(shards) => Self::These(shards.to_vec()),
        }
    }

    fn selection(&self) -> Selection<'_> {
        match self {
            Self::All => Selection::All,
            Self::Of(worker) => Selection::Of(worker),
            Self::These(shards) => Selection::These(shards),
        }
    }
}

fn shard_key(shard: &ShardId) -> LeaseKey {
    LeaseKey::Shard(shard.clone())
}

#[async_trait]
impl Progress for Link {
    async fn describe(&self) -> Answer<()> {
        self.call("describe", None, |store| done(store.describe())).await
    }

    async fn coordination(&self) -> Answer<Coordination> {
        self.call("coordination", None, |store| done(store.coordination())).await
    }

    /// The table is asked for one bucket of shards after the other: what is answered was
    /// never there at one moment.
    async fn load(&self, which: Selection<'_>) -> Answer<Vec<ShardProgress>> {
        let which = Which::of(which);
        let call = Call { worker: self.worker, what: "load".to_owned(), under: None };
        self.ask(Arc::new(move |world: Arc<World>, api| {
            let (call, patience) = (call.clone(), Arc::clone(&world));
            let which = which.clone();
            let part = move |part: u8| {
                let which = which.clone();
                let effect: Effect<Vec<ShardProgress>> = Arc::new(move |store: &MemoryProgress| {
                    let mut items = done(store.load(which.selection()))?;
                    items.retain(|item| bucket(&item.shard) == part);
                    Ok(items)
                });
                table(Arc::clone(&world), api, call.clone(), effect)
            };
            async move {
                let mut items = Vec::new();
                for number in 0..BUCKETS {
                    items.extend(part(number).await?);
                }
                patience.table.date(&mut items);
                items.sort_by(|a, b| a.shard.cmp(&b.shard));
                Ok(items)
            }
            .boxed()
        }))
        .await
    }

    async fn heartbeat(&self, sign: &Heartbeat) -> Answer<()> {
        self.world.table.introduce(&self.world, self.worker, &sign.worker);
        let sign = sign.clone();
        self.call("beat", None, move |store| done(store.heartbeat(&sign))).await
    }

    async fn announce(&self, worker: &WorkerId) -> Answer<()> {
        let what = format!("announce {}", self.world.table.name(worker));
        let worker = worker.clone();
        self.call(what, None, move |store| done(store.announce(&worker))).await
    }

    async fn drain(&self, worker: &WorkerId) -> Answer<()> {
        let worker = worker.clone();
        self.call("drain", None, move |store| done(store.drain(&worker))).await
    }

    async fn retire(&self, worker: &WorkerId, seen: Option<u64>) -> Answer<()> {
        let what = format!("retire {}", self.world.table.name(worker));
        let worker = worker.clone();
        self.call(what, None, move |store| done(store.retire(&worker, seen))).await
    }

    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Answer<Lease> {
        let what = format!("take {} for {}", key_name(key), self.world.table.name(worker));
        let (key, seen) = (key.clone(), seen.cloned());
        let (worker, new) = (worker.clone(), new.cloned());
        self.call(what, None, move |store| {
            done(store.take(&key, seen.as_ref(), &worker, new.as_ref()))
        })
        .await
    }

    async fn hand_over(&self, shard: &ShardId, lease: &Lease, to: &WorkerId) -> Answer<Lease> {
        let what = format!("hand over {} to {}", short(shard), self.world.table.name(to));
        let (shard, held, to) = (shard.clone(), lease.clone(), to.clone());
        let under = Some((shard_key(&shard), lease));
        self.call(what, under, move |store| done(store.hand_over(&shard, &held, &to))).await
    }

    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Answer<()> {
        let what = format!("release {}", key_name(key));
        let (key, held) = (key.clone(), lease.clone());
        self.call(what, Some((key.clone(), lease)), move |store| done(store.release(&key, &held)))
            .await
    }

    async fn seeded(&self, lease: &Lease, begin: &Position) -> Answer<()> {
        let (held, begin) = (lease.clone(), begin.clone());
        let under = Some((LeaseKey::Stream, lease));
        self.call("seeded", under, move |store| done(store.seeded(&held, &begin))).await
    }

    async fn unseed(&self, lease: &Lease) -> Answer<()> {
        let held = lease.clone();
        let under = Some((LeaseKey::Stream, lease));
        self.call("unseed", under, move |store| done(store.unseed(&held))).await
    }

    async fn order(&self, request: &Request) -> Answer<Orders> {
        let request = request.clone();
        self.call("order", None, move |store| done(store.order(&request))).await
    }

    async fn seek(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Answer<()> {
        let what = format!("seek {} {}", short(shard), position_name(position));
        let (shard, held, position) = (shard.clone(), lease.clone(), position.clone());
        let under = Some((shard_key(&shard), lease));
        self.call(what, under, move |store| done(store.seek(&shard, &held, step, &position, order)))
            .await
    }

    /// Every position is a write of its own, with a fate of its own.
    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Answer<()>> {
        let calls: Vec<(Call, Checkpoint)> = checkpoints
            .iter()
            .map(|checkpoint| {
                let Checkpoint { shard, lease, position, .. } = checkpoint;
                let what = format!("checkpoint {} {}", short(shard), position_name(position));
                let under = Some((shard_key(shard), lease.clone()));
                (Call { worker: self.worker, what, under }, checkpoint.clone())
            })
            .collect();
        let count = calls.len();
        let written = self
            .ask(Arc::new(move |world: Arc<World>, api| {
                let writes = calls.clone().into_iter().map(move |(call, checkpoint)| {
                    let effect: Effect<()> = Arc::new(move |store: &MemoryProgress| {
                        let mut results = done(store.checkpoint(std::slice::from_ref(&checkpoint)));
                        results.pop().expect("one result for each")
                    });
                    table(Arc::clone(&world), api, call, effect)
                });
                join_all(writes).map(Ok).boxed()
            }))
            .await;
        written.unwrap_or_else(|error| vec![Err(error); count])
    }

    async fn forget(&self, shard: &ShardId, lease: &Lease) -> Answer<()> {
        let what = format!("forget {}", short(shard));
        let (shard, held) = (shard.clone(), lease.clone());
        let under = Some((shard_key(&shard), lease));
        self.call(what, under, move |store| done(store.forget(&shard, &held))).await
    }
}

/// Fewer than the table's own, for every one costs a way there and back.
const BUCKETS: u8 = 3;

fn bucket(shard: &ShardId) -> u8 {
    shard.as_str().bytes().last().unwrap_or_default() % BUCKETS
}
