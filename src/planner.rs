//! Who should run which shard, so that every worker carries about the same.
//!
//! Owns what a shard weighs, where shards that nobody has should go ([`place`]), and which
//! of its own a worker should hand to others ([`balance`]). Pure: it asks nobody, and what
//! it decides is carried out under leases. Invariant: workers that see the same choose
//! moves that fit together, and where a move would not pay for itself there is none.

use crate::progress::{Heartbeat, WorkerId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a shard weighs that has nothing to say, in bytes a second: it is still polled.
pub const IDLE_WEIGHT: u64 = 4096;
/// Over about this time the rate of a shard is averaged: a burst is not worth a move.
const MEMORY: Duration = Duration::from_secs(60);
/// A shard that is this far behind is held up by its worker, and weighs double: what it
/// brings says too little of what it would take.
const BEHIND: Duration = Duration::from_secs(60);

/// What a reader brings, for those who weigh shards. Cheap to look at any time.
#[derive(Debug, Default)]
pub struct Pulse {
    bytes: AtomicU64,
    age_ms: AtomicU64,
}

impl Pulse {
    /// Bytes of all pages with records so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How old the newest record was that was read last; zero at the tip.
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.age_ms.load(Ordering::Relaxed))
    }

    /// A page was read: so many records and bytes, the newest of them of this age.
    pub fn beat(&self, records: usize, bytes: usize, age: Option<Duration>) {
        if records > 0 {
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        let age = age.unwrap_or_default().as_millis();
        self.age_ms.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The weight of one shard, followed over time.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    total: u64,
    per_second: f64,
}

impl Meter {
    /// Of a shard that weighs so much as far as is known: nothing of it was seen yet. One that
    /// arrived at another worker must not look as if it weighed nothing there.
    pub fn begin(weight: u64) -> Self {
        Self { total: 0, per_second: weight.saturating_sub(IDLE_WEIGHT) as f64 }
    }

    /// Takes in that so many bytes were read altogether, `elapsed` after the last time.
    pub fn sample(&mut self, total: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let now = total.saturating_sub(self.total) as f64 / seconds;
        let share = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
        self.per_second += (now - self.per_second) * share;
        self.total = total;
    }

    /// What the shard weighs when it is `age` behind, in bytes a second.
    pub fn weight(&self, age: Duration) -> u64 {
        let rate = self.per_second.max(0.0) as u64;
        let rate = if age > BEHIND { rate.saturating_mul(2) } else { rate };
        IDLE_WEIGHT.saturating_add(rate)
    }
}

/// Whether a shard that weighs so much has records: an eighth of what its polls weigh is
/// enough, and what an average over time still remembers of its last ones is less.
pub fn is_busy(weight: u64) -> bool {
    weight > IDLE_WEIGHT + IDLE_WEIGHT / 8
}

/// What a worker carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub worker: WorkerId,
    /// Shards it has.
    pub shards: u64,
    /// What they weigh together.
    pub load: u64,
}

impl Share {
    /// As the worker says it.
    pub fn of(sign: &Heartbeat) -> Self {
        Self { worker: sign.worker.clone(), shards: sign.shards, load: sign.load }
    }
}

/// A thing and the worker that should have it.
pub type Placed<T> = (T, WorkerId);

/// Gives each thing with its weight to the worker that carries least. Nothing where there
/// are no workers.
pub fn place<T>(things: impl IntoIterator<Item = (T, u64)>, workers: &[Share]) -> Vec<Placed<T>> {
    let mut shares = sorted(workers);
    let mut placed = Vec::new();
    for (thing, weight) in things {
        let Some(least) = shares.iter_mut().min_by_key(|share| (share.load, share.shards)) else {
            break;
        };
        least.load = least.load.saturating_add(weight);
        least.shards += 1;
        placed.push((thing, least.worker.clone()));
    }
    placed
}

/// What a shard weighs of which nothing is known: as much as others do on average.
pub fn usual_weight(workers: &[Share]) -> u64 {
    let shards: u64 = workers.iter().map(|share| share.shards).sum();
    let load = workers.iter().fold(0_u64, |load, share| load.saturating_add(share.load));
    load.checked_div(shards).unwrap_or_default().max(IDLE_WEIGHT)
}

/// Which of its shards, `mine` with their weights, `me` should hand to whom, when `others`
/// carry so much.
///
/// Every worker goes through the same steps for all of them: time and again the one that
/// carries most gives a shard to the one that carries least, until that would not pay.
/// Only the own shards are known one by one; others' count as their average, so nobody
/// passes on what it would get, or makes room for it.
pub fn balance<T: Clone + Ord>(
    me: &WorkerId,
    mine: &[(T, u64)],
    others: &[Share],
) -> Vec<Placed<T>> {
    let mut own: Vec<(T, u64)> = mine.to_vec();
    own.sort_unstable_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    let load = own.iter().fold(0_u64, |load, (_, weight)| load.saturating_add(*weight));
    let mine = Share { worker: me.clone(), shards: own.len() as u64, load };
    let mut shares = sorted(others.iter().filter(|other| other.worker != *me).chain([&mine]));
    // Those of whom no shard can be moved to advantage, or who have been given one.
    let mut settled = vec![false; shares.len()];
    let mut gave = vec![false; shares.len()];
    let mut moves = Vec::new();
    loop {
        let givers = (0..shares.len()).filter(|at| !settled[*at]);
        let Some(from) = givers.min_by_key(|at| std::cmp::Reverse(shares[*at].load)) else { break };
        let takers = (0..shares.len()).filter(|at| !gave[*at]);
        let Some(to) = takers.min_by_key(|at| (shares[*at].load, shares[*at].shards)) else {
            break;
        };
        let room = gain(shares[from].load, shares[to].load);
        let weight = if shares[from].worker == *me {
            fitting(&own, room, shares[from].load.saturating_sub(shares[to].load)).map(|at| {
                let (shard, weight) = own.remove(at);
                moves.push((shard, shares[to].worker.clone()));
                weight
            })
        } else {
            let average = shares[from].load.checked_div(shares[from].shards);
            average.filter(|weight| *weight <= room && *weight > 0)
        };
        let Some(weight) = weight else {
            settled[from] = true;
            continue;
        };
        (gave[from], settled[to]) = (true, true);
        shares[from].load -= weight;
        shares[from].shards -= 1;
        shares[to].load += weight;
        shares[to].shards += 1;
    }
    moves
}

/// The most that a shard may weigh for its move from one that carries `from` to one that
/// carries `to` to pay: afterwards the receiver carries clearly less than the giver did.
fn gain(from: u64, to: u64) -> u64 {
    let margin = (IDLE_WEIGHT / 2).max(from / 20);
    from.saturating_sub(to).saturating_sub(margin)
}

/// The shard that brings two workers closest together that are `apart`, none above `room`.
/// `own` is in order of weight, the heaviest first.
fn fitting<T>(own: &[(T, u64)], room: u64, apart: u64) -> Option<usize> {
    let after = |at: &usize| (apart / 2).abs_diff(own[*at].1);
    let first = own.partition_point(|(_, weight)| *weight > room);
    // The best is next to where half the distance would stand.
    let half = own.partition_point(|(_, weight)| *weight > apart / 2).max(first);
    [half.checked_sub(1), Some(half)]
        .into_iter()
        .flatten()
        .filter(|at| *at >= first && *at < own.len())
        .min_by_key(after)
}

fn sorted<'a>(workers: impl IntoIterator<Item = &'a Share>) -> Vec<Share> {
    let mut shares: Vec<Share> = workers.into_iter().cloned().collect();
    shares.sort_unstable_by(|a, b| a.worker.cmp(&b.worker));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Cluster = BTreeMap<WorkerId, Vec<(u32, u64)>>;

    fn worker(n: usize) -> WorkerId {
        WorkerId::from(format!("w{n:02}").as_str())
    }

    fn shares(cluster: &Cluster) -> Vec<Share> {
        let share = |(worker, shards): (&WorkerId, &Vec<(u32, u64)>)| Share {
            worker: worker.clone(),
            shards: shards.len() as u64,
            load: shards.iter().map(|(_, weight)| weight).sum(),
        };
        cluster.iter().map(share).collect()
    }

    /// Everybody plans with what all can see now, then all of it is carried out.
    fn round(cluster: &mut Cluster) -> usize {
        let seen = shares(cluster);
        let plans: Vec<_> =
            cluster.iter().map(|(me, mine)| (me.clone(), balance(me, mine, &seen))).collect();
        let mut moved = 0;
        for (from, moves) in plans {
            for (shard, to) in moves {
                let shards = cluster.get_mut(&from).unwrap();
                let at = shards.iter().position(|(id, _)| *id == shard).expect("one of its own");
                let shard = shards.remove(at);
                assert_ne!(from, to);
                cluster.get_mut(&to).unwrap().push(shard);
                moved += 1;
            }
        }
        moved
    }

    fn cluster(weights: &[Vec<u64>]) -> Cluster {
        let mut id = 0;
        let mut shards = |weights: &Vec<u64>| {
            let with_id = |weight: &u64| {
                id += 1;
                (id, *weight)
            };
            weights.iter().map(with_id).collect()
        };
        weights.iter().enumerate().map(|(n, own)| (worker(n), shards(own))).collect()
    }

    fn loads(cluster: &Cluster) -> Vec<u64> {
        shares(cluster).into_iter().map(|share| share.load).collect()
    }

    #[test]
    fn a_joining_worker_gets_its_share_in_one_round() {
        for (before, after) in [
            (vec![10], vec![5, 5]),
            (vec![5, 5], vec![4, 3, 3]),
            (vec![1, 1, 1], vec![1, 1, 1, 0]),
            (vec![26; 40], vec![25; 40]),
        ] {
            let mut now: Vec<_> = before.iter().map(|n| vec![IDLE_WEIGHT; *n]).collect();
            now.push(Vec::new());
            let mut cluster = cluster(&now);
            round(&mut cluster);
            let counts: Vec<_> = cluster.values().map(Vec::len).collect();
            if before.len() == 40 {
                assert!(counts[40] >= 23, "the newcomer has {}", counts[40]);
            } else {
                let mut counts = counts;
                counts.sort_unstable_by(|a, b| b.cmp(a));
                assert_eq!(counts, after);
            }
            assert_eq!(round(&mut cluster), 0, "and that is all");
        }
    }

    #[test]
    fn a_hot_shard_stays_and_the_idle_ones_leave_it() {
        let mut hot = vec![IDLE_WEIGHT; 10];
        hot.push(100 * IDLE_WEIGHT);
        let mut cluster = cluster(&[hot, vec![IDLE_WEIGHT; 11]]);
        round(&mut cluster);
        let first = &cluster[&worker(0)];
        assert!(first.iter().any(|(_, weight)| *weight > IDLE_WEIGHT));
        assert_eq!(first.len(), 1);
        assert_eq!(round(&mut cluster), 0);
    }

    #[test]
    fn a_small_difference_is_not_worth_a_move() {
        let mut cluster = cluster(&[vec![IDLE_WEIGHT; 41], vec![IDLE_WEIGHT; 39]]);
        assert_eq!(round(&mut cluster), 0);
    }

    #[test]
    fn orphans_go_to_those_who_carry_least() {
        let share = |n, shards| Share { worker: worker(n), shards, load: shards * IDLE_WEIGHT };
        let placed = place((0..6).map(|n| (n, IDLE_WEIGHT)), &[share(0, 4), share(1, 0)]);
        let to_first = placed.iter().filter(|(_, to)| *to == worker(0)).count();
        assert_eq!((placed.len(), to_first), (6, 1));
        assert_eq!(place([(1, 1)], &[]), []);
    }

    #[test]
    fn a_weight_follows_the_rate_slowly_and_doubles_behind() {
        let mut meter = Meter::default();
        let second = Duration::from_secs(1);
        meter.sample(1_000_000, second);
        assert!(meter.weight(Duration::ZERO) < IDLE_WEIGHT + 20_000, "a burst of a second");
        for n in 2..600 {
            meter.sample(n * 1_000_000, second);
        }
        let steady = meter.weight(Duration::ZERO);
        assert!((990_000..=1_010_000).contains(&(steady - IDLE_WEIGHT)), "{steady}");
        assert!(meter.weight(BEHIND * 2) > 2 * (steady - IDLE_WEIGHT));
        for _ in 0..600 {
            meter.sample(599_000_000, second);
        }
        assert!(meter.weight(Duration::ZERO) < IDLE_WEIGHT + 100, "and forgets");
    }

    #[test]
    fn a_shard_that_moved_keeps_the_weight_that_is_usual_until_it_is_known() {
        let mut meter = Meter::begin(1_000_000);
        assert_eq!(meter.weight(Duration::ZERO), 1_000_000);
        for _ in 0..600 {
            meter.sample(0, Duration::from_secs(1));
        }
        assert!(meter.weight(Duration::ZERO) < IDLE_WEIGHT + 100);
        assert_eq!(Meter::begin(0).weight(Duration::ZERO), IDLE_WEIGHT);
    }

    /// Ten shards of a megabyte a second and a worker that joins: what has moved is taken for
    /// as heavy as shards are on average, so it does not move back.
    #[test]
    fn loaded_shards_move_once() {
        let mut cluster = cluster(&[vec![1_000_000; 10], Vec::new()]);
        let mut moved = 0;
        for _ in 0..10 {
            let usual = usual_weight(&shares(&cluster));
            let before = cluster.clone();
            moved += round(&mut cluster);
            for (worker, shards) in &mut cluster {
                for (shard, weight) in shards {
                    if !before[worker].iter().any(|(old, _)| old == shard) {
                        *weight = Meter::begin(usual).weight(Duration::ZERO);
                    }
                }
            }
        }
        assert_eq!(moved, 5);
    }

    fn weights() -> impl Strategy<Value = u64> {
        prop_oneof![3 => Just(IDLE_WEIGHT), 1 => IDLE_WEIGHT..2_000_000u64]
    }

    proptest! {
        #[test]
        fn it_settles_near_the_best_there_is_and_then_rests(
            weights in prop::collection::vec(prop::collection::vec(weights(), 0..20), 1..8),
        ) {
            let mut cluster = cluster(&weights);
            let mut rounds = 0;
            while round(&mut cluster) > 0 {
                rounds += 1;
                prop_assert!(rounds < 20, "it goes on and on: {:?}", loads(&cluster));
            }
            let (lightest, most) = cluster.values().map(|shards| {
                let load = shards.iter().map(|(_, weight)| weight).sum::<u64>();
                (shards.iter().map(|(_, weight)| *weight).min().unwrap_or_default(), load)
            }).max_by_key(|(_, load)| *load).unwrap();
            let least = loads(&cluster).into_iter().min().unwrap();
            let room = gain(most, least);
            prop_assert!(room == 0 || lightest > room, "a move would still pay: {:?}", loads(&cluster));
        }

        #[test]
        fn equal_shards_are_spread_to_within_one_or_a_twentieth(
            counts in prop::collection::vec(0usize..60, 1..10),
        ) {
            let weights: Vec<_> = counts.iter().map(|count| vec![IDLE_WEIGHT; *count]).collect();
            let mut cluster = cluster(&weights);
            while round(&mut cluster) > 0 {}
            let counts: Vec<_> = cluster.values().map(Vec::len).collect();
            let (most, least) = (*counts.iter().max().unwrap(), *counts.iter().min().unwrap());
            prop_assert!(most - least <= 1 + most / 20 + 1, "{counts:?}");
        }
    }
}
