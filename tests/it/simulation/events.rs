//! What happens to a world, and how it ends.
//!
//! Owns the carrying out of events; which there are is the plan's. Invariant: every trouble
//! that is begun here ends, by itself or with the calm.

use super::handler::Mood;
use super::judge::{digits, order};
use super::names::short;
use super::network::Node;
use super::plan::Event;
use super::run::{Due, Run};
use std::time::Duration;
use streamgate::progress::orders::Order;
use streamgate::progress::{Position, ShardProgress};
use streamgate::simulator::{Fault, FaultRule, Operation, ShardState, Simulator};
use streamgate::source::ShardId;

/// More are not opened: a run is to be short.
const MOST_OPEN: usize = 8;
/// Each is looked for a minute and a half, one after the other where they follow each other.
const MOST_VANISHED: usize = 2;

/// Who stood still knows of it by then.
pub const AWAKE: Duration = Duration::from_secs(1);

impl Run {
    /// One of the plan's events.
    pub fn something_happens(&mut self) {
        let all: u32 = self.plan.events.iter().map(|(_, weight)| weight).sum();
        if all == 0 {
            return;
        }
        let mut at = self.random.u32(..all);
        let events = self.plan.events.clone();
        let chosen = events.into_iter().find(|(_, weight)| {
            let is_here = at < *weight;
            at = at.saturating_sub(*weight);
            is_here
        });
        if let Some((event, _)) = chosen {
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Split | Event::Roll | Event::RollAll => self.reshard(event),
            Event::TrimBehind | Event::TrimAhead => self.trim(event == Event::TrimAhead),
            Event::Expire | Event::Vanish => self.lose_shard(event == Event::Vanish),
            Event::ExpireIterators => {
                self.note("iterators expire");
                self.world.simulator.expire_iterators();
            }
            Event::StreamFails => self.fail_stream(),
            Event::Crash | Event::Stop | Event::Freeze | Event::StepClock => {
                if let Some(worker) = self.some_worker() {
                    self.happen_to(event, worker);
                }
            }
            Event::CutApi => {
                let api = self.some_api();
                if let Some(worker) = self.some_worker() {
                    self.cut(Node::Worker(worker), Node::Api(api));
                }
            }
            Event::CutTable => {
                let api = self.some_api();
                self.cut(Node::Api(api), Node::Table);
            }
            Event::CutStream => {
                if let Some(worker) = self.some_worker() {
                    self.cut(Node::Worker(worker), Node::Stream);
                }
            }
            Event::CrashApi => {
                let api = self.some_api();
                self.note(&format!("api{api} crashes"));
                self.world.network.crash_api(api);
                self.later(Due::StartApi(api));
            }
            Event::HangApi => {
                let api = self.some_api();
                self.note(&format!("api{api} hangs"));
                self.world.network.hang_api(api, true);
                self.later(Due::WakeApi(api));
            }
            Event::Pause
            | Event::PauseStream
            | Event::Skip
            | Event::SeekShard
            | Event::SeekStream => self.operate(event),
            Event::HandlerFails => {
                self.note("handlers fail");
                let (fails, hangs) = (self.random.f64() * 0.9, self.random.f64() * 0.2);
                self.world.set_mood(Mood { fails, hangs, ..self.plan.mood });
                self.later(Due::HandlerIsWell);
            }
        }
    }

    /// What was begun ends.
    pub fn is_over(&mut self, due: Due) {
        let network = &self.world.network;
        match due {
            Due::Start => drop(self.start()),
            Due::Mend(ways) => {
                network.mend(&ways);
                let (from, to) = ways[0];
                self.note(&format!("{from} and {to} hear each other"));
            }
            Due::StartApi(api) => {
                network.start_api(api);
                self.note(&format!("api{api} starts"));
            }
            Due::WakeApi(api) => {
                network.hang_api(api, false);
                self.note(&format!("api{api} goes on"));
            }
            Due::Resume(shard) => self.ask(Order::Resume(shard)),
            Due::StreamIsWell => {
                self.world.simulator.faults().clear();
                self.note("the stream is well");
            }
            Due::HandlerIsWell => {
                self.world.set_mood(self.plan.mood);
                self.note("handlers are well");
            }
        }
    }

    fn happen_to(&mut self, event: Event, worker: usize) {
        match event {
            Event::Crash => {
                self.note(&format!("w{worker} crashes"));
                // Dropped with all that it was doing; what it has sent is on its way.
                self.machines.remove(&worker);
                self.later(Due::Start);
            }
            Event::Stop => {
                self.note(&format!("w{worker} is asked to stop"));
                self.machines[&worker].drain();
                self.later(Due::Start);
            }
            Event::Freeze => {
                let until = self.now + self.some_time();
                self.note(&format!("w{worker} freezes until {:.3}", until.as_secs_f64()));
                self.machines.get_mut(&worker).expect("chosen").freeze(until);
                self.world.judge().turns.excuse(worker, until + AWAKE);
            }
            Event::StepClock => {
                let most = if self.random.bool() { 3 * 86_400 } else { 60 };
                let ahead = self.random.i64(-most..=most);
                // At the tip, reading begins with a time of the worker's own: with a wrong one it
                // begins somewhere else.
                if self.plan.starts_at_tip() {
                    return;
                }
                self.note(&format!("w{worker}'s clock is {ahead} s ahead"));
                self.machines.get_mut(&worker).expect("chosen").ahead = ahead;
            }
            _ => unreachable!("an event of the world"),
        }
    }

    fn reshard(&mut self, event: Event) {
        let open = self.with_stream(Simulator::open_shards);
        let shard = open[self.random.usize(..open.len())].clone();
        self.with_stream(|stream| match event {
            Event::Split if open.len() < MOST_OPEN => drop(stream.split(&shard)),
            Event::RollAll => drop(stream.roll_all()),
            _ => drop(stream.rollover(&shard)),
        });
        self.note(&format!("{event:?} of {}", short(&shard)));
    }

    fn trim(&mut self, is_ahead: bool) {
        let shards = self.with_stream(Simulator::shards);
        let with_records: Vec<&ShardState> =
            shards.iter().filter(|shard| shard.range.is_some()).collect();
        if with_records.is_empty() {
            return;
        }
        let shard = with_records[self.random.usize(..with_records.len())];
        let (first, last) = shard.range.as_ref().expect("chosen by it");
        let (first, last) = (digits(first.as_str()), digits(last.as_str()));
        let number = match is_ahead {
            true => self.random.u128(first..=last),
            // The record at the position stays: without it the service cannot tell that
            // nothing behind it is lost.
            false => match self.item(shard) {
                Some(item) if order(&item.position) > first => {
                    (order(&item.position) - 1).min(last)
                }
                _ => return,
            },
        };
        let at = short(&shard.id);
        self.note(&format!("{at} is trimmed up to {number}, ahead: {is_ahead}"));
        self.with_stream(|_| self.world.trim(&shard.id, number));
    }

    fn lose_shard(&mut self, is_unread: bool) {
        let shards = self.with_stream(Simulator::shards);
        let lost: Vec<&ShardState> = shards
            .iter()
            .filter(|shard| {
                let is_ended =
                    self.item(shard).is_some_and(|item| item.position == Position::ShardEnd);
                // The service forgets the oldest first.
                let has_parent = |parent: &ShardId| shards.iter().any(|other| other.id == *parent);
                let is_oldest = !shard.parent.as_ref().is_some_and(has_parent);
                !shard.open && is_oldest && is_ended != is_unread
            })
            .collect();
        if lost.is_empty() {
            return;
        }
        if is_unread {
            if self.vanished == MOST_VANISHED {
                return;
            }
            self.vanished += 1;
        }
        let shard = lost[self.random.usize(..lost.len())].id.clone();
        self.note(&format!("{} leaves the stream, unread: {is_unread}", short(&shard)));
        self.with_stream(|stream| {
            self.world.trim(&shard, u128::MAX);
            stream.remove(&shard);
        });
    }

    fn fail_stream(&mut self) {
        const FAULTS: [Fault; 9] = [
            Fault::Throttle,
            Fault::LimitExceeded,
            Fault::InternalError,
            Fault::Reset,
            Fault::HalfAnswer,
            Fault::Hang,
            Fault::ExpiredIterator,
            Fault::Malformed,
            Fault::EmptyPage,
        ];
        let fault = match self.random.usize(..=FAULTS.len()) {
            nth if nth < FAULTS.len() => FAULTS[nth],
            _ => Fault::Slow(Duration::from_millis(self.random.u64(100..15_000))),
        };
        let share = [0.1, 0.5, 1.0][self.random.usize(..3)];
        self.note(&format!("the stream fails: {fault:?}, {share}"));
        let rule = FaultRule::new(fault).probability(share);
        let rule = match fault {
            Fault::ExpiredIterator => rule.on(Operation::GetRecords),
            _ => rule,
        };
        self.world.simulator.faults().add(rule);
        self.later(Due::StreamIsWell);
    }

    /// Cuts the ways between two, or one of the two ways.
    fn cut(&mut self, one: Node, other: Node) {
        let ways = match self.random.u8(..4) {
            0 => vec![(one, other)],
            1 => vec![(other, one)],
            _ => vec![(one, other), (other, one)],
        };
        let told: Vec<String> = ways.iter().map(|(from, to)| format!("{from} to {to}")).collect();
        self.note(&format!("cut: {}", told.join(", ")));
        self.world.network.cut(&ways);
        self.later(Due::Mend(ways));
    }

    pub fn later(&mut self, due: Due) {
        let at = self.now + self.some_time();
        self.due.push((at, due));
    }

    /// Shorter or longer than the failover time.
    fn some_time(&mut self) -> Duration {
        let share = self.random.f64();
        self.plan.settings.failover_time.mul_f64(0.1 + 3.0 * share * share)
    }

    fn some_worker(&mut self) -> Option<usize> {
        let workers: Vec<usize> =
            self.machines.iter().filter(|(_, m)| !m.is_draining()).map(|(n, _)| *n).collect();
        (!workers.is_empty()).then(|| workers[self.random.usize(..workers.len())])
    }

    fn some_api(&mut self) -> usize {
        self.random.usize(..self.plan.apis)
    }

    fn item(&self, shard: &ShardState) -> Option<ShardProgress> {
        self.world.table.snapshot().shards.remove(&shard.id)
    }
}
