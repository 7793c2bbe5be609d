//! How a run ends: calm, quiet, a clean stop, a last look, and what must hold of each.
//!
//! Owns what is promised once the trouble is over: everything arrives, every shard has an owner
//! who lives, and then there is rest.

use super::events::AWAKE;
use super::handler::Mood;
use super::names::{key_name, short};
use super::network::Weather;
use super::run::{Due, Run, SECOND};
use std::collections::BTreeSet;
use std::time::Duration;
use streamgate::progress::orders::Order;
use streamgate::progress::{LeaseKey, Position, WorkerId};
use streamgate::simulator::{Change, Simulator};
use streamgate::source::ShardId;

/// After the trouble everything is well again by then: what is given up by time-outs, waited
/// for by backoffs and found by the listings that come once a minute, one after the other.
const CALM: Duration = Duration::from_secs(900);

/// Steps of the time in which little is to go wrong; each costs every machine a turn.
const CALM_TICK: Duration = Duration::from_millis(40);
const QUIET_TICK: Duration = Duration::from_millis(200);

impl Run {
    /// Faults stop. Everything that was asked for is carried out, everything that was put is
    /// delivered, and every shard has an owner: first but for what is paused, then all of it.
    pub fn calm(&mut self) -> Result<(), String> {
        self.note("the trouble is over");
        self.world.network.set_weather(Weather { usual: 5, ..Weather::default() });
        self.world.network.mend_all();
        self.world.set_mood(Mood { takes: 20, ..Mood::default() });
        self.world.simulator.faults().clear();
        self.due.retain(|(_, due)| matches!(due, Due::Start));
        for (number, machine) in &mut self.machines {
            if machine.thaw() {
                self.world.judge().turns.excuse(*number, self.now + AWAKE);
            }
        }
        self.change_every_shard();
        self.until_well()?;
        if self.asked == 0 {
            return Ok(());
        }
        if !self.orders().pauses.is_empty() {
            // Workers look more often than that.
            self.pass(self.plan.settings.failover_time + 5 * SECOND, CALM_TICK)?;
            self.world.sight.all_see(true);
            self.change_every_shard();
            self.pass(5 * SECOND, CALM_TICK)?;
            self.until_well()?;
            self.world.sight.all_see(false);
        }
        self.ask(Order::Resume(None));
        self.change_every_shard();
        self.until_well()?;
        match self.orders().pauses.is_empty() {
            true => Ok(()),
            false => Err("a pause was not ended".to_owned()),
        }
    }

    fn until_well(&mut self) -> Result<(), String> {
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

    /// Nothing happens: positions that only own records move are hardly written, and leases
    /// come to rest. A shard may still move once, when the storm's load is forgotten.
    pub fn quiet(&mut self) -> Result<(), String> {
        // What was late in the storm arrives.
        self.pass(45 * SECOND, QUIET_TICK)?;
        let (moves, positions) = (self.world.table.moves(), self.world.table.positions());
        self.pass(self.plan.quiet, QUIET_TICK)?;
        let mut moved_in_all = 0;
        for (key, now) in self.world.table.moves() {
            let moved = now - moves.get(&key).copied().unwrap_or_default();
            moved_in_all += moved;
            if moved > u64::from(key != LeaseKey::Stream) {
                let of = key_name(&key);
                return Err(format!("{of} passed on {moved} times while nothing happened"));
            }
        }
        let shards = self.world.table.snapshot().shards.len() as u64;
        // A shard that moves writes its position as it goes.
        let most = shards * (1 + self.plan.quiet.as_secs() / 300) + moved_in_all;
        let written = self.world.table.positions() - positions;
        if written > most {
            return Err(format!("{written} positions were written while nothing happened"));
        }
        Ok(())
    }

    pub fn stop_all(&mut self) -> Result<(), String> {
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
        match &self.world.table.snapshot().coordination.workers[..] {
            [] => Ok(()),
            left => Err(format!("signs of life were left behind: {left:?}")),
        }
    }

    /// Who starts after a clean stop gets nothing again that was taken.
    pub fn look_again(&mut self) -> Result<(), String> {
        let before = self.world.judge().counts().1;
        self.start();
        self.pass(20 * SECOND, CALM_TICK)?;
        let again = self.world.judge().counts().1 - before;
        if again > 0 {
            return Err(format!("{again} records were delivered again after a clean stop"));
        }
        self.stop_all()
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
        if !all_started || !self.is_settled() {
            return false;
        }
        let paused = self.paused();
        let is_through = self.world.judge().is_through(|shard| paused.contains(shard));
        is_through && self.unowned(&paused).is_empty()
    }

    /// Shards that have records to come and no owner that lives, or are gone and still read.
    /// Those that wait for one that is paused have none.
    fn unowned(&self, paused: &BTreeSet<ShardId>) -> Vec<String> {
        let table = self.world.table.snapshot();
        let shards = self.with_stream(Simulator::shards);
        let is_there = |worker| self.machines.contains_key(&worker);
        let workers = &table.coordination.workers;
        let is_owned = |shard: &ShardId| {
            let owner = table.shards.get(shard).and_then(|item| item.lease.owner.as_ref());
            let lives =
                |owner: &WorkerId| workers.iter().any(|member| member.sign.worker == *owner);
            owner.is_some_and(lives) && self.world.table.owner(shard).is_some_and(is_there)
        };
        let is_ended = |shard: &ShardId| {
            table.shards.get(shard).is_some_and(|item| item.position == Position::ShardEnd)
        };
        let waits = |shard: &ShardId| paused.contains(shard) && !table.shards.contains_key(shard);
        let is_read = |shard: &&ShardId| !is_ended(shard) && !waits(shard);
        let unowned = shards.iter().map(|shard| &shard.id).filter(is_read);
        // One that has left the stream is to be given up.
        let is_there = |shard: &&ShardId| shards.iter().any(|there| there.id == **shard);
        let left = table.shards.keys().filter(|shard| !is_ended(shard) && !is_there(shard));
        let left = left.filter(|shard| !paused.contains(*shard));
        let wrong = unowned.filter(|shard| !is_owned(shard)).chain(left);
        wrong.map(|shard| short(shard).to_owned()).collect()
    }

    fn what_is_wrong(&self) -> String {
        let unowned = self.unowned(&self.paused());
        let (missing, orders) = (self.world.judge().missing(), self.orders());
        let workers: Vec<&usize> = self.machines.keys().collect();
        let shards = self.world.table.snapshot().shards;
        format!(
            "{CALM:?} after the trouble: not delivered {missing:?}, without an owner {unowned:?}, workers {workers:?}, {orders:?}, table {shards:#?}"
        )
    }
}
