//! One record that was put: what the handler is owed of it, and what it got.

use std::collections::BTreeSet;
use std::time::Duration;
use streamgate::source::ShardId;

/// What the handler is owed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Due,
    /// It may come or not: it was put before reading began at the tip.
    Optional,
    /// An operator has left it out.
    LeftOut,
}

pub struct Entry {
    pub shard: ShardId,
    /// Which item's change it is, and which of its changes; `None` for own records.
    pub item: Option<(usize, usize)>,
    /// In seconds, as records say it.
    pub created: u64,
    /// When it was put, by the world's clock.
    pub put: Duration,
    pub claim: Claim,
    pub is_trimmed: bool,
    /// It was trimmed while the store knew of no record before it: nobody can know.
    pub is_excused: bool,
    /// How often, since an operator has last sent its shard elsewhere.
    pub taken: u32,
    /// In which rounds of its shard's lease, by the lease's owner.
    pub rounds: BTreeSet<u64>,
}

impl Entry {
    pub fn is_done(&self) -> bool {
        self.taken > 0 || self.is_trimmed || self.claim != Claim::Due
    }

    pub fn is_open(&self) -> bool {
        self.item.is_some() && !self.is_done()
    }
}
