//! The protocol of leases as models that are explored to their end, with `stateright`.
//!
//! Owns nothing that runs: only what tests explore. The verdicts on writes are the program's own,
//! of [`super::fencing`]; how workers behave is written down here once more, smaller. There
//! are two, because together they would be too many states:
//!
//! - `lives`: who may read. Signs of life, clocks, silence; two workers never read at the same
//!   time while their clocks keep the bound, and a shard is read again after a crash.
//! - `writes`: what is written. No clocks, anybody may take anybody for dead at any time;
//!   no position is accepted from a lease that has passed on, and none moves back.
//!
//! Each is explored as it is, where every property has to hold in every state, and with one
//! thing done wrongly, where one has to fail: a model that cannot fail shows nothing.

mod lives;
mod writes;

use super::WorkerId;
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::LazyLock;

/// A worker's name: its machine, and which of that machine's lives it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    machine: u8,
    life: u8,
}

impl Name {
    fn id(self) -> WorkerId {
        static IDS: LazyLock<Vec<WorkerId>> =
            LazyLock::new(|| (0..20).map(|n| WorkerId::from(format!("w{n}").as_str())).collect());
        IDS[usize::from(self.machine) * 10 + usize::from(self.life)].clone()
    }
}

/// A lease as it is in the states of models; the program's own cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Lease {
    owner: Option<Name>,
    counter: u8,
}

impl From<Lease> for super::Lease {
    fn from(lease: Lease) -> Self {
        Self { owner: lease.owner.map(Name::id), counter: lease.counter.into() }
    }
}

/// Explores all of `model`. Gives the property that fails, if one does, and how many states
/// there are.
fn explore<M>(model: M) -> (Option<&'static str>, usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let properties = model.properties();
    let checked = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let failed = properties.iter().find(|property| {
        let is_found = checked.discovery(property.name).is_some();
        is_found == property.expectation.discovery_is_failure()
    });
    if let Some(path) = failed.and_then(|failed| checked.discovery(failed.name)) {
        let last = path.last_state().clone();
        println!(
            "{:?}: {:?} ends in {last:?}",
            failed.map(|failed| failed.name),
            path.into_actions()
        );
    }
    (failed.map(|failed| failed.name), checked.unique_state_count())
}
