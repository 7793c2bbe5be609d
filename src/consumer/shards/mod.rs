//! The shards that this worker holds, and how they come and go.
//!
//! Owns the life of each lease in this process: granted or taken as a child, read by a
//! loop of its own, then ended, handed over or lost. What moves to whom is `sharing`'s,
//! what the store has to do is an `errand`. Invariant: a loop runs only
//! under a lease of this life, and a lease leaves only after its loop has ended.
//!
//! ```text
//!  granted ─┐              ┌─ shard end ──> its children are taken
//!           ├──> reading ──┼─ going ──────> drained ──> handed over, announced
//!  child ───┘              ├─ stop ───────> drained ──> handed over, or given back
//!                          └─ lease lost ─> dropped
//! ```

mod errand;
mod held;
mod obeying;
mod outcome;
mod sharing;

use super::Consumer;
use super::family::Family;
use super::launch::Launch;
use super::life::{Life, beat_interval};
use super::lookout::View;
use super::shard::{Stop, StopReason};
use crate::planner::{self, Meter, Pulse};
use crate::progress::{Position, WorkerId};
use crate::source::ShardId;
use crate::telemetry::metrics::ShardState;
use errand::Done;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use held::Held;
pub(super) use held::{Given, Granted, Slots};
use obeying::concerns;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// The shards of one life.
pub(super) struct Shards<'a> {
    consumer: &'a Consumer,
    life: &'a Life,
    family: &'a Family,
    views: watch::Receiver<Arc<View>>,
    launch: Arc<Launch<'a>>,
    drain: CancellationToken,
    abandon: CancellationToken,
    held: BTreeMap<ShardId, Held>,
    running: JoinSet<(ShardId, StopReason)>,
    errands: FuturesUnordered<BoxFuture<'a, Done>>,
    slots: &'a Slots,
    /// A look at this worker's items is under way.
    loading: bool,
    /// Something has become this worker's since it began.
    load_again: bool,
    /// As far as this worker has acted on what it was told.
    noted: u64,
    /// Given back to this worker before it knew that it had given them away.
    returned: BTreeSet<ShardId>,
    /// Have been given something, and are to be told then.
    untold: BTreeSet<WorkerId>,
    tell_at: Instant,
    draining: bool,
    /// Who lived when the loads were last compared.
    living: BTreeSet<WorkerId>,
    balance_at: Instant,
    sampled: Instant,
    /// Shards that were held: at their end, which are still shown, or given away or lost.
    left: BTreeMap<ShardId, Left>,
    /// Records delivered and given up by this process before this life.
    counted: (u64, u64),
}

/// A lease that was held, and is never this worker's again.
struct Left {
    counter: u64,
    since: Instant,
}

impl<'a> Shards<'a> {
    pub fn new(
        consumer: &'a Consumer,
        life: &'a Life,
        family: &'a Family,
        slots: &'a Slots,
        views: watch::Receiver<Arc<View>>,
        launch: Launch<'a>,
        drain: &CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let metrics = &consumer.metrics;
        let counted = (metrics.records_delivered.get(), metrics.records_dead_lettered.get());
        Self {
            consumer,
            life,
            family,
            views,
            launch: Arc::new(launch),
            drain: drain.clone(),
            abandon: life.lost().child_token(),
            held: BTreeMap::new(),
            running: JoinSet::new(),
            errands: FuturesUnordered::new(),
            slots,
            loading: false,
            load_again: false,
            noted: 0,
            returned: BTreeSet::new(),
            untold: BTreeSet::new(),
            tell_at: now,
            draining: false,
            living: BTreeSet::new(),
            balance_at: now,
            sampled: now,
            left: BTreeMap::new(),
            counted,
        }
    }

    /// Runs the shards until a stop was asked for and everything is finished and given away.
    pub async fn run(&mut self, grants: &mut mpsc::UnboundedReceiver<Given>) {
        let drain = self.drain.clone();
        let interval = beat_interval(self.consumer.settings.failover_time);
        loop {
            if self.draining && self.held.is_empty() && self.errands.is_empty() {
                if self.untold.is_empty() {
                    return;
                }
                self.tell();
            }
            tokio::select! {
                biased;
                () = drain.cancelled(), if !self.draining => self.begin_drain(),
                Some(ended) = self.running.join_next() => {
                    let (shard, reason) = ended.expect("a shard's loop does not panic");
                    self.stopped(shard, reason);
                }
                Some(done) = self.errands.next() => self.done(done),
                Some(given) = grants.recv() => self.given(given),
                Ok(()) = self.views.changed() => self.look(),
                () = tokio::time::sleep_until(self.tell_at), if !self.untold.is_empty() => self.tell(),
                () = tokio::time::sleep_until(self.sampled + interval) => self.sample(),
            }
        }
    }

    /// Writes what is due, for ever.
    pub fn checkpointer(&self) -> Arc<crate::checkpoint::Checkpointer> {
        Arc::clone(&self.launch.checkpointer)
    }

    /// Stops all loops at once. Gives how many leases that leaves behind.
    pub async fn abandon(&mut self) -> usize {
        self.abandon.cancel();
        self.errands.clear();
        while self.running.join_next().await.is_some() {}
        self.consumer.metrics.leases_held.set(0);
        self.consumer.board.forget_all();
        std::mem::take(&mut self.held).len()
    }

    fn given(&mut self, given: Given) {
        match given {
            Given::Begun(granted) => {
                self.hold(*granted);
                self.say(true);
            }
            Given::Taken => self.load_leases(),
        }
    }

    /// A lease is this worker's now: its shard is read.
    fn hold(&mut self, granted: Granted) {
        let Granted { item, .. } = &granted;
        let shard = item.shard.clone();
        // What was read of it before it left may be told late; and a first take that is made
        // again is answered as before, though what it took is at its end by now.
        let is_it = |left: &Left| item.lease.counter <= left.counter;
        let has_left = self.left.get(&shard).is_some_and(is_it);
        if item.position == Position::ShardEnd {
            return;
        }
        if has_left {
            // Should it still be this worker's, nobody reads it and nobody else may: an item
            // that was removed and made again by a take that came late. Else it is refused.
            let (lease, slots) = (item.lease.clone(), self.slots.transfers(0));
            self.errands.push(Box::pin(errand::release(self.consumer, slots, shard, lease)));
            return;
        }
        if let Some(held) = self.held.get(&shard) {
            if held.lease != item.lease {
                self.returned.insert(shard);
            }
            return;
        }
        let lease = item.lease.clone();
        let (parent, owner) = (item.parent.as_ref().map(ToString::to_string), &lease.owner);
        let owner = owner.as_ref().map(ToString::to_string);
        self.consumer.board.shard(&shard, |status| {
            status.parent = parent;
            status.owner = owner;
            status.state = ShardState::Waiting;
            status.at(&item.position);
        });
        self.consumer.metrics.leases_taken.inc();
        let (drain, pulse) = (self.drain.child_token(), Arc::new(Pulse::default()));
        let stop = Stop { drain: drain.clone(), abandon: self.abandon.child_token() };
        let meter = Meter::begin(self.usual_weight());
        let halted = concerns(&self.views.borrow().orders, &shard, &lease, item.order);
        let held = Held {
            lease,
            drain,
            going: None,
            stopped: false,
            halted,
            order: item.order,
            pulse: Arc::clone(&pulse),
            meter,
        };
        self.left.remove(&shard);
        self.held.insert(shard.clone(), held);
        match halted {
            true if self.draining => self.pass_on(shard),
            true => self.halt(shard),
            false => drop(self.running.spawn(self.launch.shard(granted, pulse, stop))),
        }
    }

    /// A loop has ended.
    fn stopped(&mut self, shard: ShardId, reason: StopReason) {
        match reason {
            StopReason::ShardEnd => self.shard_end(shard),
            StopReason::Drained => self.pass_on(shard),
            StopReason::LeaseLost => {
                self.consumer.metrics.leases_lost.inc();
                self.drop_shard(&shard);
            }
        }
    }

    fn shard_end(&mut self, shard: ShardId) {
        info!(%shard, "a shard is delivered to its end");
        let epoch = self.held.get(&shard).map_or(0, |held| held.lease.epoch());
        self.leave(&shard);
        self.say(false);
        self.consumer.board.shard(&shard, |status| {
            status.state = ShardState::Ended;
            status.owner = None;
            status.behind(None);
        });
        // A child that is known is enough: a sibling is found by the whole listing. In a
        // stream that is disabled there will be none.
        let Some(known) = self.family.end(&shard, epoch) else { return };
        if self.draining || (known.is_empty() && self.family.is_finished()) {
            return;
        }
        let begin = {
            let view = self.views.borrow();
            let begin = view.seeded.clone();
            let begin = begin.unwrap_or_else(|| self.consumer.start(&view.orders).begin());
            (begin, view.orders.epoch)
        };
        let me = self.life.worker().clone();
        // Where the stream begins anew the leader makes all items.
        let stop = self.stopping();
        self.errands.push(Box::pin(errand::take_children(
            self.consumer,
            me,
            &self.slots.discoveries,
            shard,
            known,
            begin,
            stop,
        )));
    }

    /// The loop of a shard has finished, for it goes to another worker.
    fn pass_on(&mut self, shard: ShardId) {
        let Some(held) = self.held.get_mut(&shard) else { return };
        let (id, lease, weight) = (shard.clone(), held.lease.clone(), held.weight());
        let going = held.going.take();
        let others = self.others();
        let to = match going {
            Some(to) if others.iter().any(|share| share.worker == to) => Some(to),
            _ if self.draining => planner::place([((), weight)], &others).pop().map(|(_, to)| to),
            _ => None,
        };
        let (consumer, slots) = (self.consumer, self.slots.transfers(weight));
        let errand: BoxFuture<'a, Done> = match to {
            Some(to) => {
                debug!(%shard, %to, "handing a shard over");
                Box::pin(errand::hand_over(consumer, slots, shard, lease, to))
            }
            None if self.draining => Box::pin(errand::release(consumer, slots, shard, lease)),
            // Operators want something with it; or who was to get it has gone, and it stays.
            None => return self.halt(shard),
        };
        if let Some(held) = self.held.get_mut(&id) {
            held.stopped = true;
        }
        self.errands.push(errand);
    }

    /// A lease is not this worker's any more.
    fn leave(&mut self, shard: &ShardId) {
        if let Some(held) = self.held.remove(shard) {
            let left = Left { counter: held.lease.counter, since: Instant::now() };
            self.left.insert(shard.clone(), left);
        }
    }

    fn drop_shard(&mut self, shard: &ShardId) {
        self.leave(shard);
        self.consumer.board.forget(shard);
        self.say(true);
        self.look_for_returned(shard);
    }

    /// Reads again what has become this worker's, where a newer lease of the shard was seen
    /// while an older one was held.
    fn look_for_returned(&mut self, shard: &ShardId) {
        if self.returned.remove(shard) {
            self.load_leases();
        }
    }

    /// Reads which leases are this worker's, once more if that is under way.
    fn load_leases(&mut self) {
        if std::mem::replace(&mut self.loading, true) {
            self.load_again = true;
            return;
        }
        let view = self.views.borrow();
        let announced = view.worker(self.life.worker()).map_or(0, |me| me.member.announced);
        let me = self.life.worker().clone();
        self.errands.push(Box::pin(errand::load(self.consumer, me, announced)));
    }
}
