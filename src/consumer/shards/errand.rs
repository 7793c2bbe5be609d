//! What a worker has the store do for its shards while they run.
//!
//! Owns the calls and their repetition: an errand is done, or its lease is lost. It goes
//! on until then, or until the life ends and it is dropped. Decides nothing.

use super::super::discovery::find_children;
use super::{Consumer, Granted};
use crate::backoff::Backoff;
use crate::progress::{
    Lease, LeaseKey, NewShard, Position, ProgressError, Selection, ShardProgress, WorkerId,
};
use crate::source::{Shard, ShardId};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Retries of a store that does not answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// What came of an errand.
pub(super) enum Done {
    /// This worker's items, read after it had been told so often.
    Loaded { items: Vec<ShardProgress>, announced: u64 },
    /// The shard's item after an operator's move; `None` where the lease was lost.
    Moved { shard: ShardId, item: Option<ShardProgress>, from_latest: bool },
    /// The shard's item, for a loop that ended while it is still this worker's.
    Read { shard: ShardId, item: Option<ShardProgress> },
    /// The lease is the other's now, or `None`: it was lost before.
    HandedOver { shard: ShardId, to: Option<WorkerId> },
    /// The lease is nobody's now.
    Released { shard: ShardId },
    /// The children of a shard that has ended, which this worker has now; none were found
    /// where `found` is false.
    Children { parent: ShardId, taken: Vec<Granted>, found: bool },
    /// A worker knows what has become its.
    Told,
}

/// The lease has passed on.
pub(super) struct Lost;

/// Makes a call until it is answered.
pub(super) async fn persist<T, F>(what: &'static str, call: impl Fn() -> F) -> Result<T, Lost>
where
    F: Future<Output = Result<T, ProgressError>>,
{
    let mut retry = RETRY;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(ProgressError::LeaseLost { .. }) => return Err(Lost),
            Err(error) => {
                let wait = retry.next(fastrand::f64());
                if retry.failures().is_power_of_two() {
                    warn!(%error, failures = retry.failures(), "{what} failed, trying again");
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Reads this worker's items.
pub(super) async fn load(consumer: &Consumer, me: WorkerId, announced: u64) -> Done {
    let load = || consumer.progress.load(Selection::Of(&me));
    let items = persist("reading this worker's leases", load).await.unwrap_or_default();
    Done::Loaded { items, announced }
}

/// Reads one item.
pub(super) async fn read(consumer: &Consumer, shard: ShardId) -> Done {
    let these = [shard.clone()];
    let load = || consumer.progress.load(Selection::These(&these));
    let items = persist("reading a shard's progress", load).await.unwrap_or_default();
    Done::Read { shard, item: items.into_iter().next() }
}

/// Hands a lease over. `slots` bounds how many are at once.
pub(super) async fn hand_over(
    consumer: &Consumer,
    slots: &Semaphore,
    shard: ShardId,
    lease: Lease,
    to: WorkerId,
) -> Done {
    let _slot = slots.acquire().await.expect("never closed");
    let call = || consumer.progress.hand_over(&shard, &lease, &to);
    let handed = persist("handing a shard over", call).await;
    Done::HandedOver { shard, to: handed.ok().map(|_| to) }
}

/// Gives a lease back.
pub(super) async fn release(
    consumer: &Consumer,
    slots: &Semaphore,
    shard: ShardId,
    lease: Lease,
) -> Done {
    let _slot = slots.acquire().await.expect("never closed");
    let key = LeaseKey::Shard(shard.clone());
    let call = || consumer.progress.release(&key, &lease);
    // Lost or not: it is not this worker's any more.
    let _ = persist("giving a shard back", call).await;
    Done::Released { shard }
}

/// Tells a worker that something is its now.
pub(super) async fn tell(consumer: &Consumer, worker: WorkerId) -> Done {
    let call = || consumer.progress.announce(&worker);
    let _ = persist("telling a worker of its shards", call).await;
    Done::Told
}

/// Finds the children of a shard that has ended, where they are not known, and takes them.
/// When `stop` resolves the search is over: others find them.
pub(super) async fn take_children(
    consumer: &Consumer,
    me: WorkerId,
    slots: &Semaphore,
    parent: ShardId,
    known: Vec<Shard>,
    (begin, epoch): (Position, u64),
    stop: impl Future<Output = ()>,
) -> Done {
    let taking = async {
        let children = match known.is_empty() {
            true => find_children(&*consumer.source, slots, &parent).await,
            false => known,
        };
        let found = !children.is_empty();
        let mut taken = Vec::new();
        for Shard { id, parent, closed } in children {
            let new = NewShard { parent, position: begin.clone(), closed, epoch };
            let key = LeaseKey::Shard(id.clone());
            let take = || consumer.progress.take(&key, None, &me, Some(&new));
            match persist("taking a child", take).await {
                Ok(lease) => {
                    let item = Granted::begun(id, new, lease);
                    taken.push(Granted { item, from_latest: false });
                }
                Err(Lost) => debug!(shard = %id, "another worker has it already"),
            }
        }
        (taken, found)
    };
    let (taken, found) = tokio::select! {
        biased;
        () = stop => (Vec::new(), true),
        found = taking => found,
    };
    Done::Children { parent, taken, found }
}
