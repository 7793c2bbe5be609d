//! One shard from its position to its end: read, filter, batch, deliver, checkpoint.
//!
//! Owns the order of these five and nothing of how they are done. The reader runs ahead
//! by a few pages while the handler works. Invariant: the position moves only over
//! records that were delivered, or that the handler is not to have: the consumer's own and
//! those that the filter drops.

use super::desk::{Desk, Sieve, Work};
use crate::batch::{BatchSettings, Batcher};
use crate::checkpoint::{LeaseLost, ShardCheckpoint};
use crate::deliver::{Deliverer, Records, Undelivered};
use crate::filter::FilterCriteria;
use crate::frontier::{Frontier, Mark};
use crate::progress::Position;
use crate::reader::{Read, Reader};
use crate::record::{EventEnvelope, Record};
use crate::source::ShardId;
use crate::telemetry::metrics::{Metrics, ShardState};
use crate::telemetry::status::Board;
use std::sync::Arc;
use tokio::sync::mpsc;
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
    /// Which records the handler gets.
    pub filter: FilterCriteria,
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
        let show = |since| board.shard(&shard, |status| status.behind(since));
        let mut desk = Desk::new(
            inbox,
            Batcher::new(self.batches, self.envelope.clone()),
            Sieve { own_key: self.own_key.as_deref(), filter: &self.filter },
            &self.metrics,
            &show,
        );
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
                        show(records.first().and_then(Record::created));
                        let ticket = frontier.begin(mark);
                        // What is done of a batch that fails need not come again.
                        let done = |count: usize| {
                            let last = &records[count - 1];
                            let position = Position::After(last.sequence_number());
                            let mark = Mark { position, quiet: false, gap: None };
                            if count < records.len() {
                                reached(frontier.partly(ticket, mark).into_iter().collect());
                            }
                        };
                        let envelope = &self.envelope;
                        let all = Records { shard: &shard, records: &records, envelope };
                        match deliverer.deliver(all, &stop.drain, done).await {
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
