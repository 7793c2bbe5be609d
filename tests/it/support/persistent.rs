//! A store that is asked again while it does not answer, as the consumer's loops do.

use async_trait::async_trait;
use bytes::Bytes;
use streamgate::progress::letters::{DeadLetter, DeadLetters, LetterId, Listed};
use streamgate::progress::orders::{Orders, Request};
use streamgate::progress::{
    Checkpoint, ClientProgress, Coordination, Heartbeat, Lease, LeaseKey, NewShard, Position,
    Progress, ProgressError, Selection, ShardProgress, WorkerId,
};
use streamgate::source::ShardId;

/// The api's client, asked again.
pub struct Persistent(pub ClientProgress);

const TRIES: usize = 100;

macro_rules! again {
    ($call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(ProgressError::Unavailable(_)) if tries < TRIES => tries += 1,
                answer => break answer,
            }
        }
    }};
}

#[async_trait]
impl Progress for Persistent {
    async fn describe(&self) -> Result<(), ProgressError> {
        again!(self.0.describe())
    }

    async fn coordination(&self) -> Result<Coordination, ProgressError> {
        again!(self.0.coordination())
    }

    async fn load(&self, which: Selection<'_>) -> Result<Vec<ShardProgress>, ProgressError> {
        again!(self.0.load(which))
    }

    async fn heartbeat(&self, sign: &Heartbeat) -> Result<(), ProgressError> {
        again!(self.0.heartbeat(sign))
    }

    async fn announce(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        again!(self.0.announce(worker))
    }

    async fn drain(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        again!(self.0.drain(worker))
    }

    async fn retire(&self, worker: &WorkerId, seen: Option<u64>) -> Result<(), ProgressError> {
        again!(self.0.retire(worker, seen))
    }

    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        again!(self.0.take(key, seen, worker, new))
    }

    async fn hand_over(
        &self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError> {
        again!(self.0.hand_over(shard, lease, to))
    }

    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError> {
        again!(self.0.release(key, lease))
    }

    async fn seeded(&self, lease: &Lease, begin: &Position) -> Result<(), ProgressError> {
        again!(self.0.seeded(lease, begin))
    }

    async fn unseed(&self, lease: &Lease) -> Result<(), ProgressError> {
        again!(self.0.unseed(lease))
    }

    async fn order(&self, request: &Request) -> Result<Orders, ProgressError> {
        again!(self.0.order(request))
    }

    async fn seek(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError> {
        again!(self.0.seek(shard, lease, step, position, order))
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Result<(), ProgressError>> {
        let mut tries = 0;
        loop {
            let results = self.0.checkpoint(checkpoints).await;
            let is_lost =
                results.iter().any(|result| matches!(result, Err(ProgressError::Unavailable(_))));
            if !is_lost || tries == TRIES {
                return results;
            }
            tries += 1;
        }
    }

    async fn forget(&self, shard: &ShardId, lease: &Lease) -> Result<(), ProgressError> {
        again!(self.0.forget(shard, lease))
    }
}

#[async_trait]
impl DeadLetters for Persistent {
    async fn write_letter(
        &self,
        letter: &DeadLetter,
        payload: Option<&Bytes>,
        whole: bool,
    ) -> Result<(), ProgressError> {
        again!(self.0.write_letter(letter, payload, whole))
    }
    async fn write_part(
        &self,
        id: &LetterId,
        part: u64,
        bytes: &Bytes,
    ) -> Result<(), ProgressError> {
        again!(self.0.write_part(id, part, bytes))
    }
    async fn list_letters(&self, after: Option<&LetterId>) -> Result<Vec<Listed>, ProgressError> {
        again!(self.0.list_letters(after))
    }
    async fn read_part(&self, id: &LetterId, part: u64) -> Result<Option<Bytes>, ProgressError> {
        again!(self.0.read_part(id, part))
    }
    async fn remove_part(&self, id: &LetterId, part: u64) -> Result<(), ProgressError> {
        again!(self.0.remove_part(id, part))
    }
    async fn break_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        again!(self.0.break_letter(id))
    }
    async fn remove_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        again!(self.0.remove_letter(id))
    }
}
