//! The replicas of the api, asked as one.
//!
//! Owns that a call is brought to a replica that answers. Whom it asks is [`super::replicas`]'
//! choice, how one of them is asked [`super::endpoint`]'s. Invariant: what goes on to another
//! replica is safe to send twice, as every call is; what the api itself refused does not go on.

use super::endpoint::{Answer, Connections, Endpoint, Failed};
use super::replicas::{Outcome, Replicas};
use super::{ProgressError, wire};
use bytes::Bytes;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Url};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// A call that its caller gives up after this has met an address that is too slow for it. The
/// shortest `FAILOVER_TIME` leaves a sign of life a third of a second.
const TOO_SLOW: Duration = Duration::from_millis(250);
/// The replicas, and who of them is asked.
pub(super) struct FailoverClient {
    token: HeaderValue,
    endpoints: Vec<Endpoint>,
    replicas: Replicas,
    /// Where the last answer came from.
    answering: Mutex<Option<SocketAddr>>,
}

impl FailoverClient {
    /// Nothing is contacted yet.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    ///
    /// # Panics
    /// Without a URL.
    pub fn new(
        urls: &[Url],
        ca: &[Certificate],
        mut token: HeaderValue,
    ) -> Result<Self, reqwest::Error> {
        token.set_sensitive(true);
        let endpoints = urls.iter().map(|url| Endpoint::new(url, ca));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let replicas = Replicas::new(endpoints.len());
        Ok(Self { token, endpoints, replicas, answering: Mutex::default() })
    }

    /// Asks one address after the other, as far as that may help; the api works on it for `bound`.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<Bytes>,
        bound: Duration,
    ) -> Result<T, ProgressError> {
        let patience = wire::patience(bound);
        let mut course = self.replicas.course();
        let mut whys = Vec::new();
        loop {
            let place = course.at();
            let endpoint = &self.endpoints[place];
            let connections = endpoint.connections();
            let given_up = GivenUp::watch(self, place, &connections, course.is_first());
            let attempt = endpoint.attempt(&connections, path, &self.token, body.clone(), patience);
            let answer = attempt.await.and_then(|Answer { body, from }| {
                let read = serde_json::from_slice(&body);
                read.map(|read| (read, from)).map_err(|error| Failed::Strange(error.to_string()))
            });
            given_up.ended();
            let outcome = answer.as_ref().map_or_else(Failed::outcome, |_| Outcome::Final);
            self.replicas.heard(&course, outcome);
            match answer {
                Ok((answer, from)) => {
                    self.answered(from);
                    return Ok(answer);
                }
                Err(Failed::Problem(problem)) if outcome == Outcome::Final => {
                    return Err(problem.into());
                }
                Err(failed) => {
                    if matches!(outcome, Outcome::Broken | Outcome::Late) {
                        endpoint.renew(&connections);
                    }
                    self.note(&mut whys, endpoint, failed);
                }
            }
            if !course.goes_on(outcome) {
                return Err(ProgressError::Unavailable(whys.join("; ")));
            }
        }
    }

    /// Says, once, that another replica answers than before.
    fn answered(&self, from: Option<SocketAddr>) {
        let Some(address) = from else { return };
        let before = self.answering.lock().expect("no panic while held").replace(address);
        if before.is_some_and(|before| before != address) {
            tracing::info!(%address, "another replica of the api answers from now on");
        }
    }

    fn note(&self, whys: &mut Vec<String>, endpoint: &Endpoint, failed: Failed) {
        let mut why = match failed {
            Failed::Problem(problem) => ProgressError::from(problem).to_string(),
            Failed::Broken(why) | Failed::Late(why) => format!("the api: {why}"),
            Failed::Strange(what) => strange(&what),
        };
        if self.endpoints.len() > 1 {
            why = format!("{why} ({})", endpoint.base());
        }
        if !whys.contains(&why) {
            whys.push(why);
        }
    }
}

/// An attempt while it is under way. One that its caller gives up tells nothing about what would
/// have come of it; where it had waited long, the address is left as if it were late. The first
/// address of a call only: others had what the first left them of the caller's time.
struct GivenUp<'a> {
    client: &'a FailoverClient,
    place: usize,
    connections: Option<Connections>,
    since: Instant,
}

impl<'a> GivenUp<'a> {
    fn watch(
        client: &'a FailoverClient,
        place: usize,
        connections: &Connections,
        is_first: bool,
    ) -> Self {
        let connections = is_first.then(|| connections.clone());
        Self { client, place, connections, since: Instant::now() }
    }

    fn ended(mut self) {
        self.connections = None;
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(connections) = &self.connections
            && self.since.elapsed() >= TOO_SLOW
        {
            self.client.replicas.leave(self.place);
            self.client.endpoints[self.place].renew(connections);
        }
    }
}

/// What is said of an answer that is not the api's.
pub(super) fn strange(what: &str) -> String {
    format!("API_URL does not answer as the private listener of streamgate api does: {what}")
}
