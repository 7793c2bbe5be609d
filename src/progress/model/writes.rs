//! What is written, as a model: two workers, one shard, and a network that does what it likes.
//!
//! There are no clocks: a worker may take the lease at any time, as if it believed the other dead,
//! and a worker that has lost its lease may go on as if it had not, as one does that was
//! paused. Calls on the wire arrive at any time, once, more often or never. Positions are
//! counted; what holds for them holds for everything that is written under a lease.

use super::super::fencing::{self, Verdict};
use super::{Lease, Name, explore};
use stateright::{Model, Property};
use std::collections::BTreeSet;

/// What is explored: how often the lease passes on, how far the shard is read, how many
/// calls are on the wire, and how many positions a worker writes.
const PASSES: u8 = 3;
const POSITIONS: u8 = 2;
const CALLS: usize = 2;
const STEPS: u8 = 2;

const NOT_BACK: &str = "positions do not move back";
const HOLDER_WRITES: &str = "only the holder writes";

#[derive(Clone, Copy, Default)]
struct Protocol {
    wrong: Option<Wrong>,
}

/// What is done wrongly.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    /// A lease is taken whatever it is by then.
    TakesBlindly,
    /// A take or hand-over leaves the counter as it is.
    CounterStands,
    /// A position that comes late is written all the same.
    StepsAreIgnored,
    /// Steps are counted from one again where a worker stops and reads on under the same lease.
    StepsBeginAgain,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    lease: Lease,
    position: u8,
    /// The step of the last position under this lease.
    step: Option<u8>,
    /// How often the lease has passed on. Nobody sees it: it is what the counter stands for.
    epoch: u8,
    workers: [Option<Reading>; 2],
    /// By machine: which of its lives it is in, the last step of its writes, and the last epoch
    /// in which it read.
    lives: [u8; 2],
    steps: [u8; 2],
    read: [u8; 2],
    wire: BTreeSet<Call>,
    moved_back: bool,
    written_by_another: bool,
}

/// A worker that reads, under the lease as it saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reading {
    lease: Lease,
    epoch: u8,
    position: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Call {
    Take { by: Name, seen: Lease },
    HandOver { lease: Lease, to: Name },
    Release { lease: Lease },
    Checkpoint { lease: Lease, epoch: u8, step: u8, position: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The lease is seen as it is, and to be taken.
    Take(u8),
    /// The lease is seen to be its own.
    Load(u8),
    /// Something was delivered.
    Deliver(u8),
    /// It has written what it delivered, stops, and reads on under the same lease.
    Again(u8),
    /// It stops, and gives the lease to the other or to nobody; or its life is lost.
    HandOver(u8),
    Release(u8),
    Stop(u8),
    Arrives(Call),
    Lost(Call),
}

impl State {
    fn name(&self, machine: u8) -> Name {
        Name { machine, life: self.lives[usize::from(machine)] }
    }
}

impl Protocol {
    fn is_wrong(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    /// The lease passes on.
    fn pass(&self, state: &mut State, to: Name, next: &super::super::Lease) {
        let stands = self.is_wrong(Wrong::CounterStands);
        let counter = if stands { state.lease.counter } else { next.counter as u8 };
        state.lease = Lease { owner: Some(to), counter };
        state.epoch += 1;
        state.step = None;
    }

    fn arrive(&self, state: &mut State, call: Call) {
        let current = super::super::Lease::from(state.lease);
        match call {
            Call::Take { by, seen } => {
                let seen = seen.into();
                let taken = fencing::taken(&seen, &by.id());
                let verdict = fencing::take(Some(&current), Some(&seen), &taken);
                if verdict == Verdict::Write || self.is_wrong(Wrong::TakesBlindly) {
                    self.pass(state, by, &taken);
                }
            }
            Call::HandOver { lease, to } => {
                let (lease, to_id) = (lease.into(), to.id());
                if fencing::hand_over(Some(&current), &lease, &to_id) == Verdict::Write {
                    self.pass(state, to, &fencing::handed_over(&lease, &to_id));
                }
            }
            Call::Release { lease } => {
                if fencing::release(Some(&current), &lease.into()) == Verdict::Write {
                    state.lease.owner = None;
                }
            }
            Call::Checkpoint { lease, epoch, step, position } => {
                let ignored = self.is_wrong(Wrong::StepsAreIgnored);
                let written = state.step.filter(|_| !ignored).map(u64::from);
                let lease = lease.into();
                let verdict = fencing::checkpoint(Some(&current), written, &lease, step.into());
                if verdict == Verdict::Write {
                    state.moved_back |= position < state.position;
                    state.written_by_another |= epoch != state.epoch;
                    (state.position, state.step) = (position, Some(step));
                }
            }
        }
    }

    fn send(state: &mut State, call: Call) {
        state.wire.insert(call);
    }

    fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Take(w) => {
                let (by, seen) = (state.name(w), state.lease);
                Self::send(state, Call::Take { by, seen });
            }
            Action::Load(w) | Action::Again(w) => {
                let State { lease, epoch, position, .. } = *state;
                state.read[usize::from(w)] = epoch;
                state.workers[usize::from(w)] = Some(Reading { lease, epoch, position });
                if self.is_wrong(Wrong::StepsBeginAgain) {
                    state.steps[usize::from(w)] = 0;
                }
            }
            Action::Deliver(w) => {
                let Some(reading) = &mut state.workers[usize::from(w)] else { return };
                reading.position += 1;
                let Reading { lease, epoch, position } = *reading;
                state.steps[usize::from(w)] += 1;
                let step = state.steps[usize::from(w)];
                Self::send(state, Call::Checkpoint { lease, epoch, step, position });
            }
            Action::HandOver(w) => {
                let Some(reading) = state.workers[usize::from(w)].take() else { return };
                let to = state.name(1 - w);
                Self::send(state, Call::HandOver { lease: reading.lease, to });
            }
            Action::Release(w) => {
                let Some(reading) = state.workers[usize::from(w)].take() else { return };
                Self::send(state, Call::Release { lease: reading.lease });
            }
            Action::Stop(w) => {
                state.workers[usize::from(w)] = None;
                state.lives[usize::from(w)] += 1;
            }
            Action::Arrives(call) => self.arrive(state, call),
            Action::Lost(call) => {
                state.wire.remove(&call);
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            lease: Lease { owner: None, counter: 1 },
            position: 0,
            step: None,
            epoch: 0,
            workers: [None, None],
            lives: [0, 0],
            steps: [0, 0],
            read: [0, 0],
            wire: BTreeSet::new(),
            moved_back: false,
            written_by_another: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for w in 0..2_u8 {
            match state.workers[usize::from(w)] {
                // Nobody reads again under a lease that it is giving away.
                None if state.lease.owner == Some(state.name(w)) => {
                    if state.epoch > state.read[usize::from(w)] {
                        actions.push(Action::Load(w));
                    }
                }
                None => actions.push(Action::Take(w)),
                Some(reading) => {
                    actions.extend(
                        [Action::Deliver, Action::HandOver, Action::Release, Action::Stop]
                            .map(|action| action(w)),
                    );
                    let is_written = state.step == Some(state.steps[usize::from(w)]);
                    if reading.epoch == state.epoch && is_written {
                        actions.push(Action::Again(w));
                    }
                }
            }
        }
        // Twice is once and not lost.
        actions.extend(
            state.wire.iter().flat_map(|call| [Action::Arrives(*call), Action::Lost(*call)]),
        );
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action);
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let read = state.workers.iter().flatten().map(|reading| reading.position);
        state.wire.len() <= CALLS
            && state.epoch <= PASSES
            && read.max().unwrap_or_default() <= POSITIONS
            && state.steps.iter().max() <= Some(&STEPS)
            && state.lives.iter().max() <= Some(&1)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_BACK, |_, state: &State| !state.moved_back),
            Property::always(HOLDER_WRITES, |_, state: &State| !state.written_by_another),
            Property::sometimes("both read, and only one writes", |_, state: &State| {
                state.workers.iter().all(Option::is_some)
            }),
            Property::sometimes("all is written", |_, state: &State| state.position == POSITIONS),
        ]
    }
}

#[test]
fn only_the_holder_writes_and_positions_do_not_move_back() {
    let (failed, states) = explore(Protocol::default());
    assert_eq!(failed, None);
    assert!(states > 50_000, "{states} states: something does not happen any more");
}

#[test]
fn each_part_of_a_condition_is_needed() {
    for (wrong, fails) in [
        (Wrong::TakesBlindly, HOLDER_WRITES),
        (Wrong::CounterStands, HOLDER_WRITES),
        (Wrong::StepsAreIgnored, NOT_BACK),
        (Wrong::StepsBeginAgain, NOT_BACK),
    ] {
        assert_eq!(explore(Protocol { wrong: Some(wrong) }).0, Some(fails));
    }
}
