//! Progress in this process: for tests and for `streamgate local`.
//!
//! Owns no rule of its own; [`super::fencing`] judges every write as it does for the
//! table. Several workers share one store through [`MemoryProgress::view`], and each
//! view can be cut off by itself. Invariant: a call happens wholly or not at all.

mod store;

use super::counts::{MemoryReads, MemoryWrites};
use super::orders::{Orders, Request};
use super::{
    Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, NewShard, Position, Progress,
    ProgressError, Selection, ShardProgress, WorkerId,
};
use crate::source::ShardId;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, MutexGuard};
use store::Store;

/// How the store answers a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryFault {
    /// Every call does what it says.
    #[default]
    None,
    /// Nothing happens, and every call answers [`ProgressError::Unavailable`].
    Unreachable,
    /// Writes happen, but are answered with [`ProgressError::Unavailable`].
    AnswersLost,
}

/// One worker's view of a store in memory.
#[derive(Debug, Default)]
pub struct MemoryProgress {
    store: Arc<Mutex<Store>>,
    view: Mutex<View>,
}

#[derive(Clone, Copy, Debug, Default)]
struct View {
    fault: MemoryFault,
    writes: MemoryWrites,
    reads: MemoryReads,
}

impl MemoryProgress {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another view of the same store, with its own fault and its own counts.
    pub fn view(&self) -> Self {
        Self { store: Arc::clone(&self.store), view: Mutex::default() }
    }

    /// From now on this view's calls answer so.
    pub fn set_fault(&self, fault: MemoryFault) {
        lock(&self.view).fault = fault;
    }

    /// The writes asked for through this view since it was made.
    pub fn writes(&self) -> MemoryWrites {
        lock(&self.view).writes
    }

    /// The reads answered through this view since it was made.
    pub fn reads(&self) -> MemoryReads {
        lock(&self.view).reads
    }

    fn count(&self, count: impl FnOnce(&mut MemoryReads)) {
        count(&mut lock(&self.view).reads);
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T, ProgressError> {
        match lock(&self.view).fault {
            MemoryFault::Unreachable => Err(unreachable()),
            MemoryFault::None | MemoryFault::AnswersLost => Ok(read(&lock(&self.store))),
        }
    }

    pub(super) fn write<T>(
        &self,
        count: impl FnOnce(&mut MemoryWrites),
        write: impl FnOnce(&mut Store) -> Result<T, ProgressError>,
    ) -> Result<T, ProgressError> {
        let mut view = lock(&self.view);
        if view.fault == MemoryFault::Unreachable {
            return Err(unreachable());
        }
        count(&mut view.writes);
        let answer = write(&mut lock(&self.store));
        match view.fault {
            MemoryFault::AnswersLost => {
                Err(ProgressError::Unavailable("the answer was lost".to_owned()))
            }
            _ => answer,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

fn unreachable() -> ProgressError {
    ProgressError::Unavailable("the store is out of reach".to_owned())
}

#[async_trait]
impl Progress for MemoryProgress {
    async fn describe(&self) -> Result<(), ProgressError> {
        self.read(|_| ())
    }

    async fn coordination(&self) -> Result<Coordination, ProgressError> {
        let seen = self.read(|store| Coordination {
            stream: store.stream.clone(),
            seeded: store.seeded.clone(),
            workers: store.workers.values().cloned().collect(),
            orders: store.orders.clone(),
        })?;
        self.count(|reads| reads.coordinations += 1);
        Ok(seen)
    }

    async fn load(&self, which: Selection<'_>) -> Result<Vec<ShardProgress>, ProgressError> {
        let is_asked = |item: &&ShardProgress| match which {
            Selection::All => true,
            Selection::Of(worker) => item.lease.owner.as_ref() == Some(worker),
            Selection::These(shards) => shards.contains(&item.shard),
        };
        let items = self.read(|s| s.shards.values().filter(is_asked).cloned().collect())?;
        self.count(|reads| reads.loads += 1);
        Ok(items)
    }

    async fn heartbeat(&self, sign: &Heartbeat) -> Result<(), ProgressError> {
        self.write(|writes| writes.heartbeats += 1, |store| store.heartbeat(sign))
    }

    async fn retire(&self, worker: &WorkerId, seen: Option<u64>) -> Result<(), ProgressError> {
        self.write(|writes| writes.retirements += 1, |store| store.retire(worker, seen))
    }

    async fn announce(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        self.write(
            |writes| writes.announcements += 1,
            |store| {
                if let Some(member) = store.workers.get_mut(worker) {
                    member.announced += 1;
                }
                Ok(())
            },
        )
    }

    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        self.write(|writes| writes.takes += 1, |store| store.take(key, seen, worker, new))
    }

    async fn hand_over(
        &self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError> {
        self.write(|writes| writes.hand_overs += 1, |store| store.hand_over(shard, lease, to))
    }

    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError> {
        self.write(|writes| writes.releases += 1, |store| store.release(key, lease))
    }

    async fn seeded(
        &self,
        lease: &Lease,
        step: u64,
        begin: &Position,
    ) -> Result<(), ProgressError> {
        self.write(|writes| writes.seeds += 1, |store| store.seed(lease, step, Some(begin)))
    }

    async fn unseed(&self, lease: &Lease, step: u64) -> Result<(), ProgressError> {
        self.write(|writes| writes.seeks += 1, |store| store.seed(lease, step, None))
    }

    async fn order(&self, request: &Request) -> Result<Orders, ProgressError> {
        self.write(|writes| writes.orders += 1, |store| store.order(request))
    }

    async fn seek(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError> {
        let seek = |store: &mut Store| store.seek(shard, lease, step, position, order);
        self.write(|writes| writes.seeks += 1, seek)
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Result<(), ProgressError>> {
        checkpoints
            .iter()
            .map(|checkpoint| {
                self.write(|writes| writes.checkpoints += 1, |store| store.checkpoint(checkpoint))
            })
            .collect()
    }

    async fn forget(&self, shard: &ShardId, lease: &Lease) -> Result<(), ProgressError> {
        self.write(|writes| writes.forgets += 1, |store| store.forget(shard, lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_answer_is_mended_by_asking_again() {
        let progress = MemoryProgress::new();
        let worker = WorkerId::from("w1");
        progress.set_fault(MemoryFault::AnswersLost);
        let lost = progress.take(&LeaseKey::Stream, None, &worker, None).await;
        assert!(matches!(lost, Err(ProgressError::Unavailable(_))));
        progress.set_fault(MemoryFault::None);
        let lease = progress.take(&LeaseKey::Stream, None, &worker, None).await.unwrap();
        assert_eq!(lease, Lease { owner: Some(worker), counter: 1 });
        assert_eq!(progress.writes(), MemoryWrites { takes: 2, ..MemoryWrites::default() });
    }

    #[tokio::test]
    async fn a_view_that_is_cut_off_changes_nothing_and_the_others_go_on() {
        let (one, worker) = (MemoryProgress::new(), WorkerId::from("w1"));
        let other = one.view();
        one.set_fault(MemoryFault::Unreachable);
        assert!(one.heartbeat(&Heartbeat::first(worker.clone())).await.is_err());
        assert!(one.coordination().await.is_err());
        assert_eq!(one.writes(), MemoryWrites::default());
        assert_eq!(other.coordination().await.unwrap(), Coordination::default());
        other.heartbeat(&Heartbeat::first(worker)).await.unwrap();
        assert_eq!((other.writes().heartbeats, other.writes().besides_heartbeats()), (1, 0));
    }
}
