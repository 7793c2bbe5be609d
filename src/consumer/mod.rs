//! The consumer: one worker of a stream, from its start to a clean stop.
//!
//! Owns the sequence of a worker's life: check what it stands on, wait for its turn,
//! read every shard while it holds the stream's lease, hand back on a stop. The pieces:
//! `life` shows that the worker lives and judges whether others do, `shards` runs
//! the shards while the lease is held, [`shard`] is one shard's loop.

mod desk;
mod discovery;
mod error;
mod guard;
mod lane;
mod ledger;
mod life;
mod settings;
pub mod shard;
mod shards;
mod track;

pub use error::ConsumerError;
pub use settings::ConsumerSettings;

use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::deliver::{Deliverer, Destination, Handler};
use crate::progress::{Lease, LeaseKey, Progress, ProgressError, WorkerId};
use crate::reader::ReaderContext;
use crate::source::{Source, SourceError, SourceErrorKind, SourceOperation, StreamDescription};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{Board, Part, Role};
use life::{Life, Observer};
use shards::Led;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Retries of a stream or store that does not answer yet when the worker starts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Tries with credentials that are missing or not accepted, about three seconds.
const CREDENTIAL_TRIES: u32 = 5;

/// A listing older than this may show shards that are long gone.
const LISTING_LIFE: Duration = Duration::from_secs(10);

/// One worker of a stream.
pub struct Consumer {
    settings: ConsumerSettings,
    worker: WorkerId,
    source: Arc<dyn Source>,
    progress: Arc<dyn Progress>,
    deliverer: Deliverer,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    /// The store has once let this worker load, take and write.
    store_proved: AtomicBool,
}

impl Consumer {
    /// A worker that reads `source`, keeps its progress in `progress` and hands batches
    /// to `handler`.
    pub fn new(
        settings: ConsumerSettings,
        source: Arc<dyn Source>,
        progress: Arc<dyn Progress>,
        handler: Arc<dyn Handler>,
        metrics: Arc<Metrics>,
        board: Arc<Board>,
    ) -> Self {
        metrics.handler_timeout.set(settings.handler_timeout.as_secs_f64());
        let deliverer = Deliverer {
            handler,
            timeout: settings.handler_timeout,
            retries: settings.retries,
            destination: Destination::of(&settings.on_failure, Arc::clone(&progress) as _),
            stream: settings.stream.to_string(),
            metrics: Arc::clone(&metrics),
            board: Arc::clone(&board),
        };
        Self {
            settings,
            worker: life::new_worker_id(),
            source,
            progress,
            deliverer,
            metrics,
            board,
            store_proved: AtomicBool::new(false),
        }
    }

    /// Runs until `drain` is cancelled and everything in flight is finished.
    ///
    /// # Errors
    /// [`ConsumerError`] for what only a person can mend.
    pub async fn run(self, drain: CancellationToken) -> Result<(), ConsumerError> {
        let life = Life::new(
            Arc::clone(&self.progress),
            self.worker.clone(),
            self.settings.failover_time,
            Arc::clone(&self.board),
        );
        let ready = async {
            let listing = self.check().await?;
            life.begin().await.map_err(ConsumerError::of_store)?;
            Ok(listing)
        };
        let listing = tokio::select! {
            biased;
            () = drain.cancelled() => {
                life.end().await;
                return Ok(());
            }
            listing = ready => listing?,
        };
        self.board.well(Part::Start);
        let partition_key = self.settings.own_records_key.clone().or(listing.partition_key.clone());
        // Good for a start at once; a worker that had to wait looks again.
        let mut listing = Some(listing);
        let beating = life.beat();
        let working = async {
            let mut again = RETRY;
            loop {
                let asked = Instant::now();
                let Some(lease) = self.turn(&life, &drain).await? else { return Ok(()) };
                let listing = listing.take().filter(|_| asked.elapsed() < LISTING_LIFE);
                let start = Start { lease: &lease, listing, partition_key: partition_key.clone() };
                let began = Instant::now();
                if self.lead(start, &life, &drain).await? {
                    return Ok(());
                }
                // Leading that fails at once must not become a spin of takes.
                if began.elapsed() > self.settings.failover_time {
                    again.reset();
                }
                tokio::select! {
                    biased;
                    () = drain.cancelled() => return Ok(()),
                    () = tokio::time::sleep(again.next(fastrand::f64())) => {}
                }
            }
        };
        let result = tokio::select! {
            never = beating => match never {},
            result = working => result,
        };
        life.end().await;
        result
    }

    /// Whether everything the worker stands on is there. Waits for what may pass.
    async fn check(&self) -> Result<StreamDescription, ConsumerError> {
        let mut retry = RETRY;
        loop {
            // An agent that hands out credentials may start after its containers.
            let early = retry.failures() < CREDENTIAL_TRIES;
            let (part, why) = match self.progress.describe().await {
                Ok(()) => match self.source.describe().await {
                    Ok(listing) => {
                        self.board.prove(SourceOperation::DescribeStream);
                        self.board.well(Part::Stream);
                        let view_type = listing.view_type.as_deref().unwrap_or_default();
                        if let Some(fault) = self.settings.filter.fault_with(view_type) {
                            return Err(ConsumerError::Invalid(fault));
                        }
                        return Ok(listing);
                    }
                    Err(error) if may_pass(&error) => (Part::Stream, error.to_string()),
                    Err(error) if early && error.kind == SourceErrorKind::Credentials => {
                        (Part::Stream, error.to_string())
                    }
                    Err(error) => {
                        return Err(ConsumerError::of_stream(&self.settings.stream, error));
                    }
                },
                Err(ProgressError::Unavailable(why)) => (Part::Progress, why),
                Err(ProgressError::Credentials(why)) if early => (Part::Progress, why),
                Err(error) => return Err(ConsumerError::of_store(error)),
            };
            self.board.trouble(part, &why);
            let wait = retry.next(fastrand::f64());
            if retry.failures().is_power_of_two() {
                let retry_in_ms = wait.as_millis() as u64;
                warn!(?part, %why, retry_in_ms, "does not answer yet, trying again; does it run, and are its address (API_URL, AWS_ENDPOINT_URL_*) and the network to it right?");
            }
            tokio::time::sleep(wait).await;
            self.board.well(part);
        }
    }

    /// Waits until this worker may read: until nobody else who lives holds the lease.
    /// `None` when a stop was asked for.
    async fn turn(
        &self,
        life: &Life,
        drain: &CancellationToken,
    ) -> Result<Option<Lease>, ConsumerError> {
        let mut observer = Observer::new(self.settings.failover_time);
        let mut told = None;
        let mut retry = RETRY;
        loop {
            let taken = tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(None),
                taken = self.try_take(life, &mut observer) => taken,
            };
            let wait = match taken {
                Ok(Taken::Lease(lease)) => {
                    life.renew();
                    self.board.well(Part::Progress);
                    return Ok(Some(lease));
                }
                Ok(Taken::HeldBy(owner)) => {
                    retry.reset();
                    self.board.well(Part::Progress);
                    self.board.role(Role::Standby { owner: owner.to_string() });
                    if told.as_ref() != Some(&owner) {
                        info!(%owner, failover_ms = self.settings.failover_time.as_millis() as u64, "another consumer of this name reads the stream; standing by to take over when it stops");
                        told = Some(owner);
                    }
                    life::beat_interval(self.settings.failover_time)
                }
                Err(ProgressError::LeaseLost { .. }) => {
                    life::beat_interval(self.settings.failover_time)
                }
                Err(error) if self.store_may_come_back(&error) => {
                    let why = error.to_string();
                    self.board.trouble(Part::Progress, &why);
                    let wait = retry.next(fastrand::f64());
                    if retry.failures().is_power_of_two() {
                        warn!(%why, "the store of progress does not answer, trying again");
                    }
                    wait
                }
                Err(error) => return Err(ConsumerError::of_store(error)),
            };
            tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(None),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn try_take(&self, life: &Life, observer: &mut Observer) -> Result<Taken, ProgressError> {
        life.ensure_shown().await?;
        let seen = self.progress.coordination().await?;
        // All actions on the table have worked now.
        self.store_proved.store(true, Ordering::Relaxed);
        observer.observe(&seen.workers);
        let owner = seen.stream.as_ref().and_then(|lease| lease.owner.clone());
        if let Some(owner) = owner.filter(|owner| *owner != self.worker) {
            if observer.lives(&owner) {
                return Ok(Taken::HeldBy(owner));
            }
            info!(%owner, "its owner shows no life, taking the stream over");
            self.progress.retire(&owner).await?;
            // Others may have died while they stood by; nobody else removes their beats.
            for dead in observer.dead().filter(|dead| **dead != owner) {
                self.progress.retire(dead).await?;
            }
        }
        let lease =
            self.progress.take(&LeaseKey::Stream, seen.stream.as_ref(), &self.worker, None).await?;
        self.metrics.leases_taken.inc();
        Ok(Taken::Lease(lease))
    }

    /// Reads the stream while the lease is held. Whether the worker is done.
    async fn lead(
        &self,
        start: Start<'_>,
        life: &Life,
        drain: &CancellationToken,
    ) -> Result<bool, ConsumerError> {
        info!(worker = %self.worker, stream = %self.settings.stream, "reading the stream");
        self.board.role(Role::Active);
        let abandon = life.lost().child_token();
        let (refused, mut refusals) = mpsc::channel(1);
        let context = ReaderContext {
            source: Arc::clone(&self.source),
            budget: Budget::new(
                self.settings.max_buffered_bytes,
                self.metrics.buffered_bytes.clone(),
            ),
            intervals: self.settings.poll_intervals,
            metrics: Arc::clone(&self.metrics),
            board: Arc::clone(&self.board),
            refused,
        };
        let lease = start.lease;
        let mut shards = shards::Shards::new(self, &start, context, drain, abandon.clone());
        let led = async {
            tokio::select! {
                biased;
                result = shards.run(start.listing) => result,
                Some(error) = refusals.recv() => Err(ConsumerError::of_stream(&self.settings.stream, error)),
            }
        };
        let drained = async {
            drain.cancelled().await;
            self.board.role(Role::Draining);
            let end = Instant::now() + self.settings.shutdown_grace;
            // Best effort: an api that is told to stop too would leave first without it.
            let _ = tokio::time::timeout_at(end, self.progress.drain(&self.worker)).await;
            tokio::time::sleep_until(end).await;
        };
        let ended = tokio::select! {
            biased;
            result = led => result,
            () = drained => Err(ConsumerError::GracePassed {
                grace: self.settings.shutdown_grace,
                what: "the handler's work or the last checkpoint",
            }),
        };
        abandon.cancel();
        shards.abandoned().await;
        let held = self.metrics.leases_held.get();
        self.metrics.leases_held.set(0);
        self.board.forget_all();
        self.board.role(Role::Starting);
        if let Ok(Led::Lost) = ended {
            // The stream's, and those of its shards.
            self.metrics.leases_lost.inc_by(1 + held.unsigned_abs());
            return Ok(drain.is_cancelled());
        }
        // Best effort: without it the next worker waits for the failover time.
        let release = self.progress.release(&LeaseKey::Stream, lease);
        match tokio::time::timeout(life::FAREWELL, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the stream's lease could not be given back"),
            Err(_) => warn!("the stream's lease could not be given back in time"),
        }
        ended.map(|_| true)
    }

    /// Whether to wait for the store. A refusal is final only while the store has never
    /// done all that is asked of it: later it is a policy or key being changed.
    fn store_may_come_back(&self, error: &ProgressError) -> bool {
        match error {
            ProgressError::Unavailable(_) => true,
            ProgressError::AccessDenied { .. } | ProgressError::Credentials(_) => {
                self.store_proved.load(Ordering::Relaxed)
            }
            ProgressError::LeaseLost { .. } | ProgressError::Unsuitable(_) => false,
        }
    }
}

/// What a time with the stream's lease begins with.
struct Start<'a> {
    lease: &'a Lease,
    /// The newest listing, if it is fresh.
    listing: Option<StreamDescription>,
    /// The partition key's name, by which own records are recognised.
    partition_key: Option<String>,
}

enum Taken {
    Lease(Lease),
    HeldBy(WorkerId),
}

fn may_pass(error: &SourceError) -> bool {
    matches!(
        error.kind,
        SourceErrorKind::Throttled | SourceErrorKind::Unavailable | SourceErrorKind::Malformed
    )
}
