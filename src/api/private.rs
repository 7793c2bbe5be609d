//! The private listener: progress over HTTP, behind the token, and the page for people.
//!
//! Owns who is let in, how large and slow a request may be, and which store a path
//! means. What a call does is the store's. Invariant: for a call the token is looked at first,
//! before a body is read or a path is understood; the page has a door of its own.

use super::callers::Callers;
use super::calls::{Answer, Store, answer, answering, read};
use super::metrics::{self, ApiMetrics};
use super::openapi;
use super::page::{self, Page};
use super::places::Place;
use super::route::Route;
use super::{ApiSettings, Stores};
use crate::progress::problem::{PROBLEM_JSON, Problem, ProblemCode};
use crate::progress::wire::{Hello, VERSIONS, Welcome, agreed};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The largest body that is read.
const MAX_BODY_BYTES: usize = 1 << 20;
/// All bodies at a time; further requests wait until there is room.
const BODIES_BYTES: usize = 32 << 20;
/// How many stores, of a consumer and a stream each, are kept open. They hold names and the last read, and
/// may be opened again, so that when there are more, all that nobody is using are let go.
const MAX_STORES: usize = 256;
const MAX_LABEL_BYTES: usize = 64;
/// Beats are far less than this apart.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// The state of the listener.
pub(super) struct Private {
    settings: ApiSettings,
    stores: Stores,
    open: Mutex<HashMap<(String, String), Arc<Store>>>,
    metrics: Arc<ApiMetrics>,
    callers: Callers,
    page: Option<Page>,
    /// One permit a byte of a body.
    bodies: Semaphore,
}

impl Private {
    pub fn new(
        settings: ApiSettings,
        stores: Stores,
        metrics: Arc<ApiMetrics>,
        callers: Callers,
        page: Option<Page>,
    ) -> Arc<Self> {
        let (open, bodies) = (Mutex::default(), Semaphore::new(BODIES_BYTES));
        Arc::new(Self { settings, stores, open, metrics, callers, page, bodies })
    }

    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(handle).with_state(self)
    }

    /// Looks at the table for the page, if there is one, for ever.
    pub async fn watch(&self) -> Infallible {
        match &self.page {
            Some(page) => page.watch(self).await,
            None => std::future::pending().await,
        }
    }

    pub fn settings(&self) -> &ApiSettings {
        &self.settings
    }

    /// For whom workers have shown life through this replica within `recently`: the consumers, and
    /// their streams' labels. Who lives stands before who does not, and a stream that was made anew
    /// before the one it replaces.
    pub fn beating(&self, recently: Duration) -> Vec<(String, String)> {
        let open = self.lock();
        let silent = open.iter().filter_map(|(whose, store)| Some((store.silent()?, whose)));
        let mut found: Vec<_> = silent.filter(|(silent, _)| *silent < recently).collect();
        // A label is the time at which its stream was made.
        found.sort_unstable_by_key(|(silent, (consumer, label))| {
            (*silent > LONGEST_SILENCE, consumer, Reverse(label))
        });
        found.into_iter().map(|(_, whose)| whose.clone()).collect()
    }

    /// Room for a body of whoever has shown the token, to be kept while what was read of it is.
    pub async fn room(&self, bytes: usize) -> SemaphorePermit<'_> {
        let bytes = u32::try_from(bytes.min(BODIES_BYTES)).expect("it fits");
        self.bodies.acquire_many(bytes).await.expect("never closed")
    }

    fn is_let_in(&self, request: &Request) -> bool {
        let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let token = given.and_then(|given| match given.split_at_checked("Bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Some(token),
            _ => None,
        });
        token.is_some_and(|token| self.settings.token.matches(token))
    }

    fn check_table(&self, table: &str) -> Result<(), Problem> {
        if table == self.settings.table {
            return Ok(());
        }
        let ours = &self.settings.table;
        let detail = format!(
            "the api keeps progress in table {ours} and this consumer in table {table}: set TABLE_NAME to the same in both"
        );
        Err(Problem::new(ProblemCode::WrongTable, detail))
    }

    fn check_consumer(&self, consumer: &str) -> Result<(), Problem> {
        let ours = &self.settings.consumers;
        if ours.iter().any(|name| name == consumer) {
            return Ok(());
        }
        let detail = format!(
            "the api keeps progress for consumer {} and this is consumer {consumer}: set CONSUMER_NAME to the same in both (the api's may list several, with commas between)",
            ours.join(", ")
        );
        Err(Problem::new(ProblemCode::WrongConsumer, detail))
    }

    /// The store of a consumer and a stream's label.
    pub fn store(&self, consumer: &str, label: &str) -> Result<Arc<Store>, Problem> {
        self.check_consumer(consumer)?;
        let is_label = (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.'));
        if !is_label {
            let detail = format!("{label:?} is not the label of a stream");
            return Err(Problem::new(ProblemCode::Malformed, detail));
        }
        let mut open = self.lock();
        if open.len() >= MAX_STORES {
            // A write that is under way in one must be seen by whoever reads after it.
            open.retain(|_, store| Arc::strong_count(store) > 1);
        }
        let key = (consumer.to_owned(), label.to_owned());
        let new = || Arc::new(Store::new((self.stores)(consumer, label)));
        Ok(Arc::clone(open.entry(key).or_insert_with(new)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Store>>> {
        self.open.lock().expect("no panic while held")
    }

    async fn hello(&self, body: &[u8]) -> Answer {
        let Hello { table, consumer, label, versions } = read(body)?;
        let version = agreed(&versions).ok_or_else(|| {
            let detail = format!(
                "the api speaks {VERSIONS:?} of the versions of their interface and this consumer {versions:?}: run the same version of streamgate in both"
            );
            Problem::new(ProblemCode::WrongVersion, detail)
        })?;
        self.check_table(&table)?;
        self.store(&consumer, &label)?.progress().describe().await?;
        answer(&Welcome { table, consumer, version })
    }
}

async fn handle(State(private): State<Arc<Private>>, request: Request) -> Response {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    if let Some(page) = &private.page
        && let Some(below) = page::below(&path)
    {
        let outcome = page.answer(&private, below, request).await;
        let label = outcome.as_ref().map_or_else(|problem| problem.code.label(), |_| metrics::OK);
        private.metrics.request(metrics::PAGE, label);
        return outcome.unwrap_or_else(|problem| page::refuse(&problem));
    }
    let (route, answer) = if !private.is_let_in(&request) {
        let detail = "this needs the header `Authorization: Bearer TOKEN` with the API_TOKEN of the api: set API_TOKEN to the same in both containers";
        (metrics::OTHER, Err(Problem::new(ProblemCode::Unauthorized, detail)))
    } else {
        if let Some(place) = request.extensions().get::<Arc<Place>>() {
            place.known();
        }
        match Route::of(&path) {
            None => {
                let detail = format!("there is no {path} at this listener");
                (metrics::OTHER, Err(Problem::new(ProblemCode::NoSuchRoute, detail)))
            }
            Some(route) if route.method() != method => {
                let (label, allowed) = (route.label(), route.method());
                let detail = format!("{path} is asked with {allowed}, not {method}");
                let problem = Problem::new(ProblemCode::WrongMethod, detail);
                private.metrics.request(label, problem.code.label());
                return ([(header::ALLOW, allowed.as_str())], refuse(&problem)).into_response();
            }
            Some(route) => {
                let body = request.into_body();
                // From the end of its head to its answer, its body and the table included.
                let bound = route.bound(expected(&body));
                let answer = tokio::time::timeout(bound, respond(&private, &route, body)).await;
                let late = || {
                    let detail = format!("not done within {bound:?}");
                    Err(Problem::new(ProblemCode::Unavailable, detail))
                };
                (route.label(), answer.unwrap_or_else(|_| late()))
            }
        }
    };
    let outcome = answer.as_ref().map_or_else(|problem| problem.code.label(), |_| metrics::OK);
    private.metrics.request(route, outcome);
    match answer {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(problem) => refuse(&problem),
    }
}

pub(super) fn refuse(problem: &Problem) -> Response {
    tracing::debug!(code = problem.code.label(), detail = %problem.detail, "a request was refused");
    let code = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).expect("problems are plain data");
    let mut response = (code, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
    if problem.code == ProblemCode::Unauthorized {
        let scheme = header::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

async fn respond(private: &Private, route: &Route, body: Body) -> Answer {
    // Kept until the answer is made: what was read from the body is as large.
    let _room = private.room(expected(&body)).await;
    let body = collect(body).await?;
    let (call, store) = match route {
        Route::Hello => return private.hello(&body).await,
        Route::OpenApi => return answer(&openapi::document(&private.settings)),
        Route::Progress { call, table, consumer, label } => {
            private.check_table(table)?;
            (*call, private.store(consumer, label)?)
        }
    };
    answering(&store, &private.callers, call, &body).await
}

/// The most bytes that are read of it.
fn expected(body: &Body) -> usize {
    let announced = usize::try_from(body.size_hint().upper().unwrap_or(u64::MAX));
    announced.unwrap_or(usize::MAX).min(MAX_BODY_BYTES)
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than {MAX_BODY_BYTES} bytes");
            Err(Problem::new(ProblemCode::TooLarge, detail))
        }
        Err(error) => {
            let detail = format!("the body did not arrive: {error}");
            Err(Problem::new(ProblemCode::Malformed, detail))
        }
    }
}
