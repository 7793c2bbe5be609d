//! All shards of the stream, while this worker holds the stream's lease.
//!
//! Owns which shards run: starts them when their parents are done, has their children
//! found, looks at the whole listing now and then. Decides with [`Lineage`], takes with
//! [`Ledger`], does not read itself. Invariant: a shard runs only under a lease taken
//! by this worker since it last took the stream.

use super::discovery::{CHILD_CALLS_AT_ONCE, find_children};
use super::guard::guard;
use super::ledger::Ledger;
use super::shard::{ShardConsumer, Stop, StopReason};
use super::{Consumer, ConsumerError, Start, may_pass};
use crate::checkpoint::Checkpointer;
use crate::deliver::Windows;
use crate::lineage::Lineage;
use crate::progress::{Lease, Position, ProgressError};
use crate::reader::{Reader, ReaderContext};
use crate::record::EventEnvelope;
use crate::source::{Shard, ShardId, SourceErrorKind, StreamDescription, StreamStatus};
use crate::telemetry::metrics::ShardState;
use crate::telemetry::status::Part;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often the whole listing is looked at. It finds what was missed at shard ends and
/// what may be forgotten; children are normally found when their parent ends.
const SYNC_INTERVAL: Duration = Duration::from_secs(60);
/// While the stream is being enabled, and after a listing that failed.
const SYNC_RETRY: Duration = Duration::from_secs(5);

/// One shard's lane that falls behind the others may hold this part of the byte budget,
/// and no more, or the other shards would stand still with it.
const SHARE: usize = 4;
/// When a look is wanted early: shards that end together share it.
const SYNC_SOON: Duration = Duration::from_secs(1);
const GONE: &str = "the stream is gone: it was deleted with its table, or disabled more than 24 hours ago; set STREAM_ARN to the table's LatestStreamArn";

/// How the time with the lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Led {
    /// A stop was asked for and everything is finished.
    Drained,
    /// The lease has passed on.
    Lost,
}

/// The shards of one time with the stream's lease.
pub(super) struct Shards<'a> {
    consumer: &'a Consumer,
    lease: &'a Lease,
    context: ReaderContext,
    drain: CancellationToken,
    abandon: CancellationToken,
    lineage: Lineage,
    ledger: Ledger<'a>,
    running: JoinSet<(ShardId, StopReason)>,
    running_ids: BTreeSet<ShardId>,
    discoveries: JoinSet<(ShardId, Vec<Shard>)>,
    discovery_slots: Arc<Semaphore>,
    checkpointer: Arc<Checkpointer>,
    envelope: EventEnvelope,
    /// As last listed.
    status: StreamStatus,
    all_read: bool,
    partition_key: Option<String>,
    /// Listings that failed in a row.
    failures: u32,
}

impl<'a> Shards<'a> {
    pub fn new(
        consumer: &'a Consumer,
        start: &Start<'a>,
        context: ReaderContext,
        drain: &CancellationToken,
        abandon: CancellationToken,
    ) -> Self {
        Self {
            consumer,
            ledger: Ledger::new(consumer, start.lease.clone()),
            context,
            drain: drain.clone(),
            abandon,
            lineage: Lineage::default(),
            running: JoinSet::new(),
            running_ids: BTreeSet::new(),
            discoveries: JoinSet::new(),
            discovery_slots: Arc::new(Semaphore::new(CHILD_CALLS_AT_ONCE)),
            checkpointer: Checkpointer::new(
                Arc::clone(&consumer.progress),
                consumer.settings.checkpoint_interval,
                Arc::clone(&consumer.metrics),
                Arc::clone(&consumer.board),
            ),
            envelope: EventEnvelope::new(&consumer.settings.stream),
            lease: start.lease,
            status: StreamStatus::Enabled,
            all_read: false,
            partition_key: start.partition_key.clone(),
            failures: 0,
        }
    }

    /// Runs the shards until a stop is asked for or the lease is lost. A store that does
    /// not answer at the beginning ends it as if the lease were lost: the worker takes it
    /// again. Later it is waited for while the shards go on.
    pub async fn run(&mut self, listing: Option<StreamDescription>) -> Result<Led, ConsumerError> {
        let checkpointer = Arc::clone(&self.checkpointer);
        let (abandon, consumer, lease) = (self.abandon.clone(), self.consumer, self.lease);
        let work = async {
            match self.work(listing).await {
                Ok(led) => Ok(led),
                Err(ProgressError::LeaseLost { owner }) => {
                    warn!(?owner, "another worker has taken the stream");
                    Ok(Led::Lost)
                }
                Err(error) if consumer.store_may_come_back(&error) => {
                    consumer.board.trouble(Part::Progress, &error.to_string());
                    warn!(%error, "the store of progress does not answer, starting over");
                    Ok(Led::Lost)
                }
                Err(error) => Err(ConsumerError::of_store(error)),
            }
        };
        tokio::select! {
            biased;
            () = abandon.cancelled() => Ok(Led::Lost),
            result = work => result,
            () = guard(consumer, lease) => Ok(Led::Lost),
            () = checkpointer.run() => unreachable!("runs until dropped"),
        }
    }

    /// Waits for the shards' loops to end after they were abandoned.
    pub async fn abandoned(&mut self) {
        self.discoveries.shutdown().await;
        while self.running.join_next().await.is_some() {}
    }

    async fn work(&mut self, listing: Option<StreamDescription>) -> Result<Led, ProgressError> {
        self.ledger.load(&mut self.lineage).await?;
        let mut next_sync = Instant::now();
        if let Some(listing) = listing {
            self.take_in(&listing).await?;
            next_sync += self.sync_wait();
        }
        let drain = self.drain.clone();
        loop {
            self.start_ready();
            tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(self.finish().await),
                Some(ended) = self.running.join_next() => {
                    let (shard, reason) = ended.expect("a shard's loop does not panic");
                    self.running_ids.remove(&shard);
                    match reason {
                        StopReason::ShardEnd => self.ended(shard),
                        StopReason::Drained => {}
                        StopReason::LeaseLost => return Ok(Led::Lost),
                    }
                }
                Some(found) = self.discoveries.join_next() => {
                    let (parent, children) = found.expect("discovery does not panic");
                    self.lineage.add(&children);
                    let taken = self.ledger.take_new(&mut self.lineage).await;
                    if self.passes(taken)?.is_none() || children.is_empty() {
                        debug!(%parent, "children not seen or not taken, looking at the whole listing");
                        next_sync = next_sync.min(Instant::now() + SYNC_SOON);
                    }
                }
                () = tokio::time::sleep_until(next_sync) => {
                    // A listing that hangs must not hold a stop up.
                    let wait = tokio::select! {
                        biased;
                        () = drain.cancelled() => continue,
                        wait = self.sync() => wait?,
                    };
                    next_sync = Instant::now() + wait;
                }
            }
        }
    }

    /// Looks at the whole listing. Gives the wait until the next look.
    async fn sync(&mut self) -> Result<Duration, ProgressError> {
        match self.consumer.source.describe().await {
            Ok(listing) => {
                self.failures = 0;
                if self.consumer.board.well(Part::Stream) {
                    info!("the stream can be listed again");
                }
                let taken = self.take_in(&listing).await;
                let Some(()) = self.passes(taken)? else { return Ok(SYNC_RETRY) };
                let forgotten = self.ledger.forget_departed(&mut self.lineage).await;
                self.passes(forgotten)?;
                Ok(self.sync_wait())
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // One failure may be a throttled call.
                if self.failures > 1 || !may_pass(&error) {
                    let why = match error.kind {
                        SourceErrorKind::NotFound => GONE.to_owned(),
                        _ => error.to_string(),
                    };
                    self.consumer.board.trouble(Part::Stream, &why);
                }
                if self.failures.is_power_of_two() {
                    warn!(%error, failures = self.failures, "the stream's shards could not be listed, trying again");
                }
                Ok(SYNC_RETRY)
            }
        }
    }

    /// `None` for an error of the store that may pass: what was to be done is done at the
    /// next look, and the shards that run go on meanwhile.
    fn passes<T>(&self, result: Result<T, ProgressError>) -> Result<Option<T>, ProgressError> {
        match result {
            Err(error) if self.consumer.store_may_come_back(&error) => {
                warn!(%error, "the store of progress does not answer, trying again");
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    async fn take_in(&mut self, listing: &StreamDescription) -> Result<(), ProgressError> {
        self.status = listing.status;
        self.lineage.list(listing);
        self.ledger.take_new(&mut self.lineage).await?;
        let all_read = listing.status == StreamStatus::Disabled && self.lineage.all_ended();
        if all_read && !self.all_read {
            warn!(
                stream = %self.consumer.settings.stream,
                "the stream is disabled and everything in it has been delivered; if it is enabled again it has a new ARN: set STREAM_ARN to the table's LatestStreamArn"
            );
        }
        self.all_read = all_read;
        Ok(())
    }

    /// Up to a fifth less than the interval, so that replicas do not list together.
    fn sync_wait(&self) -> Duration {
        if self.status == StreamStatus::Enabling {
            return SYNC_RETRY;
        }
        SYNC_INTERVAL.mul_f64(1.0 - fastrand::f64() / 5.0)
    }

    fn start_ready(&mut self) {
        let ready: Vec<ShardId> = self
            .lineage
            .ready()
            .filter(|shard| !self.running_ids.contains(*shard) && self.ledger.item(shard).is_some())
            .cloned()
            .collect();
        for shard in ready {
            self.start(shard);
        }
    }

    fn start(&mut self, shard: ShardId) {
        let consumer = self.consumer;
        let Some(item) = self.ledger.item(&shard) else { return };
        info!(%shard, position = ?item.position, "reading a shard");
        let mut reader = Reader::new(
            self.context.clone(),
            shard.clone(),
            &item.position,
            item.from_latest,
            self.lineage.is_closed(&shard),
        );
        let position = item.position.clone();
        let since = match item.position {
            Position::AtTimestamp(time) if item.from_latest => Some(time),
            _ => None,
        };
        let stop = Stop { drain: self.drain.clone(), abandon: self.abandon.child_token() };
        let checkpoint =
            self.checkpointer.shard(shard.clone(), item.lease.clone(), stop.abandon.clone());
        let (batches, envelope) = (consumer.settings.batches, self.envelope.clone());
        let (partition_key, filter) =
            (self.partition_key.clone(), consumer.settings.filter.clone());
        let parallelization = consumer.settings.parallelization;
        let windows = match (consumer.settings.tumbling_window, item.window.clone()) {
            (Some(length), kept) => Some(Windows::new(length, kept)),
            (None, Some(_)) => {
                warn!(%shard, "a tumbling window is open at its position, but TUMBLING_WINDOW_IN_SECONDS is not set: its state is dropped");
                None
            }
            (None, None) => None,
        };
        let share = consumer.settings.max_buffered_bytes / SHARE;
        let (deliverer, metrics) = (consumer.deliverer.clone(), Arc::clone(&consumer.metrics));
        let board = Arc::clone(&consumer.board);
        self.running_ids.insert(shard.clone());
        self.running.spawn(async move {
            if let Some(since) = since {
                let opening = reader.open_at_tip(since);
                tokio::select! {
                    biased;
                    () = stop.abandon.cancelled() => return (shard, StopReason::LeaseLost),
                    () = stop.drain.cancelled() => return (shard, StopReason::Drained),
                    () = opening => {}
                }
            }
            let id = shard.clone();
            let consumer = ShardConsumer {
                shard,
                position,
                reader,
                partition_key,
                parallelization,
                windows,
                share,
                filter,
                batches,
                envelope,
                deliverer,
                checkpoint,
                metrics,
                board,
                stop,
            };
            (id, consumer.run().await)
        });
    }

    fn ended(&mut self, shard: ShardId) {
        info!(%shard, "a shard is delivered to its end");
        self.lineage.end(&shard);
        self.consumer.board.shard(&shard, |status| {
            status.state = ShardState::Ended;
            status.owner = None;
            status.behind(None);
        });
        self.ledger.ended(&shard);
        // A child that is known is enough: a sibling is found by the whole listing. In a
        // stream that is disabled there will be none.
        if self.status == StreamStatus::Disabled || self.lineage.has_children(&shard) {
            return;
        }
        let source = Arc::clone(&self.consumer.source);
        let slots = Arc::clone(&self.discovery_slots);
        self.discoveries.spawn(async move {
            let children = find_children(&*source, &slots, &shard).await;
            (shard, children)
        });
    }

    /// After a stop was asked for: every loop finishes what is in flight.
    async fn finish(&mut self) -> Led {
        self.discoveries.abort_all();
        let mut led = Led::Drained;
        while let Some(ended) = self.running.join_next().await {
            if let Ok((_, StopReason::LeaseLost)) = ended {
                led = Led::Lost;
            }
        }
        led
    }
}
