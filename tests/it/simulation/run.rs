//! One seed from its beginning to its end: trouble, calm, quiet, a clean stop, a last look.
//!
//! Owns the order of things and what must hold after each. Invariant: all that happens follows
//! from the seed, so that a seed that fails fails again.

use super::handler::Mood;
use super::judge::Judge;
use super::machine::{Machine, runtime};
use super::network::{Network, Weather};
use super::plan::Plan;
use super::table::short;
use super::trace::Trace;
use super::world::{World, epoch};
use crate::support::rig::arn;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use streamgate::clock;
use streamgate::progress::Position;
use streamgate::simulator::{Change, Simulator};
use streamgate::source::ShardId;
use tokio::runtime::Runtime;

const SECOND: Duration = Duration::from_secs(1);
/// After the trouble everything is well again by then: what is given up by time-outs, waited
/// for by backoffs and found by the listings that come once a minute, one after the other.
const CALM: Duration = Duration::from_secs(300);

/// Steps of the time in which little is to go wrong; each costs every machine a turn.
const CALM_TICK: Duration = Duration::from_millis(40);
const QUIET_TICK: Duration = Duration::from_millis(200);

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
        let (leases_passed_on, positions) = self.world.table.counts();
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

    /// Faults stop. Everything that was put is delivered, and every shard has an owner.
    fn calm(&mut self) -> Result<(), String> {
        self.note("the trouble is over");
        self.world.network.set_weather(Weather { usual: 5, ..Weather::default() });
        self.world.network.mend_all();
        self.world.set_mood(Mood { takes: 20, ..Mood::default() });
        self.world.simulator.faults().clear();
        self.due.retain(|(_, due)| matches!(due, Due::Start));
        for machine in self.machines.values_mut() {
            machine.thaw();
        }
        self.change_every_shard();
        let end = self.now + CALM;
        while !self.is_well() {
            self.tick(CALM_TICK)?;
            if self.now > end {
                return Err(self.what_is_wrong());
            }
        }
        self.note("all is well");
        Ok(())
    }

    /// Nothing happens: no lease passes on, and positions that only own records move are
    /// hardly written.
    fn quiet(&mut self) -> Result<(), String> {
        // What was late in the storm arrives.
        self.pass(45 * SECOND, QUIET_TICK)?;
        let before = self.world.table.counts();
        self.pass(self.plan.quiet, QUIET_TICK)?;
        let after = self.world.table.counts();
        if after.0 != before.0 {
            return Err(format!("{} leases passed on while nothing happened", after.0 - before.0));
        }
        let shards = self.world.table.snapshot().shards.len() as u64;
        let most = shards * (1 + self.plan.quiet.as_secs() / 300);
        let written = after.1 - before.1;
        if written > most {
            return Err(format!("{written} positions were written while nothing happened"));
        }
        Ok(())
    }

    fn stop_all(&mut self) -> Result<(), String> {
        self.note("all are asked to stop");
        for machine in self.machines.values() {
            machine.drain();
        }
        let end = self.now + self.plan.settings.shutdown_grace + 5 * SECOND;
        while !self.machines.is_empty() {
            self.tick(self.plan.tick)?;
            if self.now > end {
                return Err("a worker did not stop".to_owned());
            }
        }
        let lease = self.world.table.snapshot().coordination.stream;
        match lease.is_some_and(|lease| lease.owner.is_some()) {
            false => Ok(()),
            true => Err("the stream's lease was not given back".to_owned()),
        }
    }

    /// Who starts after a clean stop gets nothing again.
    fn look_again(&mut self) -> Result<(), String> {
        let before = self.world.judge().counts().0;
        self.start();
        self.pass(20 * SECOND, CALM_TICK)?;
        let again = self.world.judge().counts().0 - before;
        if again > 0 {
            return Err(format!("{again} records were delivered again after a clean stop"));
        }
        self.stop_all()
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
                Err(why) if was_asked && why.contains("grace") && now < self.plan.storm => {}
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
    fn pass(&mut self, time: Duration, tick: Duration) -> Result<(), String> {
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

    /// Changes an item in every open shard: who reads it delivers that.
    fn change_every_shard(&mut self) {
        let mut waiting: BTreeSet<ShardId> =
            self.with_stream(Simulator::open_shards).into_iter().collect();
        for probe in 0.. {
            let name = format!("probe-{probe}");
            let keys = Change::item(&name, 0).keys;
            let shard = self.with_stream(|stream| stream.shard_of(&keys));
            if shard.is_some_and(|shard| waiting.remove(&shard)) {
                let item = self.world.judge().add_item();
                self.with_stream(|_| self.world.put(item, &name));
            }
            if waiting.is_empty() {
                return;
            }
        }
    }

    fn is_well(&self) -> bool {
        let all_started = self.due.is_empty() && !self.machines.is_empty();
        all_started && self.world.judge().is_through() && self.unowned().is_empty()
    }

    /// Shards that have records to come and no owner that lives.
    fn unowned(&self) -> Vec<String> {
        let table = self.world.table.snapshot();
        let shards = self.with_stream(Simulator::shards);
        let is_owned = |shard: &ShardId| {
            let owner = self.world.table.owner(shard);
            owner.is_some_and(|(worker, _)| self.machines.contains_key(&worker))
        };
        let is_ended = |shard: &ShardId| {
            table.shards.get(shard).is_some_and(|item| item.position == Position::ShardEnd)
        };
        let unowned = shards.iter().filter(|shard| !is_ended(&shard.id) && !is_owned(&shard.id));
        unowned.map(|shard| short(&shard.id).to_owned()).collect()
    }

    fn what_is_wrong(&self) -> String {
        let (missing, unowned) = (self.world.judge().missing(), self.unowned());
        let workers: Vec<&usize> = self.machines.keys().collect();
        let shards = self.world.table.snapshot().shards;
        format!(
            "{CALM:?} after the trouble: not delivered {missing:?}, without an owner {unowned:?}, workers {workers:?}, table {shards:#?}"
        )
    }

    fn fail_at_faults(&self) -> Result<(), String> {
        match self.world.judge().faults() {
            [] => Ok(()),
            faults => Err(faults.join("\n")),
        }
    }
}
