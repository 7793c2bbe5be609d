//! What the handler asks, behind a token of its own: whom to mail, and who has been.
//!
//! Owns the protocol of claims. A mail is claimed (`sending`) before it is sent, and noted
//! (`sent`) after; a claim is given back only by who knows that nothing was sent. A mail that
//! the server will not have for good (`refused`), or whose end nobody knows (`unknown`), is
//! never sent again.
//!
//! ```text
//! nothing --PUT sending--> sending --PUT sent-----> sent
//!    ^                       |  \------PUT refused--> refused
//!    └--------DELETE---------┘  \------PUT unknown--> unknown
//! ```
//!
//! Invariant: each arrow is one conditional write, so a mail has one claim at a time,
//! whoever asks, however often. An `attempt` in the body names a try: its claim may be asked
//! for again when the answer was lost, and nobody else ends it.

use crate::answer::{Answer, Trouble};
use crate::input::{Faults, Fields};
use crate::items::{CITY, DONOR, Item, Key, MAIL, is_uid, random};
use crate::paging::Paging;
use crate::routes::Body;
use crate::store::{Store, Written};
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use streamgate::progress::ApiToken;

pub fn router(token: ApiToken) -> Router<Arc<Store>> {
    Router::new()
        .route("/mail/donors", get(donors))
        .route("/mail/{donation}", get(mails))
        .route("/mail/{donation}/{donor}", put(note).delete(give_back))
        .route_layer(middleware::from_fn_with_state(token, let_in))
}

async fn let_in(State(token): State<ApiToken>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|given| given.as_bytes());
    if given.and_then(|given| given.strip_prefix(b"Bearer ")).is_some_and(|t| token.matches(t)) {
        next.run(request).await
    } else {
        Trouble::Unauthorized.into_response()
    }
}

type Asked = Query<HashMap<String, String>>;

/// Whom a donation in a city is for. Nothing but what a mail needs is given.
async fn donors(State(store): State<Arc<Store>>, query: Asked) -> Result<Answer, Trouble> {
    // As it stands in the items: older ones may have white space around it.
    let city = query.get("city").filter(|city| !city.is_empty());
    let city = city.ok_or_else(|| vec!["city is missing.".to_owned()])?;
    let is_in_it =
        |key: &Key| key.sk.strip_prefix(CITY) == Some(city.as_str()) && key.pk.starts_with(DONOR);
    let paging = Paging::of(&query, is_in_it)?;
    let page = store.donors_of(city, paging.from.clone(), paging.limit).await?;
    let donor = |item: Item| {
        let id = item.get("PK")?.as_str()?.strip_prefix(DONOR)?;
        Some(json!({"id": id, "email": item.get("email")}))
    };
    let address = format!("/mail/donors?city={}", utf8_percent_encode(city, NON_ALPHANUMERIC));
    let next = page.next.map(|key| paging.next(&address, &key));
    Ok(Answer::page(page.items.into_iter().filter_map(donor).collect(), next))
}

async fn mails(
    State(store): State<Arc<Store>>,
    Path(donation): Path<String>,
    query: Asked,
) -> Result<Answer, Trouble> {
    if !is_uid(&donation) {
        return Err(Trouble::NotFound("donation"));
    }
    let is_of_it = |key: &Key| key.pk.strip_prefix(MAIL) == Some(donation.as_str());
    let paging = Paging::of(&query, is_of_it)?;
    let page = store.mails_of(&donation, paging.from.clone(), paging.limit).await?;
    let mail = |item: Item| {
        let donor = item.get("SK")?.as_str()?.strip_prefix(DONOR)?;
        let [state, at, attempt] = ["state", "at", "attempt"].map(|name| item.get(name));
        let age = age(&item);
        Some(json!({"donor": donor, "state": state, "at": at, "age": age, "attempt": attempt}))
    };
    let next = page.next.map(|key| paging.next(&format!("/mail/{donation}"), &key));
    Ok(Answer::page(page.items.into_iter().filter_map(mail).collect(), next))
}

async fn note(
    State(store): State<Arc<Store>>,
    Path((donation, donor)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Answer, Trouble> {
    let mail = mail(&donation, &donor)?;
    let mut fields = Fields::of(&body)?;
    let state = fields.read("state", 10, |state| match state {
        "sending" | "sent" | "refused" | "unknown" => Ok(state.to_owned()),
        _ => Err("is none of sending, sent, refused, unknown.".to_owned()),
    });
    let named = if fields.has("attempt") { fields.read("attempt", 64, attempt) } else { None };
    fields.finish()?;
    if state.as_deref() == Some("sending") {
        // Without a name the SDK's own second try must still know its first.
        return claim(&store, mail, donor, named.unwrap_or_else(|| random(16))).await;
    }
    let state = state.unwrap_or_default();
    match store.settle(mail, &state, now(), named.as_deref()).await? {
        true => Ok(Answer::stored(donor)),
        false => Err(Trouble::Conflict("This mail is not being sent by this attempt.")),
    }
}

async fn claim(
    store: &Store,
    mail: Key,
    donor: String,
    attempt: String,
) -> Result<Answer, Trouble> {
    let item = json!({
        "PK": mail.pk, "SK": mail.sk, "state": "sending", "at": now(), "attempt": attempt,
    });
    let item = item.as_object().cloned().unwrap_or_default();
    let claimed = match store.add(&item).await? {
        Written::Now => json!({"claimed": true}),
        // The very claim: its answer was lost.
        Written::Refused(stands)
            if ["state", "attempt"].iter().all(|name| stands.get(*name) == item.get(*name)) =>
        {
            json!({"claimed": true})
        }
        Written::Refused(stands) => {
            let [state, attempt] = ["state", "attempt"].map(|name| stands.get(name));
            json!({"claimed": false, "state": state, "age": age(&stands), "attempt": attempt})
        }
    };
    Ok(Answer::value(donor, claimed))
}

async fn give_back(
    State(store): State<Arc<Store>>,
    Path((donation, donor)): Path<(String, String)>,
    query: Asked,
) -> Result<Answer, Trouble> {
    let mail = mail(&donation, &donor)?;
    let named = query.get("attempt").map(|text| attempt(text)).transpose();
    let named = named.map_err(|what| vec![format!("attempt {what}")])?;
    match store.give_back(mail, named.as_deref()).await? {
        true => Ok(Answer::stored(donor)),
        false => Err(Trouble::Conflict("This mail is not being sent by this attempt.")),
    }
}

fn mail(donation: &str, donor: &str) -> Result<Key, Faults> {
    if is_uid(donation) && is_uid(donor) {
        Ok(Key::of_mail(donation, donor))
    } else {
        Err(vec!["A mail has the ids of a donation and a donor.".to_owned()])
    }
}

fn attempt(text: &str) -> Result<String, String> {
    let fits = (8..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let sentence = "has 8 to 64 of a-z A-Z 0-9 _ -.";
    fits.then(|| text.to_owned()).ok_or_else(|| sentence.to_owned())
}

/// Milliseconds since the epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How many milliseconds ago the state of a mail was written.
fn age(item: &Item) -> u64 {
    now().saturating_sub(item.get("at").and_then(Value::as_u64).unwrap_or_default())
}
