//! What is tried next of a batch that fails, and when it is given up: Lambda's rules.
//!
//! Pure: it is told how invocations ended and decides. Knows records only by their place
//! in the batch. Invariant: pieces are worked in the order of the batch, one at a time,
//! and every record ends once, taken or given up; so order per item holds through
//! retries, bisections and partial answers.
//!
//! ```text
//!             ┌─ taken ─────────────────────────> the next piece
//!             │                                   (of a partial answer: the rest of it)
//!  a piece ───┼─ failed, bisect, 2 records or more ─> its halves, for no retry
//!  invoked    ├─ failed, retries left ──────────> again
//!             └─ failed, none left ─────────────> given up, then the next piece
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// When a failing batch is given up. The names and bounds are Lambda's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RetrySettings {
    /// `MAXIMUM_RETRY_ATTEMPTS`: retries after the first attempt; `None` for ever.
    pub max_retries: Option<u32>,
    /// `MAXIMUM_RECORD_AGE_IN_SECONDS`: records older than this are given up, tried or
    /// not; `None` never.
    pub max_age: Option<Duration>,
    /// `BISECT_BATCH_ON_FUNCTION_ERROR`: a failed batch is halved before it is retried.
    pub bisect: bool,
}

/// How an invocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The handler never got it: it was not reached. Costs no retry, and halving would
    /// not help.
    NotInvoked,
    /// All of it.
    Whole,
    /// From this record on, counted from the first of the batch; those before are taken.
    From(usize),
}

/// What a failure leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same records again, or what is left of them.
    Retry,
    /// Their first half, and then the second.
    Bisected,
    /// None of them.
    GivenUp(Range<usize>),
}

/// The way of one batch.
#[derive(Clone, Debug)]
pub struct Plan {
    settings: RetrySettings,
    pieces: VecDeque<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    records: Range<usize>,
    /// Invocations that these records have been in.
    attempts: u32,
    /// Of those, the failed ones that count towards [`RetrySettings::max_retries`].
    failures: u32,
}

impl Plan {
    /// For a batch of so many records.
    pub fn new(records: usize, settings: RetrySettings) -> Self {
        let whole = Piece { records: 0..records, attempts: 0, failures: 0 };
        let pieces = VecDeque::from_iter((records > 0).then_some(whole));
        Self { settings, pieces }
    }

    /// What is to be handed over now, and which attempt that is, from 1; `None` when the
    /// batch is through.
    pub fn current(&self) -> Option<(Range<usize>, u32)> {
        let piece = self.pieces.front()?;
        Some((piece.records.clone(), piece.attempts.saturating_add(1)))
    }

    /// The current piece was taken.
    pub fn taken(&mut self) {
        self.pieces.pop_front();
    }

    /// The records before this one are too old: they are given up. Gives which.
    pub fn expire(&mut self, before: usize) -> Range<usize> {
        let Some(piece) = self.pieces.front_mut() else { return 0..0 };
        let (start, end) = (piece.records.start, before.min(piece.records.end));
        piece.records.start = end.max(start);
        if piece.records.is_empty() {
            self.pieces.pop_front();
        }
        start..end.max(start)
    }

    /// The invocation of the current piece failed.
    pub fn failed(&mut self, failure: Failure) -> Next {
        let Some(piece) = self.pieces.front_mut() else { return Next::Retry };
        piece.attempts = piece.attempts.saturating_add(1);
        let moved = match failure {
            Failure::NotInvoked => return Next::Retry,
            Failure::Whole => false,
            // One before the piece says nothing of it, and one behind is not in it: the
            // whole piece is meant, so that nothing is lost.
            Failure::From(record) if !piece.records.contains(&record) => false,
            Failure::From(record) => {
                let moved = record > piece.records.start;
                piece.records.start = record;
                moved
            }
        };
        if moved {
            // Another record is at fault now, and has its own tries.
            piece.failures = 0;
        }
        if self.settings.bisect && moved {
            // Split at the record that the answer names; what is before it is done.
            return Next::Bisected;
        }
        if self.settings.bisect && piece.records.len() > 1 {
            let mut second = piece.clone();
            let middle = piece.records.start + piece.records.len() / 2;
            piece.records.end = middle;
            second.records.start = middle;
            self.pieces.insert(1, second);
            return Next::Bisected;
        }
        if self.settings.max_retries.is_some_and(|most| piece.failures >= most) {
            let given_up = piece.records.clone();
            self.pieces.pop_front();
            return Next::GivenUp(given_up);
        }
        piece.failures = piece.failures.saturating_add(1);
        Next::Retry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn settings(max_retries: Option<u32>, bisect: bool) -> RetrySettings {
        RetrySettings { max_retries, max_age: None, bisect }
    }

    /// Runs a plan against a handler that fails every batch with one of `poison` in it,
    /// and says where if `partial`. Gives what was taken, what was given up, and how
    /// often each record was invoked.
    fn run(
        records: usize,
        settings: RetrySettings,
        poison: &BTreeSet<usize>,
        partial: bool,
    ) -> (Vec<usize>, Vec<usize>, Vec<u32>) {
        let mut plan = Plan::new(records, settings);
        let (mut taken, mut given_up, mut invoked) = (Vec::new(), Vec::new(), vec![0; records]);
        let mut last = 0;
        for _ in 0..100_000 {
            let Some((piece, attempt)) = plan.current() else {
                return (taken, given_up, invoked);
            };
            assert!(!piece.is_empty() && piece.start >= last && attempt >= 1, "in order");
            piece.clone().for_each(|record| invoked[record] += 1);
            match piece.clone().find(|record| poison.contains(record)) {
                None => {
                    taken.extend(piece.clone());
                    plan.taken();
                    last = piece.end;
                }
                Some(first) => {
                    let failure = if partial { Failure::From(first) } else { Failure::Whole };
                    if partial {
                        taken.extend(piece.start..first);
                        last = first;
                    }
                    if let Next::GivenUp(records) = plan.failed(failure) {
                        last = records.end;
                        given_up.extend(records);
                    }
                }
            }
        }
        panic!("it does not end");
    }

    proptest! {
        #[test]
        fn every_record_ends_once_and_in_order(
            records in 1usize..40,
            retries in 0u32..4,
            bisect: bool,
            partial: bool,
            poison in prop::collection::btree_set(0usize..40, 0..6),
        ) {
            let (taken, given_up, invoked) =
                run(records, settings(Some(retries), bisect), &poison, partial);
            prop_assert!(taken.is_sorted() && given_up.is_sorted());
            let mut all = [taken.clone(), given_up.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..records).collect::<Vec<_>>());
            for (record, invoked) in invoked.into_iter().enumerate() {
                let is_poison = poison.contains(&record);
                prop_assert!(!is_poison || given_up.contains(&record));
                // Bisecting finds the record at fault and loses no other.
                prop_assert!(!bisect || is_poison || taken.contains(&record));
                // What is given up has had its first attempt and every retry, where it was
                // not given up with a record before it.
                prop_assert!(!bisect || !is_poison || invoked > retries);
            }
        }
    }

    #[test]
    fn without_a_limit_a_batch_comes_again_for_ever() {
        let mut plan = Plan::new(3, RetrySettings::default());
        for attempt in 1..1000 {
            assert_eq!(plan.current(), Some((0..3, attempt)));
            assert_eq!(plan.failed(Failure::Whole), Next::Retry);
        }
        plan.taken();
        assert_eq!(plan.current(), None);
    }

    #[test]
    fn retries_are_those_after_the_first_attempt() {
        for retries in 0..4 {
            let mut plan = Plan::new(5, settings(Some(retries), false));
            for _ in 0..retries {
                assert_eq!(plan.failed(Failure::Whole), Next::Retry);
            }
            assert_eq!(plan.failed(Failure::Whole), Next::GivenUp(0..5));
            assert_eq!(plan.current(), None);
        }
    }

    #[test]
    fn a_bisection_costs_no_retry() {
        let mut plan = Plan::new(4, settings(Some(1), true));
        assert_eq!(plan.failed(Failure::Whole), Next::Bisected);
        assert_eq!(plan.current(), Some((0..2, 2)));
        assert_eq!(plan.failed(Failure::Whole), Next::Bisected);
        assert_eq!(plan.current(), Some((0..1, 3)));
        assert_eq!(plan.failed(Failure::Whole), Next::Retry, "one record cannot be halved");
        assert_eq!(plan.failed(Failure::Whole), Next::GivenUp(0..1));
        assert_eq!(plan.current(), Some((1..2, 3)));
        plan.taken();
        assert_eq!(plan.current(), Some((2..4, 2)));
        plan.taken();
        assert_eq!(plan.current(), None);
    }

    #[test]
    fn a_partial_answer_leaves_the_rest_and_gives_another_record_its_own_tries() {
        let mut plan = Plan::new(6, settings(Some(1), false));
        assert_eq!(plan.failed(Failure::From(2)), Next::Retry);
        assert_eq!(plan.current(), Some((2..6, 2)));
        assert_eq!(plan.failed(Failure::From(4)), Next::Retry);
        assert_eq!(plan.current(), Some((4..6, 3)));
        assert_eq!(plan.failed(Failure::From(4)), Next::GivenUp(4..6), "as Lambda, all the rest");
        // With bisecting, the split is at the record that was named.
        let mut plan = Plan::new(6, settings(Some(0), true));
        assert_eq!(plan.failed(Failure::From(4)), Next::Bisected);
        assert_eq!(plan.current(), Some((4..6, 2)));
        assert_eq!(plan.failed(Failure::From(4)), Next::Bisected);
        assert_eq!(plan.current(), Some((4..5, 3)));
        assert_eq!(plan.failed(Failure::From(4)), Next::GivenUp(4..5));
        assert_eq!(plan.current(), Some((5..6, 3)));
    }

    #[test]
    fn an_answer_about_a_record_that_is_not_there_means_all_of_it() {
        for elsewhere in [0, 1, 7] {
            let mut plan = Plan::new(6, settings(None, false));
            assert_eq!(plan.failed(Failure::From(2)), Next::Retry);
            assert_eq!(plan.failed(Failure::From(elsewhere)), Next::Retry);
            assert_eq!(plan.current(), Some((2..6, 3)));
        }
    }

    #[test]
    fn a_handler_that_is_not_reached_costs_nothing() {
        let mut plan = Plan::new(2, settings(Some(0), true));
        for attempt in 1..50 {
            assert_eq!(plan.current(), Some((0..2, attempt)));
            assert_eq!(plan.failed(Failure::NotInvoked), Next::Retry);
        }
    }

    #[test]
    fn records_that_are_too_old_are_taken_off_the_front() {
        let mut plan = Plan::new(5, settings(None, true));
        assert_eq!(plan.expire(0), 0..0);
        assert_eq!(plan.expire(2), 0..2);
        assert_eq!(plan.current(), Some((2..5, 1)));
        assert_eq!(plan.failed(Failure::Whole), Next::Bisected);
        // Never more than the piece that is worked now.
        assert_eq!(plan.expire(5), 2..3);
        assert_eq!(plan.current(), Some((3..5, 2)));
        assert_eq!(plan.expire(5), 3..5);
        assert_eq!(plan.current(), None);
    }
}
