//! What is explored: what can happen when, what has to hold, and what fails when it is done wrongly.

use super::super::super::{BEATS_PER_FAILOVER, OWN_STOP_TENTHS};
use super::super::{Lease, Name, explore};
use super::{Action, Errand, Phase, Protocol, State, Worker, Wrong};
use stateright::{Model, Property};

const ONE_READS: &str = "one worker reads, where none was paused";
const ZOMBIES_STOP: &str = "who was taken for dead stops by its own clock";

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut reading = Worker::new();
        reading.reads = Some(1);
        let sign = [Some(1), None, None, None];
        let owner = Some(Name { machine: 0, life: 0 });
        vec![State {
            workers: [reading, Worker::new()],
            signs: [sign, sign],
            lease: Lease { owner, counter: 1 },
            late: None,
            ahead: 0,
            faults: self.faults,
            paused: false,
            crashed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let goes_wrong = state.faults > 0;
        if state.late.is_some() {
            actions.push(Action::LateArrives);
        }
        let both_run = state.workers.iter().all(Worker::lives);
        for (m, worker) in state.workers.iter().enumerate() {
            self.courses(state, m, actions);
            let in_bound = if m == 0 { state.ahead < self.drift } else { state.ahead > 0 };
            if worker.lives() && (!both_run || self.drift == 0 || in_bound) {
                actions.push(Action::Tick(m));
            }
            match worker.phase {
                Phase::Paused => actions.push(Action::Resume(m)),
                Phase::Stopped if worker.life + 1 < self.lives => actions.push(Action::Anew(m)),
                Phase::Lives if goes_wrong => {
                    actions.extend([Action::Pause(m), Action::Crash(m)]);
                }
                _ => {}
            }
            if goes_wrong && worker.call.is_some() {
                actions.push(Action::BeatLost(m));
                if state.late.is_none() {
                    actions.push(Action::BeatLate(m));
                }
            }
            if goes_wrong && matches!(worker.errand, Errand::Retire(..) | Errand::Take(_)) {
                actions.push(Action::ErrandLost(m));
                if state.late.is_none() {
                    actions.extend([Action::ErrandLate(m), Action::ErrandTwice(m)]);
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.crashed = false;
        let is_fault = matches!(
            action,
            Action::Pause(_)
                | Action::Crash(_)
                | Action::BeatLost(_)
                | Action::BeatLate(_)
                | Action::ErrandLost(_)
                | Action::ErrandLate(_)
                | Action::ErrandTwice(_)
        );
        state.faults -= u8::from(is_fault);
        self.step(&mut state, action);
        state.renumber();
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.lease.counter <= self.takes
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_READS, |_, state: &State| {
                state.paused || state.workers.iter().any(|worker| worker.reads.is_none())
            }),
            Property::always("one worker can write", |_, state: &State| {
                !(state.is_current(0) && state.is_current(1))
            }),
            Property::always(ZOMBIES_STOP, |protocol: &Self, state: &State| {
                state.workers.iter().all(|worker| worker.overdue <= protocol.stop)
            }),
            Property::always("a crash is mended", |protocol: &Self, state: &State| {
                let someone = state.workers.iter().any(|worker| worker.phase != Phase::Crashed);
                !state.crashed || !someone || protocol.mends(state)
            }),
            Property::sometimes("the other reads on", |_, state: &State| state.is_current(1)),
            Property::sometimes(
                "a paused worker reads beside its successor",
                |_, state: &State| state.workers.iter().all(|worker| worker.reads.is_some()),
            ),
        ]
    }
}

/// As the program has it, in tenths of the failover time.
const TENTHS: Protocol = Protocol {
    failover: 10,
    stop: OWN_STOP_TENTHS as u8,
    beat: 10 / BEATS_PER_FAILOVER as u8,
    drift: 1,
    faults: 1,
    lives: 1,
    takes: 2,
    wrong: None,
};

/// The same with fewer ticks, and time for both to fail in turn.
const IN_TURN: Protocol = Protocol { failover: 4, stop: 3, beat: 1, lives: 2, takes: 3, ..TENTHS };

#[test]
fn nobody_reads_beside_another_and_a_crash_is_mended() {
    for protocol in [TENTHS, IN_TURN] {
        let (failed, states) = explore(protocol);
        assert_eq!(failed, None);
        assert!(states > 50_000, "{states} states: something does not happen any more");
    }
}

/// The own stop has to come before the failover time by more than clocks drift in it: at nine
/// tenths, clocks may differ by a tenth.
#[test]
fn a_stop_that_comes_late_or_clocks_that_drift_further_let_two_read() {
    let late = [10, 11].map(|stop| Protocol { stop, ..TENTHS });
    let drifts = Protocol { drift: 2, ..TENTHS };
    for protocol in [late[0], late[1], drifts] {
        assert_eq!(explore(protocol).0, Some(ONE_READS));
    }
}

#[test]
fn a_sign_that_is_removed_whatever_it_says_lets_two_read() {
    let blind = Protocol { wrong: Some(Wrong::RetiresBlindly), ..TENTHS };
    assert_eq!(explore(blind).0, Some(ONE_READS));
}

#[test]
fn a_beat_that_makes_its_sign_anew_lets_a_zombie_read_on() {
    let revives = Protocol { wrong: Some(Wrong::BeatsRevive), ..IN_TURN };
    assert_eq!(explore(revives).0, Some(ZOMBIES_STOP));
}
