//! A donation is announced: every donor of its city gets one mail.
//!
//! Owns the order of claim, mail and note, which makes it at most one: a claim is made
//! before and is given back only where the mail was certainly not sent. What a donor's mail
//! came to is noted before the record is answered for, so before its checkpoint. A donor
//! whose mail is refused does not keep the others from theirs.

use crate::event::News;
use crate::items::{is_uid, random};
use crate::ledger::{Known, Ledger, LedgerError, PATIENCE, Recipient, State};
use crate::mailer::{AT_A_TIME, Mailer, Sending};
use crate::message::announce;
use crate::settings::Smtp;
use futures_util::{StreamExt, stream};
use lettre::Address;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Announces donations.
pub struct Mailing {
    ledger: Ledger,
    mailer: Mailer,
    smtp: Smtp,
    /// Donations that are being announced, and what each will come to: a batch may come
    /// again while it is worked on.
    under_way: Mutex<HashMap<String, watch::Receiver<Option<Announced>>>>,
    drain: CancellationToken,
}

/// What an announcement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Everybody has a mail, or never will have one.
    Done,
    /// Somebody is left.
    Again,
    /// Somebody is left, and another donation would come to the same now: the mail server or
    /// the api is down, or the handler stops.
    Stopped,
}

/// What became of the donors of a donation, so far.
struct Tally {
    sent: AtomicUsize,
    refused: AtomicUsize,
    /// Had it before, or nobody will know whether they had.
    before: AtomicUsize,
    unknown: AtomicUsize,
    skipped: AtomicUsize,
    /// Without a mail until the record comes again.
    left: AtomicUsize,
    /// No further mail is begun; the handler's own stop is one of the reasons.
    stop: CancellationToken,
}

impl Tally {
    fn new(drain: &CancellationToken) -> Self {
        let [sent, refused, before, unknown, skipped, left] = [0; 6].map(AtomicUsize::new);
        Self { sent, refused, before, unknown, skipped, left, stop: drain.child_token() }
    }

    /// What was asked of the api was not done.
    fn not_asked(&self, error: &LedgerError) {
        if let LedgerError::Down(_) = error {
            self.stop.cancel();
        }
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

    /// Mails everybody who has no mail about this donation yet. Where that is being done, its
    /// end is waited for.
    pub async fn announce(&self, news: &News) -> Announced {
        let donation = news.donation.as_str();
        let (end, ended) = watch::channel(None);
        let running = {
            let mut under_way = self.under_way();
            let running = under_way.get(donation).cloned();
            if running.is_none() {
                under_way.insert(donation.to_owned(), ended);
            }
            running
        };
        if let Some(mut running) = running {
            info!(donation, "a donation is being announced already");
            let ended = running.wait_for(Option::is_some).await;
            return ended.ok().and_then(|ended| *ended).unwrap_or(Announced::Again);
        }
        let announced = self.announce_now(news).await;
        self.under_way().remove(donation);
        end.send_replace(Some(announced));
        announced
    }

    async fn announce_now(&self, news: &News) -> Announced {
        let donation = news.donation.as_str();
        let tally = Tally::new(&self.drain);
        let result = self.to_all(news, &tally).await;
        if let Err(error) = &result {
            tally.not_asked(error);
            warn!(donation, %error, "the api could not be asked");
        }
        let announced = match result {
            Ok(true) if count(&tally.left) == 0 => Announced::Done,
            _ if tally.stop.is_cancelled() => Announced::Stopped,
            _ => Announced::Again,
        };
        let Tally { sent, refused, before, unknown, skipped, left, .. } = &tally;
        let [sent, refused, before, unknown, skipped, left] =
            [sent, refused, before, unknown, skipped, left].map(count);
        let message = match announced {
            Announced::Done => "a donation is announced",
            Announced::Again | Announced::Stopped => "a donation comes again",
        };
        info!(donation, sent, refused, before, unknown, skipped, left, "{message}");
        announced
    }

    /// Gives whether everybody was come to.
    async fn to_all(&self, news: &News, tally: &Tally) -> Result<bool, LedgerError> {
        let known = self.ledger.mails(&news.donation).await?;
        let mut next = Some(self.ledger.donors_of(&news.city));
        while let Some(address) = next.take_if(|_| !tally.stop.is_cancelled()) {
            let page = self.ledger.donors(&address).await?;
            let donors = stream::iter(page.rows);
            let mail = |donor| self.to_one(news, donor, &known, tally);
            donors.for_each_concurrent(AT_A_TIME, mail).await;
            next = page.next;
        }
        Ok(next.is_none())
    }

    async fn to_one(
        &self,
        news: &News,
        donor: Recipient,
        known: &HashMap<String, Known>,
        tally: &Tally,
    ) {
        let (donation, id) = (news.donation.as_str(), donor.id.as_str());
        if tally.stop.is_cancelled() {
            return one_more(&tally.left);
        }
        let mail = format!("/mail/{donation}/{id}");
        let result = match known.get(id) {
            Some(known) => self.known(&mail, known, tally).await,
            None => match donor.email.as_deref().and_then(usable).filter(|_| is_uid(id)) {
                Some(to) => self.mail(news, id, to, &mail, tally).await,
                None => {
                    warn!(donation, donor = id, "a donor has no usable id and e-mail address");
                    one_more(&tally.skipped);
                    Ok(())
                }
            },
        };
        if let Err(error) = result {
            tally.not_asked(&error);
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
        let ready = tokio::select! {
            ready = self.mailer.ready() => Some(ready),
            () = tally.stop.cancelled() => None,
        };
        let ready = match ready {
            Some(Ok(ready)) => ready,
            Some(Err(why)) => {
                warn!(donation, %why, "the mail server cannot be used");
                tally.stop.cancel();
                one_more(&tally.left);
                return Ok(());
            }
            None => {
                one_more(&tally.left);
                return Ok(());
            }
        };
        let attempt = random(16);
        if let Some(known) = self.ledger.claim(mail, &attempt).await? {
            ready.keep();
            return self.known(mail, &known, tally).await;
        }
        match ready.send(&message).await {
            Sending::Accepted => {
                one_more(&tally.sent);
                self.ledger.sent(mail, &attempt).await
            }
            Sending::Refused(why) => {
                warn!(donation, donor, %why, "a mail was refused for good; it is not sent again");
                one_more(&tally.refused);
                self.ledger.refused(mail, &attempt).await
            }
            Sending::Deferred(why) => {
                warn!(donation, donor, %why, "a mail was refused");
                one_more(&tally.left);
                self.give_back(mail, &attempt, donation, donor).await;
                Ok(())
            }
            Sending::Down(why) => {
                warn!(donation, donor, %why, "a mail could not be sent");
                tally.stop.cancel();
                one_more(&tally.left);
                self.give_back(mail, &attempt, donation, donor).await;
                Ok(())
            }
            Sending::Unknown(why) => {
                warn!(donation, donor, %why, "nobody knows whether a mail was sent; it is not sent again");
                // A server that takes mails without a word may do so with all of them.
                tally.stop.cancel();
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
    async fn known(&self, mail: &str, known: &Known, tally: &Tally) -> Result<(), LedgerError> {
        // By then whoever claimed it has claimed, mailed and noted, or never will.
        let dead = self.smtp.timeout.saturating_mul(2) + PATIENCE.saturating_mul(3);
        match known.state {
            State::Sent | State::Refused | State::Unknown => one_more(&tally.before),
            State::Sending if Duration::from_millis(known.age) > dead => {
                warn!(
                    mail,
                    "nobody knows whether a mail was sent, whose handler died; it is not sent again"
                );
                one_more(&tally.unknown);
                // That claim, and no other that took its place meanwhile.
                self.ledger.unknown(mail, known.attempt.as_deref()).await?;
            }
            State::Sending => one_more(&tally.left),
        }
        Ok(())
    }

    /// It holds plain values, which a panic elsewhere leaves whole.
    fn under_way(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, watch::Receiver<Option<Announced>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Others could only be written by an older program.
fn usable(email: &str) -> Option<Address> {
    email.trim().parse().ok().filter(|_| email.is_ascii())
}
