//! What operators have asked of the consumer, and what became of it.
//!
//! Owns the rules of that item: a request counts once, a move is carried out once and as it was
//! asked for, and nothing is put aside that was not carried out.

use super::names::short;
use super::table::Snapshot;
use super::world::epoch;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use streamgate::progress::orders::{Move, MoveTo, Orders, SeekTo};
use streamgate::progress::{Position, ShardProgress};
use streamgate::source::ShardId;

/// A worker's clock runs ahead of the world's for a step.
const AHEAD: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Ledger {
    /// Requests that have counted.
    nonces: BTreeSet<u64>,
    /// Every move that ever stood, and since when.
    moves: BTreeMap<u64, (Move, Duration)>,
    carried_out: BTreeSet<u64>,
}

impl Ledger {
    /// What must hold of a change of what stands, in a table that is now as `table`.
    pub fn check(
        &mut self,
        old: &Orders,
        new: &Orders,
        table: &Snapshot,
        time: Duration,
    ) -> Result<(), String> {
        if new.version != old.version + 1 {
            return Err(format!("orders went from {} to {}", old.version, new.version));
        }
        if let Some(past) = new.past.last().filter(|past| old.past.last() != Some(past))
            && !self.nonces.insert(past.request.nonce)
        {
            return Err(format!("{} counted twice", past.request.order));
        }
        for order in &new.moves {
            self.moves.entry(order.id).or_insert_with(|| (order.clone(), time));
        }
        let begins_anew = new.reset.is_some() && old.reset.is_none();
        let is_left = |order: &&Move| new.moves.iter().any(|left| left.id == order.id);
        for Move { id, shard, .. } in old.moves.iter().filter(|order| !is_left(order)) {
            let item = table.shards.get(shard);
            let is_over = item.is_none_or(|item| item.position == Position::ShardEnd);
            if !begins_anew && !is_over && !self.carried_out.contains(id) {
                return Err(format!("move {id} of {} was put aside", short(shard)));
            }
        }
        if old.reset.is_some() && new.reset.is_none() {
            let is_there = new.start == old.reset.as_ref().map(|reset| reset.to);
            if !is_there || new.epoch != old.epoch + 1 {
                return Err(format!("epoch {} began anew at {:?}", new.epoch, new.start));
            }
        }
        Ok(())
    }

    /// The item of a shard says that a move is carried out. Gives it, and since when it stood.
    pub fn carry_out(
        &mut self,
        shard: &ShardId,
        item: &ShardProgress,
        time: Duration,
    ) -> Result<(Move, Duration), String> {
        let id = item.order;
        let Some((order, asked)) = self.moves.get(&id).cloned() else {
            return Err(format!("carried out move {id}, which nobody asked for"));
        };
        if order.shard != *shard {
            return Err(format!("carried out move {id}, which is of {}", short(&order.shard)));
        }
        if !self.carried_out.insert(id) {
            return Err(format!("carried out move {id} a second time"));
        }
        let is_there = match (order.to, &item.position) {
            (MoveTo::Skip(_), Position::ShardEnd) => false,
            (MoveTo::Skip(_), _) => true,
            (MoveTo::Seek(SeekTo::TrimHorizon), position) => *position == Position::TrimHorizon,
            (MoveTo::Seek(SeekTo::AtTimestamp(time)), position) => {
                *position == Position::AtTimestamp(time)
            }
            (MoveTo::Seek(SeekTo::Latest), Position::AtTimestamp(at)) => {
                (epoch() + asked.saturating_sub(AHEAD)..epoch() + time + AHEAD).contains(at)
            }
            (MoveTo::Seek(SeekTo::Latest), _) => false,
        };
        match is_there {
            true => Ok((order, asked)),
            false => Err(format!("{:?} led to {:?}", order.to, item.position)),
        }
    }
}
