//! Sorts what the reader brings into the batches of lanes.
//!
//! Owns the order in which things are worked: own records and those that the filter
//! drops are left out here, the end of a shard waits for every batch before it. Delivers
//! nothing. Invariant: what comes out is what went in, in order per lane, less the records
//! left out, each of which is counted; and every piece of it has its place in [`Track`].

use super::lane::{Closed, Lane, lane_of};
use super::track::Track;
use crate::batch::Batcher;
use crate::budget::Charge;
use crate::filter::FilterCriteria;
use crate::frontier::Mark;
use crate::progress::{Gap, Position, is_own as own_keys};
use crate::reader::Read;
use crate::record::Record;
use crate::telemetry::metrics::Metrics;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What there is to do next.
pub(super) enum Work {
    /// Records to deliver by this lane.
    Batch(usize, Closed),
    /// The shard is delivered to its end.
    End,
    /// A stop was asked for.
    Drained,
}

/// Which records the handler is not to have.
pub(super) struct Sieve<'a> {
    /// By which own records are recognised.
    pub own_key: Option<&'a str>,
    /// What the handler asked for.
    pub filter: &'a FilterCriteria,
}

impl Sieve<'_> {
    fn is_own(&self, record: &Record) -> bool {
        self.own_key.is_some_and(|key| record.keys().is_some_and(|keys| own_keys(keys, key)))
    }
}

/// Sorts what the reader brings into batches.
pub(super) struct Desk<'a> {
    inbox: mpsc::Receiver<Read>,
    lanes: Vec<Lane>,
    /// The partition key's name, by which lanes are chosen.
    partition_key: Option<&'a str>,
    sieve: Sieve<'a>,
    /// Pages that some lane still has records of, and their bytes.
    held: Vec<(Weak<Charge>, usize)>,
    /// How much of them there may be while a lane has no work.
    share: usize,
    track: &'a Track<'a>,
    /// The shard's end has been read.
    ended: bool,
    /// The last page was empty: there was nothing more to read then.
    at_tip: bool,
    /// When the last record was written that was handed out or left out.
    passed: Option<SystemTime>,
    metrics: &'a Metrics,
}

impl<'a> Desk<'a> {
    /// An empty desk over what the reader brings, with a lane for each batcher.
    pub fn new(
        inbox: mpsc::Receiver<Read>,
        batchers: impl Iterator<Item = Batcher>,
        partition_key: Option<&'a str>,
        sieve: Sieve<'a>,
        share: usize,
        track: &'a Track<'a>,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            inbox,
            lanes: batchers.map(Lane::new).collect(),
            partition_key,
            sieve,
            held: Vec::new(),
            share,
            track,
            ended: false,
            at_tip: true,
            passed: None,
            metrics,
        }
    }

    /// The next piece of work for a lane that has none; waits as long as the window says.
    /// Nothing is lost when it is dropped while it waits.
    pub async fn next(&mut self, drain: &CancellationToken) -> Work {
        loop {
            if drain.is_cancelled() {
                return Work::Drained;
            }
            if let Some(work) = self.ready() {
                return work;
            }
            self.track.behind(self.behind_since());
            let due = self.lanes.iter().filter_map(Lane::due).min();
            let window = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let has_room = self.has_room();
            tokio::select! {
                biased;
                () = drain.cancelled() => return Work::Drained,
                // Before the window: what is there already joins a batch that is due.
                Some(read) = self.inbox.recv(), if has_room => self.take_in(read),
                () = window => self.close_due(),
            }
        }
    }

    /// Further pages are for lanes without work: while every lane has its hands full, or
    /// one that has fallen far behind holds the shard's share, the reader waits.
    fn has_room(&mut self) -> bool {
        if self.ended || !self.lanes.iter().any(Lane::is_idle) {
            return false;
        }
        self.held.retain(|(page, _)| page.strong_count() > 0);
        let held: usize = self.held.iter().map(|(_, bytes)| bytes).sum();
        self.lanes.len() == 1 || held < self.share || self.lanes.iter().all(Lane::is_empty)
    }

    /// The batch of this lane is through.
    pub fn landed(&mut self, lane: usize) {
        self.lanes[lane].landed(Instant::now());
    }

    /// What a lane can begin now.
    fn ready(&mut self) -> Option<Work> {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            // Nothing will join it any more.
            if self.ended && lane.is_idle() {
                lane.close();
            }
            if let Some(closed) = lane.depart() {
                self.passed = closed.records.last().and_then(Record::created);
                self.track.behind(self.behind_since());
                return Some(Work::Batch(index, closed));
            }
        }
        (self.ended && self.lanes.iter().all(Lane::is_empty)).then_some(Work::End)
    }

    fn close_due(&mut self) {
        let now = Instant::now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.due().is_some_and(|due| due <= now)) {
            lane.close();
        }
    }

    fn take_in(&mut self, read: Read) {
        match read {
            Read::Page { gap, records } => {
                self.pass_gap(gap);
                self.at_tip = records.is_empty();
                self.sort(records);
            }
            Read::End { gap } => {
                self.pass_gap(gap);
                self.ended = true;
            }
        }
    }

    fn sort(&mut self, records: Vec<Record>) {
        let now = Instant::now();
        if let Some(page) = records.first().and_then(Record::page) {
            self.held.push((Arc::downgrade(page), page.bytes()));
        }
        // The last of the records left out since the last one kept, and whether all of
        // them are own.
        let mut left_out: Option<(Record, bool)> = None;
        for record in records {
            let is_own = self.sieve.is_own(&record);
            if is_own {
                self.metrics.records_own.inc();
            } else if self.sieve.filter.passes(&record) {
                left_out = None;
                self.keep(record, now);
                continue;
            } else {
                self.metrics.records_filtered.inc();
            }
            let quiet = left_out.is_none_or(|(_, quiet)| quiet) && is_own;
            left_out = Some((record, quiet));
        }
        if let Some((last, quiet)) = left_out {
            self.passed = last.created().or(self.passed);
            self.track.pass(Mark { quiet, ..Mark::after(&last) });
        }
    }

    fn keep(&mut self, record: Record, now: Instant) {
        let lane = lane_of(&record, self.partition_key, self.lanes.len());
        let lane = &mut self.lanes[lane];
        lane.make_room_for(&record);
        let ticket = self.track.next_ticket(lane.last_ticket());
        lane.push(record, ticket, now);
    }

    /// The position before a gap no longer exists: from here on it is the trim horizon.
    fn pass_gap(&mut self, gap: Option<Gap>) {
        if gap.is_some() {
            self.track.pass(Mark { position: Position::TrimHorizon, quiet: false, gap });
        }
    }

    /// When the oldest record was written that is not delivered; while there is none and
    /// there may be more to read, when the last one was that was passed.
    fn behind_since(&self) -> Option<SystemTime> {
        let oldest = self.lanes.iter().filter_map(Lane::oldest).min();
        oldest.or(self.passed.filter(|_| !self.at_tip))
    }
}
