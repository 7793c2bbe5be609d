//! What operators' moves and seeks change about what is due to the handler, and the reckoning
//! at the end.
//!
//! Owns the meaning of each: what is to come again, what may come and what is left out. A skip
//! leaves out as many records as were asked for, of those that would have come next.

use super::entry::{Claim, Entry};
use super::judge::{Judge, digits, order};
use super::names::short;
use super::table::Snapshot;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use streamgate::progress::orders::{MoveTo, SeekTo};
use streamgate::progress::{Gap, Position};
use streamgate::source::ShardId;

/// An operator's move as it was carried out.
pub struct Carried<'a> {
    pub shard: &'a ShardId,
    pub to: MoveTo,
    /// When it began to stand.
    pub asked: Duration,
    pub from: &'a Position,
    pub position: &'a Position,
}

impl Judge {
    /// A shard's position was moved as an operator has asked.
    pub fn moved(&mut self, moved: &Carried<'_>, is_tip_sure: bool) {
        let Carried { shard, to, .. } = moved;
        *self.moves.entry((*shard).clone()).or_default() += 1;
        self.before_tip.remove(*shard);
        match to {
            MoveTo::Skip(records) => self.skipped(moved, *records, is_tip_sure),
            MoveTo::Seek(to) => {
                let numbers = self.shards.get(*shard).into_iter().flatten().copied();
                for number in numbers.collect::<Vec<_>>() {
                    send(self.entries.get_mut(&number).expect("listed"), *to);
                }
                if *to == SeekTo::Latest {
                    self.before_tip.insert((*shard).clone());
                }
            }
        }
        self.count_anew();
    }

    /// The stream begins anew: what was delivered before counts no more.
    pub fn begun_anew(&mut self, to: SeekTo) {
        self.seeks += 1;
        self.before_tip.clear();
        self.is_starting = to == SeekTo::Latest;
        for entry in self.entries.values_mut() {
            send(entry, to);
        }
        self.count_anew();
    }

    fn skipped(&mut self, moved: &Carried<'_>, records: u64, is_tip_sure: bool) {
        let (from, to) = (order(moved.from), order(moved.position));
        let at = short(moved.shard);
        if to < from {
            self.faults.push(format!("a skip moved {at} back from {from} to {to}"));
            return;
        }
        let Some(numbers) = self.shards.get(moved.shard) else { return };
        let starts = match moved.from {
            Position::AtTimestamp(time) => seconds(*time),
            _ => 0,
        };
        let comes =
            |entry: &Entry| entry.item.is_some() && !entry.is_trimmed && entry.created >= starts;
        let mut skipped = 0;
        for number in numbers.range((Excluded(from), Included(to))) {
            let entry = self.entries.get_mut(number).expect("listed");
            skipped += u64::from(comes(entry));
            entry.claim = Claim::LeftOut;
        }
        if skipped > records {
            self.faults.push(format!("{skipped} records of {at} were skipped, not {records}"));
        }
        // It ends where there is no more, and before a gap.
        let is_whole = numbers.range(from..).all(|number| !self.entries[number].is_trimmed);
        let is_next = |number: &u128| {
            let entry = &self.entries[number];
            comes(entry) && entry.put < moved.asked
        };
        let next = numbers.range((Excluded(to), Unbounded)).find(|number| is_next(number));
        if let (Some(next), true, true) = (next, skipped < records, is_whole && is_tip_sure) {
            self.faults.push(format!(
                "{skipped} records of {at} were skipped, not {records}, though {next} comes next"
            ));
        }
    }

    fn count_anew(&mut self) {
        for item in 0..self.items.len() {
            self.done[item] = 0;
            self.advance(item);
        }
    }

    /// Whether everything was taken that can be handed over, but in shards that are `exempt`.
    pub fn is_through(&self, exempt: impl Fn(&ShardId) -> bool) -> bool {
        self.entries.values().all(|entry| !entry.is_open() || exempt(&entry.shard))
    }

    /// The first records that nobody took, for people.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.entries.iter().filter(|(_, entry)| entry.is_open());
        let name =
            |(number, entry): (&u128, &Entry)| format!("{number} of {}", short(&entry.shard));
        missing.take(10).map(name).collect()
    }

    /// At the end: what was never taken was trimmed, and a gap in the table says so.
    pub fn check_gaps(&mut self, table: &Snapshot) {
        let mut faults = Vec::new();
        for (number, entry) in &self.entries {
            let is_lost = entry.item.is_some() && entry.taken == 0 && entry.is_trimmed;
            if !is_lost || entry.claim != Claim::Due || entry.is_excused {
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

/// What becomes of a record where its shard is sent elsewhere.
fn send(entry: &mut Entry, to: SeekTo) {
    entry.taken = 0;
    entry.rounds.clear();
    // Who goes there knows nothing of what is gone.
    entry.is_excused |= entry.is_trimmed;
    entry.claim = match to {
        SeekTo::TrimHorizon => Claim::Due,
        SeekTo::AtTimestamp(time) if entry.created >= seconds(time) => Claim::Due,
        SeekTo::AtTimestamp(_) => Claim::LeftOut,
        SeekTo::Latest => Claim::Optional,
    };
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
