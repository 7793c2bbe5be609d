//! What the plots show: the last hours of a stream, in a ring in memory.
//!
//! Owns its size, and what is made of the workers' signs of life. It begins anew with every start
//! of this replica, and says when that was. Pure. Invariant: a point that could not be taken is a
//! hole, not a zero.

use crate::progress::{Heartbeat, WorkerId};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

/// Between two points.
pub(super) const STEP: Duration = Duration::from_secs(20);
/// Six hours of them.
const MOST_POINTS: usize = 1080;
pub(super) const KEPT_FOR: Duration = STEP.saturating_mul(MOST_POINTS as u32);

/// The ring of one stream.
pub(super) struct History {
    since: SystemTime,
    points: VecDeque<Point>,
    /// Records that each worker had delivered, and when that was said.
    counted: Option<(SystemTime, BTreeMap<WorkerId, u64>)>,
}

/// What the workers said at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    at: SystemTime,
    /// The largest iterator age, in seconds; `None` where nobody said one, or not of all shards.
    age: Option<f64>,
    /// Records delivered a second since the last point.
    rate: Option<f64>,
}

/// As the page gets it: times in seconds after `since`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Series {
    since: u64,
    step: u64,
    t: Vec<u64>,
    age: Vec<Option<f64>>,
    rate: Vec<Option<f64>>,
}

impl History {
    pub fn new(since: SystemTime) -> Self {
        Self { since, points: VecDeque::new(), counted: None }
    }

    /// Takes in what the workers that live say; nobody lives where the table did not answer. What
    /// is `paused` gets older without anybody who says so.
    pub fn add<'a>(
        &mut self,
        now: SystemTime,
        living: impl Iterator<Item = &'a Heartbeat>,
        paused: bool,
    ) {
        let mut age = None;
        let mut delivered = BTreeMap::new();
        for sign in living {
            age = age.max(Some(sign.age_ms));
            delivered.insert(sign.worker.clone(), sign.report.delivered);
        }
        let rate = match &self.counted {
            Some((then, before)) if !delivered.is_empty() => {
                // A life that is new has begun to count with it.
                let new = |(worker, count): (&WorkerId, &u64)| {
                    count.saturating_sub(before.get(worker).copied().unwrap_or_default())
                };
                let records: u64 = delivered.iter().map(new).sum();
                let elapsed = now.duration_since(*then).unwrap_or_default().as_secs_f64();
                (elapsed > 0.0).then(|| rounded(records as f64 / elapsed))
            }
            _ => None,
        };
        self.counted = (!delivered.is_empty()).then_some((now, delivered));
        if self.points.len() == MOST_POINTS {
            self.points.pop_front();
        }
        let age = age.filter(|_| !paused).map(|age| rounded(age as f64 / 1000.0));
        self.points.push_back(Point { at: now, age, rate });
    }

    /// When the last point was taken.
    pub fn last(&self) -> Option<SystemTime> {
        self.points.back().map(|point| point.at)
    }

    /// All points, or those after `after`.
    pub fn series(&self, after: Option<SystemTime>) -> Series {
        let points = || self.points.iter().filter(|point| after.is_none_or(|at| point.at > at));
        let seconds =
            |time: SystemTime, since| time.duration_since(since).unwrap_or_default().as_secs();
        Series {
            since: seconds(self.since, SystemTime::UNIX_EPOCH),
            step: STEP.as_secs(),
            t: points().map(|point| seconds(point.at, self.since)).collect(),
            age: points().map(|point| point.age).collect(),
            rate: points().map(|point| point.rate).collect(),
        }
    }
}

/// To three digits behind the point: what is drawn needs no more.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::report::Report;

    fn sign(worker: &str, age_ms: u64, delivered: u64) -> Heartbeat {
        let report = Report { delivered, ..Report::default() };
        Heartbeat { age_ms, report, ..Heartbeat::first(worker.into()) }
    }

    fn at(steps: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + STEP * steps
    }

    #[test]
    fn points_say_the_largest_age_and_what_was_delivered_since() {
        let mut history = History::new(at(0));
        history.add(at(1), [sign("a", 0, 1000), sign("b", 1500, 7)].iter(), false);
        // One has gone, and one has come and counts from its beginning.
        history.add(at(2), [sign("a", 250, 1400), sign("c", 0, 200)].iter(), false);
        history.add(at(3), std::iter::empty(), false);
        history.add(at(4), [sign("c", 0, 900)].iter(), false);
        history.add(at(5), [sign("c", 0, 940)].iter(), true);
        let Series { since, step, t, age, rate } = history.series(None);
        assert_eq!((since, step, t), (1000, 20, vec![20, 40, 60, 80, 100]));
        assert_eq!(age, [Some(1.5), Some(0.25), None, Some(0.0), None], "paused");
        assert_eq!(rate, [None, Some(30.0), None, None, Some(2.0)], "a hole is no zero");
        assert_eq!(history.series(Some(at(3))).t, [80, 100]);
    }

    #[test]
    fn it_holds_six_hours_and_fits_the_first_view() {
        let mut history = History::new(at(0));
        for n in 0..2 * MOST_POINTS as u32 {
            history.add(at(n), [sign("a", 12_345, u64::from(n) * 123_457)].iter(), false);
        }
        let series = history.series(None);
        assert_eq!(series.t.len(), MOST_POINTS);
        assert_eq!(KEPT_FOR, Duration::from_secs(6 * 3600));
        let bytes = serde_json::to_string(&series).unwrap().len();
        assert!(bytes < 32 << 10, "{bytes}");
    }
}
