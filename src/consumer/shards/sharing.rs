//! What this worker should have, and what others should have of it.
//!
//! Owns the moments at which shares are compared, what this worker says of its own, and
//! the choice of who gets what at a stop. How they are spread is [`crate::planner`]'s.
//! Invariant: nothing is given to a worker that has not noted yet what it was given
//! before, for it carries more than it says.

use super::super::departed::REMEMBER;
use super::super::lookout::{View, look_interval};
use super::{Held, Shards, errand};
use crate::clock;
use crate::planner::{self, Share};
use crate::source::ShardId;
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;

/// Loads are compared this often while nobody comes or goes.
const BALANCE_INTERVAL: Duration = Duration::from_secs(60);

/// What is handed over to one worker within this time costs one announcement.
pub(super) const TELL: Duration = Duration::from_millis(50);

impl Shards<'_> {
    /// Says what this worker has: soon where others wait for it.
    pub(super) fn say(&mut self, urgent: bool) {
        self.consumer.metrics.leases_held.set(self.held.len() as i64);
        let (shards, load) = (self.held.len() as u64, self.load());
        let age_ms = self.consumer.board.age(clock::now()).as_millis();
        let age_ms = u64::try_from(age_ms).unwrap_or(u64::MAX);
        let (noted, draining) = (self.noted, self.draining);
        let retrying = self.consumer.board.retrying();
        let metrics = &self.consumer.metrics;
        let (delivered, given_up) =
            (metrics.records_delivered.get(), metrics.records_dead_lettered.get());
        self.life.say(urgent, |sign| {
            (sign.shards, sign.load, sign.age_ms) = (shards, load, age_ms);
            (sign.noted, sign.draining) = (noted, draining);
            let report = &mut sign.report;
            report.delivered = delivered - self.counted.0;
            report.given_up = given_up - self.counted.1;
            report.retries(retrying);
            self.family.tell_waiting(report);
        });
    }

    pub(super) fn load(&self) -> u64 {
        self.held.values().fold(0, |load, held| load.saturating_add(held.weight()))
    }

    /// What a shard weighs of which nothing is known yet.
    pub(super) fn usual_weight(&self) -> u64 {
        let shares: Vec<Share> =
            self.views.borrow().taking().map(|member| Share::of(&member.sign)).collect();
        planner::usual_weight(&shares)
    }

    /// Resolves when what may take long is to be left to others: at a stop, and when the
    /// whole stream begins anew.
    pub(super) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let (drain, mut views) = (self.drain.clone(), self.views.clone());
        async move {
            tokio::select! {
                biased;
                () = drain.cancelled() => {}
                _ = views.wait_for(|view| view.orders.reset.is_some()) => {}
            }
        }
    }

    /// Who else takes shards, and what they carry.
    pub(super) fn others(&self) -> Vec<Share> {
        let view = self.views.borrow();
        let is_other = |share: &Share| share.worker != *self.life.worker();
        view.taking().map(|member| Share::of(&member.sign)).filter(is_other).collect()
    }

    pub(super) fn tell(&mut self) {
        for worker in std::mem::take(&mut self.untold) {
            self.errands.push(Box::pin(errand::tell(self.consumer, worker)));
        }
        // Not before what was given away can be seen.
        let seen = 2 * look_interval(self.consumer.settings.failover_time);
        self.balance_at = self.balance_at.max(Instant::now() + seen);
    }

    /// A stop was asked for: the drain of every loop has begun with it.
    pub(super) fn begin_drain(&mut self) {
        self.draining = true;
        let mut going: Vec<(ShardId, u64)> =
            self.held.iter().map(|(shard, held)| (shard.clone(), held.weight())).collect();
        going.sort_unstable_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        for (shard, to) in planner::place(going, &self.others()) {
            if let Some(held) = self.held.get_mut(&shard) {
                held.going = Some(to);
            }
        }
        // No loop has to end first where none reads.
        let is_still = |(_, held): &(&ShardId, &Held)| held.halted && !held.stopped;
        let still: Vec<ShardId> =
            self.held.iter().filter(is_still).map(|(shard, _)| shard.clone()).collect();
        for shard in still {
            self.pass_on(shard);
        }
        self.say(true);
    }

    /// The workers as they are seen now.
    pub(super) fn look(&mut self) {
        let view = self.views.borrow_and_update().clone();
        if let Some(me) = view.worker(self.life.worker())
            && me.member.announced != self.noted
            && !self.loading
        {
            self.load_leases();
        }
        let living = view.taking().map(|member| member.sign.worker.clone()).collect();
        if living != self.living {
            self.living = living;
            self.balance_at = self.balance_at.min(Instant::now());
        }
        self.obey(&view);
        self.balance(&view);
    }

    pub(super) fn sample(&mut self) {
        let now = Instant::now();
        let elapsed = now - self.sampled;
        self.sampled = now;
        for held in self.held.values_mut() {
            held.meter.sample(held.pulse.bytes(), elapsed);
        }
        self.say(false);
        let board = &self.consumer.board;
        self.left.retain(|shard, left| {
            let is_recent = left.since.elapsed() <= REMEMBER;
            if !is_recent {
                board.forget(shard);
            }
            is_recent
        });
    }

    /// Gives to others what they should have of what this worker holds.
    pub(super) fn balance(&mut self, view: &View) {
        let is_moving = self.loading || !self.untold.is_empty() || self.draining;
        if Instant::now() < self.balance_at
            || is_moving
            || self.held.values().any(|held| held.going.is_some() || held.stopped)
        {
            return;
        }
        // Who has not noted yet what it was given carries more than it says.
        let me = self.life.worker();
        let settled = view.taking().filter(|member| member.announced == member.sign.noted);
        let others: Vec<Share> = settled
            .filter(|member| member.sign.worker != *me)
            .map(|member| Share::of(&member.sign))
            .collect();
        let mine: Vec<(ShardId, u64)> = self
            .held
            .iter()
            .filter(|(_, held)| !held.halted)
            .map(|(shard, held)| (shard.clone(), held.weight()))
            .collect();
        let moves = planner::balance(me, &mine, &others);
        self.balance_at = Instant::now() + BALANCE_INTERVAL;
        if moves.is_empty() {
            return;
        }
        info!(shards = moves.len(), "handing shards to workers that carry less");
        // Another look when these have arrived.
        self.living.clear();
        for (shard, to) in moves {
            if let Some(held) = self.held.get_mut(&shard) {
                held.going = Some(to);
                held.drain.cancel();
            }
        }
    }
}
