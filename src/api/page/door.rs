//! Who comes in to the page.
//!
//! Owns signing in, staying and leaving; what a session is is [`super::session`]'s. Nothing but its
//! length keeps a token from being guessed: a limit would let strangers lock operators out, and the
//! calls on the same port have none. Invariant: the token is compared by the api's own way, and
//! who shows it waits for nobody.

use super::session::{Session, Sessions};
use crate::api::calls::read;
use crate::clock;
use crate::progress::ApiToken;
use crate::progress::problem::{Problem, ProblemCode};
use axum::http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tracing::{info, warn};

/// How long the answer to a wrong token takes.
const WRONG_TAKES: Duration = Duration::from_secs(1);

/// The door of one api.
pub(super) struct Door {
    sessions: Sessions,
    wrong: AtomicU32,
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
    name: String,
}

/// `Set-Cookie`.
pub(super) type Cookie = [(HeaderName, String); 1];

impl Door {
    pub fn new(token: &ApiToken, over_tls: bool) -> Self {
        Self { sessions: Sessions::new(token, over_tls), wrong: AtomicU32::new(0) }
    }

    /// Begins a session for who shows the token.
    pub async fn sign_in(&self, token: &ApiToken, body: &[u8]) -> Result<Session, Problem> {
        let given: SignIn = read(body)?;
        if !token.matches(given.token.trim().as_bytes()) {
            let wrong = self.wrong.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if wrong.is_power_of_two() {
                warn!(wrong, "somebody tried to sign in to the page with another token");
            }
            tokio::time::sleep(WRONG_TAKES).await;
            let detail = "that is not the API_TOKEN of this api";
            return Err(Problem::new(ProblemCode::Unauthorized, detail));
        }
        let Some(session) = Session::begin(&given.name, clock::now()) else {
            let detail = "a name has 1 to 128 bytes, and no control characters";
            return Err(Problem::new(ProblemCode::Malformed, detail));
        };
        info!(by = session.by, "signed in to the page");
        Ok(session)
    }

    /// Who is signed in, by the cookies of a request.
    pub fn session(&self, headers: &HeaderMap) -> Result<Session, Problem> {
        let now = clock::now();
        let mut cookies = headers.get_all(header::COOKIE).iter();
        let found = cookies.find_map(|cookies| self.sessions.read(cookies.to_str().ok()?, now));
        found.ok_or_else(|| {
            let detail = "nobody is signed in, or the time of the session is over";
            Problem::new(ProblemCode::Unauthorized, detail)
        })
    }

    /// Has the browser keep the session.
    pub fn cookie(&self, session: &Session) -> Cookie {
        [(header::SET_COOKIE, self.sessions.cookie(session, clock::now()))]
    }

    /// Has the browser forget it.
    pub fn sign_out(&self, session: &Session) -> Cookie {
        info!(by = session.by, "signed out of the page");
        [(header::SET_COOKIE, self.sessions.farewell())]
    }
}
