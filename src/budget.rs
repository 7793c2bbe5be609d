//! The bytes that may be buffered at once, over all shards of the process.
//!
//! Owns the bound on read-ahead: a page is read only when there is room for a whole one,
//! so that a stuck handler stops the reading and not the machine. Invariant: what is
//! charged is given back exactly when the last record of the page is dropped.

use prometheus::IntGauge;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is set aside before a read: the service's bound on a page. A page that turns out
/// larger is charged what it is, so the budget can be passed by that much per read.
const PAGE_BYTES: u32 = 1 << 20;

/// The smallest budget that can be configured: one page must fit.
pub const MIN_BUDGET_BYTES: usize = 1 << 20;

/// A budget of bytes. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    buffered: IntGauge,
}

/// Room for a page that is about to be read.
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    buffered: IntGauge,
}

/// The bytes of one page, given back on drop.
pub struct Charge {
    _permit: OwnedSemaphorePermit,
    bytes: i64,
    buffered: IntGauge,
}

impl Budget {
    /// A budget of `bytes`, at least [`MIN_BUDGET_BYTES`]; `buffered` shows what is used.
    pub fn new(bytes: usize, buffered: IntGauge) -> Self {
        let bytes = bytes.clamp(MIN_BUDGET_BYTES, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(bytes)), buffered }
    }

    /// Waits until a page may be read, first come first served.
    pub async fn reserve(&self) -> Reservation {
        let permit = Arc::clone(&self.free).acquire_many_owned(PAGE_BYTES).await;
        Reservation {
            permit: permit.expect("the semaphore is never closed"),
            buffered: self.buffered.clone(),
        }
    }
}

impl Reservation {
    /// Turns the reservation into the charge for a page of `bytes`.
    pub fn charge(mut self, bytes: usize) -> Charge {
        let reserved = self.permit.num_permits();
        if let Some(surplus) = reserved.checked_sub(bytes) {
            drop(self.permit.split(surplus));
        } else if let Ok(more) = u32::try_from(bytes - reserved)
            && let Ok(permit) = Arc::clone(self.permit.semaphore()).try_acquire_many_owned(more)
        {
            self.permit.merge(permit);
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.buffered.add(bytes);
        Charge { _permit: self.permit, bytes, buffered: self.buffered }
    }
}

impl Charge {
    /// How many they are.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or_default()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.buffered.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize) -> (Budget, IntGauge) {
        let gauge = IntGauge::new("buffered", "test").unwrap();
        (Budget::new(bytes, gauge.clone()), gauge)
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_until_a_page_is_given_back() {
        let (budget, gauge) = budget(2 << 20);
        let first = budget.reserve().await.charge(1 << 20);
        let second = budget.reserve().await.charge(3 << 20);
        assert_eq!(gauge.get(), 4 << 20);
        let mut third = std::pin::pin!(budget.reserve());
        let hour = std::time::Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut third).await.is_err());
        drop(first);
        third.await;
        drop(second);
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn what_a_small_page_does_not_need_is_free_at_once() {
        let (budget, _) = budget(2 << 20);
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(budget.reserve().await.charge(1000));
        }
    }
}
