//! A worker's way to the table: its calls go to one of several api replicas, and from there
//! to the table.
//!
//! Owns where an answer may be lost and an effect come late. The patience of each side is the
//! real one's. Invariant: what a call does is done by the store alone, wholly or not at all; a
//! call may be done more than once, and long after its caller has given up or died.

use super::network::Node;
use super::sight::Looks;
use super::world::World;
use futures_util::future::{BoxFuture, FutureExt};
use std::sync::Arc;
use std::time::Duration;
use streamgate::progress::wire;
use streamgate::progress::{Lease, LeaseKey, MemoryProgress, ProgressError};
use tokio::sync::oneshot;

/// A call as the table sees it.
#[derive(Clone)]
pub struct Call {
    /// Who asked.
    pub worker: usize,
    /// For the trace.
    pub what: String,
    /// The lease that the write says it is made under.
    pub under: Option<(LeaseKey, Lease)>,
    /// How often the stream had begun anew when it was made.
    pub epoch: u64,
}

/// What a call does with the store.
pub type Effect<T> = Arc<dyn Fn(&MemoryProgress) -> Answer<T> + Send + Sync>;

pub type Answer<T> = Result<T, ProgressError>;

/// What a replica does for a caller.
pub type Work<T> = Arc<dyn Fn(Arc<World>, usize) -> BoxFuture<'static, Answer<T>> + Send + Sync>;

/// One worker's view of the store of progress.
pub struct Link {
    pub world: Arc<World>,
    pub worker: usize,
    pub looks: Looks,
}

impl Link {
    pub fn new(world: Arc<World>, worker: usize) -> Self {
        Self { world, worker, looks: Looks::default() }
    }

    /// A call that is made now.
    pub fn as_call(&self, what: impl Into<String>, under: Option<(LeaseKey, Lease)>) -> Call {
        let (worker, epoch) = (self.worker, self.world.table.epoch());
        Call { worker, what: what.into(), under, epoch }
    }

    /// One call that is one call of the table too.
    pub async fn call<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        under: Option<(LeaseKey, &Lease)>,
        effect: impl Fn(&MemoryProgress) -> Answer<T> + Send + Sync + 'static,
    ) -> Answer<T> {
        let call = self.as_call(what, under.map(|(key, lease)| (key, lease.clone())));
        let effect: Effect<T> = Arc::new(effect);
        self.ask(
            wire::bound(0),
            Arc::new(move |world, api| {
                let (call, effect) = (call.clone(), Arc::clone(&effect));
                async move {
                    let reply = table(Arc::clone(&world), api, call, effect).await;
                    world.shared_reads.written(api);
                    reply
                }
                .boxed()
            }),
        )
        .await
    }

    /// Asks a replica for what it works on for `bound`, and another where the first cannot be
    /// reached.
    pub async fn ask<T: Send + 'static>(&self, bound: Duration, work: Work<T>) -> Answer<T> {
        let network = &self.world.network;
        let mut failed = None;
        for _ in 0..2 {
            let api = network.choose_api(failed);
            let (answer, answered) = oneshot::channel();
            let (world, worker) = (Arc::clone(&self.world), self.worker);
            let serving = serve(world, worker, api, bound, Arc::clone(&work));
            self.world.handle.spawn(async move {
                if let Some(reply) = serving.await {
                    let _ = answer.send(reply);
                }
            });
            match tokio::time::timeout(wire::patience(bound), answered).await {
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
    bound: Duration,
    work: Work<T>,
) -> Option<Answer<T>> {
    let (client, server) = (Node::Worker(worker), Node::Api(api));
    world.network.carry(client, server).await.then_some(())?;
    let life = world.network.reach(api).await?;
    let reply = tokio::time::timeout(bound, work(Arc::clone(&world), api)).await;
    let reply = reply.unwrap_or_else(|_| unavailable("the table: no answer in time"));
    // It may have crashed or hung meanwhile.
    (world.network.reach(api).await? == life).then_some(())?;
    world.network.carry(server, client).await.then_some(())?;
    Some(reply)
}

/// From a replica to the table and back, once more where the connection breaks.
pub async fn table<T: Send + 'static>(
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
