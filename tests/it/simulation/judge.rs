//! What was put and what became of it: every record, judged when it is handed over and when a
//! position moves past it.
//!
//! Owns the promises to a handler: nothing lost, in order per item, own records never, and
//! nothing twice while its lease is given away and never taken. Whose turn it is to hand over
//! is [`Turns`]'.

use super::names::short;
use super::table::Snapshot;
use super::turns::Turns;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use streamgate::progress::{Gap, Position};
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

struct Entry {
    shard: ShardId,
    /// Which item's change it is, and which of its changes; `None` for own records.
    item: Option<(usize, usize)>,
    /// It was put before the starting position was carried out.
    is_optional: bool,
    is_trimmed: bool,
    /// It was trimmed while the store knew of no record before it: nobody can know.
    is_excused: bool,
    taken: u32,
    /// In which rounds of its shard's lease, by the lease's owner.
    rounds: BTreeSet<u64>,
}

#[derive(Default)]
pub struct Judge {
    pub turns: Turns,
    entries: BTreeMap<u128, Entry>,
    /// The numbers of each shard's records.
    shards: BTreeMap<ShardId, BTreeSet<u128>>,
    /// The numbers of each item's changes.
    items: Vec<Vec<u128>>,
    /// Of each item, how many changes from the first on are done with.
    done: Vec<usize>,
    /// What is put may be left out by whoever starts at the tip, until that is carried out.
    is_starting: bool,
    /// Those in which the tip has still to be found then.
    before_tip: BTreeSet<ShardId>,
    faults: Vec<String>,
    open: usize,
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

    /// A record was put.
    pub fn put(&mut self, shard: ShardId, number: &SequenceNumber, item: Option<usize>) {
        let number = digits(number.as_str());
        self.shards.entry(shard.clone()).or_default().insert(number);
        let item = item.map(|item| {
            self.items[item].push(number);
            (item, self.items[item].len() - 1)
        });
        let is_optional = self.is_starting || self.before_tip.contains(&shard);
        self.open += usize::from(item.is_some() && !is_optional);
        let entry = Entry {
            shard,
            item,
            is_optional,
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
                let is_open = entry.item.is_some() && !entry.is_optional && entry.taken == 0;
                self.open -= usize::from(is_open);
            }
        }
    }

    /// A batch is handed to the handler of the start `worker`, while the start `owner` has the
    /// shard's lease. Gives the round in which that is, if it is the worker's.
    pub fn begin(
        &mut self,
        worker: usize,
        shard: &ShardId,
        numbers: &[u128],
        owner: Option<usize>,
        now: Duration,
    ) -> Option<u64> {
        let mut faults: Vec<String> =
            self.turns.begin(worker, shard, owner, now).into_iter().collect();
        let round = (owner == Some(worker)).then(|| self.turns.round(shard));
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
            for before in &self.items[item][self.done[item]..nth.max(self.done[item])] {
                let earlier = &self.entries[before];
                let is_done = earlier.taken > 0 || earlier.is_trimmed || earlier.is_optional;
                if !is_done && !numbers.contains(before) {
                    let at = short(&earlier.shard);
                    faults.push(format!("item {item}: {number} jumped {before} of {at}"));
                }
            }
        }
        let at = short(shard);
        self.faults.extend(
            faults.into_iter().map(|fault| format!("w{worker} was handed of {at}: {fault}")),
        );
        round
    }

    /// The handler took what was handed over in `round`.
    pub fn taken(&mut self, numbers: &[u128], round: Option<u64>) {
        for number in numbers {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            let is_open = entry.taken == 0 && !entry.is_trimmed && !entry.is_optional;
            self.open -= usize::from(is_open && entry.item.is_some());
            entry.taken += 1;
            entry.rounds.extend(round);
            if let Some((item, _)) = entry.item {
                self.advance(item);
            }
        }
    }

    fn advance(&mut self, item: usize) {
        let is_done = |number: &u128| {
            let entry = &self.entries[number];
            entry.taken > 0 || entry.is_trimmed || entry.is_optional
        };
        let from = self.done[item];
        self.done[item] += self.items[item][from..].iter().take_while(|n| is_done(n)).count();
    }

    /// A position was written: it is past nothing that nobody took.
    pub fn position(&mut self, shard: &ShardId, from: Option<&Position>, to: &Position) {
        let (from, to) = (from.map_or(0, order), order(to));
        if from >= to {
            return;
        }
        self.before_tip.remove(shard);
        let Some(numbers) = self.shards.get(shard) else { return };
        let passed = numbers.range(from + 1..=to).filter(|number| {
            let entry = &self.entries[number];
            let is_done = entry.taken > 0 || entry.is_trimmed || entry.is_optional;
            entry.item.is_some() && !is_done
        });
        let passed: Vec<&u128> = passed.take(3).collect();
        if !passed.is_empty() {
            let at = short(shard);
            self.faults.push(format!("the position of {at} is past {passed:?}, which nobody took"));
        }
    }

    /// The lease of `shard` was given away at `position`: all that was delivered is behind it,
    /// but for what overtook something on another lane.
    pub fn given(&mut self, shard: &ShardId, position: &Position) {
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
                self.faults.push(format!("{at} was given away before {number}, which was taken"));
            }
            is_first = false;
        }
    }

    /// Whether everything that can be handed over was taken.
    pub fn is_through(&self) -> bool {
        self.open == 0
    }

    /// The first records that nobody took, for people.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.entries.iter().filter(|(_, entry)| {
            let is_done = entry.taken > 0 || entry.is_trimmed || entry.is_optional;
            entry.item.is_some() && !is_done
        });
        missing
            .take(10)
            .map(|(number, entry)| format!("{number} of {}", short(&entry.shard)))
            .collect()
    }

    /// At the end: what was never taken was trimmed, and a gap in the table says so.
    pub fn check_gaps(&mut self, table: &Snapshot) {
        let mut faults = Vec::new();
        for (number, entry) in &self.entries {
            let is_lost = entry.item.is_some() && entry.taken == 0 && entry.is_trimmed;
            if !is_lost || entry.is_optional || entry.is_excused {
                continue;
            }
            // Its item may be forgotten by now, gaps and all.
            let Some(item) = table.shards.get(&entry.shard) else { continue };
            let covers = |gap: &Gap| {
                let after = gap.after.as_ref().map_or(0, |after| digits(after.as_str()));
                let resumed = gap.resumed_at.as_ref();
                let resumed = resumed.map_or(u128::MAX, |resumed| digits(resumed.as_str()));
                after < *number && *number < resumed
            };
            if !item.gaps.iter().any(covers) {
                let (at, gaps) = (short(&entry.shard), &item.gaps);
                faults.push(format!("{number} of {at} was trimmed, and no gap says so: {gaps:?}"));
            }
        }
        self.faults.extend(faults.into_iter().take(3));
    }
}
