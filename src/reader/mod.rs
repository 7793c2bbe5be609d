//! Reads one shard, page after page, from a position to the shard's end.
//!
//! Owns the cursor: where it begins, its renewal when it expires, and the pace of polling;
//! what a read that fails means and when it is tried again is `recovery`'s. Does not look into records and does not know who takes them. Invariant: pages come
//! in order and without holes, and a hole the stream itself has comes as a [`Gap`].

mod recovery;

use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::clock;
use crate::planner::Pulse;
use crate::polling::{Heat, PollIntervals, Polled, Polling};
use crate::progress::{Gap, Position};
use crate::record::Record;
use crate::source::{
    IteratorPosition, Page, ShardId, ShardIterator, Source, SourceError, SourceOperation,
};
use crate::telemetry::metrics::{Metrics, epoch_seconds};
use crate::telemetry::status::Board;
use recovery::{RETRY, RETRY_SLOWLY};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// What all readers of a process share.
#[derive(Clone)]
pub struct ReaderContext {
    /// The stream.
    pub source: Arc<dyn Source>,
    /// Calls that may be under way, and bytes that may be buffered.
    pub budget: Budget,
    /// The pace at the tip.
    pub intervals: PollIntervals,
    /// From when on the steps are counted in which idle shards are polled.
    pub began: Instant,
    /// Where reads are counted.
    pub metrics: Arc<Metrics>,
    /// Where trouble is shown.
    pub board: Arc<Board>,
    /// Told when AWS refuses a call that has never worked: the process should end and
    /// say which permission it lacks.
    pub refused: tokio::sync::mpsc::Sender<SourceError>,
}

/// One thing read.
#[derive(Debug)]
pub enum Read {
    /// A page; it may be empty.
    Page {
        /// Records that were lost before these.
        gap: Option<Gap>,
        /// In order.
        records: Vec<Record>,
        /// How many there were, with those that are older than where reading begins.
        came: usize,
        /// When it was asked for, in a shard that may still get records.
        asked: Option<SystemTime>,
    },
    /// The shard has no more records and never will.
    End {
        /// Records that were lost before the end.
        gap: Option<Gap>,
    },
}

/// The cursor of one shard. `next` may be dropped while it waits; nothing is lost.
pub struct Reader {
    context: ReaderContext,
    shard: ShardId,
    /// Where a new iterator begins: what was last read, else where the shard begins.
    from: IteratorPosition,
    iterator: Option<ShardIterator>,
    /// Records older than this are not delivered. Only set where the endpoint does not
    /// know `AT_TIMESTAMP` and the shard is read from its trim horizon instead.
    skip_before: Option<SystemTime>,
    /// Found and not handed on yet.
    gap: Option<Gap>,
    /// The listing said that nothing will be added.
    closed: bool,
    ended: bool,
    /// It looks ahead of the shard's loop, which finds the same gaps and tells of them.
    scouts: bool,
    /// Since when the service says that it does not know the shard.
    missing_since: Option<Instant>,
    polling: Polling,
    next_poll: Instant,
    retry: Backoff,
    retry_slowly: Backoff,
    pulse: Arc<Pulse>,
}

impl Reader {
    /// A cursor that begins after `position`. `from_latest` begins at the tip instead,
    /// once: from then on `position` counts again.
    pub fn new(
        context: ReaderContext,
        shard: ShardId,
        position: &Position,
        from_latest: bool,
        closed: bool,
    ) -> Self {
        let from = match position {
            _ if from_latest => IteratorPosition::Latest,
            Position::TrimHorizon | Position::ShardEnd => IteratorPosition::TrimHorizon,
            Position::AtTimestamp(time) => IteratorPosition::AtTimestamp(*time),
            Position::After(number) => IteratorPosition::After(number.clone()),
        };
        Self {
            polling: Polling::new(context.intervals),
            context,
            shard,
            from,
            iterator: None,
            skip_before: None,
            gap: None,
            closed,
            scouts: false,
            missing_since: None,
            ended: *position == Position::ShardEnd,
            next_poll: Instant::now(),
            retry: RETRY,
            retry_slowly: RETRY_SLOWLY,
            pulse: Arc::default(),
        }
    }

    /// One that looks ahead of the shard's loop: the gaps that it finds are not counted,
    /// for the loop finds them too.
    #[must_use]
    pub fn scouting(mut self) -> Self {
        self.scouts = true;
        self
    }

    /// Tells `pulse` what it brings.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Arc<Pulse>) -> Self {
        self.pulse = pulse;
        self
    }

    /// Obtains the first iterator now where the shard is read from its tip: records
    /// written from here on are read even if the first poll is late. `since` is where
    /// reading begins again if the iterator should be lost.
    pub async fn open_at_tip(&mut self, since: SystemTime) {
        while self.from == IteratorPosition::Latest {
            let room = self.context.budget.reserve(Heat::Hot).await;
            let opened = self.context.source.iterator(&self.shard, &self.from).await;
            drop(room);
            match opened {
                Ok(iterator) => {
                    self.context.board.prove(SourceOperation::GetShardIterator);
                    self.recovered();
                    self.iterator = Some(iterator);
                    self.from = IteratorPosition::AtTimestamp(since);
                }
                Err(error) => self.recover(error).await,
            }
        }
    }

    /// The next page, or the end. Waits as long as it takes.
    pub async fn next(&mut self) -> Read {
        while !self.ended {
            tokio::time::sleep_until(self.next_poll).await;
            match self.read().await {
                Ok(page) => return page,
                Err(error) => Box::pin(self.recover(error)).await,
            }
        }
        Read::End { gap: self.gap.take() }
    }

    async fn read(&mut self) -> Result<Read, SourceError> {
        let source = Arc::clone(&self.context.source);
        let room = self.context.budget.reserve(self.polling.heat()).await;
        let iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let iterator = source.iterator(&self.shard, &self.from).await?;
                self.context.board.prove(SourceOperation::GetShardIterator);
                self.iterator.insert(iterator).clone()
            }
        };
        let asked = clock::now();
        let mut page = source.records(&iterator).await?;
        self.context.board.prove(SourceOperation::GetRecords);
        let came = Instant::now();
        let charge = Arc::new(room.charge(page.bytes, came));
        for record in &mut page.records {
            record.charge(Arc::clone(&charge));
        }
        Ok(self.accept(page, asked, came))
    }

    fn accept(&mut self, page: Page, asked: SystemTime, came: Instant) -> Read {
        let now = clock::now();
        self.recovered();
        let metrics = &self.context.metrics;
        metrics.records_polled.inc_by(page.records.len() as u64);
        metrics.last_poll.set(epoch_seconds(now));
        self.iterator = page.next;
        self.ended = self.iterator.is_none();
        let newest = page.records.last();
        if let Some(newest) = newest {
            self.from = IteratorPosition::After(newest.sequence_number());
        }
        let age = newest
            .and_then(Record::created)
            .map(|created| now.duration_since(created).unwrap_or_default());
        self.pulse.beat(page.records.len(), page.bytes, age);
        let polled =
            Polled { records: page.records.len(), bytes: page.bytes, age, closed: self.closed };
        let due = came + self.polling.wait(polled, fastrand::f64());
        self.next_poll = due + self.polling.in_step(due - self.context.began);
        let mut gap = self.gap.take();
        if let Some(gap) = &mut gap {
            gap.resumed_at = page.records.first().map(Record::sequence_number);
        }
        let asked = (!self.closed && !self.ended).then_some(asked);
        let came = page.records.len();
        Read::Page { gap, records: self.drop_early(page.records), came, asked }
    }

    fn drop_early(&self, mut records: Vec<Record>) -> Vec<Record> {
        if let Some(start) = self.skip_before {
            let before = records.len();
            records.retain(|record| record.created().is_none_or(|created| created >= start));
            self.context.metrics.records_before_start.inc_by((before - records.len()) as u64);
        }
        records
    }
}
