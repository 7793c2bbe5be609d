//! Who may read, as a model: two workers, one shard, clocks that drift and stand still.
//!
//! Only of a worker that reads it matters when it beats: the others do so without effort.
//! A worker reads from when it sees that the shard's lease is its own, and until it stops: told by
//! a beat that was refused, or by its own clock. Time is in ticks of a worker's clock. The
//! clocks of two workers that run drift: within any stretch of time one counts up to
//! `drift` ticks more than the other. A paused worker does nothing, and its clock stands still,
//! as a suspended machine's does. Calls arrive late, twice or never, and so do answers.

mod explored;
mod steps;

use super::super::fencing::{self, Verdict};
use super::{Lease, Name};

/// Names that a machine has one after the other, at most.
const MOST_LIVES: u8 = 4;
/// The lowest number of a beat that is not a life's first.
const FIRST_OF_MANY: u8 = 2;

#[derive(Clone, Copy)]
struct Protocol {
    /// A beat that stood still so long is a dead worker's.
    failover: u8,
    /// A worker stops by itself so long after it sent the last beat that was acknowledged.
    stop: u8,
    beat: u8,
    drift: u8,
    /// Things that go wrong.
    faults: u8,
    /// Names that a machine has one after the other, and takes of the lease.
    lives: u8,
    takes: u8,
    wrong: Option<Wrong>,
}

/// What is done wrongly.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    /// A sign of life is removed whatever its beat is by then.
    RetiresBlindly,
    /// Every beat makes a sign of life where there is none.
    BeatsRevive,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    workers: [Worker; 2],
    /// The signs of life in the store: the last beat, by machine and life.
    signs: [[Option<u8>; MOST_LIVES as usize]; 2],
    /// The shard's lease in the store.
    lease: Lease,
    /// A call that its caller has given up, and that arrives all the same.
    late: Option<Late>,
    /// By how much the first clock is ahead.
    ahead: u8,
    faults: u8,
    /// Somebody was paused: then two may read, and only one can write.
    paused: bool,
    /// Somebody crashed in the last step.
    crashed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    life: u8,
    phase: Phase,
    /// Since it sent the last beat that was acknowledged.
    shown: u8,
    /// The last beat that it sent.
    beat: u8,
    call: Option<Call>,
    seen: Option<Seen>,
    errand: Errand,
    /// It reads, under the lease of this counter.
    reads: Option<u8>,
    /// How long it has read under a lease that had passed on.
    overdue: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Lives,
    Paused,
    /// Its life is lost, and the next has not begun.
    Stopped,
    Crashed,
}

/// A beat under way: since when, and whether it was accepted, where that is on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Call {
    beat: u8,
    age: u8,
    answer: Option<bool>,
}

/// The other's beat, and for how long it has stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    whose: Name,
    beat: u8,
    age: u8,
}

/// What is done for a shard whose owner may be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Errand {
    None,
    /// The owner's beat was read, and the answer is on its way.
    Looked(Name, u8),
    /// The removal of a sign of life is on its way.
    Retire(Name, u8),
    /// The lease was read, and then the signs of life are.
    Items(Lease),
    /// The take of a lease is on its way.
    Take(Lease),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Late {
    Beat(Name, u8),
    Retire(Name, u8),
    Take(Name, Lease),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick(usize),
    /// A beat is sent, arrives, is answered; the call is lost; it is late.
    Beat(usize),
    BeatArrives(usize),
    BeatAnswered(usize),
    BeatLost(usize),
    BeatLate(usize),
    /// The same of what is done for the shard.
    Look(usize),
    LookAnswered(usize),
    SignsRead(usize),
    ErrandArrives(usize),
    ErrandLost(usize),
    ErrandLate(usize),
    ErrandTwice(usize),
    /// The lease is seen to be its own.
    Load(usize),
    LateArrives,
    Pause(usize),
    Resume(usize),
    Crash(usize),
    Anew(usize),
}

impl State {
    fn name(&self, machine: usize) -> Name {
        Name { machine: machine as u8, life: self.workers[machine].life }
    }

    fn sign(&self, name: Name) -> Option<u8> {
        self.signs[usize::from(name.machine)][usize::from(name.life)]
    }

    fn set_sign(&mut self, name: Name, beat: Option<u8>) {
        self.signs[usize::from(name.machine)][usize::from(name.life)] = beat;
    }

    /// Whether what this worker reads under is what the store has.
    fn is_current(&self, machine: usize) -> bool {
        let Some(counter) = self.workers[machine].reads else { return false };
        let lease = Lease { owner: Some(self.name(machine)), counter };
        let (store, lease) = (self.lease.into(), lease.into());
        fencing::checkpoint(Some(&store), None, &lease, 1) == Verdict::Write
    }

    /// The end of a life: nothing of it goes on but what is on the wire.
    fn stop(&mut self, machine: usize, phase: Phase) {
        let name = self.name(machine);
        let worker = &mut self.workers[machine];
        let late = match (worker.call, worker.errand) {
            (_, Errand::Take(seen)) => Some(Late::Take(name, seen)),
            (_, Errand::Retire(whose, beat)) => Some(Late::Retire(whose, beat)),
            (Some(Call { beat, answer: None, .. }), _) => Some(Late::Beat(name, beat)),
            _ => None,
        };
        let (life, beat) = (worker.life, worker.beat);
        *worker = Worker { life, beat, phase, ..Worker::new() };
        if self.late.is_none() {
            self.late = late;
        }
    }

    /// The beat of a worker that does not read: its life is lost, or it goes on.
    fn shows(&mut self, machine: usize) -> bool {
        let name = self.name(machine);
        let goes_on = self.sign(name).is_some();
        if goes_on {
            self.workers[machine].beat += 1;
            self.set_sign(name, Some(self.workers[machine].beat));
        } else {
            self.stop(machine, Phase::Stopped);
        }
        goes_on
    }

    /// The next life of a machine, with its first beat. The sign of the last stays, as if it
    /// could not be removed.
    fn begin(&mut self, machine: usize) {
        let life = self.workers[machine].life + 1;
        self.workers[machine] = Worker { life, ..Worker::new() };
        self.set_sign(self.name(machine), Some(1));
    }

    /// Only the order of beats counts: they are numbered anew, so that time has no end. A
    /// first beat is like no other.
    fn renumber(&mut self) {
        for machine in 0..2_u8 {
            for life in 0..MOST_LIVES {
                let name = Name { machine, life };
                let mut beats = [u8::MAX; 6];
                let mut count = 0;
                self.each_beat(name, |beat| {
                    if !beats[..count].contains(beat) {
                        beats[count] = *beat;
                        count += 1;
                    }
                });
                beats.sort_unstable();
                self.each_beat(name, |beat| {
                    let rank = beats.iter().take_while(|other| *other < beat).count();
                    *beat = FIRST_OF_MANY + rank as u8;
                });
            }
        }
    }

    fn each_beat(&mut self, of: Name, mut visit: impl FnMut(&mut u8)) {
        if let Some(beat) = &mut self.signs[usize::from(of.machine)][usize::from(of.life)] {
            visit(beat);
        }
        for (machine, worker) in self.workers.iter_mut().enumerate() {
            if machine == usize::from(of.machine) && worker.life == of.life {
                visit(&mut worker.beat);
                if let Some(call) = &mut worker.call {
                    visit(&mut call.beat);
                }
            }
            if let Some(seen) = worker.seen.as_mut().filter(|seen| seen.whose == of) {
                visit(&mut seen.beat);
            }
            match &mut worker.errand {
                Errand::Looked(whose, beat) | Errand::Retire(whose, beat) if *whose == of => {
                    visit(beat);
                }
                _ => {}
            }
        }
        match &mut self.late {
            Some(Late::Beat(whose, beat) | Late::Retire(whose, beat)) if *whose == of => {
                visit(beat)
            }
            _ => {}
        }
    }
}

impl Worker {
    fn new() -> Self {
        Self {
            life: 0,
            phase: Phase::Lives,
            shown: 0,
            beat: 1,
            call: None,
            seen: None,
            errand: Errand::None,
            reads: None,
            overdue: 0,
        }
    }

    fn lives(&self) -> bool {
        self.phase == Phase::Lives
    }

    /// Beats without effort. Only of one that reads it matters when.
    fn is_well(&self) -> bool {
        self.lives() && self.reads.is_none()
    }
}
