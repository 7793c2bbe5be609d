//! One seed from its beginning to its end: trouble, calm, quiet, a clean stop, a last look.
//!
//! Owns the order of things and what must hold after each. Invariant: all that happens follows
//! from the seed, so that a seed that fails fails again.

use super::judge::Judge;
use super::machine::{Machine, runtime};
use super::network::Network;
use super::plan::Plan;
use super::table::Table;
use super::trace::Trace;
use super::world::{World, epoch};
use crate::support::rig::arn;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use streamgate::clock;
use streamgate::simulator::Simulator;
use streamgate::source::ShardId;
use tokio::runtime::Runtime;

pub const SECOND: Duration = Duration::from_secs(1);
/// What a run has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub digest: (u64, u64),
    pub virtual_time: Duration,
    pub deliveries: u64,
    pub repeats: u64,
    pub leases_passed_on: u64,
    pub positions: u64,
    pub starts: usize,
}

/// Something that ends by itself.
pub enum Due {
    Start,
    Mend(Vec<(super::network::Node, super::network::Node)>),
    StartApi(usize),
    WakeApi(usize),
    Resume(Option<ShardId>),
    StreamIsWell,
    HandlerIsWell,
}

pub struct Run {
    pub plan: Plan,
    pub random: Rng,
    pub world: Arc<World>,
    pub machines: BTreeMap<usize, Machine>,
    pub due: Vec<(Duration, Due)>,
    pub now: Duration,
    /// Shards that have left the stream unread.
    pub vanished: usize,
    /// Requests of operators.
    pub asked: usize,
    names: Vec<String>,
    starts: usize,
    next_change: Duration,
    next_event: Duration,
    /// Dropped last.
    runtime: Runtime,
}

impl Run {
    pub fn new(plan: Plan, is_shown: bool) -> Self {
        // What is tested takes its dice from the thread's.
        fastrand::seed(plan.seed);
        let runtime = runtime();
        let simulator = {
            let _inside = runtime.enter();
            clock::set(epoch());
            let builder = Simulator::builder(arn()).shards(plan.shards).seed(plan.seed);
            builder.settings(plan.stream.clone()).build()
        };
        let world = World::new(
            Trace::shown(is_shown),
            Network::new(plan.seed, plan.weather, plan.apis),
            simulator,
            Judge::new(plan.items, plan.starts_at_tip()),
            Table::new(plan.settings.failover_time, plan.settings.starting_position),
            runtime.handle().clone(),
        );
        world.set_mood(plan.mood);
        Self {
            random: Rng::with_seed(plan.seed ^ 0x5eed),
            world: Arc::new(world),
            machines: BTreeMap::new(),
            due: Vec::new(),
            now: Duration::ZERO,
            vanished: 0,
            asked: 0,
            names: (0..plan.items).map(|item| format!("item-{item}")).collect(),
            starts: 0,
            next_change: Duration::ZERO,
            next_event: 3 * SECOND,
            runtime,
            plan,
        }
    }

    /// Everything, in order.
    pub fn all(&mut self) -> Result<Outcome, String> {
        for _ in 0..self.plan.workers {
            let at = Duration::from_millis(self.random.u64(0..3_000));
            self.due.push((at, Due::Start));
        }
        while self.now < self.plan.storm {
            self.tick(self.plan.tick)?;
            self.change_now_and_then();
            if self.now >= self.next_event {
                self.next_event = self.now + self.about(self.plan.event_every);
                self.something_happens();
            }
        }
        self.calm()?;
        self.quiet()?;
        self.stop_all()?;
        self.look_again()?;
        self.world.judge().check_gaps(&self.world.table.snapshot());
        self.fail_at_faults()?;
        let (deliveries, repeats) = self.world.judge().counts();
        let leases_passed_on = self.world.table.moves().values().sum();
        let positions = self.world.table.positions();
        Ok(Outcome {
            digest: self.world.trace.digest(),
            virtual_time: self.now,
            deliveries,
            repeats,
            leases_passed_on,
            positions,
            starts: self.starts,
        })
    }

    /// Lets a moment pass everywhere.
    pub fn tick(&mut self, tick: Duration) -> Result<(), String> {
        let now = self.now;
        self.world.trace.set_now(now);
        self.runtime.block_on(async {
            clock::set(epoch() + now);
            tokio::time::sleep(tick).await;
        });
        let mut numbers: Vec<usize> = self.machines.keys().copied().collect();
        self.random.shuffle(&mut numbers);
        for number in numbers {
            let machine = self.machines.get_mut(&number).expect("listed");
            let Some(ended) = machine.step(now, tick) else { continue };
            let was_asked = machine.is_draining();
            self.machines.remove(&number);
            self.world.trace.note(format_args!("w{number} ended: {ended:?}"));
            match ended {
                Ok(()) if was_asked => {}
                // A way that is cut holds a stop up for longer than it may take.
                Err(why)
                    if was_asked && why.contains("SHUTDOWN_GRACE") && now < self.plan.storm => {}
                ended => return Err(format!("w{number} ended by itself: {ended:?}")),
            }
        }
        self.now += tick;
        self.world.trace.set_now(self.now);
        let due: Vec<(Duration, Due)> = std::mem::take(&mut self.due);
        let (over, due) = due.into_iter().partition(|(at, _)| *at <= self.now);
        self.due = due;
        for (_, over) in over {
            self.is_over(over);
        }
        self.fail_at_faults()
    }

    /// Some time passes, in longer steps.
    pub fn pass(&mut self, time: Duration, tick: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.tick(tick)?;
        }
        Ok(())
    }

    pub fn start(&mut self) -> usize {
        let number = self.starts;
        self.starts += 1;
        self.note(&format!("w{number} starts"));
        let (settings, seed) = (self.plan.settings.clone(), self.random.u64(..));
        let machine = Machine::start(&self.world, number, settings, seed);
        self.machines.insert(number, machine);
        number
    }

    pub fn note(&self, what: &str) {
        self.world.trace.note(format_args!("-- {what}"));
    }

    /// Around `mean`, seldom much longer.
    pub fn about(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-self.random.f64().max(1e-3).ln())
    }

    /// Does something with the stream, which lives by the world's clock.
    pub fn with_stream<T>(&self, work: impl FnOnce(&Simulator) -> T) -> T {
        let _inside = self.runtime.enter();
        work(&self.world.simulator)
    }

    fn change_now_and_then(&mut self) {
        while self.next_change <= self.now {
            let wait = self.about(self.plan.change_every);
            self.next_change += wait.max(Duration::from_millis(1));
            let burst = if self.random.u8(..20) == 0 { 20 } else { 1 };
            for _ in 0..burst {
                let item = self.random.usize(..self.plan.items);
                self.with_stream(|_| self.world.put(item, &self.names[item]));
            }
        }
    }

    fn fail_at_faults(&self) -> Result<(), String> {
        match self.world.judge().faults() {
            [] => Ok(()),
            faults => Err(faults.join("\n")),
        }
    }
}
