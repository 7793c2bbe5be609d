//! Finished shards that have left the stream, and when their items serve no purpose any more.
//!
//! Pure. Listings are eventually consistent: a shard that came back after its item was removed
//! would be read again from its beginning. Invariant: both clocks must agree. The wall clock
//! says that nothing was written to the item for days, and it may be days ahead; the leader's
//! own says that no listing has shown the shard for an hour.

use crate::progress::ShardProgress;
use crate::source::ShardId;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// By the wall clock, since the item was last written.
pub(super) const REMEMBER: Duration = Duration::from_secs(48 * 3600);
/// By this leader's own clock, since the listings show the shard no more.
const UNLISTED: Duration = Duration::from_secs(3600);

/// Finished shards that the listings do not show, and since when.
#[derive(Default)]
pub(super) struct Departed(BTreeMap<ShardId, Instant>);

impl Departed {
    /// Takes in which finished shards the newest listing does not show.
    pub fn see<'a>(&mut self, departed: impl Iterator<Item = &'a ShardId>) {
        let before = std::mem::take(&mut self.0);
        let since = |shard: &ShardId| before.get(shard).copied().unwrap_or_else(Instant::now);
        self.0 = departed.map(|shard| (shard.clone(), since(shard))).collect();
    }

    /// Whether `item` may be removed at `now`.
    pub fn is_long_gone(&self, item: &ShardProgress, now: SystemTime) -> bool {
        let unlisted = self.0.get(&item.shard).is_some_and(|since| since.elapsed() >= UNLISTED);
        unlisted && now.duration_since(item.updated).is_ok_and(|age| age > REMEMBER)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shards::Granted;
    use super::*;
    use crate::progress::{Lease, NewShard, Position};
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);
    const WRITTEN: SystemTime = SystemTime::UNIX_EPOCH;

    fn item() -> ShardProgress {
        let new = NewShard { parent: None, position: Position::ShardEnd, closed: true, epoch: 0 };
        let begun = Granted::begun("gone".into(), new, Lease { owner: None, counter: 1 });
        ShardProgress { updated: WRITTEN, ..begun }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_days_ahead_forgets_nothing_by_itself() {
        let (mut departed, gone) = (Departed::default(), ShardId::from("gone"));
        let ahead = WRITTEN + 100 * REMEMBER;
        assert!(!departed.is_long_gone(&item(), ahead), "it is listed");
        departed.see([&gone].into_iter());
        assert!(!departed.is_long_gone(&item(), ahead));
        advance(UNLISTED - SECOND).await;
        departed.see([&gone].into_iter());
        assert!(!departed.is_long_gone(&item(), ahead));
        advance(SECOND).await;
        assert!(departed.is_long_gone(&item(), ahead));
        assert!(!departed.is_long_gone(&item(), WRITTEN + REMEMBER), "written too lately");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_a_listing_shows_again_is_remembered_as_long_once_more() {
        let (mut departed, gone) = (Departed::default(), ShardId::from("gone"));
        let later = WRITTEN + 2 * REMEMBER;
        departed.see([&gone].into_iter());
        advance(UNLISTED).await;
        departed.see(std::iter::empty());
        departed.see([&gone].into_iter());
        assert!(!departed.is_long_gone(&item(), later));
        advance(UNLISTED).await;
        assert!(departed.is_long_gone(&item(), later));
    }
}
