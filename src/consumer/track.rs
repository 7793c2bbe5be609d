//! How far a shard is finished, and who is told of it.
//!
//! Owns the joining of the frontier with the checkpoint and what is shown. Invariant: the
//! checkpoint hears of a position only when everything before it is finished, and hears of
//! them in order.

use super::lane::Run;
use crate::checkpoint::ShardCheckpoint;
use crate::frontier::{Frontier, Mark, Ticket};
use crate::record::Record;
use crate::source::ShardId;
use crate::telemetry::status::Board;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

/// The finished work of one shard.
pub(super) struct Track<'a> {
    frontier: Mutex<Frontier>,
    shard: &'a ShardId,
    checkpoint: &'a ShardCheckpoint,
    board: &'a Board,
}

impl<'a> Track<'a> {
    pub fn new(shard: &'a ShardId, checkpoint: &'a ShardCheckpoint, board: &'a Board) -> Self {
        Self { frontier: Mutex::default(), shard, checkpoint, board }
    }

    /// Shows since when records wait.
    pub fn behind(&self, since: Option<SystemTime>) {
        self.board.shard(self.shard, |status| status.behind(since));
    }

    /// The ticket for a record that comes after everything so far: that of the record before
    /// it, where the two go together.
    pub fn next_ticket(&self, of_batch: Option<Ticket>) -> Ticket {
        let mut frontier = self.lock();
        let joined = of_batch.filter(|ticket| frontier.is_newest(*ticket));
        joined.unwrap_or_else(|| frontier.begin())
    }

    /// Nothing has to be delivered for `mark`.
    pub fn pass(&self, mark: Mark) {
        let mut frontier = self.lock();
        let ticket = frontier.begin();
        self.reached(frontier.finish(ticket, mark));
    }

    /// So many records from the front of a batch are finished. `runs` are the pieces of the
    /// batch that are not; those that are now are taken out.
    pub fn done(&self, records: &[Record], runs: &mut &[Run], count: usize) {
        let mut frontier = self.lock();
        while let Some((run, rest)) = runs.split_first()
            && run.end <= count
        {
            self.reached(frontier.finish(run.ticket, Mark::after(&records[run.end - 1])));
            *runs = rest;
        }
        // What is done of a batch that fails need not come again.
        if let Some(run) = runs.first()
            && run.start < count
        {
            self.reached(frontier.partly(run.ticket, Mark::after(&records[count - 1])));
        }
    }

    /// In order, for the frontier is held meanwhile.
    fn reached(&self, marks: impl IntoIterator<Item = Mark>) {
        for mark in marks {
            self.board.shard(self.shard, |status| status.at(&mark.position));
            self.checkpoint.advance(mark);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Frontier> {
        self.frontier.lock().expect("no panic while held")
    }
}
