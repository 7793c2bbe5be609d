//! Asking a consumer for something as an operator, whatever the operator asks with.
//!
//! Owns the checks that only the whole picture allows, and the number that makes a request
//! known. What is made of it is [`super::orders`]'. Invariant: nothing is asked of a shard that
//! cannot be met, where that can be known.

use super::orders::{Order, Orders, Request};
use super::{Position, Progress, ProgressError, Selection, ShardProgress};
use crate::source::ShardId;

/// Asks. The answer is what stands then.
///
/// # Errors
/// [`ProgressError::Unsuitable`] with a sentence for who asked, where it cannot be met.
pub async fn ask(store: &dyn Progress, order: Order, by: &str) -> Result<Orders, ProgressError> {
    match &order {
        Order::Pause(Some(shard)) | Order::SeekShard(shard, _) | Order::Skip(shard, _) => {
            check_readable(store, shard).await?;
        }
        _ => {}
    }
    // Counts in JSON are exact up to here.
    let nonce = fastrand::u64(1..1 << 53);
    store.order(&Request { order, by: by.to_owned(), nonce }).await
}

/// A shard that has progress and is not at its end.
async fn check_readable(store: &dyn Progress, shard: &ShardId) -> Result<(), ProgressError> {
    let these = [shard.clone()];
    let found = store.load(Selection::These(&these)).await?;
    match found.first() {
        None => Err(ProgressError::Unsuitable(format!(
            "this consumer has no progress in a shard {shard}: `streamgate status --all` lists those it has"
        ))),
        Some(item) if item.position == Position::ShardEnd => {
            Err(ProgressError::Unsuitable(format!(
                "shard {shard} is delivered to its end: only a seek of the whole stream reads it again"
            )))
        }
        Some(_) => Ok(()),
    }
}

/// The shards that somebody reads.
///
/// # Errors
/// When the store does not answer.
pub async fn being_read(store: &dyn Progress) -> Result<Vec<ShardId>, ProgressError> {
    let items = store.load(Selection::All).await?;
    let is_read =
        |item: &ShardProgress| item.position != Position::ShardEnd && item.lease.owner.is_some();
    Ok(items.into_iter().filter(is_read).map(|item| item.shard).collect())
}
