//! Many workers, api replicas, the table and the stream in one deterministic test.
//!
//! Every worker is a whole consumer on a machine of its own: it crashes, freezes, loses
//! messages and answers, and its clock is wrong. Operators pause, skip and seek meanwhile. A
//! seed decides everything, so that one that fails can be run again:
//!
//! ```sh
//! STREAMGATE_SEED=7 cargo test --test it -- simulation:: --nocapture
//! STREAMGATE_SEEDS=1000 cargo test --test it -- simulation::
//! ```

mod calls;
mod changes;
mod ending;
mod entry;
mod events;
mod handler;
mod judge;
mod ledger;
mod letters;
mod line;
mod link;
mod machine;
mod moves;
mod names;
mod network;
mod operator;
mod plan;
mod rules;
mod run;
mod shared;
mod sight;
mod table;
mod trace;
mod turns;
mod world;

use plan::Plan;
use run::{Outcome, Run};

/// What every run of the tests goes through.
const FIXED: u64 = 33;
/// And these, which have found faults of the consumer.
const FOUND: [u64; 7] = [154, 157, 212, 286, 322, 348, 1123];
/// And as many that nobody has seen, unless STREAMGATE_SEEDS asks for more.
const NEW: u64 = 20;

/// Runs one seed, and says how to run it again where it fails.
fn run(seed: u64, is_shown: bool) -> Outcome {
    let plan = Plan::of(seed);
    let mut run = Run::new(plan, is_shown);
    run.all().unwrap_or_else(|why| {
        panic!(
            "the end of what happened:\n{}\n{:#?}\n\nseed {seed} failed at {:.3} s: {why}\n\nrun it again:\n    STREAMGATE_SEED={seed} cargo test --locked --test it -- simulation:: --nocapture\n",
            run.world.trace.tail(),
            run.plan,
            run.now.as_secs_f64(),
        )
    })
}

fn all(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        run(seed, false);
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value}")))
}

#[test]
fn seeds_that_are_always_the_same() {
    match from_environment("STREAMGATE_SEED") {
        Some(seed) => println!("{:?}", run(seed, true)),
        None => all((0..FIXED).chain(FOUND)),
    }
}

#[test]
fn seeds_that_nobody_has_seen() {
    if from_environment("STREAMGATE_SEED").is_some() {
        return;
    }
    let first = fastrand::Rng::new().u64(1_000_000..u64::MAX / 2);
    all(first..first + from_environment("STREAMGATE_SEEDS").unwrap_or(NEW));
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..3 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}
