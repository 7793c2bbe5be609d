//! Finds the children of a shard that has ended, cheaply.
//!
//! Owns the asking with the CHILD_SHARDS filter and its budget. Its cost grows with the
//! shards that end, not with those that exist. Does not decide what is read.

use crate::backoff::Backoff;
use crate::source::{Shard, ShardId, Source, SourceErrorKind};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::debug;

/// DescribeStream is limited to ten calls a second for everybody: shards that end
/// together ask one after the other, five a second at most.
pub(super) const CHILD_CALLS_AT_ONCE: usize = 1;
const SPACING: Duration = Duration::from_millis(200);
/// Children of a shard that has just closed may not be visible yet: about 15 seconds of
/// asking, then the whole listing takes over.
const CHILD_TRIES: u32 = 16;
const CHILD_RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Asks for the children of a shard that has ended, until they can be seen. Empty when
/// they cannot, and the whole listing has to be looked at.
pub(super) async fn find_children(
    source: &dyn Source,
    slots: &Semaphore,
    parent: &ShardId,
) -> Vec<Shard> {
    let mut retry = CHILD_RETRY;
    for _ in 0..CHILD_TRIES {
        {
            let _slot = slots.acquire().await.expect("never closed");
            tokio::time::sleep(SPACING).await;
            match source.children(parent).await {
                Ok(children) if !children.is_empty() => return children,
                Ok(_) => {}
                // The filter or the shard is not known: only the listing helps.
                Err(error)
                    if matches!(
                        error.kind,
                        SourceErrorKind::Invalid | SourceErrorKind::NotFound
                    ) =>
                {
                    break;
                }
                Err(error) => debug!(%parent, %error, "children could not be asked for"),
            }
        }
        tokio::time::sleep(retry.next(fastrand::f64())).await;
    }
    Vec::new()
}
