//! One shard from its position to its end: read, filter, batch, deliver, checkpoint.
//!
//! Owns the order of these five and nothing of how they are done. The reader runs ahead
//! by a few pages while the handler works, on as many lanes as PARALLELIZATION_FACTOR says.
//! Invariant: the position moves only over records that were delivered, or that the handler
//! is not to have: the consumer's own and those that the filter drops.
//!
//! Most shards are idle, and a process may have thousands: what is needed only while there
//! is something to deliver is boxed when there is.

use super::ahead::Ahead;
use super::desk::{Desk, Rules, Work};
use super::lane::Closed;
use super::track::Track;
use crate::batch::{BatchSettings, Batcher};
use crate::checkpoint::{LeaseLost, ShardCheckpoint};
use crate::deliver::{Deliverer, MAX_STATE_BYTES, Records, Undelivered, Windows};
use crate::filter::FilterCriteria;
use crate::progress::Position;
use crate::reader::{Read, Reader};
use crate::record::EventEnvelope;
use crate::source::ShardId;
use crate::telemetry::metrics::{Metrics, ShardState};
use crate::telemetry::status::Board;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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
    /// Where it is read from.
    pub position: Position,
    /// Its cursor.
    pub reader: Reader,
    /// The name of the table's partition key, where it is known: own records are
    /// recognised by it, and lanes chosen.
    pub partition_key: Option<String>,
    /// `PARALLELIZATION_FACTOR`: batches that are delivered at the same time.
    pub parallelization: usize,
    /// `TUMBLING_WINDOW_IN_SECONDS`, and the window that is open at the position.
    pub windows: Option<Windows>,
    /// Bytes of pages that may be held for lanes that have fallen behind the others.
    pub share: usize,
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
    pub async fn run(mut self: Box<Self>) -> StopReason {
        let abandon = self.stop.abandon.clone();
        tokio::select! {
            biased;
            () = abandon.cancelled() => StopReason::LeaseLost,
            reason = self.consume() => reason,
        }
    }

    async fn consume(&mut self) -> StopReason {
        let Self { shard, position, reader, checkpoint, board, stop, .. } = self;
        let Self { partition_key, windows, filter, envelope, deliverer, metrics, .. } = self;
        let (parallelization, share, batches) = (self.parallelization, self.share, self.batches);
        board.shard(shard, |status| status.state = ShardState::Reading);
        let windows = windows.as_ref();
        let ahead = Ahead::default();
        let track = Track::new(shard, position.clone(), windows, checkpoint, board);
        let partition_key = partition_key.as_deref();
        let state = if windows.is_some() { MAX_STATE_BYTES } else { 0 };
        let batcher = || Batcher::new(batches, envelope.clone()).reserving(state);
        let rules = Rules { partition_key, filter, windows, share };
        let mut desk = Desk::new(
            &ahead,
            std::iter::repeat_with(batcher).take(parallelization.max(1)),
            rules,
            &track,
            metrics,
        );
        let deliver = async |lane, Closed { records, runs, window, made }: Closed| {
            let window = windows.zip(window);
            let trace = deliverer.traces.as_ref().map(|all| all.batch(shard, &records, made));
            checkpoint.traced(trace.as_ref().and_then(|trace| trace.checkpoint(&records)));
            let all = Records { shard, records: &records, envelope, window, trace: trace.as_ref() };
            let mut left = &runs[..];
            let done = |count| track.done(&records, &mut left, count);
            let delivered = deliverer.deliver(all, &stop.drain, done).await;
            if let (Some(trace), Ok(())) = (trace, delivered) {
                trace.through();
            }
            // It ended early; or the one before it was closed, and nothing is done of this.
            if windows.is_some_and(|windows| windows.open().is_none() || delivered.is_err()) {
                track.window_changed();
            }
            (lane, delivered)
        };
        let close = async || {
            let Some(windows) = windows else { return Ok(()) };
            let closing = deliverer.close_window(windows, shard, envelope, false, &stop.drain);
            Box::pin(closing).await?;
            track.window_changed();
            Ok::<(), Undelivered>(())
        };
        let delivering = async {
            let (mut flying, mut ending) = (FuturesUnordered::new(), None);
            loop {
                if let (Some(reason), true) = (ending, flying.is_empty()) {
                    break reason;
                }
                tokio::select! {
                    biased;
                    Some((lane, delivered)) = flying.next() => {
                        desk.landed(lane);
                        if delivered == Err(Undelivered) {
                            ending = Some(StopReason::Drained);
                        }
                    }
                    work = desk.next(&stop.drain), if ending.is_none() => match work {
                        Work::Batch(lane, closed) => flying.push(Box::pin(deliver(lane, closed))),
                        Work::CloseWindow => {
                            if close().await.is_err() {
                                ending = Some(StopReason::Drained);
                            }
                        }
                        // The windows of its children begin anew.
                        Work::End => match close().await {
                            Ok(()) => ending = Some(StopReason::ShardEnd),
                            Err(Undelivered) => ending = Some(StopReason::Drained),
                        },
                        Work::Drained => ending = Some(StopReason::Drained),
                    }
                }
            }
        };
        let reason = tokio::select! {
            biased;
            reason = delivering => reason,
            never = read_ahead(reader, &ahead, &stop.drain) => match never {},
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

/// Reads until the shard ends or a drain is asked for, then rests: what has
/// been read is still to be worked.
async fn read_ahead(
    reader: &mut Reader,
    ahead: &Ahead,
    drain: &CancellationToken,
) -> std::convert::Infallible {
    let all = async {
        loop {
            let read = reader.next().await;
            let end = matches!(read, Read::End { .. });
            ahead.put(read).await;
            if end {
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
