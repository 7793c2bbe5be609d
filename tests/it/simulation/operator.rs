//! What operators ask for while all else goes wrong, through any replica of the api.
//!
//! Owns which requests are made and when. They travel as a worker's calls do: they may be
//! lost, come late or twice, and so may their answers.

use super::link::Link;
use super::names::short;
use super::plan::Event;
use super::run::{Due, Run};
use super::world::epoch;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use streamgate::clock;
use streamgate::progress::orders::{Order, Orders, Request, SeekTo};
use streamgate::progress::{Position, Progress};
use streamgate::simulator::{ShardState, Simulator};
use streamgate::source::ShardId;

/// The number of whoever asks, among those of workers.
const OPERATOR: usize = 1000;
/// Enough for a storm.
const MOST_ASKED: usize = 18;
/// A seek goes back so far at most.
const BACK: Duration = Duration::from_secs(60);

impl Run {
    /// One request, if there is anything to ask for.
    pub fn operate(&mut self, event: Event) {
        if self.asked == MOST_ASKED {
            return;
        }
        let shard = self.readable();
        let order = match (event, shard) {
            (Event::PauseStream, _) => self.pause(None),
            (Event::SeekStream, _) => Order::SeekStream(self.some_place()),
            (_, None) => return,
            (Event::Pause, shard) => self.pause(shard),
            (Event::Skip, Some(shard)) => Order::Skip(shard, self.random.u64(1..20)),
            (_, Some(shard)) => Order::SeekShard(shard, self.some_place()),
        };
        self.ask(order);
    }

    /// Asks, and does not wait for the answer.
    pub fn ask(&mut self, order: Order) {
        self.asked += 1;
        self.note(&format!("asked to {order}"));
        let nonce = self.random.u64(1..1 << 53);
        let request = Request { order, by: "operator".to_owned(), nonce };
        let world = Arc::clone(&self.world);
        let on_its_way = Arc::clone(&world.on_its_way);
        self.world.handle.spawn(async move {
            let _on_its_way = on_its_way;
            let answer = Link::new(Arc::clone(&world), OPERATOR).order(&request).await;
            let became = answer.map_or_else(|error| error.to_string(), |_| "stands".to_owned());
            world.trace.note(format_args!("-- {}: {became}", request.order));
        });
    }

    pub fn orders(&self) -> Orders {
        self.world.table.snapshot().coordination.orders
    }

    /// Whether everything that was asked for has arrived and is carried out.
    pub fn is_settled(&self) -> bool {
        let Orders { moves, reset, .. } = self.orders();
        Arc::strong_count(&self.world.on_its_way) == 1 && moves.is_empty() && reset.is_none()
    }

    /// The shards that are paused, or wait for one that is.
    pub fn paused(&self) -> BTreeSet<ShardId> {
        let table = self.world.table.snapshot();
        let orders = &table.coordination.orders;
        let shards = self.with_stream(Simulator::shards);
        let known = shards.iter().map(|shard| &shard.id).chain(table.shards.keys());
        let is_ended = |shard: &ShardId| {
            table.shards.get(shard).is_some_and(|item| item.position == Position::ShardEnd)
        };
        let mut paused: BTreeSet<ShardId> =
            known.filter(|id| orders.pause(id).is_some() && !is_ended(id)).cloned().collect();
        loop {
            let waits = |parent: &Option<ShardId>| {
                parent.as_ref().is_some_and(|parent| paused.contains(parent))
            };
            let more = shards.iter().filter(|shard| waits(&shard.parent)).map(|shard| &shard.id);
            let more: Vec<ShardId> = more.filter(|id| !paused.contains(*id)).cloned().collect();
            if more.is_empty() {
                return paused;
            }
            paused.extend(more);
        }
    }

    /// Most pauses end after some time, and all with the calm.
    fn pause(&mut self, shard: Option<ShardId>) -> Order {
        if self.random.u8(..4) > 0 {
            self.later(Due::Resume(shard.clone()));
        }
        Order::Pause(shard)
    }

    /// As the command has it: there is progress, and it is not at the end. Of one that has left
    /// the stream each request costs a minute and a half, until it is given up.
    fn readable(&mut self) -> Option<ShardId> {
        let items = self.world.table.snapshot().shards;
        let is_read = |shard: &ShardState| {
            items.get(&shard.id).is_some_and(|item| item.position != Position::ShardEnd)
        };
        let mut shards = self.with_stream(Simulator::shards);
        shards.retain(is_read);
        if shards.is_empty() {
            return None;
        }
        let shard = shards.swap_remove(self.random.usize(..shards.len())).id;
        self.note(&format!("an operator looks at {}", short(&shard)));
        Some(shard)
    }

    fn some_place(&mut self) -> SeekTo {
        // The tip is found by a worker's own time: with a wrong one it is elsewhere.
        let clocks_are_right = self.plan.events.iter().all(|(event, _)| *event != Event::StepClock);
        match self.random.u8(..3) {
            0 if clocks_are_right => SeekTo::Latest,
            1 => {
                let back = BACK.mul_f64(self.random.f64());
                let time = epoch() + self.now.saturating_sub(back);
                SeekTo::AtTimestamp(clock::whole_second(time))
            }
            _ => SeekTo::TrimHorizon,
        }
    }
}
