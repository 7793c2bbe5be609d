//! How far a shard is finished, and who is told of it.
//!
//! Owns the joining of the frontier with the checkpoint and what is shown. Invariant: the
//! checkpoint hears of a position only when everything before it is finished, and hears of
//! them in order.

use super::lane::Run;
use crate::checkpoint::ShardCheckpoint;
use crate::deliver::Windows;
use crate::frontier::{Frontier, Mark, Ticket};
use crate::progress::{MAX_KEPT_STATE_BYTES, Position};
use crate::record::Record;
use crate::source::ShardId;
use crate::telemetry::status::Board;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

/// The finished work of one shard.
pub(super) struct Track<'a> {
    frontier: Mutex<Frontier>,
    /// Tumbling windows, whose state is kept with the position.
    windows: Option<&'a Windows>,
    /// With windows: what was reached last, at first where it is read from.
    last: Mutex<Option<Mark>>,
    shard: &'a ShardId,
    checkpoint: &'a ShardCheckpoint,
    board: &'a Board,
}

impl<'a> Track<'a> {
    pub fn new(
        shard: &'a ShardId,
        position: Position,
        windows: Option<&'a Windows>,
        checkpoint: &'a ShardCheckpoint,
        board: &'a Board,
    ) -> Self {
        let (frontier, last) = (Mutex::default(), Mutex::new(Some(Mark::at(position))));
        Self { frontier, windows, last, shard, checkpoint, board }
    }

    /// The window has changed since the position was reached: what is kept says so.
    pub fn window_changed(&self) {
        let _frontier = self.lock();
        let last = self.last.lock().expect("no panic while held").take();
        self.reached(last.map(|last| Mark { quiet: false, ..last }));
    }

    /// Pieces of work that are not behind the frontier.
    pub fn pieces(&self) -> usize {
        self.lock().pieces()
    }

    /// Shows since when records wait.
    pub fn behind(&self, since: Option<SystemTime>) {
        self.board.shard(self.shard, |status| status.behind(since));
    }

    /// Tickets for the records of a page, under one lock; nothing else is told meanwhile.
    pub fn tickets(&self) -> Tickets<'_> {
        Tickets(self.lock())
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
        let mut reached = Vec::new();
        while let Some((run, rest)) = runs.split_first()
            && run.end <= count
        {
            reached.extend(frontier.finish(run.ticket, Mark::after(&records[run.end - 1])));
            *runs = rest;
        }
        // What is done of a batch that fails need not come again.
        if let Some(run) = runs.first()
            && run.start < count
        {
            reached.extend(frontier.partly(run.ticket, Mark::after(&records[count - 1])));
        }
        self.reached(reached);
    }

    /// In order, for the frontier is held meanwhile.
    fn reached(&self, marks: impl IntoIterator<Item = Mark>) {
        let mut marks = marks.into_iter();
        let Some(windows) = self.windows else {
            for mark in marks {
                self.board.shard(self.shard, |status| status.at(&mark.position));
                self.checkpoint.advance(mark);
            }
            return;
        };
        // The state is that after all of them: none but the last may be kept with it.
        let Some(first) = marks.next() else { return };
        let mut mark = marks.fold(first, |passed, mark| Mark {
            quiet: passed.quiet && mark.quiet,
            gap: passed.gap.or(mark.gap),
            ..mark
        });
        self.board.shard(self.shard, |status| status.at(&mark.position));
        mark.window = windows.open();
        let mut last = self.last.lock().expect("no panic while held");
        mark.gap = last.take().and_then(|last| last.gap).or(mark.gap);
        // Without the state, where an item has no room for it, the position would be worth
        // nothing: after a crash the window is read again.
        if mark.window.as_ref().is_some_and(|window| window.kept_bytes() > MAX_KEPT_STATE_BYTES) {
            *last = Some(mark);
            return;
        }
        *last = Some(Mark { gap: None, ..mark.clone() });
        drop(last);
        self.checkpoint.advance(mark);
    }

    fn lock(&self) -> MutexGuard<'_, Frontier> {
        self.frontier.lock().expect("no panic while held")
    }
}

/// Gives out tickets, in the order of the shard.
pub(super) struct Tickets<'a>(MutexGuard<'a, Frontier>);

impl Tickets<'_> {
    /// The ticket for a record that comes after everything so far: that of the record before
    /// it, where the two go together.
    pub fn next(&mut self, of_batch: Option<Ticket>) -> Ticket {
        let joined = of_batch.filter(|ticket| self.0.is_newest(*ticket));
        joined.unwrap_or_else(|| self.0.begin())
    }
}
