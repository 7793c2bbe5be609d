//! Which shards may be read now: parents before children, and nothing waits for ever.
//!
//! Owns the family tree as far as it is known from listings and from the store. Pure:
//! it asks nobody and does not know who reads. Invariant: a shard is ready only when
//! its parent was delivered to its end, or has left both the listing and the store.

use crate::progress::{NewShard, Position};
use crate::source::{Shard, ShardId, StreamDescription};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// Where reading begins when the consumer has no progress at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartingPosition {
    /// With the oldest record kept.
    TrimHorizon,
    /// With what is written from now on.
    Latest,
    /// With the first record not older than this.
    AtTimestamp(SystemTime),
}

impl StartingPosition {
    /// Where shards begin, from then on, that are found after it was carried out.
    pub fn begin(self) -> Position {
        match self {
            Self::TrimHorizon | Self::Latest => Position::TrimHorizon,
            Self::AtTimestamp(time) => Position::AtTimestamp(time),
        }
    }
}

/// One shard as known.
#[derive(Clone, Debug)]
struct Node {
    parent: Option<ShardId>,
    /// In the newest full listing.
    listed: bool,
    closed: bool,
    /// Delivered to its end, durably.
    ended: bool,
    /// Has an item in the store, or had one when last looked at.
    kept: bool,
}

/// The known shards of one stream.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    nodes: BTreeMap<ShardId, Node>,
}

/// How a shard that has no item yet begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The shard.
    pub shard: ShardId,
    /// What its item says at first.
    pub new: NewShard,
    /// Read from the tip, this once: the item says [`Position::AtTimestamp`] so that a
    /// restart before the first checkpoint loses nothing.
    pub from_latest: bool,
}

impl Lineage {
    /// Takes in a shard's item from the store.
    pub fn keep(&mut self, shard: &ShardId, parent: Option<&ShardId>, position: &Position) {
        let node = self.node(shard);
        node.kept = true;
        node.ended |= *position == Position::ShardEnd;
        if node.parent.is_none() {
            node.parent = parent.cloned();
        }
    }

    /// Takes in a full listing. Shards that are missing from it have left the stream.
    pub fn list(&mut self, listing: &StreamDescription) {
        for node in self.nodes.values_mut() {
            node.listed = false;
        }
        self.add(&listing.shards);
        self.nodes.retain(|_, node| node.listed || node.kept);
    }

    /// Takes in some shards, the children of one for instance.
    pub fn add(&mut self, shards: &[Shard]) {
        for shard in shards {
            let node = self.node(&shard.id);
            node.listed = true;
            node.closed |= shard.closed;
            if shard.parent.is_some() {
                node.parent = shard.parent.clone();
            }
        }
        // A listing may show a child while its parent still looks open. It is not.
        let parents: Vec<ShardId> = shards.iter().filter_map(|s| s.parent.clone()).collect();
        for parent in parents {
            if let Some(node) = self.nodes.get_mut(&parent) {
                node.closed = true;
            }
        }
    }

    /// The shard was delivered to its end and its checkpoint says so.
    pub fn end(&mut self, shard: &ShardId) {
        let node = self.node(shard);
        node.ended = true;
        node.closed = true;
        node.kept = true;
    }

    /// The shard's item was removed from the store.
    pub fn forget(&mut self, shard: &ShardId) {
        self.nodes.remove(shard);
    }

    /// The shard's item was removed from the store, which makes it anew.
    pub fn removed(&mut self, shard: &ShardId) {
        if let Some(node) = self.nodes.get_mut(shard) {
            (node.kept, node.ended) = (false, false);
        }
    }

    /// All items were removed from the store: everything is to be read anew.
    pub fn begin_anew(&mut self) {
        for node in self.nodes.values_mut() {
            (node.kept, node.ended) = (false, false);
        }
        self.nodes.retain(|_, node| node.listed);
    }

    /// The shards that may be read and are not at their end, in order of their names.
    pub fn ready(&self) -> impl Iterator<Item = &ShardId> {
        self.nodes
            .iter()
            .filter(|(_, node)| !node.ended && self.parent_is_done(node))
            .map(|(id, _)| id)
    }

    /// The listed shards that may not be read yet, each with the parent that is read first.
    pub fn waiting(&self) -> impl Iterator<Item = (&ShardId, &ShardId)> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.listed && !node.kept && !self.parent_is_done(node))
            .filter_map(|(id, node)| Some((id, node.parent.as_ref()?)))
    }

    /// Whether every known shard has been delivered to its end.
    pub fn all_ended(&self) -> bool {
        self.nodes.values().all(|node| node.ended)
    }

    /// Whether the shard takes no more records.
    pub fn is_closed(&self, shard: &ShardId) -> bool {
        self.nodes.get(shard).is_some_and(|node| node.closed)
    }

    /// Shards at their end that have left the stream: their items serve no purpose once
    /// their children have items of their own.
    pub fn departed(&self) -> impl Iterator<Item = &ShardId> {
        let waited_for: BTreeSet<&ShardId> = self
            .nodes
            .values()
            .filter(|node| !node.kept)
            .filter_map(|node| node.parent.as_ref())
            .collect();
        self.nodes
            .iter()
            .filter(move |(id, node)| {
                node.ended && node.kept && !node.listed && !waited_for.contains(id)
            })
            .map(|(id, _)| id)
    }

    /// The known shards that continue `shard`.
    pub fn children(&self, shard: &ShardId) -> Vec<Shard> {
        let of = |(id, node): (&ShardId, &Node)| {
            (node.parent.as_ref() == Some(shard)).then(|| Shard {
                id: id.clone(),
                parent: node.parent.clone(),
                closed: node.closed,
            })
        };
        self.nodes.iter().filter_map(of).collect()
    }

    /// Whether the shard may be read now.
    pub fn is_ready(&self, shard: &ShardId) -> bool {
        self.nodes.get(shard).is_some_and(|node| !node.ended && self.parent_is_done(node))
    }

    /// How the shards without an item begin that may be read now. The others get theirs
    /// when their parents have ended.
    ///
    /// `seeded` is where they begin once a starting position was carried out, this or
    /// another one: whatever is new since then is read from its beginning, or from the time
    /// that was set then. LATEST on a child would lose what was written before its iterator
    /// was made, and a setting that was changed since would cut a hole between a shard's
    /// progress and its child. `epoch` is as in [`NewShard::epoch`].
    pub fn seeds(
        &self,
        start: StartingPosition,
        seeded: Option<&Position>,
        epoch: u64,
        now: SystemTime,
    ) -> Vec<Seed> {
        let latest = seeded.is_none() && start == StartingPosition::Latest;
        let begin = seeded.cloned().unwrap_or_else(|| start.begin());
        self.nodes
            .iter()
            .filter(|(_, node)| !node.kept && (latest || self.parent_is_done(node)))
            .map(|(id, node)| {
                let (position, from_latest) = match latest {
                    true if node.closed => (Position::ShardEnd, false),
                    true => (Position::AtTimestamp(now), true),
                    false => (begin.clone(), false),
                };
                let (shard, parent) = (id.clone(), node.parent.clone());
                let new = NewShard { parent, position, closed: node.closed, epoch };
                Seed { shard, new, from_latest }
            })
            .collect()
    }

    fn parent_is_done(&self, node: &Node) -> bool {
        match node.parent.as_ref().and_then(|parent| self.nodes.get(parent)) {
            None => true,
            Some(parent) => parent.ended,
        }
    }

    fn node(&mut self, shard: &ShardId) -> &mut Node {
        self.nodes.entry(shard.clone()).or_insert(Node {
            parent: None,
            listed: false,
            closed: false,
            ended: false,
            kept: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::StreamStatus;
    use proptest::prelude::*;

    fn shard(id: &str, parent: Option<&str>, closed: bool) -> Shard {
        Shard { id: id.into(), parent: parent.map(ShardId::from), closed }
    }

    fn listing(shards: Vec<Shard>) -> StreamDescription {
        StreamDescription {
            status: StreamStatus::Enabled,
            partition_key: None,
            view_type: None,
            shards,
        }
    }

    fn ready(lineage: &Lineage) -> Vec<&str> {
        lineage.ready().map(ShardId::as_str).collect()
    }

    #[test]
    fn children_listed_before_their_parents_still_wait_for_them() {
        let mut lineage = Lineage::default();
        lineage.list(&listing(vec![
            shard("c", Some("b"), false),
            shard("b", Some("a"), true),
            shard("a", None, true),
        ]));
        assert_eq!(ready(&lineage), ["a"]);
        let waiting = |lineage: &Lineage| -> Vec<String> {
            lineage.waiting().map(|(shard, parent)| format!("{shard} for {parent}")).collect()
        };
        assert_eq!(waiting(&lineage), ["b for a", "c for b"]);
        lineage.end(&"a".into());
        assert_eq!(ready(&lineage), ["b"]);
        assert_eq!(waiting(&lineage), ["c for b"]);
        lineage.end(&"b".into());
        assert_eq!(ready(&lineage), ["c"]);
    }

    #[test]
    fn an_open_parent_with_a_child_counts_as_closed_but_is_read_first() {
        let mut lineage = Lineage::default();
        lineage.list(&listing(vec![shard("child", Some("a"), false), shard("a", None, false)]));
        assert!(lineage.is_closed(&"a".into()));
        assert_eq!(ready(&lineage), ["a"]);
    }

    #[test]
    fn a_parent_that_has_expired_does_not_block() {
        let mut lineage = Lineage::default();
        lineage.list(&listing(vec![shard("b", Some("gone"), false)]));
        assert_eq!(ready(&lineage), ["b"]);
    }

    #[test]
    fn a_parent_that_expired_half_read_is_tried_first() {
        let mut lineage = Lineage::default();
        lineage.keep(&"a".into(), None, &Position::After("7".parse().unwrap()));
        lineage.list(&listing(vec![shard("b", Some("a"), false)]));
        assert_eq!(ready(&lineage), ["a"], "reading it finds out what was lost");
        lineage.end(&"a".into());
        assert_eq!(ready(&lineage), ["b"]);
        assert_eq!(lineage.departed().count(), 0, "b has no item yet");
        lineage.keep(&"b".into(), Some(&"a".into()), &Position::TrimHorizon);
        assert_eq!(lineage.departed().collect::<Vec<_>>(), [&ShardId::from("a")]);
    }

    #[test]
    fn a_closed_shard_without_a_child_yet_is_ready_and_then_done() {
        let mut lineage = Lineage::default();
        lineage.list(&listing(vec![shard("a", None, true)]));
        assert_eq!(ready(&lineage), ["a"]);
        lineage.end(&"a".into());
        assert!(lineage.all_ended() && ready(&lineage).is_empty());
        lineage.add(&[shard("b", Some("a"), false)]);
        assert_eq!(ready(&lineage), ["b"]);
    }

    #[test]
    fn latest_is_for_the_tips_of_the_first_start_only() {
        let now = SystemTime::UNIX_EPOCH;
        let mut lineage = Lineage::default();
        lineage.list(&listing(vec![shard("a", None, true), shard("b", Some("a"), false)]));
        let seeds = lineage.seeds(StartingPosition::Latest, None, 0, now);
        let told = |seed: &Seed| {
            (seed.shard.to_string(), seed.new.position.clone(), seed.new.closed, seed.from_latest)
        };
        assert_eq!(
            seeds.iter().map(told).collect::<Vec<_>>(),
            [
                ("a".to_owned(), Position::ShardEnd, true, false),
                ("b".to_owned(), Position::AtTimestamp(now), false, true),
            ]
        );
        for seed in seeds {
            lineage.keep(&seed.shard, seed.new.parent.as_ref(), &seed.new.position);
        }
        lineage.end(&"b".into());
        lineage.add(&[shard("c", Some("b"), false)]);
        let begin = StartingPosition::Latest.begin();
        let seeds = lineage.seeds(StartingPosition::Latest, Some(&begin), 0, now);
        assert_eq!(
            seeds.iter().map(told).collect::<Vec<_>>(),
            [("c".to_owned(), Position::TrimHorizon, false, false)]
        );
    }

    #[test]
    fn a_shard_gets_its_item_when_its_parent_has_ended() {
        let now = SystemTime::UNIX_EPOCH;
        let mut lineage = Lineage::default();
        lineage.list(&listing(vec![shard("a", None, true), shard("b", Some("a"), true)]));
        let new = |lineage: &Lineage| -> Vec<String> {
            let seeds = lineage.seeds(StartingPosition::TrimHorizon, None, 0, now);
            seeds.iter().map(|seed| seed.shard.to_string()).collect()
        };
        assert_eq!(new(&lineage), ["a"]);
        lineage.keep(&"a".into(), None, &Position::TrimHorizon);
        assert!(new(&lineage).is_empty() && !lineage.is_ready(&"b".into()));
        lineage.end(&"a".into());
        assert_eq!(new(&lineage), ["b"]);
        assert!(lineage.is_ready(&"b".into()));
    }

    #[test]
    fn a_setting_changed_later_cuts_no_hole() {
        let now = SystemTime::UNIX_EPOCH;
        let mut lineage = Lineage::default();
        lineage.keep(&"a".into(), None, &Position::After("7".parse().unwrap()));
        lineage.list(&listing(vec![shard("a", None, true), shard("b", Some("a"), true)]));
        lineage.end(&"a".into());
        for start in [StartingPosition::Latest, StartingPosition::AtTimestamp(now)] {
            let seed = lineage.seeds(start, Some(&Position::TrimHorizon), 0, now).remove(0);
            assert_eq!((seed.new.position, seed.from_latest), (Position::TrimHorizon, false));
        }
    }

    /// Generations of splits and rollovers: the parent of each shard, by index.
    fn family() -> impl Strategy<Value = Vec<Option<usize>>> {
        prop::collection::vec(any::<prop::sample::Index>(), 1..40).prop_map(|picks| {
            picks.iter().enumerate().map(|(i, pick)| (i > 3).then(|| pick.index(i))).collect()
        })
    }

    proptest! {
        /// Whatever the order of listing, whatever has expired: every listed shard is
        /// read once, and none before its listed parent.
        #[test]
        fn everything_listed_is_read_parents_first(
            parents in family(), expired in 0usize..6, order in any::<u64>(), stagger: bool,
        ) {
            let name = |i: usize| format!("s{i:03}");
            let mut shards: Vec<Shard> = parents.iter().enumerate().skip(expired)
                .map(|(i, parent)| shard(&name(i), parent.map(name).as_deref(), true))
                .collect();
            let listed: BTreeSet<ShardId> = shards.iter().map(|s| s.id.clone()).collect();
            fastrand::Rng::with_seed(order).shuffle(&mut shards);
            let mut lineage = Lineage::default();
            if stagger {
                for shard in &shards { lineage.add(std::slice::from_ref(shard)); }
            } else {
                lineage.list(&listing(shards.clone()));
            }
            let mut read = Vec::new();
            loop {
                let next = lineage.ready().next().cloned();
                let Some(next) = next else { break };
                prop_assert!(!read.contains(&next));
                lineage.end(&next);
                read.push(next);
            }
            prop_assert_eq!(read.iter().cloned().collect::<BTreeSet<_>>(), listed.clone());
            for shard in &shards {
                if let Some(parent) = shard.parent.as_ref().filter(|p| listed.contains(*p)) {
                    let at = |id: &ShardId| read.iter().position(|r| r == id);
                    prop_assert!(at(parent) < at(&shard.id));
                }
            }
        }
    }
}
