//! Which address of the api is asked, and which next.
//!
//! Owns the choice; knows no connection and no clock. Invariant: an address is left when it
//! fails and for nothing else, by one step however many calls fail there together; a call asks
//! each address once at most (an only one twice), and waits in vain twice at most.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often one call may wait for an answer that does not come: what is behind the third
/// address is for the next call to find out, which begins there.
const MAX_LATE: usize = 2;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The api's own word, which every replica would say.
    Final,
    /// The api's own word that the table does not answer it.
    Unavailable,
    /// The connection broke, or something else than the api answered.
    Broken,
    /// No answer in time.
    Late,
}

impl Outcome {
    /// Whether the address did not do what it is there for.
    fn is_failure(self) -> bool {
        matches!(self, Self::Broken | Self::Late)
    }
}

/// The addresses by their places in `API_URL`, and where calls begin.
pub(super) struct Replicas {
    count: usize,
    current: AtomicUsize,
}

impl Replicas {
    /// Calls begin at the first of `count`.
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "somebody has to be asked");
        Self { count, current: AtomicUsize::new(0) }
    }

    /// The way of a call, from where the last ones were answered.
    pub fn course(&self) -> Course {
        let at = self.current.load(Ordering::Relaxed);
        Course { count: self.count, at, asked: 1, late: 0, without_table: None }
    }

    /// What the attempt at `course.at` came to, for the calls that follow.
    pub fn heard(&self, course: &Course, outcome: Outcome) {
        if outcome.is_failure() {
            self.leave(course.at);
        } else if let (Outcome::Final, Some(place)) = (outcome, course.without_table) {
            // That one works, but does not reach the table, and this one does.
            self.step(place, course.at);
        }
    }

    /// Calls begin at the next address, if they still begin at this one.
    pub fn leave(&self, at: usize) {
        self.step(at, (at + 1) % self.count);
    }

    fn step(&self, from: usize, to: usize) {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // Somebody else may have gone on from there already.
        let _ = self.current.compare_exchange(from, to, success, failure);
    }
}

/// One call's way through the addresses.
#[derive(Clone, Debug)]
pub(super) struct Course {
    count: usize,
    at: usize,
    /// How many attempts there have been, with the one that is made now.
    asked: usize,
    /// How many of them were late.
    late: usize,
    /// The place of a replica that does not reach the table.
    without_table: Option<usize>,
}

impl Course {
    /// The place of the address to ask now.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether no other attempt came before.
    pub fn is_first(&self) -> bool {
        self.asked == 1
    }

    /// Goes on to the next address, if another attempt may help.
    pub fn goes_on(&mut self, outcome: Outcome) -> bool {
        let may_help = match outcome {
            Outcome::Final => false,
            // A second replica that says so is believed.
            Outcome::Unavailable => self.without_table.replace(self.at).is_none() && self.count > 1,
            Outcome::Broken => true,
            Outcome::Late => {
                self.late += 1;
                self.late < MAX_LATE
            }
        };
        // Behind an only address there may be several replicas, or one that has just come back.
        let goes_on = may_help && self.asked < self.count.max(2);
        if goes_on {
            self.asked += 1;
            self.at = (self.at + 1) % self.count;
        }
        goes_on
    }
}

/// The addresses of a name in an order that begins at another with each turn, whatever order
/// they were found in.
pub(super) fn in_turn(turn: usize, mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    found.sort_unstable();
    found.dedup();
    let count = found.len().max(1);
    found.rotate_left(turn % count);
    found
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Broken, Final, Late, Unavailable};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Where a call asks when its attempts come to `outcomes`.
    fn asks(replicas: &Replicas, outcomes: impl IntoIterator<Item = Outcome>) -> Vec<usize> {
        let mut course = replicas.course();
        let mut asked = Vec::new();
        for outcome in outcomes {
            asked.push(course.at());
            replicas.heard(&course, outcome);
            if !course.goes_on(outcome) {
                break;
            }
        }
        asked
    }

    #[test]
    fn who_answered_is_asked_again_until_it_fails() {
        let three = Replicas::new(3);
        assert_eq!(asks(&three, [Final]), [0]);
        assert_eq!(asks(&three, [Broken, Broken, Final]), [0, 1, 2]);
        assert_eq!(asks(&three, [Final]), [2], "it stays where it was answered");
        assert_eq!(asks(&three, [Late, Final]), [2, 0]);
        assert_eq!(asks(&three, [Final]), [0]);
        assert_eq!(asks(&three, [Broken, Late, Late, Final]), [0, 1, 2], "twice in vain");
        assert_eq!(asks(&three, [Final]), [0]);
    }

    #[test]
    fn a_table_that_does_not_answer_is_asked_through_one_other_replica() {
        let three = Replicas::new(3);
        assert_eq!(asks(&three, [Unavailable, Unavailable, Final]), [0, 1]);
        assert_eq!(asks(&three, [Unavailable, Final]), [0, 1], "no replica was left for it");
        assert_eq!(asks(&three, [Final]), [1], "this one reaches the table");
        let one = Replicas::new(1);
        assert_eq!(asks(&one, [Unavailable, Final]), [0], "the same would say the same");
        assert_eq!(asks(&one, [Broken, Broken, Final]), [0, 0]);
    }

    #[test]
    fn calls_that_fail_together_take_one_step() {
        let two = Replicas::new(2);
        let courses = [two.course(), two.course()];
        for course in &courses {
            two.heard(course, Late);
        }
        assert_eq!(asks(&two, [Final]), [1]);
    }

    #[test]
    fn each_turn_begins_at_another_address() {
        let of = |last: u8| SocketAddr::from(([10, 0, 0, last], 0));
        let first = |turn, found: &[u8]| in_turn(turn, found.iter().map(|n| of(*n)).collect())[0];
        let firsts: BTreeSet<_> = (0..3).map(|turn| first(turn, &[3, 1, 2, 1])).collect();
        assert_eq!(firsts.len(), 3);
        assert_eq!(first(7, &[3, 1, 2]), first(7, &[2, 3, 1]), "however they are listed");
        assert_eq!(in_turn(7, Vec::new()), []);
    }

    proptest! {
        #[test]
        fn attempts_are_bounded_and_each_address_is_asked_once(
            count in 1_usize..9,
            calls in prop::collection::vec(
                prop::collection::vec(
                    prop::sample::select(vec![Final, Unavailable, Broken, Late]), 20,
                ),
                1..20,
            ),
        ) {
            let replicas = Replicas::new(count);
            for outcomes in calls {
                let began = replicas.course().at();
                let asked = asks(&replicas, outcomes.iter().copied());
                let outcomes = &outcomes[..asked.len()];
                let of = |kind| outcomes.iter().filter(|outcome| **outcome == kind).count();
                prop_assert!(asked.len() <= count.max(2));
                let distinct: BTreeSet<_> = asked.iter().collect();
                prop_assert_eq!(distinct.len(), asked.len().min(count));
                prop_assert!(of(Late) <= 2 && of(Unavailable) <= 2);
                let (last, before) = outcomes.split_last().unwrap();
                prop_assert!(!before.contains(&Final), "an answer is the end");
                let now = replicas.course().at();
                match last {
                    Final => prop_assert_eq!(now, *asked.last().unwrap()),
                    Unavailable | Broken | Late if outcomes.iter().all(|o| *o == Unavailable) => {
                        prop_assert_eq!(now, began, "no address has failed");
                    }
                    _ => {}
                }
            }
        }
    }
}
