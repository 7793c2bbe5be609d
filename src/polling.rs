//! How long to wait before the next GetRecords call: empty calls cost money too.
//!
//! Owns the decision; pure. At once while behind; at the tip the wait grows from the
//! shortest to the longest interval, jittered, and shrinks back when records come. Also
//! which shards are hot: where calls have to wait for each other, theirs go first, and they
//! are polled when they are due, while the polls of others are gathered.

use std::time::Duration;

/// The bounds of the wait at the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollIntervals {
    /// After a page with records, and the first wait after an empty one.
    pub min: Duration,
    /// What the wait grows to on a shard that stays idle.
    pub max: Duration,
}

/// What a poll brought, as far as pace is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Polled {
    /// How many records came.
    pub records: usize,
    /// Bytes of the answer.
    pub bytes: usize,
    /// How old the newest record is; `None` without records.
    pub age: Option<Duration>,
    /// Whether the shard is known to be closed: it ends, so it is read without pause.
    pub closed: bool,
}

/// Whether a shard is likely to have records now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// One of its last polls brought records, or it is closed and being read to its end.
    Hot,
    /// The others: those that were empty for a while, and those not polled yet.
    Idle,
}

/// A page at least this large was cut off by a limit of the service: there is more.
const FULL_PAGE_BYTES: usize = 512 * 1024;
const FULL_PAGE_RECORDS: usize = 500;
/// DynamoDB rounds creation times down to the second; older than this is behind.
const BEHIND: Duration = Duration::from_secs(3);
/// Empty pages are normal before records, so a closed shard's are passed quickly, but
/// not in a spin.
const CLOSED_EMPTY: Duration = Duration::from_millis(20);

/// Idle shards are polled together, so many times in their longest wait: a process that
/// wakes up for each of a thousand polls spends more on waking than on polling.
const STEPS: u32 = 20;
/// Steps are no longer than this, or a busy stream's calls would come in heaps.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// So many empty pages after one with records make a shard idle: a busy one has some.
const HOT_EMPTY: u32 = 3;

/// The pace of one shard.
#[derive(Clone, Debug)]
pub struct Polling {
    intervals: PollIntervals,
    empty: u32,
    heat: Heat,
}

impl Polling {
    /// A shard not polled yet.
    pub fn new(intervals: PollIntervals) -> Self {
        Self { intervals, empty: 0, heat: Heat::Idle }
    }

    /// How it was when it was polled last.
    pub fn heat(&self) -> Heat {
        self.heat
    }

    /// The wait after `polled`. `random` is from 0 to 1.
    pub fn wait(&mut self, polled: Polled, random: f64) -> Duration {
        if polled.records > 0 {
            (self.empty, self.heat) = (0, Heat::Hot);
            let behind = polled.closed
                || polled.records >= FULL_PAGE_RECORDS
                || polled.bytes >= FULL_PAGE_BYTES
                || polled.age.is_some_and(|age| age > BEHIND);
            return if behind { Duration::ZERO } else { self.jittered(self.intervals.min, random) };
        }
        if polled.closed && self.empty < 64 {
            (self.empty, self.heat) = (self.empty + 1, Heat::Hot);
            return CLOSED_EMPTY.min(self.intervals.min);
        }
        let grown = self.intervals.min.saturating_mul(1 << self.empty.min(10));
        self.empty = self.empty.saturating_add(1);
        if self.empty >= HOT_EMPTY {
            self.heat = Heat::Idle;
        }
        self.jittered(grown.min(self.intervals.max), random)
    }

    /// How much later than at `due` to poll, with others: `due` is told from a moment that is
    /// the same for all shards of the process. Hot ones do not wait for others.
    pub fn in_step(&self, due: Duration) -> Duration {
        let step = (self.intervals.max / STEPS).min(LONGEST_STEP).as_nanos();
        if self.heat == Heat::Hot || step == 0 {
            return Duration::ZERO;
        }
        let late = due.as_nanos() % step;
        Duration::from_nanos(if late == 0 { 0 } else { (step - late) as u64 })
    }

    /// Takes off up to a tenth: enough to keep a thousand shards from polling in step,
    /// little enough that the price stays what the intervals say.
    fn jittered(&self, wait: Duration, random: f64) -> Duration {
        wait.mul_f64(1.0 - random.clamp(0.0, 1.0) / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVALS: PollIntervals =
        PollIntervals { min: Duration::from_millis(200), max: Duration::from_secs(1) };
    const EMPTY: Polled = Polled { records: 0, bytes: 30, age: None, closed: false };

    #[test]
    fn backs_off_while_idle_and_comes_back_with_the_first_record() {
        let mut polling = Polling::new(INTERVALS);
        let waits: Vec<u128> = (0..5).map(|_| polling.wait(EMPTY, 0.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1000, 1000]);
        let fresh = Polled { records: 1, age: Some(Duration::from_secs(1)), ..EMPTY };
        assert_eq!(polling.wait(fresh, 0.0), INTERVALS.min);
        assert_eq!(polling.wait(EMPTY, 0.0), INTERVALS.min);
    }

    #[test]
    fn is_hot_from_its_first_records_until_some_empty_pages_after_the_last() {
        let mut polling = Polling::new(INTERVALS);
        let mut heat = |polled| {
            polling.wait(polled, 0.0);
            polling.heat()
        };
        assert_eq!(heat(EMPTY), Heat::Idle, "nothing is known of it");
        assert_eq!(heat(Polled { records: 1, ..EMPTY }), Heat::Hot);
        let after: Vec<Heat> = (0..4).map(|_| heat(EMPTY)).collect();
        assert_eq!(after, [Heat::Hot, Heat::Hot, Heat::Idle, Heat::Idle]);
        let closed = Polled { closed: true, ..EMPTY };
        assert_eq!(heat(closed), Heat::Hot, "its children wait for its end");
    }

    #[test]
    fn does_not_wait_while_behind() {
        let mut polling = Polling::new(INTERVALS);
        let behind = [
            Polled { records: 1000, ..EMPTY },
            Polled { records: 1, bytes: 900_000, ..EMPTY },
            Polled { records: 1, age: Some(Duration::from_secs(60)), ..EMPTY },
            Polled { records: 1, closed: true, ..EMPTY },
        ];
        for polled in behind {
            assert_eq!(polling.wait(polled, 0.5), Duration::ZERO, "{polled:?}");
        }
    }

    #[test]
    fn idle_shards_are_polled_together_and_hot_ones_when_they_are_due() {
        let mut polling = Polling::new(INTERVALS);
        let millis = Duration::from_millis;
        let at = |polling: &Polling, due| due + polling.in_step(due);
        assert_eq!(at(&polling, millis(101)), millis(150));
        assert_eq!(at(&polling, millis(150)), millis(150));
        polling.wait(Polled { records: 1, ..EMPTY }, 0.0);
        assert_eq!(at(&polling, millis(101)), millis(101));
        // Where waits are short, so are the steps.
        let quick = PollIntervals { min: millis(10), max: millis(10) };
        assert_eq!(Polling::new(quick).in_step(Duration::from_nanos(1)).as_micros(), 499);
    }

    proptest! {
        #[test]
        fn never_above_the_longest_interval_and_never_a_spin(
            polls in prop::collection::vec((0usize..3, any::<bool>(), 0.0f64..1.0), 1..300),
        ) {
            let mut polling = Polling::new(INTERVALS);
            for (records, closed, random) in polls {
                let wait = polling.wait(Polled { records, closed, ..EMPTY }, random);
                prop_assert!(wait <= INTERVALS.max);
                prop_assert!(records > 0 || wait > Duration::ZERO);
            }
        }
    }
}
