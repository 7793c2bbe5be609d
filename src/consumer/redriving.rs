//! Redrives of dead letters that operators have asked for where there is no handler.
//!
//! Owns carrying them out, one after the other, while this worker leads: what
//! `streamgate dead-letters redrive` does with a handler of its own. How a letter is handed over
//! is [`crate::deliver`]'s. Invariant: reading does not wait for it, and what a leader leaves
//! unfinished the next one begins again with the letters that are left.

use super::Consumer;
use super::life::Life;
use super::lookout::View;
use crate::deliver::{HeldItems, Redriven};
use crate::progress::letters::{self, Listed};
use crate::progress::orders::{Order, Request};
use crate::progress::redrives::{self, Ended, Outcome, Redrive};
use crate::progress::report::{Redriving, shorten};
use crate::progress::{Progress, ProgressError};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often others are told how far it has come, besides with the beats.
const TELL: Duration = Duration::from_secs(1);
/// After a store that did not answer.
const RETRY: Duration = Duration::from_secs(5);

/// Carries out what stands, for as long as this worker leads.
pub(super) async fn run(
    consumer: &Consumer,
    life: &Life,
    mut views: watch::Receiver<Arc<View>>,
) -> Infallible {
    // What was carried out, while the view may still show it as standing.
    let mut last = 0;
    loop {
        let next = redrives::next(&views.borrow_and_update().orders.redrives).cloned();
        let Some(redrive) = next.filter(|redrive| redrive.id > last) else {
            views.changed().await.expect("the lookout outlives the leader");
            continue;
        };
        let ended = carry_out(consumer, life, &redrive).await;
        life.say(false, |sign| sign.report.redriving = None);
        match ended {
            Ok(()) => last = redrive.id,
            Err(error) if consumer.store_may_come_back(&error) => {
                warn!(%error, "the store of progress does not answer, the redrive is tried again");
                tokio::time::sleep(RETRY).await;
            }
            // Whoever asked sees that it stands; reading does not end for it.
            Err(error) => {
                warn!(%error, by = redrive.asked.by, "a redrive of dead letters could not be carried out");
                last = redrive.id;
            }
        }
    }
}

async fn carry_out(
    consumer: &Consumer,
    life: &Life,
    redrive: &Redrive,
) -> Result<(), ProgressError> {
    let store: &dyn Progress = &*consumer.progress;
    let mut found = letters::all(store).await?;
    if let Some(wanted) = &redrive.letter {
        found.retain(|listed| listed.letter.id == *wanted);
    }
    let by = &redrive.asked.by;
    info!(by, letters = found.len(), "handing dead letters over again, as was asked");
    let (of, mut told, mut held) = (found.len() as u64, Instant::now(), HeldItems::default());
    let mut outcome = Outcome { taken: 0, left: 0, why: None };
    for (tried, listed) in found.iter().enumerate() {
        let is_due = told.elapsed() >= TELL;
        if is_due {
            told = Instant::now();
        }
        let redriving = Redriving { id: redrive.id, of, tried: tried as u64 };
        life.say(is_due || tried == 0, |sign| sign.report.redriving = Some(redriving));
        let redriven = match consumer.deliverer.redrive(store, listed, &mut held).await {
            // Somebody has removed some of it.
            Err(ProgressError::Unsuitable(why)) => Redriven::Failed { why },
            redriven => redriven?,
        };
        match redriven {
            Redriven::Taken => outcome.taken += 1,
            Redriven::PartlyTaken { why, .. } | Redriven::Failed { why } => {
                let Listed { letter, .. } = listed;
                warn!(letter = %letter.id, %why, "a dead letter that was handed over again is left");
                outcome.left += 1;
                outcome.why.get_or_insert(why);
            }
        }
    }
    if found.is_empty() {
        outcome.why = Some("it is not there: it was redriven or deleted".to_owned());
    }
    if let Some(why) = &mut outcome.why {
        shorten(why);
    }
    info!(by, taken = outcome.taken, left = outcome.left, "dead letters were handed over again");
    let order = Order::Redriven(Ended { id: redrive.id, outcome });
    // Numbers in JSON are exact up to here.
    let nonce = fastrand::u64(..1 << 53);
    let request = Request { order, by: life.worker().to_string(), nonce };
    store.order(&request).await.map(drop)
}
