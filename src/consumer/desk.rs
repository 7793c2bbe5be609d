//! Sorts what the reader brings into work: batches, and positions passed without any.
//!
//! Owns the order in which things are worked: own records and those that the filter
//! drops are left out here, gaps and the end of a shard wait for the batch before them.
//! Delivers nothing. Invariant: what comes out is what went in, in order, less the
//! records left out, each of which is counted.

use crate::batch::Batcher;
use crate::filter::FilterCriteria;
use crate::frontier::Mark;
use crate::progress::{Gap, Position, is_own as own_keys};
use crate::reader::Read;
use crate::record::Record;
use crate::telemetry::metrics::Metrics;
use std::collections::VecDeque;
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What there is to do next, in the order of the shard.
pub(super) enum Work {
    /// Records to deliver, and what is true afterwards.
    Batch(Vec<Record>, Mark),
    /// Nothing to deliver, and still the position has moved.
    Passed(Mark),
    /// The shard is delivered to its end.
    End,
    /// A stop was asked for.
    Drained,
}

enum Entry {
    Record(Record),
    /// A position that nothing has to be delivered for, and when its record was written.
    Passed(Mark, Option<SystemTime>),
    End,
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
    pending: VecDeque<Entry>,
    batcher: Batcher,
    /// Records left out behind the last record of the batch being filled.
    through: Option<Position>,
    /// The last page was empty: there was nothing more to read then.
    at_tip: bool,
    /// When the last record was written that was handed out or left out.
    passed: Option<SystemTime>,
    sieve: Sieve<'a>,
    metrics: &'a Metrics,
    /// Shows since when records wait.
    show: &'a (dyn Fn(Option<SystemTime>) + Send + Sync),
}

impl<'a> Desk<'a> {
    /// An empty desk over what the reader brings.
    pub fn new(
        inbox: mpsc::Receiver<Read>,
        batcher: Batcher,
        sieve: Sieve<'a>,
        metrics: &'a Metrics,
        show: &'a (dyn Fn(Option<SystemTime>) + Send + Sync),
    ) -> Self {
        Self {
            inbox,
            pending: VecDeque::new(),
            batcher,
            through: None,
            at_tip: true,
            passed: None,
            sieve,
            metrics,
            show,
        }
    }

    /// The next piece of work; waits as long as the window says.
    pub async fn next(&mut self, drain: &CancellationToken) -> Work {
        loop {
            if drain.is_cancelled() {
                return Work::Drained;
            }
            if let Some(work) = self.sort() {
                return work;
            }
            (self.show)(self.behind_since());
            let due = self.batcher.due();
            let window = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = drain.cancelled() => return Work::Drained,
                // Before the window: what is there already joins a batch that is due.
                Some(read) = self.inbox.recv() => self.take_in(read),
                () = window => return self.close_batch(),
            }
        }
    }

    /// Works off what is pending as far as it goes without waiting.
    fn sort(&mut self) -> Option<Work> {
        let now = Instant::now();
        while let Some(entry) = self.pending.pop_front() {
            match entry {
                Entry::Record(record) if self.batcher.has_room_for(&record) => {
                    self.through = None;
                    self.batcher.push(record, now);
                    if self.batcher.is_full() {
                        return Some(self.close_batch());
                    }
                }
                Entry::Passed(mark, written) if self.batcher.is_empty() => {
                    self.passed = written.or(self.passed);
                    return Some(Work::Passed(mark));
                }
                Entry::Passed(mark, _) if mark.gap.is_none() => self.through = Some(mark.position),
                Entry::End if self.batcher.is_empty() => return Some(Work::End),
                waits => {
                    self.pending.push_front(waits);
                    return Some(self.close_batch());
                }
            }
        }
        None
    }

    fn close_batch(&mut self) -> Work {
        let records = self.batcher.take();
        let last = records.last().expect("only batches with records are closed");
        self.passed = last.created();
        let position =
            self.through.take().unwrap_or_else(|| Position::After(last.sequence_number()));
        Work::Batch(records, Mark { position, quiet: false, gap: None })
    }

    fn take_in(&mut self, read: Read) {
        match read {
            Read::Page { gap, records } => {
                self.pass_gap(gap);
                self.at_tip = records.is_empty();
                // The last of the records left out since the last one kept, and whether
                // all of them are own.
                let mut left_out: Option<(Record, bool)> = None;
                for record in records {
                    let is_own = self.sieve.is_own(&record);
                    if is_own {
                        self.metrics.records_own.inc();
                    } else if self.sieve.filter.passes(&record) {
                        left_out = None;
                        self.pending.push_back(Entry::Record(record));
                        continue;
                    } else {
                        self.metrics.records_filtered.inc();
                    }
                    let quiet = left_out.is_none_or(|(_, quiet)| quiet) && is_own;
                    left_out = Some((record, quiet));
                }
                if let Some((last, quiet)) = left_out {
                    let position = Position::After(last.sequence_number());
                    let mark = Mark { position, quiet, gap: None };
                    self.pending.push_back(Entry::Passed(mark, last.created()));
                }
            }
            Read::End { gap } => {
                self.pass_gap(gap);
                self.pending.push_back(Entry::End);
            }
        }
    }

    /// The position before a gap no longer exists: from here on it is the trim horizon.
    fn pass_gap(&mut self, gap: Option<Gap>) {
        if gap.is_some() {
            let mark = Mark { position: Position::TrimHorizon, quiet: false, gap };
            self.pending.push_back(Entry::Passed(mark, None));
        }
    }

    /// When the oldest record was written that waits to be delivered; while none waits
    /// and there may be more to read, when the last one was that was passed.
    fn behind_since(&self) -> Option<SystemTime> {
        let waiting = self.pending.iter().find_map(|entry| match entry {
            Entry::Record(record) => record.created(),
            _ => None,
        });
        let in_batch = self.batcher.first().and_then(Record::created);
        in_batch.or(waiting).or(self.passed.filter(|_| !self.at_tip))
    }
}
