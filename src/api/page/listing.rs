//! The dead letters of a stream, listed once for all its pages.
//!
//! Owns how long a list counts: a page asks whenever something may have changed, in trouble with
//! every look, and a long list costs thousands of read units. Invariant: however many ask, one
//! list is read at a time, and one in [`COUNTS_FOR`], but for what people have done here.

use crate::progress::ProgressError;
use crate::progress::letters::{self, DeadLetters, Listed};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Letters that are shown. The commands have no bound.
pub(super) const MOST_LETTERS: usize = 500;
/// How long a list counts.
const COUNTS_FOR: Duration = Duration::from_secs(12);

/// The list of one stream.
#[derive(Default)]
pub(super) struct Listing {
    last: Mutex<Option<Found>>,
}

/// What was listed last.
#[derive(Clone)]
pub(super) struct Found {
    pub letters: Arc<Vec<Listed>>,
    /// There may be others.
    pub more: bool,
    at: Instant,
    /// The redrives that had ended by then.
    ended: BTreeSet<u64>,
}

/// Letters that were asked for by their ids.
pub(super) struct These {
    pub there: Vec<Listed>,
    /// Whether others were asked for.
    pub more: bool,
}

impl Found {
    /// Since it was begun to be read.
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

impl Listing {
    /// The letters, as they are or were a moment ago. A redrive that has ended since is always
    /// seen: `ended` are those that have.
    pub async fn letters(
        &self,
        store: &dyn DeadLetters,
        ended: BTreeSet<u64>,
    ) -> Result<Found, ProgressError> {
        let mut last = self.last.lock().await;
        if let Some(found) = &*last
            && found.at.elapsed() < COUNTS_FOR
            && found.ended == ended
        {
            return Ok(found.clone());
        }
        read(&mut last, store, ended).await
    }

    /// These letters, by the last list, or by what is there now.
    pub async fn these(
        &self,
        store: &dyn DeadLetters,
        ids: &[String],
    ) -> Result<These, ProgressError> {
        let mut last = self.last.lock().await;
        let known = last.as_ref().map(|found| among(found, ids));
        if let Some(known) = known.filter(|known| !known.more) {
            return Ok(known);
        }
        let ended = last.take().map(|found| found.ended).unwrap_or_default();
        Ok(among(&read(&mut last, store, ended).await?, ids))
    }

    /// This one was deleted.
    pub async fn forget(&self, gone: &Listed) {
        if let Some(found) = &mut *self.last.lock().await {
            Arc::make_mut(&mut found.letters).retain(|listed| listed.letter.id != gone.letter.id);
        }
    }

    /// The next to ask has it read anew.
    pub async fn renew(&self) {
        *self.last.lock().await = None;
    }
}

/// Whoever asks meanwhile waits, and gets the same.
async fn read(
    last: &mut MutexGuard<'_, Option<Found>>,
    store: &dyn DeadLetters,
    ended: BTreeSet<u64>,
) -> Result<Found, ProgressError> {
    let at = Instant::now();
    let (letters, more) = letters::first(store, MOST_LETTERS).await?;
    Ok(last.insert(Found { letters: Arc::new(letters), more, at, ended }).clone())
}

fn among(found: &Found, ids: &[String]) -> These {
    let mut missing: BTreeSet<&String> = ids.iter().collect();
    let is_asked = |listed: &&Listed| missing.remove(&listed.letter.id.to_string());
    let there = found.letters.iter().filter(is_asked).cloned().collect();
    These { there, more: !missing.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::MemoryProgress;
    use crate::progress::letters::{DeadLetter, Reason};
    use bytes::Bytes;
    use std::time::SystemTime;

    async fn keep(store: &dyn DeadLetters, number: u64) -> String {
        let id = format!("s-1:{number}-{number}:00c0ffee00c0ffee");
        let letter = DeadLetter {
            id: id.parse().unwrap(),
            reason: Reason::Retries,
            records: 1,
            attempts: 1,
            first_error: None,
            last_error: None,
            given_up_at: SystemTime::UNIX_EPOCH,
            bytes: 0,
        };
        letters::keep(store, letter, &Bytes::from_static(b"{}"), &mut 0).await.unwrap();
        id
    }

    fn ended(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    async fn count(listing: &Listing, store: &dyn DeadLetters, redrives: &[u64]) -> usize {
        listing.letters(store, ended(redrives)).await.unwrap().letters.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_counts_for_a_while_and_anew_when_a_redrive_has_ended() {
        let (store, listing) = (MemoryProgress::new(), Listing::default());
        keep(&store, 1).await;
        assert_eq!(count(&listing, &store, &[]).await, 1);
        keep(&store, 2).await;
        tokio::time::advance(COUNTS_FOR - Duration::from_millis(1)).await;
        assert_eq!(count(&listing, &store, &[]).await, 1, "of a moment ago");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(count(&listing, &store, &[]).await, 2);
        keep(&store, 3).await;
        assert_eq!(count(&listing, &store, &[7]).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_deleted_is_gone_from_the_list_and_what_is_new_is_found_by_its_id() {
        let (store, listing) = (MemoryProgress::new(), Listing::default());
        let first = keep(&store, 1).await;
        assert_eq!(count(&listing, &store, &[]).await, 1);
        let second = keep(&store, 2).await;
        let ids = [first, second];
        let found = listing.these(&store, &ids).await.unwrap().there;
        assert_eq!(found.len(), 2);
        letters::remove(&store, &found[0].letter).await.unwrap();
        listing.forget(&found[0]).await;
        assert_eq!(count(&listing, &store, &[]).await, 1);
        let found = listing.these(&store, &ids).await.unwrap();
        assert_eq!((found.there.len(), found.more), (1, true), "one is gone, the other is there");
    }
}
