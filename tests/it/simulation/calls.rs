//! The calls of the store of progress, as a worker makes them and a replica carries them out.
//!
//! Owns which calls of the table each is; how they travel is [`Link`]'s.

use super::link::{Answer, Call, Effect, Link, done, table};
use super::names::{key_name, position_name, short};
use super::world::World;
use async_trait::async_trait;
use futures_util::future::{FutureExt, join_all};
use std::sync::Arc;
use streamgate::progress::orders::{Orders, Request};
use streamgate::progress::wire;
use streamgate::progress::{
    Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, MemoryProgress, NewShard, Position,
    Progress, Selection, ShardProgress, WorkerId,
};
use streamgate::source::ShardId;
use tokio::time::Instant;

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
        let call = self.as_call("coordination", None);
        let may_be_leaders = self.looks.begin();
        let read = self.ask(
            wire::Call::Coordination.bound(0),
            Arc::new(move |world: Arc<World>, api| {
                let call = call.clone();
                async move {
                    let began = Instant::now();
                    let writes = match world.shared_reads.get(api, began) {
                        Ok(read) => return Ok(read),
                        Err(writes) => writes,
                    };
                    let effect: Effect<Coordination> =
                        Arc::new(|store: &MemoryProgress| done(store.coordination()));
                    let read = table(Arc::clone(&world), api, call, effect).await?;
                    world.shared_reads.put(api, began, writes, &read);
                    Ok(read)
                }
                .boxed()
            }),
        );
        let read = read.await?;
        if may_be_leaders {
            self.looks.answered();
        }
        let (world, now) = (&self.world, self.world.trace.now());
        world.sight.saw(self.worker, &read.orders, now, !may_be_leaders);
        Ok(read)
    }

    /// The table is asked for one bucket of shards after the other: what is answered was
    /// never there at one moment.
    async fn load(&self, which: Selection<'_>) -> Answer<Vec<ShardProgress>> {
        let (which, call) = (Which::of(which), self.as_call("load", None));
        let asked = which.clone();
        let load = self.ask(
            wire::Call::Shards.bound(0),
            Arc::new(move |world: Arc<World>, api| {
                let (call, which) = (call.clone(), which.clone());
                let part = move |part: u8| {
                    let which = which.clone();
                    let effect: Effect<Vec<ShardProgress>> =
                        Arc::new(move |store: &MemoryProgress| {
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
                    items.sort_by(|a, b| a.shard.cmp(&b.shard));
                    Ok(items)
                }
                .boxed()
            }),
        );
        let items = load.await?;
        match asked {
            Which::All => self.looks.loaded(),
            Which::Of(_) => {}
            // No loop of its own reads a shard of which a worker asks anew.
            Which::These(_) => {
                let items = items.iter().filter(|item| self.world.table.has(self.worker, item));
                for item in items {
                    self.world.judge().stopped(&item.shard, &item.position);
                }
            }
        }
        Ok(items)
    }

    async fn heartbeat(&self, sign: &Heartbeat) -> Answer<()> {
        self.world.table.introduce(&self.world, self.worker, &sign.worker);
        if self.world.table.has_left(&sign.worker) {
            let name = self.world.table.name(&sign.worker);
            self.world.judge().fault(format!("{name} beats after it removed its own sign of life"));
        }
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

    async fn seeded(&self, lease: &Lease, step: u64, begin: &Position) -> Answer<()> {
        let (held, begin) = (lease.clone(), begin.clone());
        let under = Some((LeaseKey::Stream, lease));
        self.call("seeded", under, move |store| done(store.seeded(&held, step, &begin))).await
    }

    async fn unseed(&self, lease: &Lease, step: u64) -> Answer<()> {
        let held = lease.clone();
        let under = Some((LeaseKey::Stream, lease));
        self.call("unseed", under, move |store| done(store.unseed(&held, step))).await
    }

    async fn order(&self, request: &Request) -> Answer<Orders> {
        let what = request.order.to_string();
        let (request, on_its_way) = (request.clone(), Arc::clone(&self.world.on_its_way));
        self.call(what, None, move |store| {
            let _ = &on_its_way;
            done(store.order(&request))
        })
        .await
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
                (self.as_call(what, under), checkpoint.clone())
            })
            .collect();
        let count = calls.len();
        let written = self
            .ask(
                wire::Call::Checkpoint.bound(0),
                Arc::new(move |world: Arc<World>, api| {
                    let writes = calls.clone().into_iter().map(move |(call, checkpoint)| {
                        let effect: Effect<()> = Arc::new(move |store: &MemoryProgress| {
                            let mut results =
                                done(store.checkpoint(std::slice::from_ref(&checkpoint)));
                            results.pop().expect("one result for each")
                        });
                        table(Arc::clone(&world), api, call, effect)
                    });
                    join_all(writes).map(Ok).boxed()
                }),
            )
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
