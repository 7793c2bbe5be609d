//! What a person does on the page.
//!
//! Owns the bodies of its requests, and the line in the log for each: who asked for what, and who
//! looked at the contents of items. What is done is the stores' own, as for the commands.
//! Invariant: contents of items are given to nobody without that line.

use super::session::Session;
use super::watching::{Stream, Streams};
use crate::api::calls::Store;
use crate::progress::{ProgressError, asking};
use crate::progress::letters::{self, DeadLetter, Listed};
use crate::progress::orders::Order;
use crate::progress::problem::{Problem, ProblemCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::info;

/// Letters that are shown. The commands have no bound.
const MOST_LETTERS: usize = 500;
/// Letters that are deleted in one request; the page makes one after the other.
const MOST_AT_ONCE: usize = 50;

/// Of whom something is asked: a consumer and the label of its stream. It stands beside that.
#[derive(Deserialize)]
pub(super) struct Asked {
    pub consumer: String,
    pub label: String,
}

#[derive(Deserialize)]
pub(super) struct OrderAsked {
    order: Order,
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
}

impl Doing<'_> {
    /// Asks the consumer for something.
    pub async fn order(&self, asked: OrderAsked) -> Result<Value, Problem> {
        let OrderAsked { order } = asked;
        if !order.is_an_operators() {
            let detail = "this is noted by the consumer itself";
            return Err(Problem::new(ProblemCode::Malformed, detail));
        }
        let (by, (consumer, label)) = (&self.session.by, &self.stream.whose);
        info!(by, consumer, label, %order, "asked for on the page");
        self.store.ask(order, by, asking::nonce()).await?;
        self.streams.look_soon(&self.stream);
        Ok(json!({}))
    }

    /// The dead letters, without their payloads.
    pub async fn letters(&self) -> Result<Value, Problem> {
        let (found, more) = letters::first(self.store.progress(), MOST_LETTERS).await?;
        *self.stream.letters.lock().expect("no panic while held") = found.clone();
        Ok(json!({ "letters": found, "more": more }))
    }

    /// A dead letter with its payload: the contents of items.
    pub async fn letter(&self, asked: LetterAsked) -> Result<Value, Problem> {
        let letter = self.known(&[asked.id]).await?.remove(0).letter;
        let (by, (consumer, label)) = (&self.session.by, &self.stream.whose);
        info!(by, consumer, label, letter = %letter.id, "the contents of a dead letter are shown on the page");
        let payload: Bytes = match letters::payload(self.store.progress(), &letter).await {
            // It is gone since it was listed, which is said better.
            Err(error @ ProgressError::Unsuitable(_)) => {
                self.letters().await?;
                self.known(&[letter.id.to_string()]).await?;
                return Err(error.into());
            }
            payload => payload?,
        };
        let text = String::from_utf8_lossy(&payload).into_owned();
        let unreadable = |error| {
            Problem::new(ProblemCode::Unsuitable, format!("its payload is not JSON: {error}"))
        };
        let payload = RawValue::from_string(text).map_err(unreadable)?;
        Ok(json!({ "payload": payload }))
    }

    /// Deletes letters for good.
    pub async fn delete(&self, asked: LettersAsked) -> Result<Value, Problem> {
        if asked.ids.len() > MOST_AT_ONCE {
            let detail = format!("at most {MOST_AT_ONCE} dead letters are deleted at once");
            return Err(Problem::new(ProblemCode::Malformed, detail));
        }
        let (by, (consumer, label)) = (&self.session.by, &self.stream.whose);
        let found = self.known(&asked.ids).await?;
        for Listed { letter, .. } in &found {
            info!(by, consumer, label, letter = %letter.id, "a dead letter is deleted on the page");
            letters::remove(self.store.progress(), letter).await?;
        }
        Ok(json!({ "deleted": found.len() }))
    }

    /// These letters, by what was listed last, or by what is there now.
    async fn known(&self, ids: &[String]) -> Result<Vec<Listed>, Problem> {
        let mut found = self.among(ids);
        if found.len() < ids.len() {
            self.letters().await?;
            found = self.among(ids);
        }
        if found.len() == ids.len() {
            return Ok(found);
        }
        let there: BTreeSet<String> = found.iter().map(|l| l.letter.id.to_string()).collect();
        let missing = ids.iter().find(|id| !there.contains(*id)).cloned().unwrap_or_default();
        let detail =
            format!("there is no dead letter {missing}; it may have been redriven or deleted");
        Err(Problem::new(ProblemCode::Unsuitable, detail))
    }

    fn among(&self, ids: &[String]) -> Vec<Listed> {
        let ids: BTreeSet<&String> = ids.iter().collect();
        let known = self.stream.letters.lock().expect("no panic while held");
        let is_asked = |DeadLetter { id, .. }: &DeadLetter| ids.contains(&id.to_string());
        known.iter().filter(|listed| is_asked(&listed.letter)).cloned().collect()
    }
}
