//! What each action does, and what follows when nothing goes wrong any more.
//!
//! The store's side asks the program's own verdicts; the workers' side is what
//! `consumer/life.rs`, `lookout.rs`, `leader.rs` and `adoption.rs` do, in as few steps as can be.

use super::super::super::fencing::{self, Verdict};
use super::super::{Lease, Name};
use super::{Action, Call, Errand, Late, Phase, Protocol, Seen, State, Wrong};

/// Failover times until a crash has to be mended.
const MENDED_WITHIN: u8 = 3;

impl Protocol {
    fn arrive_beat(&self, state: &mut State, name: Name, beat: u8) -> bool {
        let current = state.sign(name);
        let revives = self.wrong == Some(Wrong::BeatsRevive) && current.is_none();
        match fencing::beat(current.map(u64::from), beat.into()) {
            Verdict::Lost(_) if !revives => false,
            Verdict::Done => true,
            Verdict::Write | Verdict::Lost(_) => {
                state.set_sign(name, Some(beat));
                true
            }
        }
    }

    fn arrive_retire(&self, state: &mut State, whose: Name, beat: u8) {
        let seen = (self.wrong != Some(Wrong::RetiresBlindly)).then_some(beat.into());
        let current = state.sign(whose).map(u64::from);
        if fencing::retire(current, seen, &whose.id()) == Verdict::Write {
            state.set_sign(whose, None);
        }
    }

    fn arrive_take(&self, state: &mut State, by: Name, seen: Lease) {
        let (store, expected) = (state.lease.into(), seen.into());
        let taken = fencing::taken(&expected, &by.id());
        if fencing::take(Some(&store), Some(&expected), &taken) == Verdict::Write {
            state.lease = Lease { owner: Some(by), counter: taken.counter as u8 };
        }
    }

    fn tick(&self, state: &mut State, machine: usize) {
        let is_current = state.is_current(machine);
        let worker = &mut state.workers[machine];
        let is_overdue = worker.reads.is_some() && !is_current;
        worker.overdue = if is_overdue { (worker.overdue + 1).min(self.stop + 1) } else { 0 };
        worker.shown += u8::from(worker.reads.is_some());
        if let Some(call) = &mut worker.call {
            call.age = (call.age + 1).min(self.stop);
        }
        if let Some(seen) = &mut worker.seen {
            seen.age = (seen.age + 1).min(self.failover);
        }
        if worker.shown >= self.stop {
            state.stop(machine, Phase::Stopped);
        }
    }

    /// A look at the owner of the lease: it may be dead, or gone.
    fn look(&self, state: &mut State, machine: usize) {
        let lease = state.lease;
        let owner = lease.owner.and_then(|owner| Some((owner, state.sign(owner)?)));
        let is_well = |whose| (0..2).any(|m| state.name(m) == whose && state.workers[m].is_well());
        let shows = owner.is_some_and(|(whose, _)| is_well(whose));
        let worker = &mut state.workers[machine];
        let Some((whose, beat)) = owner else {
            worker.seen = None;
            worker.errand = Errand::Items(lease);
            return;
        };
        if shows {
            worker.seen = None;
        } else {
            worker.errand = Errand::Looked(whose, beat);
        }
    }

    /// The answer to a look. The beat may have moved by now.
    fn judge(&self, state: &mut State, machine: usize) {
        let worker = &mut state.workers[machine];
        let Errand::Looked(whose, beat) = worker.errand else { return };
        let seen = worker.seen.filter(|seen| (seen.whose, seen.beat) == (whose, beat));
        let seen = seen.unwrap_or(Seen { whose, beat, age: 0 });
        worker.seen = Some(seen);
        let is_dead = seen.age >= self.failover;
        worker.errand = if is_dead { Errand::Retire(whose, beat) } else { Errand::None };
    }

    pub(super) fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick(m) => {
                let runs = |m: usize| state.workers[m].lives();
                if runs(0) && runs(1) {
                    state.ahead = if m == 0 { state.ahead + 1 } else { state.ahead - 1 };
                }
                self.tick(state, m);
            }
            Action::Beat(m) => {
                let worker = &mut state.workers[m];
                worker.beat += 1;
                worker.call = Some(Call { beat: worker.beat, age: 0, answer: None });
            }
            Action::BeatArrives(m) => {
                let call = state.workers[m].call.expect("there is one");
                let answer = self.arrive_beat(state, state.name(m), call.beat);
                state.workers[m].call = Some(Call { answer: Some(answer), ..call });
            }
            Action::BeatAnswered(m) => {
                let call = state.workers[m].call.take().expect("there is one");
                let worker = &mut state.workers[m];
                worker.shown = call.age;
                if call.answer != Some(true) || worker.shown >= self.stop {
                    state.stop(m, Phase::Stopped);
                }
            }
            Action::BeatLost(m) => state.workers[m].call = None,
            Action::BeatLate(m) => {
                let call = state.workers[m].call.take().expect("there is one");
                state.late = Some(Late::Beat(state.name(m), call.beat));
            }
            Action::Look(m) => self.look(state, m),
            Action::LookAnswered(m) => self.judge(state, m),
            Action::SignsRead(m) => {
                let Errand::Items(seen) = state.workers[m].errand else { return };
                let alone = seen.owner.is_none_or(|owner| state.sign(owner).is_none());
                state.workers[m].errand = if alone { Errand::Take(seen) } else { Errand::None };
            }
            Action::ErrandArrives(m) | Action::ErrandTwice(m) => {
                let (by, errand) = (state.name(m), state.workers[m].errand);
                let late = match errand {
                    Errand::Retire(whose, beat) => {
                        self.arrive_retire(state, whose, beat);
                        Late::Retire(whose, beat)
                    }
                    Errand::Take(seen) => {
                        self.arrive_take(state, by, seen);
                        Late::Take(by, seen)
                    }
                    _ => return,
                };
                state.workers[m].errand = Errand::None;
                if matches!(action, Action::ErrandTwice(_)) {
                    state.late = Some(late);
                }
            }
            Action::ErrandLost(m) => state.workers[m].errand = Errand::None,
            Action::ErrandLate(m) => {
                let by = state.name(m);
                state.late = match state.workers[m].errand {
                    Errand::Retire(whose, beat) => Some(Late::Retire(whose, beat)),
                    Errand::Take(seen) => Some(Late::Take(by, seen)),
                    _ => None,
                };
                state.workers[m].errand = Errand::None;
            }
            Action::Load(m) => {
                if state.shows(m) {
                    state.workers[m].reads = Some(state.lease.counter);
                }
            }
            Action::LateArrives => match state.late.take().expect("there is one") {
                Late::Beat(name, beat) => {
                    self.arrive_beat(state, name, beat);
                }
                Late::Retire(whose, beat) => self.arrive_retire(state, whose, beat),
                Late::Take(by, seen) => self.arrive_take(state, by, seen),
            },
            Action::Pause(m) => {
                state.workers[m].phase = Phase::Paused;
                state.paused = true;
            }
            Action::Resume(m) => {
                state.workers[m].phase = Phase::Lives;
                if state.workers[m].is_well() {
                    state.shows(m);
                }
            }
            Action::Crash(m) => {
                state.stop(m, Phase::Crashed);
                state.crashed = true;
            }
            Action::Anew(m) => state.begin(m),
        }
    }

    /// Whether the shard is read again soon when nothing goes wrong any more.
    pub(super) fn mends(&self, state: &State) -> bool {
        let mut state = state.clone();
        if state.late.is_some() {
            self.step(&mut state, Action::LateArrives);
        }
        for _ in 0..MENDED_WITHIN * self.failover {
            for m in 0..2 {
                if state.workers[m].phase == Phase::Paused {
                    self.step(&mut state, Action::Resume(m));
                }
                if state.workers[m].phase == Phase::Stopped {
                    self.step(&mut state, Action::Anew(m));
                }
                // Each takes what a step before it has brought.
                for _ in 0..4 {
                    let mut possible = Vec::new();
                    self.courses(&state, m, &mut possible);
                    possible.retain(|action| !matches!(action, Action::Tick(_)));
                    if let Some(action) = possible.first() {
                        self.step(&mut state, *action);
                        state.renumber();
                    }
                }
                if state.workers[m].lives() {
                    self.tick(&mut state, m);
                }
            }
        }
        (0..2).any(|m| state.is_current(m))
    }

    /// What a worker and its calls can do where nothing goes wrong.
    pub(super) fn courses(&self, state: &State, m: usize, actions: &mut Vec<Action>) {
        let worker = &state.workers[m];
        if worker.call.is_some_and(|call| call.answer.is_none()) {
            actions.push(Action::BeatArrives(m));
        }
        if matches!(worker.errand, Errand::Retire(..) | Errand::Take(_)) {
            actions.push(Action::ErrandArrives(m));
        }
        if !worker.lives() {
            return;
        }
        if worker.reads.is_some() && worker.call.is_none() && worker.shown >= self.beat {
            actions.push(Action::Beat(m));
        }
        if worker.call.is_some_and(|call| call.answer.is_some()) {
            actions.push(Action::BeatAnswered(m));
        }
        if worker.reads.is_none() {
            if state.lease.owner == Some(state.name(m)) {
                actions.push(Action::Load(m));
            } else if worker.errand == Errand::None {
                actions.push(Action::Look(m));
            }
        }
        match worker.errand {
            Errand::Looked(..) => actions.push(Action::LookAnswered(m)),
            Errand::Items(_) => actions.push(Action::SignsRead(m)),
            _ => {}
        }
    }
}
