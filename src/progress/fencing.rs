//! Who may write: the verdict on a write, given the lease it finds.
//!
//! Pure, and the same for every store: memory asks before it writes, the table asks
//! when DynamoDB has refused a condition. Invariant: the counter only grows, also over
//! the removal of an item by a seek of the whole stream, so a lease that has passed on
//! never fits again; and a write is taken for the caller's own only when what it would
//! have left behind is what stands there.

use super::{Lease, NewShard, ProgressError, WorkerId};

/// Takes and hand-overs of a shard that an epoch has room for: one a second for half a
/// year. A counter that JSON carries exactly has room for half a billion epochs.
const COUNTED_IN_AN_EPOCH: u64 = 1 << 24;
/// Counters of a later one would be more than JSON carries exactly.
pub(super) const MAX_EPOCH: u64 = (1 << 29) - 1;

/// The beat that begins a life. No other does: one that was removed stays removed.
pub(super) const FIRST_BEAT: u64 = 1;

/// What is to be done about a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its condition holds.
    Write,
    /// It has happened: its answer was lost.
    Done,
    /// The lease is another's now, or nobody's.
    Lost(Option<WorkerId>),
}

impl Verdict {
    /// The end of a write whose condition the store has refused.
    pub fn after_refusal(self) -> Result<(), ProgressError> {
        match self {
            Self::Done => Ok(()),
            Self::Lost(owner) => Err(ProgressError::LeaseLost { owner }),
            Self::Write => Err(ProgressError::Unavailable(
                "the item changed between the write and the look at what refused it".to_owned(),
            )),
        }
    }
}

/// The lease that a take of what was `seen` leaves behind.
pub(super) fn taken(seen: &Lease, worker: &WorkerId) -> Lease {
    Lease { owner: Some(worker.clone()), counter: seen.counter.saturating_add(1) }
}

/// The first lease of an item, that begins as `new`; the stream's has no such beginning.
pub(super) fn first(new: Option<&NewShard>, worker: &WorkerId) -> Lease {
    let epoch = new.map_or(0, |new| new.epoch);
    let counter = epoch.saturating_mul(COUNTED_IN_AN_EPOCH);
    taken(&Lease { owner: None, counter }, worker)
}

/// In which epoch the item was made that has this lease.
pub(super) fn epoch(lease: &Lease) -> u64 {
    lease.counter / COUNTED_IN_AN_EPOCH
}

/// The lease that a hand-over of `lease` leaves behind.
pub(super) fn handed_over(lease: &Lease, to: &WorkerId) -> Lease {
    taken(lease, to)
}

/// The hand-over of `lease`.
pub(super) fn hand_over(current: Option<&Lease>, lease: &Lease, to: &WorkerId) -> Verdict {
    if current == Some(&handed_over(lease, to)) { Verdict::Done } else { held(current, lease) }
}

/// The removal of the sign of life that was `seen` last, or of any.
pub(super) fn retire(current: Option<u64>, seen: Option<u64>, worker: &WorkerId) -> Verdict {
    match (current, seen) {
        (None, _) => Verdict::Done,
        (Some(beat), Some(seen)) if beat != seen => Verdict::Lost(Some(worker.clone())),
        _ => Verdict::Write,
    }
}

/// The beat `beat`, where `current` was the last.
pub(super) fn beat(current: Option<u64>, beat: u64) -> Verdict {
    match current {
        None if beat == FIRST_BEAT => Verdict::Write,
        None => Verdict::Lost(None),
        Some(current) if current < beat => Verdict::Write,
        // It stands already, or a later one does and this one comes late.
        Some(_) => Verdict::Done,
    }
}

/// A take of what was `seen`, that would leave `taken` behind.
pub(super) fn take(current: Option<&Lease>, seen: Option<&Lease>, taken: &Lease) -> Verdict {
    if current == seen {
        Verdict::Write
    } else if current == Some(taken) {
        Verdict::Done
    } else {
        lost(current)
    }
}

/// A write under `lease` that may be repeated without harm.
pub(super) fn held(current: Option<&Lease>, lease: &Lease) -> Verdict {
    // Nobody writes under a lease that nobody holds.
    if current == Some(lease) && lease.owner.is_some() { Verdict::Write } else { lost(current) }
}

/// The `step`th position under `lease`, where `written` was the last.
pub(super) fn checkpoint(
    current: Option<&Lease>,
    written: Option<u64>,
    lease: &Lease,
    step: u64,
) -> Verdict {
    match held(current, lease) {
        // It comes late, or its answer did: a later one stands there.
        Verdict::Write if written.is_some_and(|written| written > step) => Verdict::Done,
        verdict => verdict,
    }
}

/// The release of `lease`.
pub(super) fn release(current: Option<&Lease>, lease: &Lease) -> Verdict {
    let released = Lease { owner: None, counter: lease.counter };
    if current == Some(&released) { Verdict::Done } else { held(current, lease) }
}

/// The removal of the item that `lease` is of.
pub(super) fn forget(current: Option<&Lease>, lease: &Lease) -> Verdict {
    if current.is_none() { Verdict::Done } else { held(current, lease) }
}

fn lost(current: Option<&Lease>) -> Verdict {
    Verdict::Lost(current.and_then(|lease| lease.owner.clone()))
}

#[cfg(test)]
mod tests {
    use super::super::Position;
    use super::*;
    use proptest::prelude::*;

    fn lease() -> impl Strategy<Value = Lease> {
        (proptest::option::of(0..3u8), 1..4u64).prop_map(|(owner, counter)| Lease {
            owner: owner.map(|n| WorkerId::from(format!("w{n}").as_str())),
            counter,
        })
    }

    fn left_behind(before: Option<&Lease>, worker: &WorkerId) -> Lease {
        before.map_or_else(|| first(None, worker), |before| taken(before, worker))
    }

    #[test]
    fn an_item_that_is_made_anew_counts_on_above_all_leases_before() {
        let worker = WorkerId::from("w1");
        let made = |epoch| {
            let new =
                NewShard { parent: None, position: Position::TrimHorizon, closed: false, epoch };
            first(Some(&new), &worker)
        };
        assert_eq!(made(0).counter, 1);
        let mut lease = made(1);
        for _ in 0..1000 {
            lease = taken(&lease, &worker);
        }
        assert_eq!(epoch(&lease), 1);
        assert!(made(2).counter > lease.counter);
        // The largest that JSON carries exactly is not reached in half a billion epochs.
        assert!(made((1 << 29) - 1).counter < 1 << 53);
        // Whatever a caller of the api says for one.
        assert_eq!(made(u64::MAX).counter, u64::MAX);
    }

    proptest! {
        #[test]
        fn a_lease_never_fits_again_after_a_take(
            before in proptest::option::of(lease()),
            old in lease(),
            worker in 0..3u8,
        ) {
            let worker = WorkerId::from(format!("w{worker}").as_str());
            prop_assume!(before.as_ref().is_none_or(|before| before.counter >= old.counter));
            let now = left_behind(before.as_ref(), &worker);
            prop_assert_eq!(take(before.as_ref(), before.as_ref(), &now), Verdict::Write);
            prop_assume!(now != old);
            let lost = Verdict::Lost(Some(worker.clone()));
            prop_assert_eq!(held(Some(&now), &old), lost.clone());
            prop_assert_eq!(release(Some(&now), &old), lost.clone());
            prop_assert_eq!(forget(Some(&now), &old), lost);
        }

        #[test]
        fn what_a_write_leaves_behind_is_known_as_its_own(
            before in proptest::option::of(lease()),
            worker in 0..3u8,
        ) {
            let worker = WorkerId::from(format!("w{worker}").as_str());
            let now = left_behind(before.as_ref(), &worker);
            prop_assert_eq!(take(Some(&now), before.as_ref(), &now), Verdict::Done);
            let released = Lease { owner: None, ..now.clone() };
            prop_assert_eq!(release(Some(&released), &now), Verdict::Done);
            prop_assert_eq!(forget(None, &now), Verdict::Done);
        }
    }

    #[test]
    fn a_position_is_overtaken_only_under_its_own_lease() {
        let lease = Lease { owner: Some(WorkerId::from("w1")), counter: 3 };
        for (written, verdict) in [
            (None, Verdict::Write),
            (Some(4), Verdict::Write),
            (Some(5), Verdict::Write),
            (Some(6), Verdict::Done),
        ] {
            assert_eq!(checkpoint(Some(&lease), written, &lease, 5), verdict);
        }
        let next = Lease { owner: Some(WorkerId::from("w2")), counter: 4 };
        let lost = Verdict::Lost(next.owner.clone());
        assert_eq!(checkpoint(Some(&next), Some(6), &lease, 5), lost);
    }

    #[test]
    fn a_lease_without_an_owner_allows_nothing() {
        let nobodys = Lease { owner: None, counter: 3 };
        assert_eq!(held(Some(&nobodys), &nobodys), Verdict::Lost(None));
        assert_eq!(forget(Some(&nobodys), &nobodys), Verdict::Lost(None));
    }
}
