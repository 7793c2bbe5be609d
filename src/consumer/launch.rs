//! Makes the loop of a shard out of a lease and the settings.
//!
//! Owns what all loops of one life share: the byte budget, the checkpointer, the pace.
//! Does not know who else there is.

use super::Consumer;
use super::shard::{ShardConsumer, Stop, StopReason};
use super::shards::Granted;
use crate::budget::Budget;
use crate::checkpoint::Checkpointer;
use crate::deliver::Windows;
use crate::planner::Pulse;
use crate::progress::{Position, ShardProgress, is_own};
use crate::reader::{Reader, ReaderContext};
use crate::record::{EventEnvelope, Record};
use crate::source::{ShardId, SourceError};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

/// One shard's lane that falls behind the others may hold this part of the byte budget,
/// and no more, or the other shards would stand still with it.
const SHARE: usize = 4;

/// What the loops of one life share.
pub(super) struct Launch<'a> {
    consumer: &'a Consumer,
    context: ReaderContext,
    pub checkpointer: Arc<Checkpointer>,
    envelope: EventEnvelope,
    partition_key: Option<String>,
}

impl<'a> Launch<'a> {
    /// `partition_key` is the name by which own records are recognised. Calls that are
    /// refused for good go to `refused`.
    pub fn new(
        consumer: &'a Consumer,
        partition_key: Option<String>,
        refused: mpsc::Sender<SourceError>,
    ) -> Self {
        let settings = &consumer.settings;
        let context = ReaderContext {
            source: Arc::clone(&consumer.source),
            budget: Budget::new(
                settings.max_buffered_bytes,
                consumer.metrics.buffered_bytes.clone(),
            ),
            intervals: settings.poll_intervals,
            began: Instant::now(),
            metrics: Arc::clone(&consumer.metrics),
            board: Arc::clone(&consumer.board),
            refused,
        };
        let checkpointer = Checkpointer::new(
            Arc::clone(&consumer.progress),
            settings.checkpoint_interval,
            Arc::clone(&consumer.metrics),
            Arc::clone(&consumer.board),
        );
        let envelope = EventEnvelope::new(&settings.stream);
        Self { consumer, context, checkpointer, envelope, partition_key }
    }

    /// A cursor of its own, to find out what comes next in a shard.
    pub fn reader(&self, item: &ShardProgress) -> Reader {
        let (context, shard) = (self.context.clone(), item.shard.clone());
        Reader::new(context, shard, &item.position, false, item.closed).scouting()
    }

    /// Whether the handler would get this record.
    pub fn delivers(&self, record: &Record) -> bool {
        let is_own = self
            .partition_key
            .as_deref()
            .is_some_and(|key| record.keys().is_some_and(|keys| is_own(keys, key)));
        !is_own && self.consumer.settings.filter.passes(record)
    }

    /// The loop of a shard, from its position until it ends or is told to stop.
    pub fn shard(
        &self,
        granted: Granted,
        pulse: Arc<Pulse>,
        stop: Stop,
    ) -> impl Future<Output = (ShardId, StopReason)> + Send + 'static {
        let Granted { item, from_latest, .. } = granted;
        let (shard, position) = (item.shard, item.position);
        info!(%shard, ?position, "reading a shard");
        let settings = &self.consumer.settings;
        let (context, id) = (self.context.clone(), shard.clone());
        let reader =
            Reader::new(context, id, &position, from_latest, item.closed).with_pulse(pulse);
        let since = match position {
            Position::AtTimestamp(time) if from_latest => Some(time),
            _ => None,
        };
        let checkpoint = self.checkpointer.shard(shard.clone(), item.lease, stop.abandon.clone());
        let windows = match (settings.tumbling_window, item.window) {
            (Some(length), kept) => Some(Windows::new(length, kept)),
            (None, Some(_)) => {
                warn!(%shard, "a tumbling window is open at its position, but TUMBLING_WINDOW_IN_SECONDS is not set: its state is dropped");
                None
            }
            (None, None) => None,
        };
        let mut consumer = Box::new(ShardConsumer {
            shard,
            position,
            reader,
            partition_key: self.partition_key.clone(),
            parallelization: settings.parallelization,
            windows,
            share: settings.max_buffered_bytes / SHARE,
            filter: settings.filter.clone(),
            batches: settings.batches,
            envelope: self.envelope.clone(),
            deliverer: self.consumer.deliverer.clone(),
            checkpoint,
            metrics: Arc::clone(&self.consumer.metrics),
            board: Arc::clone(&self.consumer.board),
            stop,
        });
        async move {
            let id = consumer.shard.clone();
            let ShardConsumer { reader, stop, .. } = &mut *consumer;
            match open_at_tip(reader, since, stop).await {
                Some(reason) => (id, reason),
                None => (id, consumer.run().await),
            }
        }
    }
}

/// Where a shard is read from its tip, makes sure that the tip is now. Gives why not.
async fn open_at_tip(
    reader: &mut Reader,
    since: Option<SystemTime>,
    stop: &Stop,
) -> Option<StopReason> {
    let opening = Box::pin(reader.open_at_tip(since?));
    tokio::select! {
        biased;
        () = stop.abandon.cancelled() => Some(StopReason::LeaseLost),
        () = stop.drain.cancelled() => Some(StopReason::Drained),
        () = opening => None,
    }
}
