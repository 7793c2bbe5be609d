//! One shard from its position to its end: read, leave out own records, batch, deliver,
//! checkpoint.
//!
//! Owns the order of these five and nothing of how they are done. The reader runs ahead
//! by a few pages while the handler works. Invariant: the position moves only over
//! records that were delivered or are the consumer's own.

use crate::batch::{BatchSettings, Batcher};
use crate::checkpoint::{LeaseLost, ShardCheckpoint};
use crate::deliver::{Batch, Deliverer, Undelivered};
use crate::frontier::{Frontier, Mark};
use crate::progress::{Gap, Position, is_own as own_keys};
use crate::reader::{Read, Reader};
use crate::record::{EventEnvelope, Record};
use crate::source::ShardId;
use crate::telemetry::metrics::{Metrics, ShardState};
use crate::telemetry::status::Board;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pages read and not yet batched: enough to hide the next read behind the handler's
/// work, little enough that one stuck shard does not take the whole byte budget.
const READ_AHEAD_PAGES: usize = 2;

/// Why a shard's loop ended, and what that means for its checkpoint.
///
/// ```text
///            ┌─ the reader's end, delivered ──> ShardEnd   checkpoint required, written
///  reading ──┼─ drain asked for ──────────────> Drained    checkpoint allowed, written
///            └─ lease lost ───────────────────> LeaseLost  checkpoint forbidden
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Closed and delivered to its end; the sentinel is durable. Its children may begin.
    ShardEnd,
    /// A stop was asked for; what was delivered is durable.
    Drained,
    /// Somebody else may be reading it. Nothing more is written.
    LeaseLost,
}

/// How a shard is told to stop.
#[derive(Clone)]
pub struct Stop {
    /// Take nothing new, finish what is in flight, checkpoint.
    pub drain: CancellationToken,
    /// Stop at once, write nothing.
    pub abandon: CancellationToken,
}

/// The loop of one leased shard.
pub struct ShardConsumer {
    /// The shard.
    pub shard: ShardId,
    /// Its cursor.
    pub reader: Reader,
    /// The name of the partition key where the stream is that of the table progress is
    /// kept in, and own records have to be left out.
    pub own_key: Option<String>,
    /// When a batch goes out.
    pub batches: BatchSettings,
    /// What is the same in every record.
    pub envelope: EventEnvelope,
    /// The way to the handler.
    pub deliverer: Deliverer,
    /// The way to the durable position.
    pub checkpoint: ShardCheckpoint,
    /// Where records are counted.
    pub metrics: Arc<Metrics>,
    /// Where the shard is shown.
    pub board: Arc<Board>,
    /// How it is told to stop.
    pub stop: Stop,
}

impl ShardConsumer {
    /// Runs until the shard ends or is told to stop.
    pub async fn run(self) -> StopReason {
        let abandon = self.stop.abandon.clone();
        tokio::select! {
            biased;
            () = abandon.cancelled() => StopReason::LeaseLost,
            reason = self.consume() => reason,
        }
    }

    async fn consume(self) -> StopReason {
        let Self { shard, mut reader, deliverer, checkpoint, board, stop, .. } = self;
        let (pages, inbox) = mpsc::channel(READ_AHEAD_PAGES);
        let mut desk = Desk {
            inbox,
            pending: VecDeque::new(),
            batcher: Batcher::new(self.batches, self.envelope.clone()),
            through: None,
            at_tip: true,
            delivered: None,
            own_key: self.own_key.as_deref(),
            metrics: &self.metrics,
            show: &|since| board.shard(&shard, |status| status.behind(since)),
        };
        board.shard(&shard, |status| status.state = ShardState::Reading);
        let reached = |marks: Vec<Mark>| {
            for mark in marks {
                board.shard(&shard, |status| status.at(&mark.position));
                checkpoint.advance(mark);
            }
        };
        let delivering = async {
            let mut frontier = Frontier::default();
            loop {
                match desk.next(&stop.drain).await {
                    Work::Batch(records, mark) => {
                        desk.delivered = records.last().and_then(Record::created);
                        let oldest = records.first().and_then(Record::created);
                        board.shard(&shard, |status| status.behind(oldest));
                        let batch = Batch::new(shard.clone(), records, self.envelope.clone());
                        let ticket = frontier.begin(mark);
                        match deliverer.deliver(batch, &stop.drain).await {
                            Ok(()) => reached(frontier.finish(ticket)),
                            Err(Undelivered) => break StopReason::Drained,
                        }
                    }
                    Work::Passed(mark) => {
                        let ticket = frontier.begin(mark);
                        reached(frontier.finish(ticket));
                    }
                    Work::End => break StopReason::ShardEnd,
                    Work::Drained => break StopReason::Drained,
                }
            }
        };
        let reason = tokio::select! {
            biased;
            reason = delivering => reason,
            never = read_ahead(&mut reader, pages, &stop.drain) => match never {},
        };
        let written = match reason {
            StopReason::ShardEnd => checkpoint.end().await,
            _ => checkpoint.flush().await,
        };
        match written {
            Ok(()) => reason,
            Err(LeaseLost) => StopReason::LeaseLost,
        }
    }
}

/// Reads into `pages` until the shard ends or a drain is asked for, then rests: what has
/// been read is still to be worked.
async fn read_ahead(
    reader: &mut Reader,
    pages: mpsc::Sender<Read>,
    drain: &CancellationToken,
) -> std::convert::Infallible {
    let all = async {
        loop {
            let read = reader.next().await;
            let end = matches!(read, Read::End { .. });
            if pages.send(read).await.is_err() || end {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = drain.cancelled() => {}
        () = all => {}
    }
    std::future::pending().await
}

/// What there is to do next, in the order of the shard.
enum Work {
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
struct Desk<'a> {
    inbox: mpsc::Receiver<Read>,
    pending: VecDeque<Entry>,
    batcher: Batcher,
    /// Own records passed behind the last record of the batch being filled.
    through: Option<Position>,
    /// The last page was empty: there was nothing more to read then.
    at_tip: bool,
    /// When the last record taken up was written.
    delivered: Option<SystemTime>,
    own_key: Option<&'a str>,
    metrics: &'a Metrics,
    /// Shows since when records wait.
    show: &'a (dyn Fn(Option<SystemTime>) + Send + Sync),
}

impl Desk<'_> {
    async fn next(&mut self, drain: &CancellationToken) -> Work {
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
