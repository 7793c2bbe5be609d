//! What becomes of records that are given up, `ON_FAILURE`.
//!
//! Owns the ways there; what goes there is [`super::letter`]'s. Invariant: records count
//! as taken only after the destination said so.

use super::http::client;
use super::letter::Letter;
use crate::causes;
use crate::clock;
use crate::progress::letters::{self, DeadLetters};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// `ON_FAILURE`
#[derive(Clone, Debug, Default)]
pub enum OnFailure {
    /// `none`: they are dropped and counted.
    Drop,
    /// `api` or `table`: they are kept beside the progress.
    #[default]
    Keep,
    /// `http(s)://…`: they are posted there.
    Post(LetterBox),
}

/// Where records that are given up are posted.
#[derive(Clone)]
pub struct LetterBox {
    client: Client,
    url: Url,
}

impl LetterBox {
    /// Posts to `url`.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    pub fn new(url: Url) -> Result<Self, reqwest::Error> {
        Ok(Self { client: client()?, url })
    }

    async fn post(&self, document: String) -> Result<(), String> {
        let request = self.client.post(self.url.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(document);
        // The URL may hold a password.
        let answer = request.send().await.map_err(|e| causes::in_a_line(&e.without_url()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

impl fmt::Debug for LetterBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LetterBox")
    }
}

/// Somebody who takes records that are given up. Their shard waits until they are taken.
#[derive(Clone)]
pub enum Destination {
    /// The store of progress.
    Store(Arc<dyn DeadLetters>),
    /// A URL.
    Post(LetterBox),
}

impl Destination {
    /// For `on_failure`; `None` for records that are dropped.
    pub fn of(on_failure: &OnFailure, store: Arc<dyn DeadLetters>) -> Option<Self> {
        match on_failure {
            OnFailure::Drop => None,
            OnFailure::Keep => Some(Self::Store(store)),
            OnFailure::Post(letters) => Some(Self::Post(letters.clone())),
        }
    }

    /// Sends one letter. A post may take as long as `timeout`; the store has a limit for
    /// each of its calls, and `parts_done` of a letter that was cut off are not sent again.
    ///
    /// # Errors
    /// A fragment, when it was not taken.
    pub(super) async fn send(
        &self,
        letter: &Letter<'_>,
        parts_done: &mut u64,
        timeout: Duration,
    ) -> Result<(), String> {
        let now = clock::now();
        match self {
            Self::Store(store) => {
                let (letter, payload) = letter.kept(now);
                let kept = letters::keep(&**store, letter, &payload, parts_done).await;
                kept.map_err(|error| error.to_string())
            }
            Self::Post(letters) => {
                let posted = tokio::time::timeout(timeout, letters.post(letter.document(now)));
                posted.await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
            }
        }
    }
}
