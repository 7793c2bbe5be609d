//! Sorts what the reader brings into work: batches, and positions passed without any.
//!
//! Owns the order in which things are worked: own records are left out here, gaps and
//! the end of a shard wait for the batch before them. Delivers nothing. Invariant: what
//! comes out is what went in, in order, less the consumers' own records.

use crate::batch::Batcher;
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
    Passed(Mark),
    End,
}

/// Sorts what the reader brings into batches.
pub(super) struct Desk<'a> {
    inbox: mpsc::Receiver<Read>,
    pending: VecDeque<Entry>,
    batcher: Batcher,
    /// Own records passed behind the last record of the batch being filled.
    through: Option<Position>,
    /// The last page was empty: there was nothing more to read then.
    at_tip: bool,
    /// When the last record handed out was written.
    delivered: Option<SystemTime>,
    own_key: Option<&'a str>,
    metrics: &'a Metrics,
    /// Shows since when records wait.
    show: &'a (dyn Fn(Option<SystemTime>) + Send + Sync),
}

impl<'a> Desk<'a> {
    /// An empty desk over what the reader brings.
    pub fn new(
        inbox: mpsc::Receiver<Read>,
        batcher: Batcher,
        own_key: Option<&'a str>,
        metrics: &'a Metrics,
        show: &'a (dyn Fn(Option<SystemTime>) + Send + Sync),
    ) -> Self {
        Self {
            inbox,
            pending: VecDeque::new(),
            batcher,
            through: None,
            at_tip: true,
            delivered: None,
            own_key,
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
                Entry::Passed(mark) if self.batcher.is_empty() => return Some(Work::Passed(mark)),
                Entry::Passed(mark) if mark.gap.is_none() => self.through = Some(mark.position),
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
        self.delivered = last.created();
        let position =
            self.through.take().unwrap_or_else(|| Position::After(last.sequence_number()));
        Work::Batch(records, Mark { position, quiet: false, gap: None })
    }

    fn take_in(&mut self, read: Read) {
        match read {
            Read::Page { gap, records } => {
                self.pass_gap(gap);
                self.at_tip = records.is_empty();
                let last = records.last().map(Record::sequence_number);
                let count = records.len();
                let mut last_is_own = false;
                for record in records {
                    last_is_own = self.own_key.is_some_and(|key| is_own(&record, key));
                    if last_is_own {
                        self.metrics.records_own.inc();
                    } else {
                        self.pending.push_back(Entry::Record(record));
                    }
                }
                if let Some(last) = last.filter(|_| count > 0 && last_is_own) {
                    let position = Position::After(last);
                    self.pending.push_back(Entry::Passed(Mark {
                        position,
                        quiet: true,
                        gap: None,
                    }));
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
            self.pending.push_back(Entry::Passed(mark));
        }
    }

    /// When the oldest record was written that waits to be delivered; while none waits
    /// and there may be more to read, when the last one was.
    fn behind_since(&self) -> Option<SystemTime> {
        let waiting = self.pending.iter().find_map(|entry| match entry {
            Entry::Record(record) => record.created(),
            _ => None,
        });
        let in_batch = self.batcher.first().and_then(Record::created);
        in_batch.or(waiting).or(self.delivered.filter(|_| !self.at_tip))
    }
}

fn is_own(record: &Record, partition_key: &str) -> bool {
    record.keys().is_some_and(|keys| own_keys(keys, partition_key))
}
