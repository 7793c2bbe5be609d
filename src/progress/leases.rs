//! Leases, as items of the table: taken, handed over, given back.
//!
//! Owns the conditions under which an owner is written, and how a shard's item is made.
//! Invariant: an owner is written only over the lease that was seen.

use super::dynamodb::{Refusal, Values};
use super::expression::{
    AS_SEEN, BEGIN_CHILD, BEGIN_SHARD, BEGIN_STREAM, HELD, NOT_THERE, RELEASE, RELEASED_AS_SEEN,
    TAKE,
};
use super::item::Value;
use super::table::{TableProgress, held_values};
use super::{Lease, LeaseKey, NewShard, ProgressError, WorkerId, first_take};
use super::{fencing, item};
use crate::source::ShardId;
use std::time::SystemTime;

impl TableProgress {
    /// [`Progress::take`](super::Progress::take)
    pub(super) async fn take_lease(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        let item_key = self.keys.lease(key);
        let taken = match seen {
            Some(seen) => fencing::taken(seen, worker),
            None => fencing::first(first_take(key, new)?, worker),
        };
        let mut values = owner_values(&taken, worker);
        let (update, condition) = match seen {
            Some(seen) => {
                values.push((":counter", seen.counter.into()));
                match &seen.owner {
                    Some(owner) => {
                        values.push((":owner", owner.as_str().into()));
                        (TAKE, AS_SEEN)
                    }
                    None => (TAKE, RELEASED_AS_SEEN),
                }
            }
            None => {
                values.push((":v", item::FORMAT.into()));
                (begin(first_take(key, new)?, &mut values), NOT_THERE)
            }
        };
        match self.table.update(&item_key, update, condition, values).await {
            Ok(()) => {}
            Err(refusal) => {
                self.judge(&item_key, refusal, |now, _| fencing::take(now, seen, &taken)).await?;
            }
        }
        Ok(taken)
    }

    /// [`Progress::hand_over`](super::Progress::hand_over)
    pub(super) async fn pass_lease_on(
        &self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError> {
        let key = self.keys.shard(shard);
        let handed = fencing::handed_over(lease, to);
        let values = owner_values(&handed, to);
        match self.update_held(&key, lease, TAKE, HELD, values).await {
            Ok(()) => {}
            Err(refusal) => {
                let judge = |now: Option<&_>, _| fencing::hand_over(now, lease, to);
                self.judge(&key, refusal, judge).await?;
            }
        }
        Ok(handed)
    }

    /// [`Progress::release`](super::Progress::release)
    pub(super) async fn give_lease_back(
        &self,
        key: &LeaseKey,
        lease: &Lease,
    ) -> Result<(), ProgressError> {
        let key = self.keys.lease(key);
        let written = match held_values(lease) {
            Some(held) => self.table.update(&key, RELEASE, HELD, held).await,
            None => Err(Refusal::Condition(None)),
        };
        match written {
            Ok(()) => Ok(()),
            Err(refusal) => self.judge(&key, refusal, |now, _| fencing::release(now, lease)).await,
        }
    }
}

/// What a lease is given to its new owner with.
fn owner_values(lease: &Lease, owner: &WorkerId) -> Values<'static> {
    vec![
        (":worker", owner.as_str().into()),
        (":next", lease.counter.into()),
        (":since", item::millis(SystemTime::now()).into()),
    ]
}

/// The expression that makes an item; adds what it needs to `values`.
fn begin(first: Option<&NewShard>, values: &mut Values<'_>) -> &'static str {
    let Some(first) = first else { return BEGIN_STREAM };
    values.push((":position", Value::Text(item::position_text(&first.position))));
    values.push((":updated", item::millis(SystemTime::now()).into()));
    values.push((":closed", Value::Bool(first.closed)));
    match &first.parent {
        None => BEGIN_SHARD,
        Some(parent) => {
            values.push((":parent", parent.as_str().into()));
            BEGIN_CHILD
        }
    }
}
