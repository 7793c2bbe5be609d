//! Asking a consumer for something as an operator, whatever the operator asks with.
//!
//! Owns the checks that only the whole picture allows, and the number that makes a request
//! known. What is made of it is [`super::orders`]'. Invariant: nothing is asked of a shard that
//! cannot be met, where that can be known.

use super::orders::{Order, Orders, Request};
use super::{Position, Progress, ProgressError, Selection, ShardProgress};
use crate::source::ShardId;

/// A number for a request that is new: where it is asked again, because its answer was lost, it
/// keeps it.
pub fn nonce() -> u64 {
    // Counts in JSON are exact up to here.
    fastrand::u64(1..MOST_NONCE)
}

/// Every nonce is smaller.
pub const MOST_NONCE: u64 = 1 << 53;

/// The longest name of who asks, in bytes.
pub const MAX_BY_BYTES: usize = 128;

/// Whether somebody may be called so: names stand in logs, on the page and on terminals, so that
/// what is not seen, ends lines or turns the order of letters around could make one pass for another.
pub fn is_name(by: &str) -> bool {
    let is_odd = |c: char| {
        let unseen = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
        c.is_control() || unseen || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    (1..=MAX_BY_BYTES).contains(&by.len()) && !by.chars().any(is_odd)
}

/// Asks. The answer is what stands then. With the same `nonce` it counts once.
///
/// # Errors
/// [`ProgressError::Unsuitable`] with a sentence for who asked, where it cannot be met.
pub async fn ask(
    store: &dyn Progress,
    order: Order,
    by: &str,
    nonce: u64,
) -> Result<Orders, ProgressError> {
    match &order {
        Order::Pause(Some(shard)) | Order::SeekShard(shard, _) | Order::Skip(shard, _) => {
            check_readable(store, shard).await?;
        }
        _ => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{LeaseKey, MemoryProgress, NewShard, WorkerId};

    async fn store_with(shard: &str, position: Position) -> MemoryProgress {
        let store = MemoryProgress::new();
        let new = NewShard { parent: None, position, closed: false, epoch: 0 };
        let key = LeaseKey::Shard(shard.into());
        store.take(&key, None, &WorkerId::from("w"), Some(&new)).await.unwrap();
        store
    }

    #[tokio::test]
    async fn what_is_asked_twice_with_one_number_counts_once() {
        let store = store_with("a", Position::TrimHorizon).await;
        let skip = || Order::Skip("a".into(), 5);
        for _ in 0..2 {
            let stands = ask(&store, skip(), "ann", 7).await.unwrap();
            assert_eq!(stands.moves.len(), 1);
        }
        assert_eq!(ask(&store, skip(), "ann", nonce()).await.unwrap().moves.len(), 2);
    }

    #[tokio::test]
    async fn nothing_is_asked_of_a_shard_that_cannot_be_met() {
        let store = store_with("a", Position::ShardEnd).await;
        for (shard, why) in [("a", "delivered to its end"), ("b", "no progress in a shard b")] {
            for order in [Order::Pause(Some(shard.into())), Order::Skip(shard.into(), 1)] {
                let refused = ask(&store, order, "ann", nonce()).await.unwrap_err().to_string();
                assert!(refused.contains(why), "{refused}");
            }
        }
        assert!(ask(&store, Order::Pause(None), "ann", nonce()).await.is_ok());
        assert!(being_read(&store).await.unwrap().is_empty());
    }
}
