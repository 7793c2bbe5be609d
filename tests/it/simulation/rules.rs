//! What must hold between what stood in the table and what stands there now, whichever call
//! made the change: who may write, how counters grow, that positions move back only where an
//! operator asks for it, that only the dead are buried and only their leases are taken.

use super::changes::Changed;
use super::judge::order;
use super::ledger::Ledger;
use super::link::Call;
use super::names::{key_name, short};
use super::table::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use streamgate::lineage::StartingPosition;
use streamgate::progress::orders::SeekTo;
use streamgate::progress::{Lease, LeaseKey, Member, Position, ShardProgress, WorkerId};
use streamgate::source::ShardId;

/// What is remembered to judge the next change.
#[derive(Default)]
pub struct Rules {
    /// Which start each worker is; a start has several names over its lives.
    pub workers: BTreeMap<WorkerId, usize>,
    /// When each worker's beat last moved.
    beats: BTreeMap<WorkerId, Duration>,
    /// Those whose sign was removed. What they sent before may come late.
    gone: BTreeSet<WorkerId>,
    /// Those of them who did it themselves: they show no life after that.
    pub left: BTreeSet<WorkerId>,
    /// The furthest position of each shard, as [`order`] has it.
    furthest: BTreeMap<ShardId, u128>,
    /// The highest counter of each lease.
    highest: BTreeMap<LeaseKey, u64>,
    /// How often each lease went to another owner, or to one after there was none.
    pub moves: BTreeMap<LeaseKey, u64>,
    /// What operators have asked for.
    pub ledger: Ledger,
}

/// What stands in the table now, and when.
pub struct Now<'a> {
    pub table: &'a Snapshot,
    pub time: Duration,
    /// The settings of all workers.
    pub failover: Duration,
    pub start: StartingPosition,
}

impl Now<'_> {
    fn begins_anew(&self) -> bool {
        self.table.coordination.orders.reset.is_some()
    }

    /// How often the stream has begun anew.
    fn epoch(&self) -> u64 {
        self.table.coordination.orders.epoch
    }

    /// Whether a shard's lease is from before the stream began anew: it counts for nothing.
    fn is_belated(&self, lease: &Lease) -> bool {
        lease.epoch() < self.epoch()
    }

    /// Where shards begin that have no item.
    fn begin(&self) -> Position {
        match self.table.coordination.orders.start {
            None => self.start.begin(),
            Some(SeekTo::AtTimestamp(time)) => Position::AtTimestamp(time),
            Some(SeekTo::TrimHorizon | SeekTo::Latest) => Position::TrimHorizon,
        }
    }
}

/// How a shard's lease has left its owner.
pub enum Passing {
    /// Its owner gave it away, or back.
    Given,
    /// It was taken from one who had not given it away.
    Taken,
}

impl Passing {
    pub fn of(call: &Call, shard: &ShardId, old: &Lease, new: &Lease) -> Option<Self> {
        if old == new || old.owner.is_none() {
            return None;
        }
        Some(match is_under(call, &LeaseKey::Shard(shard.clone()), old) {
            true => Self::Given,
            false => Self::Taken,
        })
    }
}

fn is_under(call: &Call, key: &LeaseKey, lease: &Lease) -> bool {
    call.under.as_ref().is_some_and(|(of, under)| of == key && under == lease)
}

impl Rules {
    pub fn name(&self, worker: &WorkerId) -> String {
        self.workers.get(worker).map_or_else(|| worker.to_string(), |number| format!("w{number}"))
    }

    /// What must hold of a change.
    pub fn check(
        &mut self,
        call: &Call,
        change: &Changed<'_>,
        now: &Now<'_>,
    ) -> Result<(), String> {
        match change {
            Changed::Seeded(begin) => {
                let held = now.table.coordination.stream.as_ref();
                let is_under = call.under.as_ref().map(|(_, lease)| lease) == held;
                must(is_under, || {
                    "carried out the starting position without the lease".to_owned()
                })?;
                match begin {
                    None => must(now.begins_anew(), || {
                        "took back the starting position, which nobody asked for".to_owned()
                    }),
                    Some(begin) => must(now.begins_anew() || **begin == now.begin(), || {
                        format!("carried out {begin:?} as the starting position")
                    }),
                }
            }
            Changed::Orders(old, new) => self.ledger.check(old, new, now.table, now.time),
            Changed::Worker(worker, old, new) => self.check_sign(call, worker, *old, *new, now),
            Changed::Stream(old, new) => self.check_lease(call, &LeaseKey::Stream, *old, *new, now),
            Changed::Shard(shard, old, new) => self.check_shard(call, shard, *old, *new, now),
        }
    }

    /// An item begins once, and ends where nobody needs it any more.
    fn check_shard(
        &mut self,
        call: &Call,
        shard: &ShardId,
        old: Option<&ShardProgress>,
        new: Option<&ShardProgress>,
        now: &Now<'_>,
    ) -> Result<(), String> {
        let is_new = old.is_some_and(|old| !now.is_belated(&old.lease));
        must(!is_new || call.under.is_none() || call.epoch == now.epoch(), || {
            format!("changed {} from before the stream began anew", short(shard))
        })?;
        let is_ended = old.is_some_and(|old| old.position == Position::ShardEnd);
        let Some(new) = new else {
            self.furthest.remove(shard);
            // By a clock that is days ahead, of a shard that is still listed: it is read again.
            if is_ended && !now.begins_anew() {
                self.highest.remove(&LeaseKey::Shard(shard.clone()));
            }
            return must(is_ended || now.begins_anew() || !is_new, || {
                format!("{} was forgotten before its end", short(shard))
            });
        };
        let (key, old_lease) = (LeaseKey::Shard(shard.clone()), old.map(|old| &old.lease));
        // One that is read to its end is removed whoever has it, where all begins anew; one
        // that is from before that, at any time.
        let is_removed = old.is_some() && (is_ended && now.begins_anew() || !is_new);
        if old_lease != Some(&new.lease) && !is_removed {
            self.check_lease(call, &key, old_lease, Some(&new.lease), now)?;
        }
        match old {
            Some(old) => self.check_position(call, old, new),
            None => Ok(()),
        }
    }

    /// A life begins with its first beat, and others end it only when it stood still.
    fn check_sign(
        &mut self,
        call: &Call,
        worker: &WorkerId,
        old: Option<&Member>,
        new: Option<&Member>,
        now: &Now<'_>,
    ) -> Result<(), String> {
        let is_own = self.workers.get(worker) == Some(&call.worker);
        let name = self.name(worker);
        match (old, new) {
            (Some(old), Some(new)) if old.sign.beat == new.sign.beat => {
                must(new.announced > old.announced, || "an announcement was lost".to_owned())
            }
            (Some(old), Some(new)) => {
                self.beats.insert(worker.clone(), now.time);
                let (old, new) = (old.sign.beat, new.sign.beat);
                must(new > old, || format!("a beat went back from {old} to {new}"))
            }
            (None, Some(new)) => {
                self.beats.insert(worker.clone(), now.time);
                must(new.sign.beat == 1, || {
                    format!("{name} came to life with beat {}", new.sign.beat)
                })
            }
            (_, None) => {
                let is_first = self.gone.insert(worker.clone());
                if is_own {
                    self.left.insert(worker.clone());
                }
                let beat = self.beats.get(worker).copied().unwrap_or_default();
                let still = now.time.saturating_sub(beat);
                must(is_own || !is_first || still >= now.failover, || {
                    format!("{name} was buried after {still:?}")
                })
            }
        }
    }

    /// A lease passes on with its counter one higher, or goes back to nobody by its owner.
    fn check_lease(
        &mut self,
        call: &Call,
        key: &LeaseKey,
        old: Option<&Lease>,
        new: Option<&Lease>,
        now: &Now<'_>,
    ) -> Result<(), String> {
        let counter = |lease: Option<&Lease>| lease.map_or(0, |lease| lease.counter);
        let says = || format!("{}: {old:?} became {new:?}", key_name(key));
        let is_given = old.is_some_and(|old| is_under(call, key, old));
        match new {
            None => Err(says()),
            Some(Lease { owner: Some(_), .. }) => {
                *self.moves.entry(key.clone()).or_default() += 1;
                let highest = self.highest.entry(key.clone()).or_default();
                let is_next = match old {
                    Some(old) => counter(new) == old.counter + 1,
                    // An item that is made anew counts on above all before; what comes late while
                    // all begins anew, or after it, is removed again.
                    None => {
                        let is_doomed = new.is_some_and(|new| now.is_belated(new));
                        counter(new) > *highest || is_doomed || now.begins_anew()
                    }
                };
                *highest = counter(new).max(*highest);
                must(is_next, says)?;
                let owner = old.and_then(|old| old.owner.as_ref()).filter(|_| !is_given);
                // The stream's may be taken by its own leader, who does not know that it leads.
                let owner =
                    owner.filter(|owner| new.is_none_or(|new| new.owner.as_ref() != Some(*owner)));
                let lives = owner.filter(|owner| {
                    let is_there = |member: &Member| member.sign.worker == **owner;
                    now.table.coordination.workers.iter().any(is_there)
                        && !self.gone.contains(*owner)
                });
                match lives {
                    None => Ok(()),
                    Some(owner) => {
                        let owner = self.name(owner);
                        Err(format!("{} was taken from {owner}, who lives", key_name(key)))
                    }
                }
            }
            Some(Lease { owner: None, .. }) => must(is_given && counter(new) == counter(old), says),
        }
    }

    /// A position is written by the lease's owner, under that very lease, and forward, or where
    /// an operator has sent the shard.
    fn check_position(
        &mut self,
        call: &Call,
        old: &ShardProgress,
        new: &ShardProgress,
    ) -> Result<(), String> {
        let is_kept = new.gaps.starts_with(&old.gaps);
        must(is_kept, || "forgot a gap".to_owned())?;
        let is_sent = old.order != new.order;
        must(old.order <= new.order, || "forgot a move".to_owned())?;
        let is_same = old.position == new.position && old.gaps == new.gaps;
        if is_same && old.window == new.window && !is_sent {
            return Ok(());
        }
        let owner = old.lease.owner.as_ref().and_then(|owner| self.workers.get(owner));
        must(owner == Some(&call.worker), || {
            format!("wrote a position under the lease of {owner:?}")
        })?;
        let is_under = call.under.as_ref().is_some_and(|(_, lease)| *lease == old.lease);
        must(is_under, || format!("wrote under {:?}, which is not {:?}", call.under, old.lease))?;
        // What a gap is after is no more: with it the position is the oldest record kept.
        let gap = new.gaps.get(old.gaps.len()..).unwrap_or_default().last();
        if new.position == Position::TrimHorizon && gap.is_some() {
            return Ok(());
        }
        let furthest = self.furthest.entry(new.shard.clone()).or_default();
        if is_sent {
            *furthest = order(&new.position);
            return Ok(());
        }
        let back = || format!("moved back from {furthest} to {:?}", new.position);
        must(*furthest <= order(&new.position), back)?;
        *furthest = order(&new.position);
        Ok(())
    }
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
