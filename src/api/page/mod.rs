//! A page for people on the private listener: what the consumers are doing, live, and what
//! operators ask of them.
//!
//! Owns its paths, who is signed in, and the way from a request to an answer. It decides nothing
//! and has no second way to anything: it reads and asks as `streamgate status`, `dead-letters`,
//! `pause` and the others do. Invariant: nothing but its own files is given to who is not signed
//! in, and nothing is changed on the word of another site.

mod assets;
mod doing;
mod events;
mod guard;
mod history;
mod picture;
mod session;
mod watching;

use super::calls::{self, read};
use super::places::Place;
use super::private::Private;
use crate::clock;
use crate::progress::ApiToken;
use crate::progress::problem::{Problem, ProblemCode};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use doing::{Asked, Doing};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use session::{Session, Sessions};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use watching::{Streams, Viewer, Whose};

/// Where it is.
const PATH: &str = "/page";
/// The largest body that is read: some dozens of ids.
const MAX_BODY_BYTES: usize = 32 << 10;
/// For a request and its answer, but for the events.
const BOUND: Duration = Duration::from_secs(20);
/// Sign-ins that are looked at at the same time; a wrong one keeps its place for a while. So many
/// tries a second are the most there are, and a token has 16 characters or more.
const SIGN_INS: usize = 4;
const WRONG_TAKES: Duration = Duration::from_secs(1);
/// Pages that are open at a time.
const MOST_OPEN: usize = 64;

/// The page of one api.
pub(super) struct Page {
    sessions: Sessions,
    streams: Streams,
    stop: CancellationToken,
    sign_ins: Semaphore,
    wrong: AtomicU32,
    open: Arc<Semaphore>,
}

/// What is said about a request that was answered.
pub(super) type Outcome = Result<Response, Problem>;

/// Whether a path is the page's; what of it is below [`PATH`].
pub(super) fn below(path: &str) -> Option<&str> {
    if path == "/" {
        return Some(path);
    }
    let below = path.strip_prefix(PATH)?;
    (below.is_empty() || below.starts_with('/')).then_some(below)
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
    name: String,
}

impl Page {
    pub fn new(token: &ApiToken, over_tls: bool, stop: CancellationToken) -> Self {
        Self {
            sessions: Sessions::new(token, over_tls),
            streams: Streams::new(),
            stop,
            sign_ins: Semaphore::new(SIGN_INS),
            wrong: AtomicU32::new(0),
            open: Arc::new(Semaphore::new(MOST_OPEN)),
        }
    }

    /// Looks at the table for open pages and the history, for ever.
    pub async fn watch(&self, private: &Private) -> Infallible {
        self.streams.run(private).await
    }

    /// Answers a request for the path that is `below` the page's.
    pub async fn answer(&self, private: &Private, below: &str, request: Request) -> Outcome {
        let answering = self.respond(private, below, request);
        let mut outcome = tokio::time::timeout(BOUND, answering).await.unwrap_or_else(|_| {
            let detail = format!("not done within {BOUND:?}");
            Err(Problem::new(ProblemCode::Unavailable, detail))
        });
        if let Ok(answer) = &mut outcome {
            guard::seal(answer);
        }
        outcome
    }

    async fn respond(&self, private: &Private, below: &str, request: Request) -> Outcome {
        let (parts, body) = request.into_parts();
        let (method, headers) = (parts.method, parts.headers);
        if method == Method::GET {
            // The page's links are relative to a path that ends with a slash.
            if below == "/" && parts.uri.path() == "/" || below.is_empty() {
                return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, "/page/")]).into_response());
            }
            if let Some(answer) = assets::answer(below.trim_start_matches('/'), &headers) {
                return Ok(answer);
            }
        }
        let reads = match below {
            "/events" | "/letters" => true,
            "/session" => method == Method::GET,
            _ => false,
        };
        let is_known = reads
            || matches!(
                below,
                "/session" | "/renew" | "/sign-out" | "/order" | "/letter" | "/delete"
            );
        if !is_known {
            let detail = format!("there is no {PATH}{below} at this listener");
            return Err(Problem::new(ProblemCode::NoSuchRoute, detail));
        }
        let expected = if reads { Method::GET } else { Method::POST };
        if method != expected {
            let detail = format!("{PATH}{below} is asked with {expected}, not {method}");
            return Err(Problem::new(ProblemCode::WrongMethod, detail));
        }
        if !(if reads { guard::may_read(&headers) } else { guard::may_change(&headers) }) {
            return Err(guard::refused());
        }
        if below == "/session" && !reads {
            return self.sign_in(private, &collect(body).await?).await;
        }
        let Some(session) = self.session(&headers) else {
            let detail = "nobody is signed in, or the time of the session is over";
            return Err(Problem::new(ProblemCode::Unauthorized, detail));
        };
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            place.known();
        }
        let doing = |whose: Whose| self.doing(private, &session, &whose);
        match below {
            "/session" => Ok(answer(&self.about(private, &session))),
            "/events" => self.events(private, &session, &whose(parts.uri.query())?),
            "/letters" => Ok(answer(&doing(whose(parts.uri.query())?)?.letters().await?)),
            "/renew" => {
                let session = session.renewed(clock::now());
                Ok((self.set(&session), answer(&self.about(private, &session))).into_response())
            }
            "/sign-out" => {
                info!(by = session.by, "signed out of the page");
                let gone = [(header::SET_COOKIE, self.sessions.farewell())];
                Ok((gone, answer(&json!({}))).into_response())
            }
            "/order" => {
                let (whose, asked) = asked(body).await?;
                Ok(answer(&doing(whose)?.order(asked).await?))
            }
            "/letter" => {
                let (whose, asked) = asked(body).await?;
                Ok(answer(&doing(whose)?.letter(asked).await?))
            }
            _ => {
                let (whose, asked) = asked(body).await?;
                Ok(answer(&doing(whose)?.delete(asked).await?))
            }
        }
    }

    /// The token is compared by the api's own way; a wrong one keeps its place for a second, so
    /// that there is an end to guessing.
    async fn sign_in(&self, private: &Private, body: &[u8]) -> Outcome {
        let SignIn { token, name } = read(body)?;
        let place = tokio::time::timeout(2 * WRONG_TAKES, self.sign_ins.acquire()).await;
        let Ok(Ok(_place)) = place else {
            let detail = "too many sign in at the same time: try again in a moment";
            return Err(Problem::new(ProblemCode::Unavailable, detail));
        };
        if !private.settings().token.matches(token.trim().as_bytes()) {
            let wrong = self.wrong.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if wrong.is_power_of_two() {
                warn!(wrong, "somebody tried to sign in to the page with another token");
            }
            tokio::time::sleep(WRONG_TAKES).await;
            let detail = "that is not the API_TOKEN of this api";
            return Err(Problem::new(ProblemCode::Unauthorized, detail));
        }
        let Some(session) = Session::begin(&name, clock::now()) else {
            let detail = "a name has 1 to 128 bytes, and no control characters";
            return Err(Problem::new(ProblemCode::Malformed, detail));
        };
        info!(by = session.by, "signed in to the page");
        Ok((self.set(&session), answer(&self.about(private, &session))).into_response())
    }

    fn set(&self, session: &Session) -> [(header::HeaderName, String); 1] {
        [(header::SET_COOKIE, self.sessions.cookie(session, clock::now()))]
    }

    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let now = clock::now();
        let mut cookies = headers.get_all(header::COOKIE).iter();
        cookies.find_map(|cookies| self.sessions.read(cookies.to_str().ok()?, now))
    }

    /// Who is signed in, and which streams there are to look at.
    fn about(&self, private: &Private, session: &Session) -> Value {
        let streams = private.opened().into_iter();
        let streams =
            streams.map(|(consumer, label)| json!({ "consumer": consumer, "label": label }));
        json!({
            "by": session.by,
            "seconds": session.left(clock::now()).as_secs(),
            "table": private.settings().table,
            "consumers": private.settings().consumers,
            "streams": streams.collect::<Vec<_>>(),
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    fn events(&self, private: &Private, session: &Session, whose: &Whose) -> Outcome {
        let (consumer, label) = whose;
        private.store(consumer, label)?;
        let Ok(open) = Arc::clone(&self.open).try_acquire_owned() else {
            let detail = format!("{MOST_OPEN} pages are open at this replica: close some");
            return Err(Problem::new(ProblemCode::Unavailable, detail));
        };
        let viewer: Viewer = self.streams.view(self.streams.of(whose), open);
        let body = events::body(viewer, session, self.stop.clone());
        Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
    }

    fn doing<'a>(
        &'a self,
        private: &Private,
        session: &'a Session,
        whose: &Whose,
    ) -> Result<Doing<'a>, Problem> {
        let (consumer, label) = whose;
        let store = private.store(consumer, label)?;
        Ok(Doing { session, store, stream: self.streams.of(whose), streams: &self.streams })
    }
}

/// A refusal, sealed as every answer of the page is.
pub(super) fn refuse(problem: &Problem) -> Response {
    let mut answer = super::private::refuse(problem);
    // A browser that is told of a scheme may ask for a password by itself.
    answer.headers_mut().remove(header::WWW_AUTHENTICATE);
    guard::seal(&mut answer);
    answer
}

/// The stream that a query names.
fn whose(query: Option<&str>) -> Result<Whose, Problem> {
    let of = |name: &str| {
        let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(given, _)| *given == name).map(|(_, value)| value);
        values.next().and_then(|value| Some(percent_decode_str(value).decode_utf8().ok()?.into()))
    };
    let missing = || Problem::new(ProblemCode::Malformed, "the query names no consumer and label");
    Ok((of("consumer").ok_or_else(missing)?, of("label").ok_or_else(missing)?))
}

/// Of whom something is asked, and what.
async fn asked<T: DeserializeOwned>(body: axum::body::Body) -> Result<(Whose, T), Problem> {
    let body = collect(body).await?;
    let Asked { consumer, label } = read(&body)?;
    Ok(((consumer, label), read(&body)?))
}

async fn collect(body: axum::body::Body) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let unread = |error| {
        let detail = format!("the body did not arrive, or is too large: {error}");
        Problem::new(ProblemCode::TooLarge, detail)
    };
    collected.map(|body| body.to_bytes()).map_err(unread)
}

fn answer(body: &Value) -> Response {
    let body = calls::answer(body).expect("it is made of values");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
