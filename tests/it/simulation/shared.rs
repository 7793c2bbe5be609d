//! The reads of coordination that a replica of the api shares among those who ask it.
//!
//! Owns how old they may be, as the real ones: a tenth of a second, and not from before a
//! write that went through the same replica. Another replica's writes may be missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use streamgate::progress::Coordination;
use tokio::time::Instant;

const MAX_AGE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct SharedReads(Mutex<BTreeMap<usize, Replica>>);

#[derive(Default)]
struct Replica {
    /// Writes that have gone through it.
    writes: u64,
    /// When the last read began, and what it gave.
    read: Option<(Instant, Coordination)>,
}

impl SharedReads {
    /// What may still be given, or else the number of writes so far, for a read that begins.
    pub fn get(&self, api: usize, now: Instant) -> Result<Coordination, u64> {
        let mut replicas = self.lock();
        let replica = replicas.entry(api).or_default();
        match &replica.read {
            Some((began, read)) if *began + MAX_AGE >= now => Ok(read.clone()),
            _ => Err(replica.writes),
        }
    }

    /// A read has ended that began then, after so many writes.
    pub fn put(&self, api: usize, began: Instant, writes: u64, read: &Coordination) {
        let mut replicas = self.lock();
        let replica = replicas.entry(api).or_default();
        if replica.writes == writes {
            replica.read = Some((began, read.clone()));
        }
    }

    /// A write went through it.
    pub fn written(&self, api: usize) {
        let mut replicas = self.lock();
        let replica = replicas.entry(api).or_default();
        replica.writes += 1;
        replica.read = None;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Replica>> {
        self.0.lock().expect("no panic while held")
    }
}
