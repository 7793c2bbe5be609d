//! What was put and what became of it: every record, judged when it is handed over and when a
//! position moves past it.
//!
//! Owns the promises to a handler: nothing lost, in order per item, own records never, and
//! nothing twice while its lease is given away and never taken. Whose turn it is to hand over
//! is [`Turns`]'; what operators change about what is due is in `moves`.

use super::entry::{Claim, Entry};
use super::names::short;
use super::turns::Turns;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use streamgate::progress::Position;
use streamgate::record::SequenceNumber;
use streamgate::source::ShardId;

/// The place of a position in its shard; `None` stands at the beginning.
pub fn order(position: &Position) -> u128 {
    match position {
        Position::TrimHorizon | Position::AtTimestamp(_) => 0,
        Position::After(number) => digits(number.as_str()),
        Position::ShardEnd => u128::MAX,
    }
}

pub fn digits(number: &str) -> u128 {
    number.parse().expect("the simulator's numbers fit")
}

/// Which of its readings of a shard a batch belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Of the shard's lease, where it is the worker's.
    round: Option<u64>,
    /// Operators' moves of the shard, and seeks of the stream, before it.
    moves: (u64, u64),
}

#[derive(Default)]
pub struct Judge {
    pub turns: Turns,
    pub(super) entries: BTreeMap<u128, Entry>,
    /// The numbers of each shard's records.
    pub(super) shards: BTreeMap<ShardId, BTreeSet<u128>>,
    /// The numbers of each item's changes.
    pub(super) items: Vec<Vec<u128>>,
    /// Of each item, how many changes from the first on are done with.
    pub(super) done: Vec<usize>,
    /// What is put may be left out by whoever starts at the tip, until that is carried out.
    pub(super) is_starting: bool,
    /// Those in which the tip has still to be found then.
    pub(super) before_tip: BTreeSet<ShardId>,
    /// How often operators have moved the position of each shard, and how often the stream's.
    pub(super) moves: BTreeMap<ShardId, u64>,
    pub(super) seeks: u64,
    pub(super) faults: Vec<String>,
    deliveries: u64,
    repeats: u64,
}

impl Judge {
    pub fn new(items: usize, starts_at_tip: bool) -> Self {
        Self {
            items: vec![Vec::new(); items],
            done: vec![0; items],
            is_starting: starts_at_tip,
            ..Self::default()
        }
    }

    pub fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Records handed over, and how many of them had been taken before.
    pub fn counts(&self) -> (u64, u64) {
        (self.deliveries, self.repeats)
    }

    /// A new item for changes that are put from now on.
    pub fn add_item(&mut self) -> usize {
        self.items.push(Vec::new());
        self.done.push(0);
        self.items.len() - 1
    }

    /// Which change of an item comes next.
    pub fn next_change(&self, item: usize) -> u64 {
        self.items[item].len() as u64
    }

    /// A record was put, which says `created` of itself.
    pub fn put(
        &mut self,
        shard: ShardId,
        number: &SequenceNumber,
        item: Option<usize>,
        created: u64,
        put: Duration,
    ) {
        let number = digits(number.as_str());
        self.shards.entry(shard.clone()).or_default().insert(number);
        let item = item.map(|item| {
            self.items[item].push(number);
            (item, self.items[item].len() - 1)
        });
        let claim = match self.is_starting || self.before_tip.contains(&shard) {
            true => Claim::Optional,
            false => Claim::Due,
        };
        let entry = Entry {
            shard,
            item,
            created,
            put,
            claim,
            is_trimmed: false,
            is_excused: false,
            taken: 0,
            rounds: BTreeSet::new(),
        };
        self.entries.insert(number, entry);
    }

    /// The starting position has been carried out: these are the shards that are there.
    pub fn seeded(&mut self, shards: impl Iterator<Item = ShardId>) {
        if self.is_starting {
            self.before_tip.extend(shards);
        }
        self.is_starting = false;
    }

    /// Somebody reads `shard` from its tip.
    pub fn reads_from_tip(&mut self, shard: &ShardId) {
        self.before_tip.remove(shard);
    }

    /// The records of `shard` up to `number` are gone; `durable` is its position.
    pub fn trimmed(&mut self, shard: &ShardId, number: u128, durable: Option<&Position>) {
        let is_excused = !matches!(durable, Some(Position::After(_)));
        let numbers = self.shards.get(shard).into_iter().flat_map(|all| all.range(..=number));
        for number in numbers {
            let entry = self.entries.get_mut(number).expect("listed");
            if !entry.is_trimmed {
                (entry.is_trimmed, entry.is_excused) = (true, is_excused);
            }
        }
    }

    /// A batch is handed to the handler of the start `worker`, while the start `owner` has the
    /// shard's lease.
    pub fn begin(
        &mut self,
        worker: usize,
        shard: &ShardId,
        numbers: &[u128],
        owner: Option<usize>,
        now: Duration,
    ) -> Pass {
        let mut faults: Vec<String> =
            self.turns.begin(worker, shard, owner, now).into_iter().collect();
        let round = (owner == Some(worker)).then(|| self.turns.round(shard));
        let moves = self.moves_of(shard);
        // Who stood still may read on as it did before an operator's move.
        let is_now = round.is_some() || moves == (0, 0);
        if !numbers.is_sorted_by(|a, b| a < b) {
            faults.push("not in order".to_owned());
        }
        for number in numbers {
            let Some(entry) = self.entries.get(number) else {
                faults.push(format!("{number} was never put"));
                continue;
            };
            self.deliveries += 1;
            self.repeats += u64::from(entry.taken > 0);
            if entry.shard != *shard {
                faults.push(format!("{number} is of {}", short(&entry.shard)));
            }
            let Some((item, nth)) = entry.item else {
                faults.push(format!("{number} is the consumer's own"));
                continue;
            };
            if round.is_some_and(|round| entry.rounds.contains(&round)) {
                faults.push(format!("{number} was taken before, and nobody lost the lease"));
            }
            if !is_now {
                continue;
            }
            if entry.claim == Claim::LeftOut {
                faults.push(format!("{number} was to be left out"));
            }
            for before in &self.items[item][self.done[item]..nth.max(self.done[item])] {
                let earlier = &self.entries[before];
                if !earlier.is_done() && !numbers.contains(before) {
                    let at = short(&earlier.shard);
                    faults.push(format!("item {item}: {number} jumped {before} of {at}"));
                }
            }
        }
        let at = short(shard);
        self.faults.extend(
            faults.into_iter().map(|fault| format!("w{worker} was handed of {at}: {fault}")),
        );
        Pass { round, moves }
    }

    pub(super) fn moves_of(&self, shard: &ShardId) -> (u64, u64) {
        (self.moves.get(shard).copied().unwrap_or_default(), self.seeks)
    }

    /// The handler took what was handed over in `pass`. It counts unless an operator has sent
    /// the shard elsewhere since: then it is to come again.
    pub fn taken(&mut self, shard: &ShardId, numbers: &[u128], pass: Pass) {
        if pass.moves != self.moves_of(shard) {
            return;
        }
        for number in numbers {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            entry.taken += 1;
            entry.rounds.extend(pass.round);
            if let Some((item, _)) = entry.item {
                self.advance(item);
            }
        }
    }

    pub(super) fn advance(&mut self, item: usize) {
        let from = self.done[item];
        let later = self.items[item][from..].iter();
        self.done[item] += later.take_while(|number| self.entries[number].is_done()).count();
    }

    /// A position was written: it is past nothing that nobody took.
    pub fn position(&mut self, shard: &ShardId, from: Option<&Position>, to: &Position) {
        let (from, to) = (from.map_or(0, order), order(to));
        if from >= to {
            return;
        }
        self.before_tip.remove(shard);
        let Some(numbers) = self.shards.get(shard) else { return };
        let passed = numbers.range(from + 1..=to).filter(|number| self.entries[number].is_open());
        let passed: Vec<&u128> = passed.take(3).collect();
        if !passed.is_empty() {
            let at = short(shard);
            self.faults.push(format!("the position of {at} is past {passed:?}, which nobody took"));
        }
    }

    /// The lease of `shard` is taken from an owner that has not given it away.
    pub fn lost(&mut self, shard: &ShardId) {
        self.before_tip.remove(shard);
        self.turns.lease_taken(shard);
    }

    /// The lease of `shard` was given away at `position`, or its owner has stopped there: all
    /// that was delivered is behind it, but for what overtook something on another lane.
    pub fn stopped(&mut self, shard: &ShardId, position: &Position) {
        self.before_tip.remove(shard);
        let (round, from) = (self.turns.round(shard), order(position).saturating_add(1));
        let numbers = self.shards.get(shard).into_iter().flat_map(|all| all.range(from..));
        let mut is_first = true;
        for number in numbers {
            let entry = self.entries.get_mut(number).expect("listed");
            if entry.item.is_none() || entry.is_trimmed {
                continue;
            }
            let was_taken = entry.rounds.remove(&round);
            if was_taken && std::mem::take(&mut is_first) {
                let at = short(shard);
                self.faults.push(format!("{at} was left before {number}, which was taken"));
            }
            is_first = false;
        }
    }
}
