//! The children that are left to whoever reads their parents, and for how long.
//!
//! Pure: it decides which of the shards without an item are to get one from the leader now. Who
//! has read a shard to its end looks for its children itself and takes them, so a child whose
//! parent has a living reader is expected for a while. Invariant: what ended before the tip is
//! read by nobody, and nothing is expected of it; what is read has no children at the tip.

use crate::lineage::Seed;
use crate::progress::{ShardProgress, WorkerId};
use crate::source::ShardId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// After this long a child is adopted that its parent's reader has not taken.
pub(super) const CHILD_GRACE: Duration = Duration::from_secs(20);

/// Children without an item whose parent's reader lives, and since when they are known.
#[derive(Default)]
pub(super) struct Expected(BTreeMap<ShardId, Instant>);

impl Expected {
    /// Those of `seeds` that are due, as `items` are in the store; the others are expected.
    /// `lives` says whether a worker shows life, `at_tip` that the stream begins at its tip and
    /// this is not noted as carried out.
    pub fn due(
        &mut self,
        seeds: Vec<Seed>,
        items: &[ShardProgress],
        lives: impl Fn(&WorkerId) -> bool,
        at_tip: bool,
    ) -> Vec<Seed> {
        let known: BTreeMap<&ShardId, &ShardProgress> =
            items.iter().map(|item| (&item.shard, item)).collect();
        // Who took a child has taken all that it saw.
        let taken: BTreeSet<&ShardId> =
            items.iter().filter_map(|item| item.parent.as_ref()).collect();
        let before = std::mem::take(&mut self.0);
        let is_due = |seed: &Seed| {
            let parent = seed.new.parent.as_ref();
            let item = parent.and_then(|parent| known.get(parent).copied());
            if at_tip {
                // It is carried out once more, after a take that failed. What a shard has had
                // for children since it was begun at the tip is not at the tip.
                return item.is_none_or(|item| item.closed);
            }
            let owner = item.filter(|item| !taken.contains(&item.shard));
            let owner = owner.and_then(|item| item.lease.owner.as_ref());
            if !owner.is_some_and(&lives) {
                return true;
            }
            let since = before.get(&seed.shard).copied().unwrap_or_else(Instant::now);
            let waited = since.elapsed() >= CHILD_GRACE;
            if !waited {
                self.0.insert(seed.shard.clone(), since);
            }
            waited
        };
        seeds.into_iter().filter(is_due).collect()
    }

    /// Whether nothing is waited for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::shards::Granted;
    use super::*;
    use crate::progress::{Lease, NewShard, Position};
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    /// An item of `shard` that "reader" has.
    fn item(shard: &str, parent: Option<&str>, closed: bool) -> ShardProgress {
        let position = if closed { Position::ShardEnd } else { Position::TrimHorizon };
        let new = NewShard { parent: parent.map(ShardId::from), position, closed, epoch: 0 };
        let lease = Lease { owner: Some("reader".into()), counter: 1 };
        Granted::begun(shard.into(), new, lease)
    }

    fn seed(shard: &str, parent: &str) -> Seed {
        let new = NewShard {
            parent: Some(parent.into()),
            position: Position::TrimHorizon,
            closed: false,
            epoch: 0,
        };
        Seed { shard: shard.into(), new, from_latest: false }
    }

    fn due(expected: &mut Expected, items: &[ShardProgress], at_tip: bool) -> Vec<ShardId> {
        let seeds = vec![seed("left", "parent"), seed("right", "parent")];
        let due = expected.due(seeds, items, |owner| owner.as_str() == "reader", at_tip);
        due.into_iter().map(|seed| seed.shard).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_is_left_to_the_reader_of_its_parent_for_a_while() {
        let mut expected = Expected::default();
        let items = [item("parent", None, true)];
        assert_eq!(due(&mut expected, &items, false), []);
        assert!(!expected.is_empty());
        advance(CHILD_GRACE - SECOND).await;
        assert_eq!(due(&mut expected, &items, false), []);
        advance(SECOND).await;
        assert_eq!(due(&mut expected, &items, false), ["left".into(), "right".into()]);
        assert!(expected.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_is_due_at_once_where_its_sibling_was_taken_or_the_reader_is_gone() {
        let mut expected = Expected::default();
        let both = ["left".into(), "right".into()];
        let sibling = [item("parent", None, true), item("third", Some("parent"), false)];
        assert_eq!(due(&mut expected, &sibling, false), both);
        let mut orphaned = [item("parent", None, true)];
        orphaned[0].lease.owner = Some("dead".into());
        assert_eq!(due(&mut expected, &orphaned, false), both);
        assert_eq!(due(&mut expected, &[], false), both);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_tip_children_of_what_ended_before_are_due_and_those_of_what_is_read_are_not() {
        let mut expected = Expected::default();
        let ended = [item("parent", None, true)];
        assert_eq!(due(&mut expected, &ended, true), ["left".into(), "right".into()]);
        let read = [item("parent", None, false)];
        assert_eq!(due(&mut expected, &read, true), []);
        assert!(expected.is_empty(), "its reader takes them, once that is noted as carried out");
    }
}
