//! What a call has changed in the table, and how it comes back as a record of its stream.
//!
//! Owns the comparison of two moments; judges nothing.

use super::table::Snapshot;
use super::world::World;
use serde_json::json;
use std::collections::BTreeMap;
use streamgate::progress::orders::Orders;
use streamgate::progress::{
    Coordination, Lease, Member, OWN_PREFIX, Position, ShardProgress, WorkerId,
};
use streamgate::simulator::{Change, ChangeKind};
use streamgate::source::ShardId;

/// One item's change.
pub enum Changed<'a> {
    Stream(Option<&'a Lease>, Option<&'a Lease>),
    /// The starting position was carried out, or that was taken back.
    Seeded(Option<&'a Position>),
    Orders(&'a Orders, &'a Orders),
    Worker(&'a WorkerId, Option<&'a Member>, Option<&'a Member>),
    Shard(&'a ShardId, Option<&'a ShardProgress>, Option<&'a ShardProgress>),
}

/// All of them.
pub fn changes<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Vec<Changed<'a>> {
    let mut changes = Vec::new();
    let (old, new) = (&before.coordination, &after.coordination);
    if old.stream != new.stream {
        changes.push(Changed::Stream(old.stream.as_ref(), new.stream.as_ref()));
    }
    if old.seeded != new.seeded {
        changes.push(Changed::Seeded(new.seeded.as_ref()));
    }
    if old.orders != new.orders {
        changes.push(Changed::Orders(&old.orders, &new.orders));
    }
    let (signs, now) = (by_name(old), by_name(new));
    for worker in union(&signs, &now) {
        let (old, new) = (signs.get(worker).copied(), now.get(worker).copied());
        if old != new {
            changes.push(Changed::Worker(&old.or(new).expect("one of them").sign.worker, old, new));
        }
    }
    for shard in union(&before.shards, &after.shards) {
        let (old, new) = (before.shards.get(shard), after.shards.get(shard));
        if !is_same(old, new) {
            changes.push(Changed::Shard(shard, old, new));
        }
    }
    changes
}

fn by_name(of: &Coordination) -> BTreeMap<WorkerId, &Member> {
    of.workers.iter().map(|member| (member.sign.worker.clone(), member)).collect()
}

fn union<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    a.keys().chain(b.keys().filter(|key| !a.contains_key(key))).collect()
}

/// But for the time, which is the machine's.
fn is_same(a: Option<&ShardProgress>, b: Option<&ShardProgress>) -> bool {
    let parts = |item: &ShardProgress| {
        let ShardProgress { lease, position, order, gaps, window, .. } = item;
        (lease.clone(), position.clone(), *order, gaps.clone(), window.clone())
    };
    a.map(parts) == b.map(parts)
}

/// The change comes back as a record of the table's stream.
pub fn stream(world: &World, change: &Changed<'_>) {
    let (sort, is_first, is_last) = match change {
        Changed::Stream(old, _) => ("stream".to_owned(), old.is_none(), false),
        Changed::Seeded(_) => ("stream".to_owned(), false, false),
        Changed::Orders(old, _) => ("orders".to_owned(), old.version == 0, false),
        Changed::Worker(worker, old, new) => {
            (format!("worker#{worker}"), old.is_none(), new.is_none())
        }
        Changed::Shard(shard, old, new) => (format!("shard#{shard}"), old.is_none(), new.is_none()),
    };
    let kind = match (is_first, is_last) {
        (true, _) => ChangeKind::Insert,
        (_, true) => ChangeKind::Remove,
        _ => ChangeKind::Modify,
    };
    let keys = json!({"PK": {"S": format!("{OWN_PREFIX}simulation")}, "SK": {"S": sort}});
    let image = || Some(keys.clone());
    let (new_image, old_image) = (image(), image());
    world.put_own(&Change { kind, new_image, old_image, keys, user_identity: None });
}
