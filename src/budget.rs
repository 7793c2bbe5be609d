//! What reading may take at once, over all shards of the process: calls and bytes.
//!
//! Owns both bounds and the order of those who wait for them. A page is read only when
//! there is room for a whole one, so that a stuck handler stops the reading and not the
//! machine; and few calls are under way, so that ten thousand shards are not as many
//! connections. Invariant: what is charged is given back exactly when the last record of
//! the page is dropped, and a shard that waits has its turn whatever the others do.

use crate::polling::Heat;
use prometheus::IntGauge;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is set aside before a read: the service's bound on a page. A page that turns out
/// larger is charged what it is, so the budget can be passed by that much per read.
const PAGE_BYTES: usize = 1 << 20;

/// The smallest budget that can be configured: one page must fit.
pub const MIN_BUDGET_BYTES: usize = PAGE_BYTES;

/// Calls under way at once, each on a connection. An answer takes some 10 ms, so that these
/// make some thousands a second: more than a core can sign. Their pages fit the default of
/// MAX_BUFFERED_BYTES.
pub const CALLS_AT_ONCE: usize = 64;
/// One call in so many is kept from idle shards: where answers hang, theirs must not be all
/// that is under way when a hot one comes.
const KEPT_FOR_HOT: usize = 4;
/// So many hot shards have their turn in a row while idle ones wait. Then an idle one has.
const HOT_IN_A_ROW: u32 = 7;

/// A budget of calls and bytes. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    room: Mutex<Room<oneshot::Sender<Reservation>>>,
    buffered: IntGauge,
}

/// A call, and room for the page that it may bring.
pub struct Reservation {
    budget: Budget,
    heat: Heat,
}

/// The bytes of one page, given back on drop.
pub struct Charge {
    budget: Budget,
    bytes: usize,
    since: Instant,
}

impl Budget {
    /// A budget of `bytes`, at least [`MIN_BUDGET_BYTES`]; `buffered` shows what is used.
    pub fn new(bytes: usize, buffered: IntGauge) -> Self {
        let room = Mutex::new(Room::new(bytes.max(MIN_BUDGET_BYTES)));
        Self(Arc::new(Inner { room, buffered }))
    }

    /// Waits until a page may be read: hot shards go first, and each kind in the order in
    /// which it came. Who no longer waits loses nothing but its place in the order.
    pub async fn reserve(&self, heat: Heat) -> Reservation {
        let (waiting, turn) = oneshot::channel();
        self.lock().wait(heat, waiting);
        self.admit();
        turn.await.expect("who waits is not forgotten")
    }

    /// Calls in all who may read now.
    fn admit(&self) {
        loop {
            let next = self.lock().next();
            let Some((heat, waiting)) = next else { return };
            if waiting.is_closed() {
                self.lock().unused(heat);
            } else {
                // Where it has gone away just now, this comes back and gives its place up.
                let _ = waiting.send(Reservation { budget: self.clone(), heat });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room<oneshot::Sender<Reservation>>> {
        self.0.room.lock().expect("no panic while held")
    }
}

impl Reservation {
    /// The call is over and brought a page of `bytes` at `since`.
    pub fn charge(self, bytes: usize, since: Instant) -> Charge {
        let budget = self.budget.clone();
        budget.lock().take(bytes);
        budget.0.buffered.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        Charge { budget, bytes, since }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.lock().unused(self.heat);
        self.budget.admit();
    }
}

impl Charge {
    /// How many they are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the page came.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.lock().give_back(self.bytes);
        self.budget.0.buffered.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
        self.budget.admit();
    }
}

/// Who reads, who waits, and who is next. Pure.
struct Room<W> {
    /// Bytes that are left. A page that was larger than what was set aside may have passed
    /// the bound.
    bytes: i64,
    /// Calls that may be under way.
    places: usize,
    /// Those that are.
    hot: Side<W>,
    idle: Side<W>,
    /// Hot shards that had their turn since an idle one had.
    in_a_row: u32,
}

/// One kind of shards.
struct Side<W> {
    under_way: usize,
    /// In the order in which they came.
    waiting: VecDeque<W>,
}

impl<W> Room<W> {
    fn new(bytes: usize) -> Self {
        let side = || Side { under_way: 0, waiting: VecDeque::new() };
        Self {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            places: CALLS_AT_ONCE.min(bytes / PAGE_BYTES),
            hot: side(),
            idle: side(),
            in_a_row: 0,
        }
    }

    fn side(&mut self, heat: Heat) -> &mut Side<W> {
        match heat {
            Heat::Hot => &mut self.hot,
            Heat::Idle => &mut self.idle,
        }
    }

    fn wait(&mut self, heat: Heat, who: W) {
        self.side(heat).waiting.push_back(who);
    }

    /// Who may read now, if anybody may; what that takes is set aside.
    fn next(&mut self) -> Option<(Heat, W)> {
        let is_full = self.hot.under_way + self.idle.under_way >= self.places;
        if is_full || self.bytes < PAGE_BYTES as i64 {
            return None;
        }
        let most_idle = self.places - self.places / KEPT_FOR_HOT;
        let is_idle_ready = !self.idle.waiting.is_empty() && self.idle.under_way < most_idle;
        let is_hot_ready = !self.hot.waiting.is_empty();
        let heat = match (is_hot_ready, is_idle_ready) {
            (true, true) if self.in_a_row >= HOT_IN_A_ROW => Heat::Idle,
            (true, _) => Heat::Hot,
            (false, true) => Heat::Idle,
            (false, false) => return None,
        };
        self.in_a_row = if heat == Heat::Hot { self.in_a_row.saturating_add(1) } else { 0 };
        self.bytes -= PAGE_BYTES as i64;
        let side = self.side(heat);
        side.under_way += 1;
        Some((heat, side.waiting.pop_front()?))
    }

    /// A call is over, and what was set aside for its page is free.
    fn unused(&mut self, heat: Heat) {
        self.side(heat).under_way -= 1;
        self.give_back(PAGE_BYTES);
    }

    /// A page of so many bytes is there.
    fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    fn budget(bytes: usize) -> (Budget, IntGauge) {
        let gauge = IntGauge::new("buffered", "test").unwrap();
        (Budget::new(bytes, gauge.clone()), gauge)
    }

    async fn waits(reserving: impl Future<Output = Reservation>) -> bool {
        tokio::time::timeout(HOUR, reserving).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_until_a_page_is_given_back() {
        let (budget, gauge) = budget(2 << 20);
        let first = budget.reserve(Heat::Idle).await.charge(1 << 20, Instant::now());
        // Larger than what was set aside for it: the bound is passed by that much.
        let second = budget.reserve(Heat::Hot).await.charge(2 << 20, Instant::now());
        assert_eq!(gauge.get(), 3 << 20);
        let mut third = std::pin::pin!(budget.reserve(Heat::Hot));
        assert!(waits(&mut third).await);
        drop(first);
        assert!(waits(&mut third).await, "what passed the bound counts");
        drop(second);
        third.await;
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn what_a_small_page_does_not_need_is_free_at_once() {
        let (budget, _) = budget(2 << 20);
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(budget.reserve(Heat::Idle).await.charge(1000, Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_calls_that_hang_leave_places_for_hot_ones() {
        let (budget, _) = budget(1 << 30);
        let mut under_way = Vec::new();
        for _ in 0..CALLS_AT_ONCE - CALLS_AT_ONCE / KEPT_FOR_HOT {
            under_way.push(budget.reserve(Heat::Idle).await);
        }
        assert!(waits(budget.reserve(Heat::Idle)).await);
        for _ in 0..CALLS_AT_ONCE / KEPT_FOR_HOT {
            under_way.push(budget.reserve(Heat::Hot).await);
        }
        assert!(waits(budget.reserve(Heat::Hot)).await);
        under_way.pop();
        budget.reserve(Heat::Hot).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_no_longer_waits_gives_its_place_up() {
        let (budget, gauge) = budget(1 << 20);
        let first = budget.reserve(Heat::Idle).await;
        let mut gone: Vec<_> = (0..10_000).map(|_| Box::pin(budget.reserve(Heat::Hot))).collect();
        for waiting in &mut gone {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        let mut last = std::pin::pin!(budget.reserve(Heat::Idle));
        assert!(waits(&mut last).await);
        // One of them has its turn already, and does not know yet.
        drop(first);
        gone.clear();
        drop(last.await.charge(5, Instant::now()));
        assert_eq!(gauge.get(), 0);
    }

    /// Someone who reads again and again.
    #[derive(Clone, Debug)]
    enum Step {
        Wait(Heat),
        /// The call that is longest under way ends with a page of so many KiB.
        Answer(usize),
        /// The oldest page is dropped.
        Drop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Wait(Heat::Hot)),
            3 => Just(Step::Wait(Heat::Idle)),
            4 => (0_usize..1500).prop_map(Step::Answer),
            2 => Just(Step::Drop),
        ]
    }

    proptest! {
        /// Both bounds hold, nobody waits while there is room, each kind keeps its order, a
        /// hot one is passed by an idle one only after its run, and what is given back is
        /// all that was taken.
        #[test]
        fn calls_and_bytes_are_bounded_and_nobody_is_forgotten(
            steps in prop::collection::vec(step(), 1..400),
            pages in 1_usize..80,
        ) {
            let whole = pages * PAGE_BYTES;
            let mut room = Room::new(whole);
            let mut calls = VecDeque::new();
            let mut held = VecDeque::new();
            let mut waiting: [VecDeque<usize>; 2] = Default::default();
            let (mut serial, mut run) = (0, 0);
            for step in steps {
                match step {
                    Step::Wait(heat) => {
                        room.wait(heat, serial);
                        waiting[heat as usize].push_back(serial);
                        serial += 1;
                    }
                    Step::Answer(kib) => if let Some(heat) = calls.pop_front() {
                        room.take(kib << 10);
                        room.unused(heat);
                        held.push_back(kib << 10);
                    },
                    Step::Drop => if let Some(bytes) = held.pop_front() {
                        room.give_back(bytes);
                    },
                }
                while let Some((heat, who)) = room.next() {
                    let (others, own) = match heat {
                        Heat::Hot => (Heat::Idle, Heat::Hot),
                        Heat::Idle => (Heat::Hot, Heat::Idle),
                    };
                    prop_assert_eq!(waiting[own as usize].pop_front(), Some(who));
                    if heat == Heat::Hot {
                        run += 1;
                    } else {
                        prop_assert!(waiting[others as usize].is_empty() || run >= HOT_IN_A_ROW);
                        run = 0;
                    }
                    calls.push_back(heat);
                    let aside = calls.len() * PAGE_BYTES + held.iter().sum::<usize>();
                    let passed = held.iter().map(|bytes| bytes.saturating_sub(PAGE_BYTES)).sum::<usize>();
                    prop_assert!(aside <= whole + passed);
                }
                prop_assert!(calls.len() <= CALLS_AT_ONCE.min(pages));
                // Who waits has a reason.
                let used = calls.len() * PAGE_BYTES + held.iter().sum::<usize>();
                let has_room = calls.len() < room.places && used + PAGE_BYTES <= whole;
                let idle = calls.iter().filter(|heat| **heat == Heat::Idle).count();
                prop_assert!(!has_room || waiting[Heat::Hot as usize].is_empty());
                prop_assert!(
                    !has_room || waiting[Heat::Idle as usize].is_empty()
                        || idle >= room.places - room.places / KEPT_FOR_HOT
                );
            }
            calls.drain(..).for_each(|heat| room.unused(heat));
            held.drain(..).for_each(|bytes| room.give_back(bytes));
            prop_assert_eq!(room.bytes, whole as i64);
        }

        /// However many hot shards come, an idle one waits for a run of them and no longer.
        #[test]
        fn an_idle_shard_has_its_turn(pages in 1_usize..80, idle in 1_usize..5) {
            let mut room = Room::new(pages * PAGE_BYTES);
            for who in 0..200 {
                room.wait(Heat::Hot, who);
            }
            let mut calls: VecDeque<Heat> = std::iter::from_fn(|| room.next()).map(|it| it.0).collect();
            for who in 0..idle {
                room.wait(Heat::Idle, who);
            }
            let mut order = Vec::new();
            for who in 200..200 + idle * (HOT_IN_A_ROW as usize + 1) {
                room.wait(Heat::Hot, who);
                room.unused(calls.pop_front().expect("under way"));
                let (heat, _) = room.next().expect("a place was given up");
                calls.push_back(heat);
                order.push(heat);
            }
            prop_assert_eq!(order.iter().filter(|heat| **heat == Heat::Idle).count(), idle);
        }
    }
}
