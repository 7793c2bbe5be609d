//! The consumer: one worker of a stream, from its start to a clean stop.
//!
//! Owns the sequence of a worker's lives: check what it stands on, show life, work until a
//! stop is asked for or the life is lost, begin anew. The pieces of one life, which run side
//! by side: `life` beats, `lookout` sees the others, `leader` does for all what one must
//! do, `shards` runs the shards that this worker holds; [`shard`] is one shard's loop.

mod adoption;
mod ahead;
mod departed;
mod desk;
mod discovery;
mod error;
mod expected;
mod family;
mod lane;
mod launch;
mod leader;
mod life;
mod listings;
mod lookout;
mod orders;
mod redriving;
mod settings;
pub mod shard;
mod shards;
mod track;

pub use error::ConsumerError;
pub use settings::ConsumerSettings;

use crate::backoff::Backoff;
use crate::deliver::{Deliverer, Destination, Handler};
use crate::lineage::StartingPosition;
use crate::progress::orders::{Orders, SeekTo};
use crate::progress::{Progress, ProgressError};
use crate::source::{Source, SourceError, SourceErrorKind, SourceOperation, StreamDescription};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{Board, Part, Role};
use crate::telemetry::traces::Traces;
use family::Family;
use launch::Launch;
use leader::Leader;
use life::Life;
use lookout::look;
use redriving::Redriver;
use shards::{Shards, Slots};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Retries of a stream or store that does not answer yet when the worker starts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Tries with credentials that are missing or not accepted, about three seconds.
const CREDENTIAL_TRIES: u32 = 5;

/// A listing older than this may show shards that are long gone, or miss children.
const LISTING_LIFE: Duration = Duration::from_secs(10);

/// One worker of a stream.
pub struct Consumer {
    settings: ConsumerSettings,
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
            traces: None,
        };
        Self {
            settings,
            source,
            progress,
            deliverer,
            metrics,
            board,
            store_proved: AtomicBool::new(false),
        }
    }

    /// Tells `traces` of each batch.
    #[must_use]
    pub fn traced(mut self, traces: Option<Traces>) -> Self {
        self.deliverer.traces = traces;
        self
    }

    /// Runs until `drain` is cancelled and everything in flight is finished.
    ///
    /// # Errors
    /// [`ConsumerError`] for what only a person can mend.
    pub async fn run(self, drain: CancellationToken) -> Result<(), ConsumerError> {
        let asked = Instant::now();
        let mut life = self.new_life();
        let may_pass = |error: &ProgressError| self.store_may_come_back(error);
        let ready = async {
            let listing = self.check().await?;
            life.begin(may_pass).await.map_err(ConsumerError::of_store)?;
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
        let mut listing = Some(listing);
        loop {
            let fresh = listing.take().filter(|_| asked.elapsed() < LISTING_LIFE);
            let ended = self.live(&life, fresh, partition_key.clone(), &drain).await;
            life.end().await;
            if let Ended::Drained = ended? {
                return Ok(());
            }
            // What the old one held is for whoever leads, and that may be the new one.
            life = self.new_life();
            tokio::select! {
                biased;
                () = drain.cancelled() => {
                    life.end().await;
                    return Ok(());
                }
                begun = life.begin(may_pass) => begun.map_err(ConsumerError::of_store)?,
            }
        }
    }

    fn new_life(&self) -> Life {
        let (store, board) = (Arc::clone(&self.progress), Arc::clone(&self.board));
        Life::new(store, self.settings.failover_time, board)
    }

    /// One life, from its first beat to its end.
    async fn live(
        &self,
        life: &Life,
        listing: Option<StreamDescription>,
        partition_key: Option<String>,
        drain: &CancellationToken,
    ) -> Result<Ended, ConsumerError> {
        info!(worker = %life.worker(), stream = %self.settings.stream, "working on the stream");
        self.board.role(Role::Active);
        let (family, slots) = (Family::default(), Slots::default());
        let (sight, views) = watch::channel(Arc::default());
        let (refused, mut refusals) = mpsc::channel(1);
        let (give, mut grants) = mpsc::unbounded_channel();
        let leader = Leader::new(self, life, &family, views.clone(), give);
        let redriver = Redriver::new(self, life, &family, views.clone(), drain.clone());
        let launch = Launch::new(self, partition_key, refused);
        let mut shards = Shards::new(self, life, &family, &slots, views, launch, drain);
        let checkpointer = shards.checkpointer();
        let leading = async {
            tokio::select! {
                biased;
                () = drain.cancelled() => {}
                led = leader.run(listing) => return led.map(|never| match never {}),
            }
            leader.resign().await;
            std::future::pending().await
        };
        let may_pass = |error: &ProgressError| self.store_may_come_back(error);
        let failover = self.settings.failover_time;
        let look = look(&*self.progress, life.worker(), failover, &sight, may_pass);
        let drained = async {
            shards.run(&mut grants).await;
            redriver.idle().await;
        };
        let ended = tokio::select! {
            biased;
            () = life.lost().cancelled() => Ok(Ended::Lost),
            Some(error) = refusals.recv() => {
                Err(ConsumerError::of_stream(&self.settings.stream, error))
            }
            () = drained => Ok(Ended::Drained),
            never = redriver.run() => match never {},
            led = leading => led,
            never = life.beat() => match never {},
            looked = look => looked.map(|never| match never {}).map_err(ConsumerError::of_store),
            () = checkpointer.run() => unreachable!("runs until dropped"),
            () = self.grace_passed(life, drain) => Err(ConsumerError::GracePassed {
                grace: self.settings.shutdown_grace,
                what: "the handler's work or the last checkpoint",
            }),
        };
        let left = shards.abandon().await;
        self.metrics.leads.set(0);
        if let Ok(Ended::Lost) = ended {
            self.board.role(Role::Starting);
            self.metrics.leases_lost.inc_by(left as u64);
            if drain.is_cancelled() {
                return Ok(Ended::Drained);
            }
        }
        ended
    }

    /// Resolves when a stop has taken longer than it may.
    async fn grace_passed(&self, life: &Life, drain: &CancellationToken) {
        drain.cancelled().await;
        self.board.role(Role::Draining);
        let end = Instant::now() + self.settings.shutdown_grace;
        // Best effort: an api that is told to stop too would leave first without it.
        let _ = tokio::time::timeout_at(end, self.progress.drain(life.worker())).await;
        tokio::time::sleep_until(end).await;
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

    /// The starting position: the setting's, or where an operator has sent the stream since.
    fn start(&self, orders: &Orders) -> StartingPosition {
        match orders.start {
            None => self.settings.starting_position,
            Some(SeekTo::TrimHorizon) => StartingPosition::TrimHorizon,
            Some(SeekTo::Latest) => StartingPosition::Latest,
            Some(SeekTo::AtTimestamp(time)) => StartingPosition::AtTimestamp(time),
        }
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

/// How a life ended.
enum Ended {
    /// A stop was asked for, and everything is finished.
    Drained,
    /// Its leases have passed on, or may have.
    Lost,
}

fn may_pass(error: &SourceError) -> bool {
    matches!(
        error.kind,
        SourceErrorKind::Throttled | SourceErrorKind::Unavailable | SourceErrorKind::Malformed
    )
}
