//! The order of shards on the screen: each below the one that it continues.
//!
//! Pure. Invariant: every shard is there once, whatever their parents say.

use std::collections::{BTreeMap, BTreeSet};
use streamgate::progress::ShardProgress;

/// Shards as a tree: each below its parent, where that is still there, with its depth.
pub fn lineage(shards: &[ShardProgress]) -> Vec<(usize, &ShardProgress)> {
    let known: BTreeSet<&str> = shards.iter().map(|shard| shard.shard.as_str()).collect();
    let mut children: BTreeMap<Option<&str>, Vec<&ShardProgress>> = BTreeMap::new();
    for shard in shards {
        let parent = shard.parent.as_ref().map(|parent| parent.as_str());
        let parent =
            parent.filter(|parent| known.contains(parent) && *parent != shard.shard.as_str());
        children.entry(parent).or_default().push(shard);
    }
    let mut below = move |depth, parent| {
        let mut all = children.remove(&parent).unwrap_or_default();
        all.sort_by(|a, b| b.shard.as_str().cmp(a.shard.as_str()));
        all.into_iter().map(move |shard| (depth, shard))
    };
    let (mut found, mut open) = (Vec::new(), Vec::from_iter(below(0, None)));
    while let Some((depth, shard)) = open.pop() {
        found.push((depth, shard));
        open.extend(below(depth + 1, Some(shard.shard.as_str())));
    }
    // Parents that name each other in a circle begin nowhere; they are shown all the same.
    let shown: BTreeSet<&str> = found.iter().map(|(_, shard)| shard.shard.as_str()).collect();
    let left = shards.iter().filter(|shard| !shown.contains(shard.shard.as_str()));
    let left: Vec<_> = left.map(|shard| (0, shard)).collect();
    found.extend(left);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use streamgate::progress::{Lease, Position};

    fn item(shard: &str, parent: Option<&str>) -> ShardProgress {
        ShardProgress {
            shard: shard.into(),
            parent: parent.map(Into::into),
            lease: Lease { owner: None, counter: 0 },
            since: SystemTime::UNIX_EPOCH,
            position: Position::TrimHorizon,
            order: 0,
            updated: SystemTime::UNIX_EPOCH,
            closed: false,
            gaps: Vec::new(),
            window: None,
        }
    }

    #[test]
    fn children_stand_below_their_parent_and_grandchildren_below_them() {
        let shards = [
            item("d", Some("b")),
            item("c", Some("a")),
            item("b", Some("a")),
            item("a", Some("trimmed")),
            item("e", None),
        ];
        let found: Vec<_> =
            lineage(&shards).iter().map(|(depth, item)| (*depth, item.shard.to_string())).collect();
        let expected = [(0, "a"), (1, "b"), (2, "d"), (1, "c"), (0, "e")];
        assert_eq!(found, expected.map(|(depth, shard)| (depth, shard.to_owned())));
    }

    #[test]
    fn a_lineage_that_names_itself_still_ends() {
        let shards = [item("a", Some("b")), item("b", Some("a"))];
        assert_eq!(lineage(&shards).len(), 2, "nobody begins it, and nobody is left out");
        let shards = [item("a", Some("a"))];
        assert_eq!(lineage(&shards).len(), 1);
    }
}
