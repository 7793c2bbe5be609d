//! The application's public routes: donors and donations.
//!
//! Owns how a request becomes an item and a page an answer. They are open, as they were;
//! what only the handler may ask is in [`super::mail_routes`]. Invariant: no request takes
//! more than its bound of bytes and time.

use crate::answer::{Answer, Trouble};
use crate::input;
use crate::items::{DONATION, DONOR, is_uid};
use crate::mail_routes;
use crate::paging::Paging;
use crate::store::{Store, Written};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use streamgate::progress::ApiToken;

const MOST_BYTES: usize = 16 << 10;
const TIMEOUT: Duration = Duration::from_secs(15);
/// How many ids are tried. A second is needed where another's in the city makes the same 48
/// bits.
const TURNS: u8 = 4;

/// All routes; `token` opens the handler's.
pub fn router(store: Arc<Store>, token: ApiToken) -> Router {
    Router::new()
        .route("/donor/signup", post(sign_up))
        .route("/donor/{id}", get(donor))
        .route("/donors", get(donors))
        .route("/donation/create", post(create))
        .route("/donation/{id}", get(donation))
        .route("/donations", get(donations))
        .merge(mail_routes::router(token))
        .with_state(store)
        .fallback(|| async { Trouble::NotFound("route") })
        .method_not_allowed_fallback(|| async { Trouble::Method })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn(in_time))
}

async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(TIMEOUT, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| Trouble::Unavailable.into_response());
    // What the framework refuses by itself (an address that is no text) has the form of
    // all others, and its own status.
    let json = HeaderValue::from_static("application/json");
    if answer.status().is_client_error()
        && answer.headers().get(header::CONTENT_TYPE) != Some(&json)
    {
        return Trouble::Unreadable(answer.status()).into_response();
    }
    answer
}

/// A body that says it is JSON, or nothing.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Trouble;

    async fn from_request(request: Request, state: &S) -> Result<Self, Trouble> {
        if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
            let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            if !kind.trim().eq_ignore_ascii_case("application/json") {
                return Err(Trouble::MediaType);
            }
        }
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection: BytesRejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Trouble::TooLarge,
            _ => Trouble::Wrong(vec!["The body did not arrive to its end.".to_owned()]),
        })
    }
}

async fn sign_up(State(store): State<Arc<Store>>, Body(body): Body) -> Result<Answer, Trouble> {
    let donor = input::donor(&body)?;
    for turn in 0..TURNS {
        let uid = donor.uid(turn);
        let Written::Refused(stands) = store.add(&donor.item(&uid)).await? else {
            return Ok(Answer::stored(uid));
        };
        if stands.get("email").and_then(Value::as_str) == Some(&donor.email) {
            // Signed up before. What was said then stays.
            return Ok(Answer::stored(uid));
        }
    }
    Err(Trouble::Unavailable)
}

async fn create(
    State(store): State<Arc<Store>>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Answer, Trouble> {
    let key = headers.get("idempotency-key").map(|key| input::idempotency_key(key.as_bytes()));
    let (key, donation) = match (key.transpose(), input::donation(&body)) {
        (Ok(key), Ok(donation)) => (key, donation),
        (key, donation) => {
            let faults = [key.err(), donation.err()].into_iter().flatten().flatten();
            return Err(Trouble::Wrong(faults.collect()));
        }
    };
    for _ in 0..TURNS {
        let uid = donation.uid(key);
        let item = donation.item(&uid);
        match store.add(&item).await? {
            Written::Now => return Ok(Answer::stored(uid)),
            // By this very call: the SDK tries again when an answer is lost.
            Written::Refused(stands) if stands == item => return Ok(Answer::stored(uid)),
            // With a key it was created before, by the same call, and changed since.
            Written::Refused(_) if key.is_some() => return Ok(Answer::stored(uid)),
            Written::Refused(_) => {}
        }
    }
    Err(Trouble::Unavailable)
}

async fn donor(State(store): State<Arc<Store>>, Path(id): Path<String>) -> Result<Answer, Trouble> {
    one(&store, DONOR, id, "donor").await
}

async fn donation(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Answer, Trouble> {
    one(&store, DONATION, id, "donation").await
}

async fn one(store: &Store, kind: &str, id: String, what: &'static str) -> Result<Answer, Trouble> {
    let found = if is_uid(&id) { store.find(format!("{kind}{id}")).await? } else { None };
    let item = found.ok_or(Trouble::NotFound(what))?;
    Ok(Answer::value(id, Value::Object(item)))
}

type Asked = Query<HashMap<String, String>>;

async fn donors(State(store): State<Arc<Store>>, query: Asked) -> Result<Answer, Trouble> {
    list(&store, "/donors", DONOR, &query).await
}

async fn donations(State(store): State<Arc<Store>>, query: Asked) -> Result<Answer, Trouble> {
    list(&store, "/donations", DONATION, &query).await
}

async fn list(
    store: &Store,
    address: &str,
    kind: &str,
    query: &HashMap<String, String>,
) -> Result<Answer, Trouble> {
    // A scan passes over items of every kind, and may stop at any.
    let paging = Paging::of(query, |_| true)?;
    let page = store.all(kind, paging.from.clone(), paging.limit).await?;
    let next = page.next.map(|key| paging.next(address, &key));
    Ok(Answer::page(page.items.into_iter().map(Value::Object).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_the_framework_refuses_keeps_its_status_and_has_the_form_of_all_answers() {
        let refused = async |Path(status): Path<u16>| {
            (StatusCode::from_u16(status).unwrap(), "in its own words")
        };
        let router = Router::new().route("/{status}", get(refused));
        let router = router.layer(middleware::from_fn(in_time));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for status in [400, 408, 413, 415, 417, 422, 431] {
            let answer = client.get(format!("http://{address}/{status}")).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
            assert_eq!(answer.headers()["content-type"], "application/json");
            let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(answer["success"], false);
            assert_eq!(answer["error_message"], "The request cannot be read.");
        }
    }
}
