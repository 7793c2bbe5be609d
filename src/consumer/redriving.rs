//! Redrives of dead letters that operators have asked for where there is no handler.
//!
//! Owns carrying them out, one after the other and a letter at a time, while this worker leads:
//! what `streamgate dead-letters redrive` does with a handler of its own. How a letter is handed
//! over is [`crate::deliver`]'s. Invariant: before each letter it is looked whether this worker
//! leads, no stop was asked for and the letter's shard is not paused; what is left unfinished the
//! next leader begins again with the letters that are there then.

use super::Consumer;
use super::family::Family;
use super::life::Life;
use super::lookout::View;
use crate::deliver::{HeldItems, Redriven};
use crate::progress::ProgressError;
use crate::progress::letters::{self, Listed};
use crate::progress::orders::{Order, Request};
use crate::progress::redrives::{Ended, Outcome, Redrive};
use crate::progress::report::{Redriving, shorten};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often others are told how far it has come, besides with the beats.
const TELL: Duration = Duration::from_secs(1);
/// After a store that did not answer.
const RETRY: Duration = Duration::from_secs(5);
/// Letters of one redrive: they are remembered, a few kilobytes each at the most.
const MOST_LETTERS: usize = 10_000;

/// The redrives of one life.
pub(super) struct Redriver<'a> {
    consumer: &'a Consumer,
    life: &'a Life,
    family: &'a Family,
    views: watch::Receiver<Arc<View>>,
    drain: CancellationToken,
    /// Held while a letter is with the handler.
    busy: Mutex<()>,
}

/// One redrive as far as it has come.
struct Run {
    id: u64,
    by: String,
    letters: VecDeque<Listed>,
    /// There were more than are remembered.
    more: bool,
    of: u64,
    tried: u64,
    outcome: Outcome,
    held: HeldItems,
    told: Option<Instant>,
}

/// One that was carried out.
struct Done {
    outcome: Outcome,
    noted: bool,
}

impl<'a> Redriver<'a> {
    pub fn new(
        consumer: &'a Consumer,
        life: &'a Life,
        family: &'a Family,
        views: watch::Receiver<Arc<View>>,
        drain: CancellationToken,
    ) -> Self {
        Self { consumer, life, family, views, drain, busy: Mutex::default() }
    }

    /// Carries out what stands whenever this worker leads.
    pub async fn run(&self) -> Infallible {
        let mut views = self.views.clone();
        // What was carried out, while it is seen as standing.
        let mut done: BTreeMap<u64, Done> = BTreeMap::new();
        let mut run: Option<Run> = None;
        loop {
            let view = views.borrow_and_update().clone();
            let stands = |id: u64| {
                let mut redrives = view.orders.redrives.iter();
                redrives.any(|redrive| redrive.id == id && redrive.ended.is_none())
            };
            done.retain(|id, _| stands(*id));
            if !self.family.leads() || self.drain.is_cancelled() {
                (run, done) = (None, BTreeMap::new());
            }
            let may = self.family.leads() && !self.drain.is_cancelled();
            let standing = view.orders.redrives.iter().filter(|redrive| redrive.ended.is_none());
            let next = standing.filter(|_| may).find(|redrive| !done.contains_key(&redrive.id));
            let stepped = match next {
                Some(redrive) => self.step(redrive, &view, &mut run, &mut done).await,
                None => {
                    self.tell(None, true);
                    Ok(false)
                }
            };
            let is_well = match stepped {
                Ok(true) => continue,
                Ok(false) => self.note(&mut done).await,
                Err(error) => {
                    warn!(%error, "a redrive of dead letters is held up, trying again");
                    false
                }
            };
            if is_well {
                views.changed().await.expect("the lookout outlives it");
            } else {
                // What another has done since is seen before it is tried again.
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Resolves when no letter is with the handler; none is begun after a stop was asked for.
    pub async fn idle(&self) {
        drop(self.busy.lock().await);
    }

    /// Goes on with `redrive` by a letter. Whether there may be more to do at once.
    async fn step(
        &self,
        redrive: &Redrive,
        view: &View,
        run: &mut Option<Run>,
        done: &mut BTreeMap<u64, Done>,
    ) -> Result<bool, ProgressError> {
        if run.as_ref().is_none_or(|run| run.id != redrive.id) {
            *run = Some(self.begin(redrive).await?);
        }
        let at = run.as_mut().expect("it was just begun");
        if at.letters.is_empty() {
            let outcome = at.outcome();
            info!(
                by = at.by,
                taken = outcome.taken,
                left = outcome.left,
                "dead letters were handed over again"
            );
            done.insert(at.id, Done { outcome, noted: false });
            *run = None;
            return Ok(true);
        }
        // What is paused waits, and holds up no other shard's; within a shard the order stays.
        let is_paused = |listed: &Listed| view.orders.pause(&listed.letter.id.shard).is_some();
        let next = at.letters.iter().position(|listed| !is_paused(listed));
        let is_due = at.told.is_none_or(|told| told.elapsed() >= TELL);
        if is_due {
            at.told = Some(Instant::now());
        }
        self.tell(Some(Redriving { id: at.id, of: at.of, tried: at.tried }), is_due);
        let Some(next) = next else { return Ok(false) };
        let _busy = self.busy.lock().await;
        if self.drain.is_cancelled() {
            return Ok(false);
        }
        let store = &*self.consumer.progress;
        let listed = &at.letters[next];
        let redriven = match self.consumer.deliverer.redrive(store, listed, &mut at.held).await {
            // Somebody has removed some of it.
            Err(ProgressError::Unsuitable(why)) => Redriven::Failed { why },
            redriven => redriven?,
        };
        match redriven {
            Redriven::Taken => at.outcome.taken += 1,
            Redriven::PartlyTaken { why, .. } | Redriven::Failed { why } => {
                warn!(letter = %listed.letter.id, %why, "a dead letter that was handed over again is left");
                at.outcome.left += 1;
                at.outcome.why.get_or_insert(why);
            }
        }
        at.tried += 1;
        at.letters.remove(next);
        Ok(true)
    }

    /// Finds the letters that it is about.
    async fn begin(&self, redrive: &Redrive) -> Result<Run, ProgressError> {
        let store = &*self.consumer.progress;
        let (letters, more): (VecDeque<Listed>, bool) = match &redrive.letter {
            Some(wanted) => (letters::find(store, wanted).await?.into_iter().collect(), false),
            None => {
                let (letters, more) = letters::first(store, MOST_LETTERS).await?;
                (letters.into(), more)
            }
        };
        let by = redrive.asked.by.clone();
        info!(by, letters = letters.len(), "handing dead letters over again, as was asked");
        let outcome = Outcome { taken: 0, left: 0, why: None };
        let (of, held) = (letters.len() as u64, HeldItems::default());
        Ok(Run { id: redrive.id, by, letters, more, of, tried: 0, outcome, held, told: None })
    }

    /// Notes what was carried out. Whether all of it is noted: an older replica of the api may
    /// not know what that is, and another may.
    async fn note(&self, done: &mut BTreeMap<u64, Done>) -> bool {
        let mut is_well = true;
        for (id, done) in done.iter_mut().filter(|(_, done)| !done.noted) {
            let order = Order::Redriven(Ended { id: *id, outcome: done.outcome.clone() });
            // Numbers in JSON are exact up to here.
            let nonce = fastrand::u64(..1 << 53);
            let request = Request { order, by: self.life.worker().to_string(), nonce };
            match self.consumer.progress.order(&request).await {
                Ok(_) => done.noted = true,
                Err(error) => {
                    warn!(%error, "how a redrive of dead letters ended is not noted, trying again");
                    is_well = false;
                }
            }
        }
        is_well
    }

    fn tell(&self, redriving: Option<Redriving>, urgent: bool) {
        let mut has_changed = false;
        self.life.say(false, |sign| {
            has_changed = sign.report.redriving != redriving;
            sign.report.redriving = redriving;
        });
        if urgent && has_changed {
            self.life.say(true, |_| {});
        }
    }
}

impl Run {
    fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        if self.of == 0 {
            outcome.why = Some("nothing is there: it was redriven or deleted".to_owned());
        } else if self.more {
            let why = || format!("there are more than {MOST_LETTERS}: ask again for the others");
            outcome.why.get_or_insert_with(why);
        }
        if let Some(why) = &mut outcome.why {
            shorten(why);
        }
        outcome
    }
}
