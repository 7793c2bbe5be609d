//! The contiguous frontier: how far everything is finished, whatever finished first.
//!
//! Owns the rule that only contiguous finished work moves the checkpoint. Pure. A crash
//! delivers again what lies behind the last durable checkpoint: the work in flight and
//! what was finished since then, never less and never anything before it.

use crate::progress::{Gap, OpenWindow, Position};
use crate::record::Record;
use std::collections::VecDeque;
use std::sync::Arc;

/// A piece of work taken up, in the order of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// How far a shard is finished, in memory.
#[derive(Debug, Default)]
pub struct Frontier {
    /// Pieces that are not behind the frontier; finished ones have what holds then.
    pieces: VecDeque<Option<Mark>>,
    /// The ticket of the piece at the front.
    front: u64,
}

/// What is true once a piece of work and all before it are finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The position reached.
    pub position: Position,
    /// Nothing of the application's was in it: the consumer's own records alone moved
    /// the position, and writing it down at once would make the next of them.
    pub quiet: bool,
    /// A gap that was passed on the way.
    pub gap: Option<Gap>,
    /// The tumbling window that is open then.
    pub window: Option<Arc<OpenWindow>>,
}

impl Mark {
    /// Everything up to this record is finished.
    pub fn after(record: &Record) -> Self {
        Self::at(Position::After(record.sequence_number()))
    }

    /// Everything up to this position is finished.
    pub fn at(position: Position) -> Self {
        Self { position, quiet: false, gap: None, window: None }
    }
}

impl Frontier {
    /// Takes up the next piece of work.
    pub fn begin(&mut self) -> Ticket {
        self.pieces.push_back(None);
        Ticket(self.front + self.pieces.len() as u64 - 1)
    }

    /// How many pieces are not behind the frontier.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Whether `ticket` is that of the piece taken up last.
    pub fn is_newest(&self, ticket: Ticket) -> bool {
        ticket.0 + 1 == self.front + self.pieces.len() as u64
    }

    /// The piece is finished as far as `mark`. Gives it back where it holds, which is when
    /// nothing before the piece is open.
    pub fn partly(&self, ticket: Ticket, mark: Mark) -> Option<Mark> {
        let is_front = ticket.0 == self.front && self.pieces.front().is_some_and(Option::is_none);
        is_front.then_some(mark)
    }

    /// The piece is finished, and `mark` holds once all before it are. Gives the marks that
    /// hold now and did not before, oldest first; none while earlier work is open.
    pub fn finish(&mut self, ticket: Ticket, mark: Mark) -> Vec<Mark> {
        let index = ticket.0.checked_sub(self.front).and_then(|index| usize::try_from(index).ok());
        if let Some(piece) = index.and_then(|index| self.pieces.get_mut(index)) {
            piece.get_or_insert(mark);
        }
        let mut reached = Vec::new();
        while let Some(mark) = self.pieces.front_mut().and_then(Option::take) {
            self.pieces.pop_front();
            self.front += 1;
            reached.push(mark);
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(number: usize) -> Mark {
        Mark::at(Position::After(number.to_string().parse().unwrap()))
    }

    #[test]
    fn only_the_first_open_piece_moves_the_frontier_before_it_is_finished() {
        let mut frontier = Frontier::default();
        let first = frontier.begin();
        assert!(frontier.is_newest(first));
        let second = frontier.begin();
        assert!(frontier.is_newest(second) && !frontier.is_newest(first));
        assert_eq!(frontier.partly(second, mark(15)), None);
        assert_eq!(frontier.partly(first, mark(5)), Some(mark(5)));
        assert_eq!(frontier.finish(first, mark(10)), [mark(10)]);
        assert_eq!(frontier.partly(first, mark(5)), None);
        assert_eq!(frontier.partly(second, mark(15)), Some(mark(15)));
    }

    proptest! {
        /// In whatever order work finishes, the frontier is the longest finished prefix.
        #[test]
        fn is_the_longest_finished_prefix(count in 1usize..60, order in any::<u64>(), again: bool) {
            let mut frontier = Frontier::default();
            let mut tickets: Vec<(usize, Ticket)> =
                (0..count).map(|n| (n, frontier.begin())).collect();
            fastrand::Rng::with_seed(order).shuffle(&mut tickets);
            let (mut done, mut reached) = (vec![false; count], Vec::new());
            for (n, ticket) in tickets {
                done[n] = true;
                reached.extend(frontier.finish(ticket, mark(n)));
                if again { prop_assert!(frontier.finish(ticket, mark(n + 1)).is_empty()); }
                let prefix = done.iter().take_while(|done| **done).count();
                prop_assert_eq!(reached.len(), prefix);
            }
            prop_assert_eq!(reached, (0..count).map(mark).collect::<Vec<_>>());
        }
    }
}
