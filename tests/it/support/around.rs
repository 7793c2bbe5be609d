//! A store around another one: every call goes to the one inside, by a rule of its own.
//!
//! Owns which calls there are and which item each writes; what is done about a call and its
//! answer is the rule's.

/// Implements a store for a type whose `$inner` is one. The rule is a macro that gets `self`,
/// the item that the call writes (`reads` where it is none) and the call's future; for
/// checkpoints, whose answers are many, `$all` gets the same.
macro_rules! store_around {
    ($type:ty, $inner:tt, $rule:ident, $all:ident) => {
        const _: () = {
            use bytes::Bytes;
            use streamgate::progress::letters::{DeadLetter, DeadLetters, LetterId, Listed};
            use streamgate::progress::orders::{Orders, Request};
            use streamgate::progress::{
                Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, NewShard, Position, Progress,
                ProgressError, Selection, ShardProgress, WorkerId,
            };
            use streamgate::source::ShardId;

            #[async_trait::async_trait]
            impl Progress for $type {
                async fn describe(&self) -> Result<(), ProgressError> {
                    $rule!(self, reads, self.$inner.describe())
                }
                async fn coordination(&self) -> Result<Coordination, ProgressError> {
                    $rule!(self, reads, self.$inner.coordination())
                }
                async fn load(
                    &self,
                    which: Selection<'_>,
                ) -> Result<Vec<ShardProgress>, ProgressError> {
                    $rule!(self, reads, self.$inner.load(which))
                }
                async fn heartbeat(&self, sign: &Heartbeat) -> Result<(), ProgressError> {
                    $rule!(self, "worker", self.$inner.heartbeat(sign))
                }
                async fn drain(&self, worker: &WorkerId) -> Result<(), ProgressError> {
                    $rule!(self, reads, self.$inner.drain(worker))
                }
                async fn retire(
                    &self,
                    worker: &WorkerId,
                    seen: Option<u64>,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "worker", self.$inner.retire(worker, seen))
                }
                async fn announce(&self, worker: &WorkerId) -> Result<(), ProgressError> {
                    $rule!(self, "worker", self.$inner.announce(worker))
                }
                async fn take(
                    &self,
                    key: &LeaseKey,
                    seen: Option<&Lease>,
                    worker: &WorkerId,
                    new: Option<&NewShard>,
                ) -> Result<Lease, ProgressError> {
                    $rule!(self, "lease", self.$inner.take(key, seen, worker, new))
                }
                async fn hand_over(
                    &self,
                    shard: &ShardId,
                    lease: &Lease,
                    to: &WorkerId,
                ) -> Result<Lease, ProgressError> {
                    $rule!(self, "lease", self.$inner.hand_over(shard, lease, to))
                }
                async fn release(
                    &self,
                    key: &LeaseKey,
                    lease: &Lease,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "lease", self.$inner.release(key, lease))
                }
                async fn seeded(
                    &self,
                    lease: &Lease,
                    step: u64,
                    begin: &Position,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "stream", self.$inner.seeded(lease, step, begin))
                }
                async fn unseed(&self, lease: &Lease, step: u64) -> Result<(), ProgressError> {
                    $rule!(self, "stream", self.$inner.unseed(lease, step))
                }
                async fn order(&self, request: &Request) -> Result<Orders, ProgressError> {
                    $rule!(self, "orders", self.$inner.order(request))
                }
                async fn seek(
                    &self,
                    shard: &ShardId,
                    lease: &Lease,
                    step: u64,
                    position: &Position,
                    order: u64,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "shard", self.$inner.seek(shard, lease, step, position, order))
                }
                async fn forget(
                    &self,
                    shard: &ShardId,
                    lease: &Lease,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "shard", self.$inner.forget(shard, lease))
                }
                async fn checkpoint(
                    &self,
                    checkpoints: &[Checkpoint],
                ) -> Vec<Result<(), ProgressError>> {
                    $all!(self, "shard", self.$inner.checkpoint(checkpoints))
                }
            }

            #[async_trait::async_trait]
            impl DeadLetters for $type {
                async fn write_letter(
                    &self,
                    letter: &DeadLetter,
                    payload: Option<&Bytes>,
                    whole: bool,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "letter", self.$inner.write_letter(letter, payload, whole))
                }
                async fn write_part(
                    &self,
                    id: &LetterId,
                    part: u64,
                    bytes: &Bytes,
                ) -> Result<(), ProgressError> {
                    $rule!(self, "letter", self.$inner.write_part(id, part, bytes))
                }
                async fn list_letters(
                    &self,
                    after: Option<&LetterId>,
                ) -> Result<Vec<Listed>, ProgressError> {
                    $rule!(self, reads, self.$inner.list_letters(after))
                }
                async fn read_part(
                    &self,
                    id: &LetterId,
                    part: u64,
                ) -> Result<Option<Bytes>, ProgressError> {
                    $rule!(self, reads, self.$inner.read_part(id, part))
                }
                async fn remove_part(&self, id: &LetterId, part: u64) -> Result<(), ProgressError> {
                    $rule!(self, "letter", self.$inner.remove_part(id, part))
                }
                async fn break_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
                    $rule!(self, "letter", self.$inner.break_letter(id))
                }
                async fn remove_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
                    $rule!(self, "letter", self.$inner.remove_letter(id))
                }
            }
        };
    };
}
pub(crate) use store_around;
