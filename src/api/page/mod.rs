//! A page for people on the private listener: what the consumers are doing, live, and what
//! operators ask of them.
//!
//! Owns the way from a request to an answer. It decides nothing
//! and has no second way to anything: it reads and asks as `streamgate status`, `dead-letters`,
//! `pause` and the others do. Invariant: nothing but its own files is given to who is not signed
//! in, and nothing is changed on the word of another site.

mod assets;
mod doing;
mod door;
mod events;
mod guard;
mod history;
mod listing;
mod picture;
mod route;
mod session;
mod stream;
mod watching;

use super::calls::{self, read};
use super::places::Place;
use super::private::Private;
use crate::clock;
use crate::progress::ApiToken;
use crate::progress::problem::{Problem, ProblemCode};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use doing::{Asked, Doing};
use door::Door;
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;
use route::Route;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use session::Session;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use stream::{Viewer, Whose};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use watching::Streams;

/// Where it is.
const PATH: &str = "/page";
/// The largest body that is read: some dozens of ids.
const MAX_BODY_BYTES: usize = 32 << 10;
/// And of a stranger, for a name and a token: small, for only the number of connections bounds how
/// many there are at a time. Consumers' bodies wait for no stranger's.
const MAX_SIGN_IN_BYTES: usize = 4 << 10;
/// For a request and its answer, but for the events.
const BOUND: Duration = Duration::from_secs(20);
/// Pages that are open at a time.
const MOST_OPEN: usize = 64;

/// The page of one api.
pub(super) struct Page {
    door: Door,
    streams: Streams,
    stop: CancellationToken,
    open: Arc<Semaphore>,
    payloads: Arc<Semaphore>,
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

impl Page {
    pub fn new(token: &ApiToken, over_tls: bool, stop: CancellationToken) -> Self {
        Self {
            door: Door::new(token, over_tls),
            streams: Streams::new(),
            stop,
            open: Arc::new(Semaphore::new(MOST_OPEN)),
            payloads: Arc::new(Semaphore::new(doing::PAYLOADS)),
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
        let route = Route::of(&method, below)?;
        let is_ours = match method {
            Method::GET => guard::may_read(&headers),
            _ => guard::may_change(&headers),
        };
        if !is_ours {
            return Err(guard::refused());
        }
        if route == Route::SignIn {
            let token = &private.settings().token;
            let body = collect(body, MAX_SIGN_IN_BYTES).await?;
            let session = self.door.sign_in(token, &body).await?;
            return Ok(self.kept(private, &session));
        }
        let session = self.door.session(&headers)?;
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            place.known();
        }
        let query = parts.uri.query();
        let doing = async |whose: Whose| self.doing(private, &session, &whose).await;
        match route {
            Route::SignIn | Route::Renew => Ok(self.kept(private, &session.renewed(clock::now()))),
            Route::SignOut => {
                Ok((self.door.sign_out(&session), answer(&json!({}))).into_response())
            }
            Route::About => Ok(answer(&self.about(private, &session))),
            Route::Events => self.events(private, &session, &whose(query)?).await,
            Route::Letters => Ok(answer(&doing(whose(query)?).await?.letters().await?)),
            Route::Letter => {
                let (whose, asked) = asked(private, body).await?;
                Ok(json_of(doing(whose).await?.letter(asked).await?))
            }
            Route::Delete => {
                let (whose, asked) = asked(private, body).await?;
                Ok(answer(&doing(whose).await?.delete(asked).await?))
            }
            Route::Order => {
                let (whose, asked) = asked(private, body).await?;
                Ok(answer(&doing(whose).await?.order(asked).await?))
            }
        }
    }

    /// The answer to who begins a session or goes on with it.
    fn kept(&self, private: &Private, session: &Session) -> Response {
        let about = answer(&self.about(private, session));
        (self.door.cookie(session), about).into_response()
    }

    /// Who is signed in, and which streams there are to look at.
    fn about(&self, private: &Private, session: &Session) -> Value {
        let streams = private.beating(history::KEPT_FOR).into_iter();
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

    async fn events(&self, private: &Private, session: &Session, whose: &Whose) -> Outcome {
        let stream = self.streams.find(private, whose).await?;
        let Ok(open) = Arc::clone(&self.open).try_acquire_owned() else {
            let detail = format!("{MOST_OPEN} pages are open at this replica: close some");
            return Err(Problem::new(ProblemCode::Unavailable, detail));
        };
        let viewer: Viewer = self.streams.view(stream, open);
        let body = events::body(viewer, session, self.stop.clone());
        Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
    }

    async fn doing<'a>(
        &'a self,
        private: &Private,
        session: &'a Session,
        whose: &Whose,
    ) -> Result<Doing<'a>, Problem> {
        let stream = self.streams.find(private, whose).await?;
        let store = private.store(&whose.0, &whose.1)?;
        let (streams, payloads) = (&self.streams, &self.payloads);
        Ok(Doing { session, store, stream, streams, payloads })
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
async fn asked<T: DeserializeOwned>(private: &Private, body: Body) -> Result<(Whose, T), Problem> {
    let _room = private.room(MAX_BODY_BYTES).await;
    let body = collect(body, MAX_BODY_BYTES).await?;
    let Asked { consumer, label } = read(&body)?;
    Ok(((consumer, label), read(&body)?))
}

async fn collect(body: Body, most: usize) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, most).collect().await;
    let unread = |error| {
        let detail = format!("the body did not arrive, or is larger than {most} bytes: {error}");
        Problem::new(ProblemCode::TooLarge, detail)
    };
    collected.map(|body| body.to_bytes()).map_err(unread)
}

fn answer(body: &Value) -> Response {
    json_of(calls::answer(body).expect("it is made of values"))
}

fn json_of(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}
