//! What one worker does for all: it finds shards and sees that none is left alone.
//!
//! Owns the stream's lease, which makes the leader: winning it when nobody has it, when the
//! stream is listed ([`Listings`]) and shards without an owner are seen to ([`Adoption`]),
//! and the removal of dead workers' signs of life. Reads nothing itself. Invariant: a
//! worker's leases are adopted only after its sign of life is gone, and that is removed
//! only with the beat that stood still for the failover time.

use super::adoption::Adoption;
use super::family::Family;
use super::life::{FAREWELL, Life};
use super::listings::Listings;
use super::lookout::{Seen, View};
use super::shards::Given;
use super::{Consumer, ConsumerError, RETRY};
use crate::progress::{Lease, LeaseKey, ProgressError, WorkerId};
use crate::source::StreamDescription;
use crate::telemetry::status::Part;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// When a look is wanted early: shards that end together share it.
const SYNC_SOON: Duration = Duration::from_secs(1);
/// A worker lets so many others go first that have earlier names, a look each: the lease
/// is then taken once and not refused to all but one.
const MOST_AHEAD: usize = 3;
/// A worker that leads when nobody else does.
pub(super) struct Leader<'a> {
    consumer: &'a Consumer,
    life: &'a Life,
    family: &'a Family,
    views: watch::Receiver<Arc<View>>,
    grants: mpsc::UnboundedSender<Given>,
    /// The stream's, while it leads.
    lease: Mutex<Option<Lease>>,
}

impl<'a> Leader<'a> {
    /// Shards that it gives to this worker go through `grants`.
    pub fn new(
        consumer: &'a Consumer,
        life: &'a Life,
        family: &'a Family,
        views: watch::Receiver<Arc<View>>,
        grants: mpsc::UnboundedSender<Given>,
    ) -> Self {
        Self { consumer, life, family, views, grants, lease: Mutex::default() }
    }

    /// Leads whenever nobody else does. `listing` is the newest one, if it is fresh.
    ///
    /// # Errors
    /// What only a person can mend.
    pub async fn run(
        &self,
        mut listing: Option<StreamDescription>,
    ) -> Result<Infallible, ConsumerError> {
        let mut retry = RETRY;
        loop {
            let led = match self.win().await {
                Ok(lease) => {
                    info!(worker = %self.life.worker(), stream = %self.consumer.settings.stream, "leading: finding shards, and adopting those that nobody has");
                    retry.reset();
                    *self.lease.lock().expect("no panic while held") = Some(lease.clone());
                    self.family.lead(true);
                    self.lead(&lease, listing.take()).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = led;
            self.family.lead(false);
            self.consumer.metrics.leads.set(0);
            *self.lease.lock().expect("no panic while held") = None;
            match error {
                ProgressError::LeaseLost { owner } => {
                    info!(
                        owner = owner.as_ref().map(tracing::field::display),
                        "another worker leads now"
                    );
                }
                error if self.consumer.store_may_come_back(&error) => {
                    self.consumer.board.trouble(Part::Progress, &error.to_string());
                    warn!(%error, "the store of progress does not answer, trying again");
                }
                error => return Err(ConsumerError::of_store(error)),
            }
            tokio::time::sleep(retry.next(fastrand::f64())).await;
        }
    }

    /// Gives the lease back, if it is held, so that another can lead at once.
    pub async fn resign(&self) {
        let Some(lease) = self.lease.lock().expect("no panic while held").take() else { return };
        self.consumer.metrics.leads.set(0);
        let release = self.consumer.progress.release(&LeaseKey::Stream, &lease);
        match tokio::time::timeout(FAREWELL, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the stream's lease could not be given back"),
            Err(_) => warn!("the stream's lease could not be given back in time"),
        }
    }

    /// Waits until nobody has the lease who lives, and takes it.
    async fn win(&self) -> Result<Lease, ProgressError> {
        let mut views = self.views.clone();
        let mut waited = 0;
        loop {
            let view = views.borrow_and_update().clone();
            match self.vacancy(&view) {
                None => waited = 0,
                Some(_) if waited < self.ahead(&view) => waited += 1,
                Some(dead) => match self.take(&view, dead).await {
                    Err(ProgressError::LeaseLost { owner }) => {
                        debug!(?owner, "another was faster, or lives");
                    }
                    taken => return taken,
                },
            }
            views.changed().await.expect("the lookout outlives the leader");
        }
    }

    /// Whether nobody leads: `Some`, with the dead worker that did.
    fn vacancy<'v>(&self, view: &'v View) -> Option<Option<&'v Seen>> {
        // Nothing was seen yet.
        view.worker(self.life.worker())?;
        match view.stream.as_ref().and_then(|lease| lease.owner.as_ref()) {
            None => Some(None),
            // The answer to its take was lost.
            Some(owner) if owner == self.life.worker() => Some(None),
            // A worker beats before it takes: one without a sign has taken its leave.
            Some(owner) => match view.worker(owner) {
                None => Some(None),
                Some(seen) => (!seen.lives).then_some(Some(seen)),
            },
        }
    }

    fn ahead(&self, view: &View) -> usize {
        let earlier = |worker: &WorkerId| worker < self.life.worker();
        view.taking().filter(|member| earlier(&member.sign.worker)).count().min(MOST_AHEAD)
    }

    async fn take(&self, view: &View, dead: Option<&Seen>) -> Result<Lease, ProgressError> {
        if let Some(dead) = dead {
            self.bury(dead).await?;
        }
        let progress = &self.consumer.progress;
        let me = self.life.worker();
        let lease = progress.take(&LeaseKey::Stream, view.stream.as_ref(), me, None).await?;
        self.consumer.metrics.leases_taken.inc();
        self.consumer.metrics.leads.set(1);
        Ok(lease)
    }

    /// Removes a dead worker's sign of life. Refused when it has beaten after all.
    async fn bury(&self, dead: &Seen) -> Result<(), ProgressError> {
        let sign = &dead.member.sign;
        self.consumer.progress.retire(&sign.worker, Some(sign.beat)).await?;
        info!(worker = %sign.worker, shards = sign.shards, "a worker shows no life: its shards are for others");
        Ok(())
    }

    /// Until the lease is lost or the store does not answer.
    async fn lead(
        &self,
        lease: &Lease,
        listing: Option<StreamDescription>,
    ) -> Result<Infallible, ProgressError> {
        let mut views = self.views.clone();
        let mut adoption =
            Adoption::new(self.consumer, self.life, self.family, lease, self.grants.clone());
        let mut listings = Listings::new(self.consumer, self.family);
        let mut known: BTreeSet<WorkerId> = BTreeSet::new();
        let mut orders = 0;
        if let Some(listing) = &listing {
            listings.take_in(listing);
        }
        // First those that are known: a listing may take long, or fail.
        let mut adopt_at = Some(Instant::now());
        let mut sync_at = Instant::now();
        if listing.is_some() {
            sync_at += listings.wait();
        }
        loop {
            let adopting = async {
                match adopt_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = views.changed() => {
                    changed.expect("the lookout outlives the leader");
                    let view = views.borrow_and_update().clone();
                    self.still_leads(lease, &view)?;
                    if std::mem::replace(&mut orders, view.orders.version) != view.orders.version {
                        adopt_at = Some(Instant::now());
                    }
                    if self.clear(&view, &mut known).await? {
                        adopt_at = Some(Instant::now());
                        // What it was about to find is to be found by others.
                        sync_at = sync_at.min(Instant::now() + SYNC_SOON);
                    }
                }
                () = adopting => {
                    let view = views.borrow().clone();
                    adopt_at = match self.passes(adoption.adopt(&view, listings.known()).await)? {
                        Some(again) => again.map(|wait| Instant::now() + wait),
                        None => Some(Instant::now() + SYNC_SOON),
                    };
                    listings.tell_when_all_is_read();
                }
                () = self.family.listing_wanted() => {
                    sync_at = sync_at.min(Instant::now() + SYNC_SOON);
                }
                () = tokio::time::sleep_until(sync_at) => {
                    if listings.look().await {
                        adopt_at = Some(Instant::now());
                    }
                    sync_at = Instant::now() + listings.wait();
                }
            }
        }
    }

    fn still_leads(&self, lease: &Lease, view: &View) -> Result<(), ProgressError> {
        // A look that began before the take says nothing about it.
        match &view.stream {
            Some(seen) if seen.counter > lease.counter => {
                Err(ProgressError::LeaseLost { owner: seen.owner.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Removes the signs of the dead. Whether anybody has gone since the last look.
    async fn clear(
        &self,
        view: &View,
        known: &mut BTreeSet<WorkerId>,
    ) -> Result<bool, ProgressError> {
        let before = std::mem::take(known);
        let mut buried = false;
        for seen in &view.workers {
            let worker = &seen.member.sign.worker;
            if seen.lives {
                known.insert(worker.clone());
                continue;
            }
            match self.bury(seen).await {
                Err(ProgressError::LeaseLost { .. }) => {
                    known.insert(worker.clone());
                }
                Err(error) if self.consumer.store_may_come_back(&error) => {
                    warn!(%error, %worker, "a dead worker's sign of life could not be removed, trying again");
                    known.insert(worker.clone());
                }
                // Where it was not known either: nobody else adopts what it had.
                Ok(()) => buried = true,
                Err(error) => return Err(error),
            }
        }
        Ok(buried || !before.is_subset(known))
    }

    /// `None` for an error of the store that may pass: what was to be done is done soon.
    fn passes<T>(&self, result: Result<T, ProgressError>) -> Result<Option<T>, ProgressError> {
        match result {
            Err(error) if self.consumer.store_may_come_back(&error) => {
                warn!(%error, "the store of progress does not answer, trying again");
                Ok(None)
            }
            result => result.map(Some),
        }
    }
}
