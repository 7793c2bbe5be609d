//! What is asked of a store in memory, counted by kind: how tests learn what a table would
//! be paid for. Owns the words only; [`super::MemoryProgress`] counts.

/// How many writes of each kind were asked for. Refused ones count too: the table
/// charges for them. Those that never reached the store do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryWrites {
    /// [`super::Progress::heartbeat`]
    pub heartbeats: u64,
    /// [`super::Progress::retire`]
    pub retirements: u64,
    /// [`super::Progress::announce`]
    pub announcements: u64,
    /// [`super::Progress::take`]
    pub takes: u64,
    /// [`super::Progress::hand_over`]
    pub hand_overs: u64,
    /// [`super::Progress::release`]
    pub releases: u64,
    /// [`super::Progress::seeded`]
    pub seeds: u64,
    /// [`super::Progress::order`]
    pub orders: u64,
    /// [`super::Progress::seek`] and [`super::Progress::unseed`]
    pub seeks: u64,
    /// [`super::Progress::checkpoint`], each position by itself.
    pub checkpoints: u64,
    /// [`super::Progress::forget`]
    pub forgets: u64,
    /// Those of [`super::DeadLetters`].
    pub letters: u64,
}

impl MemoryWrites {
    /// All writes but the heartbeats, which an idle system is allowed.
    pub fn besides_heartbeats(&self) -> u64 {
        let leases = self.takes + self.hand_overs + self.releases;
        leases
            + self.retirements
            + self.announcements
            + self.orders
            + self.seeks
            + self.seeds
            + self.checkpoints
            + self.forgets
            + self.letters
    }
}

/// How many reads of each kind were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReads {
    /// [`super::Progress::coordination`]
    pub coordinations: u64,
    /// [`super::Progress::load`]
    pub loads: u64,
}
