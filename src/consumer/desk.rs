//! Sorts what the reader brings into the batches of lanes.
//!
//! Owns the order in which things are worked: own records and those that the filter
//! drops are left out here, the end of a shard waits for every batch before it. Delivers
//! nothing. Invariant: what comes out is what went in, in order per lane, less the records
//! left out, each of which is counted; and every piece of it has its place in [`Track`].

use super::ahead::Ahead;
use super::lane::{Closed, Lane, lane_of};
use super::track::{Tickets, Track};
use crate::batch::Batcher;
use crate::budget::Charge;
use crate::deliver::{Window, Windows};
use crate::filter::FilterCriteria;
use crate::frontier::Mark;
use crate::progress::{Gap, Position, is_own as own_keys};
use crate::reader::Read;
use crate::record::Record;
use crate::telemetry::metrics::Metrics;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// So many empty pages in a row are the tip of a shard.
const TIP_PAGES: u32 = 3;
/// Pieces of work that may be open behind a lane that is stuck: a bound on memory where its
/// pages are few and the other lanes go on for days.
const MOST_PIECES: usize = 100_000;

/// What there is to do next.
pub(super) enum Work {
    /// Records to deliver by this lane.
    Batch(usize, Closed),
    /// The open window is over, and nothing of it is on its way.
    CloseWindow,
    /// The shard is delivered to its end.
    End,
    /// A stop was asked for.
    Drained,
}

/// By what records are sorted.
pub(super) struct Rules<'a> {
    /// The partition key's name, where it is known: own records are recognised by it, and
    /// lanes chosen.
    pub partition_key: Option<&'a str>,
    /// Which records the handler asked for.
    pub filter: &'a FilterCriteria,
    /// Tumbling windows: no batch has records of two.
    pub windows: Option<&'a Windows>,
    /// Bytes of pages that lanes may hold while another lane has no work.
    pub share: usize,
}

impl Rules<'_> {
    fn is_own(&self, record: &Record) -> bool {
        self.partition_key.is_some_and(|key| record.keys().is_some_and(|keys| own_keys(keys, key)))
    }
}

/// Sorts what the reader brings into batches.
pub(super) struct Desk<'a> {
    ahead: &'a Ahead,
    lanes: Vec<Lane>,
    rules: Rules<'a>,
    /// Pages that some lane still has records of, and their bytes.
    held: Vec<(Weak<Charge>, usize)>,
    track: &'a Track<'a>,
    /// The window of the record that was read last.
    window: Option<Window>,
    /// The shard's end has been read.
    ended: bool,
    /// Nothing was read yet, or the last page was empty: there was nothing more then.
    at_tip: bool,
    /// Empty pages in a row.
    empty: u32,
    /// Nothing older than this is still to be read, so far as is known.
    read_through: Option<SystemTime>,
    /// When the last record was written that was handed out or left out.
    passed: Option<SystemTime>,
    metrics: &'a Metrics,
}

impl<'a> Desk<'a> {
    /// An empty desk over what the reader brings, with a lane for each batcher.
    pub fn new(
        ahead: &'a Ahead,
        batchers: impl Iterator<Item = Batcher>,
        rules: Rules<'a>,
        track: &'a Track<'a>,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            ahead,
            lanes: batchers.map(Lane::new).collect(),
            rules,
            held: Vec::new(),
            track,
            window: None,
            ended: false,
            at_tip: true,
            empty: 0,
            read_through: None,
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
                read = self.ahead.take(), if has_room => self.take_in(read),
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
        if self.track.pieces() > MOST_PIECES {
            return false;
        }
        self.held.retain(|(page, _)| page.strong_count() > 0);
        let held: usize = self.held.iter().map(|(_, bytes)| bytes).sum();
        self.lanes.len() == 1 || held < self.rules.share || self.lanes.iter().all(Lane::is_empty)
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
                lane.close(Instant::now());
            }
            if let Some(closed) = lane.depart() {
                self.passed = closed.records.last().and_then(Record::created);
                self.track.behind(self.behind_since());
                return Some(Work::Batch(index, closed));
            }
        }
        if !self.lanes.iter().all(Lane::is_empty) {
            return None;
        }
        if self.ended {
            return Some(Work::End);
        }
        let is_over =
            |windows: &&Windows| self.read_through.is_some_and(|time| windows.is_over(time));
        self.rules.windows.filter(is_over).map(|_| Work::CloseWindow)
    }

    fn close_due(&mut self) {
        let now = Instant::now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.due().is_some_and(|due| due <= now)) {
            lane.close(now);
        }
    }

    fn take_in(&mut self, read: Read) {
        match read {
            Read::Page { gap, records, asked, .. } => {
                self.pass_gap(gap);
                self.at_tip = records.is_empty();
                self.look_at_the_tip(&records, asked);
                self.sort(records);
            }
            Read::End { gap } => {
                self.pass_gap(gap);
                self.ended = true;
            }
        }
    }

    /// How far the shard has been read by its records' times: to those of the last, left out
    /// or not, and at the tip to when it was asked for more. Empty pages come in the middle
    /// of a shard too, so that it takes some of them to be a tip.
    fn look_at_the_tip(&mut self, records: &[Record], asked: Option<SystemTime>) {
        match records.last() {
            Some(last) => {
                self.empty = 0;
                self.read_through = last.created().max(self.read_through);
            }
            None => {
                self.empty = self.empty.saturating_add(1);
                if self.empty >= TIP_PAGES {
                    self.read_through = asked.max(self.read_through);
                }
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
        let track = self.track;
        let mut tickets = track.tickets();
        for record in records {
            let is_own = self.rules.is_own(&record);
            if is_own {
                self.metrics.records_own.inc();
            } else if self.rules.filter.passes(&record) {
                left_out = None;
                self.keep(record, &mut tickets, now);
                continue;
            } else {
                self.metrics.records_filtered.inc();
            }
            let quiet = left_out.is_none_or(|(_, quiet)| quiet) && is_own;
            left_out = Some((record, quiet));
        }
        drop(tickets);
        if let Some((last, quiet)) = left_out {
            self.passed = last.created().or(self.passed);
            self.track.pass(Mark { quiet, ..Mark::after(&last) });
        }
    }

    fn keep(&mut self, record: Record, tickets: &mut Tickets<'_>, now: Instant) {
        let lane = lane_of(&record, self.rules.partition_key, self.lanes.len());
        let lane = &mut self.lanes[lane];
        if let Some(windows) = self.rules.windows {
            let window = windows.of(&record, self.window);
            self.window = Some(window);
            lane.turn_to(window, now);
        }
        lane.make_room_for(&record, now);
        let ticket = tickets.next(lane.last_ticket());
        lane.push(record, ticket, now);
    }

    /// The gap is kept at once. The position stays where it is until something behind the gap
    /// is delivered: a worker that begins there finds out anew what is missing by then.
    fn pass_gap(&mut self, gap: Option<Gap>) {
        if let Some(gap) = gap {
            let position = gap.after.clone().map_or(Position::TrimHorizon, Position::After);
            self.track.pass(Mark { gap: Some(gap), ..Mark::at(position) });
        }
    }

    /// When the oldest record was written that is not delivered; while there is none and
    /// there may be more to read, when the last one was that was passed.
    fn behind_since(&self) -> Option<SystemTime> {
        let oldest = self.lanes.iter().filter_map(Lane::oldest).min();
        oldest.or(self.passed.filter(|_| !self.at_tip))
    }
}
