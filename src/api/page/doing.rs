//! What a person does on the page.
//!
//! Owns the bodies of its requests, and the line in the log for each: who asked for what, and who
//! looked at the contents of items. What is done is the stores' own, as for the commands.
//! Invariant: contents of items are given to nobody without that line, and as they are: nothing
//! is made of them here.

use super::session::Session;
use super::stream::Stream;
use super::watching::Streams;
use crate::api::calls::Store;
use crate::progress::ProgressError;
use crate::progress::asking;
use crate::progress::letters::{self, LetterId, Listed};
use crate::progress::orders::{Order, Orders};
use crate::progress::problem::{Problem, ProblemCode};
use crate::progress::redrives::Redrive;
use crate::progress::report::shorten;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tracing::info;

/// Letters that are deleted in one request; the page makes one after the other.
const MOST_AT_ONCE: usize = 50;
/// Bytes of a letter's last error that are listed.
const MOST_OF_AN_ERROR: usize = 256;
/// Payloads that are in memory at a time, each of 16 MiB at the most: the api has little.
pub(super) const PAYLOADS: usize = 2;

/// Of whom something is asked: a consumer and the label of its stream. It stands beside that.
#[derive(Deserialize)]
pub(super) struct Asked {
    pub consumer: String,
    pub label: String,
}

#[derive(Deserialize)]
pub(super) struct OrderAsked {
    order: Order,
    /// The page's own, for each question that was answered: it asks again with the same.
    #[serde(default = "asking::nonce")]
    nonce: u64,
}

#[derive(Deserialize)]
pub(super) struct LetterAsked {
    id: String,
}

#[derive(Deserialize)]
pub(super) struct LettersAsked {
    ids: Vec<String>,
}

/// Somebody at work on a stream.
pub(super) struct Doing<'a> {
    pub session: &'a Session,
    pub store: Arc<Store>,
    pub stream: Arc<Stream>,
    pub streams: &'a Streams,
    pub payloads: &'a Arc<Semaphore>,
}

impl Doing<'_> {
    /// Asks the consumer for something. The answer is the redrive's number, where it is one: also
    /// of one that stood already.
    pub async fn order(&self, asked: OrderAsked) -> Result<Value, Problem> {
        let OrderAsked { order, nonce } = asked;
        if !order.is_an_operators() || !(1..asking::MOST_NONCE).contains(&nonce) {
            let detail = "this is noted by the consumer itself, or has no number of its own";
            return Err(Problem::new(ProblemCode::Malformed, detail));
        }
        let (by, (consumer, label)) = (&self.session.by, &self.stream.whose);
        let mut words = order.to_string();
        shorten(&mut words);
        let redriven = match &order {
            Order::Redrive(letter) => Some(letter.clone()),
            _ => None,
        };
        match self.store.ask(order, by, nonce).await {
            Ok(orders) => {
                info!(by, consumer, label, order = words, "asked for on the page");
                self.streams.look_soon(&self.stream);
                let stands = redriven.and_then(|letter| standing(&orders, letter.as_ref()));
                Ok(json!({ "redrive": stands }))
            }
            Err(problem) => {
                let why = &problem.detail;
                info!(by, consumer, label, order = words, why, "asked for on the page in vain");
                Err(problem)
            }
        }
    }

    /// The dead letters, without their payloads.
    pub async fn letters(&self) -> Result<Value, Problem> {
        let ended = self.stream.ended_redrives();
        let found = self.stream.letters.letters(self.store.progress(), ended).await?;
        let age = found.age().as_millis() as u64;
        let letters: Vec<Listed> = found.letters.iter().map(listed).collect();
        Ok(json!({ "letters": letters, "more": found.more, "age_ms": age }))
    }

    /// The payload of a dead letter, the contents of items: JSON, as it was kept.
    pub async fn letter(&self, asked: LetterAsked) -> Result<Body, Problem> {
        let letter = self.known(asked.id).await?.letter;
        let (by, (consumer, label)) = (&self.session.by, &self.stream.whose);
        info!(by, consumer, label, letter = %letter.id, "the contents of a dead letter are shown on the page");
        // Goes with the answer until the browser has it.
        let room = Arc::clone(self.payloads).acquire_owned().await.expect("never closed");
        let payload: Bytes = match letters::payload(self.store.progress(), &letter).await {
            // It is gone since it was listed, which is said better.
            Err(error @ ProgressError::Unsuitable(_)) => {
                self.stream.letters.renew().await;
                self.known(letter.id.to_string()).await?;
                return Err(error.into());
            }
            payload => payload?,
        };
        serde_json::from_slice::<&RawValue>(&payload).map_err(|error| {
            Problem::new(ProblemCode::Unsuitable, format!("its payload is not JSON: {error}"))
        })?;
        Ok(Body::from_stream(stream::iter([Ok::<_, Infallible>(payload)]).map(move |payload| {
            let _room = &room;
            payload
        })))
    }

    /// Deletes letters for good. One that is gone already is no reason not to delete the others,
    /// and an answer that was lost none to be refused when it is asked for again.
    pub async fn delete(&self, asked: LettersAsked) -> Result<Value, Problem> {
        if asked.ids.len() > MOST_AT_ONCE {
            let detail = format!("at most {MOST_AT_ONCE} dead letters are deleted at once");
            return Err(Problem::new(ProblemCode::Malformed, detail));
        }
        let (by, (consumer, label)) = (&self.session.by, &self.stream.whose);
        let found = self.stream.letters.these(self.store.progress(), &asked.ids).await?.there;
        for listed in &found {
            let letter = &listed.letter;
            if let Err(error) = letters::remove(self.store.progress(), letter).await {
                // Some of it may be gone.
                info!(by, consumer, label, letter = %letter.id, %error, "a dead letter is deleted on the page in vain");
                return Err(error.into());
            }
            info!(by, consumer, label, letter = %letter.id, "a dead letter is deleted on the page");
            self.stream.letters.forget(listed).await;
        }
        Ok(json!({ "deleted": found.len() }))
    }

    /// This letter, by what was listed last, or by what is there now.
    async fn known(&self, id: String) -> Result<Listed, Problem> {
        let found =
            self.stream.letters.these(self.store.progress(), std::slice::from_ref(&id)).await?;
        found.there.into_iter().next().ok_or_else(|| {
            let mut missing = id;
            shorten(&mut missing);
            let detail =
                format!("there is no dead letter {missing}; it may have been redriven or deleted");
            Problem::new(ProblemCode::Unsuitable, detail)
        })
    }
}

/// A letter as the page lists it: hundreds of them are no load, and what its error says at length
/// is said by the commands.
fn listed(listed: &Listed) -> Listed {
    let mut shown = listed.clone();
    shown.letter.first_error = None;
    if let Some(error) = &mut shown.letter.last_error {
        error.truncate(error.floor_char_boundary(MOST_OF_AN_ERROR));
    }
    shown
}

/// The redrive of this letter, or of all, that stands.
fn standing(orders: &Orders, letter: Option<&LetterId>) -> Option<u64> {
    let is_it = |one: &&Redrive| one.ended.is_none() && one.letter.as_ref() == letter;
    orders.redrives.iter().find(is_it).map(|redrive| redrive.id)
}
