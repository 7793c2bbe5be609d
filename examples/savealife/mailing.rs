//! A donation is announced: every donor of its city gets one mail.
//!
//! Owns the order of claim, mail and note, which makes it at most one: a claim is made
//! before and is given back only where the mail was certainly not sent. What a donor's mail
//! came to is noted before the record is answered for, so before its checkpoint. A donor
//! whose mail is refused does not keep the others from theirs.

use crate::event::News;
use crate::items::random;
use crate::ledger::{Known, Ledger, LedgerError, PATIENCE, Recipient, State};
use crate::mailer::{AT_A_TIME, Mailer, Sending};
use crate::message::announce;
use crate::settings::Smtp;
use futures_util::{StreamExt, stream};
use lettre::Address;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Announces donations.
pub struct Mailing {
    ledger: Ledger,
    mailer: Mailer,
    smtp: Smtp,
    /// Donations that are being announced: a batch may come again while it is worked on.
    under_way: Mutex<HashSet<String>>,
    drain: CancellationToken,
}

/// What became of the donors of a donation, so far.
#[derive(Default)]
struct Tally {
    sent: AtomicUsize,
    /// Had it before, or nobody will know whether they had.
    before: AtomicUsize,
    unknown: AtomicUsize,
    skipped: AtomicUsize,
    /// Without a mail until the record comes again.
    left: AtomicUsize,
    /// No further mail is begun.
    stop: AtomicBool,
}

impl Tally {
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn count(of: &AtomicUsize) -> usize {
    of.load(Ordering::Relaxed)
}

fn one_more(of: &AtomicUsize) {
    of.fetch_add(1, Ordering::Relaxed);
}

impl Mailing {
    pub fn new(ledger: Ledger, smtp: Smtp, drain: CancellationToken) -> Self {
        let mailer = Mailer::new(smtp.clone());
        Self { ledger, mailer, smtp, under_way: Mutex::default(), drain }
    }

    /// Mails everybody who has no mail about this donation yet. Gives whether nobody is left.
    pub async fn announce(&self, news: &News) -> bool {
        let donation = news.donation.as_str();
        if !self.under_way().insert(donation.to_owned()) {
            info!(donation, "a donation is being announced already");
            return false;
        }
        let tally = Tally::default();
        let result = self.to_all(news, &tally).await;
        self.under_way().remove(donation);
        if let Err(error) = &result {
            warn!(donation, %error, "the api could not be asked");
        }
        let is_done = result.is_ok() && count(&tally.left) == 0 && !tally.is_stopped();
        let [sent, before, unknown, skipped, left] =
            [&tally.sent, &tally.before, &tally.unknown, &tally.skipped, &tally.left].map(count);
        let message = if is_done { "a donation is announced" } else { "a donation comes again" };
        info!(donation, sent, before, unknown, skipped, left, "{message}");
        is_done
    }

    async fn to_all(&self, news: &News, tally: &Tally) -> Result<(), LedgerError> {
        let known = self.ledger.mails(&news.donation).await?;
        let mut next = Some(self.ledger.donors_of(&news.city));
        while let Some(address) = next {
            if self.drain.is_cancelled() || tally.is_stopped() {
                tally.stop();
                break;
            }
            let page = self.ledger.donors(&address).await?;
            let donors = stream::iter(page.rows);
            let mail = |donor| self.to_one(news, donor, &known, tally);
            donors.for_each_concurrent(AT_A_TIME, mail).await;
            next = page.next;
        }
        Ok(())
    }

    async fn to_one(
        &self,
        news: &News,
        donor: Recipient,
        known: &HashMap<String, Known>,
        tally: &Tally,
    ) {
        let (donation, id) = (news.donation.as_str(), donor.id.as_str());
        let mail = format!("/mail/{donation}/{id}");
        let result = match known.get(id) {
            Some(known) => self.known(&mail, *known, tally).await,
            None => match donor.email.as_deref().and_then(usable) {
                Some(to) => self.mail(news, id, to, &mail, tally).await,
                None => {
                    warn!(donation, donor = id, "a donor has no usable e-mail address");
                    one_more(&tally.skipped);
                    Ok(())
                }
            },
        };
        if let Err(error) = result {
            warn!(donation, donor = id, %error, "the api could not be asked about a mail");
            one_more(&tally.left);
        }
    }

    async fn mail(
        &self,
        news: &News,
        donor: &str,
        to: Address,
        mail: &str,
        tally: &Tally,
    ) -> Result<(), LedgerError> {
        let donation = news.donation.as_str();
        let message = match announce(news, donor, to, &self.smtp.from) {
            Ok(message) => message,
            Err(error) => {
                warn!(donation, donor, %error, "a mail cannot be written");
                one_more(&tally.skipped);
                return Ok(());
            }
        };
        // Before the claim: where no server answers, nothing is claimed.
        let ready = self.mailer.ready().await;
        if self.drain.is_cancelled() || tally.is_stopped() {
            tally.stop();
            one_more(&tally.left);
            return Ok(());
        }
        let ready = match ready {
            Ok(ready) => ready,
            Err(why) => {
                warn!(donation, %why, "the mail server cannot be used");
                tally.stop();
                one_more(&tally.left);
                return Ok(());
            }
        };
        let attempt = random(16);
        if let Some(known) = self.ledger.claim(mail, &attempt).await? {
            drop(ready);
            return self.known(mail, known, tally).await;
        }
        match ready.send(&message).await {
            Sending::Accepted => {
                one_more(&tally.sent);
                self.ledger.sent(mail, &attempt).await
            }
            Sending::Refused(why) => {
                warn!(donation, donor, %why, "a mail was refused");
                one_more(&tally.left);
                self.give_back(mail, &attempt, donation, donor).await;
                Ok(())
            }
            Sending::Down(why) => {
                warn!(donation, donor, %why, "a mail could not be sent");
                tally.stop();
                one_more(&tally.left);
                self.give_back(mail, &attempt, donation, donor).await;
                Ok(())
            }
            Sending::Unknown(why) => {
                warn!(donation, donor, %why, "nobody knows whether a mail was sent; it is not sent again");
                // A server that takes mails without a word may do so with all of them.
                tally.stop();
                one_more(&tally.unknown);
                self.ledger.unknown(mail, Some(&attempt)).await
            }
        }
    }

    async fn give_back(&self, mail: &str, attempt: &str, donation: &str, donor: &str) {
        if let Err(error) = self.ledger.give_back(mail, attempt).await {
            warn!(donation, donor, %error, "a claim could not be given back; its mail will count as unknown");
        }
    }

    /// Somebody claimed it before: another batch, or a handler that died.
    async fn known(&self, mail: &str, known: Known, tally: &Tally) -> Result<(), LedgerError> {
        // By then whoever claimed it has claimed, mailed and noted, or never will.
        let dead = self.smtp.timeout.saturating_mul(2) + PATIENCE.saturating_mul(3);
        match known.state {
            State::Sent | State::Unknown => one_more(&tally.before),
            State::Sending if Duration::from_millis(known.age) > dead => {
                warn!(
                    mail,
                    "nobody knows whether a mail was sent, whose handler died; it is not sent again"
                );
                one_more(&tally.unknown);
                self.ledger.unknown(mail, None).await?;
            }
            State::Sending => one_more(&tally.left),
        }
        Ok(())
    }

    /// It holds names, which a panic elsewhere leaves whole.
    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Others could only be written by an older program.
fn usable(email: &str) -> Option<Address> {
    email.trim().parse().ok().filter(|_| email.is_ascii())
}
