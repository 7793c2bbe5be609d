//! The answers of all routes, in one form.
//!
//! Owns the form and what each trouble is called. Invariant: what AWS says goes to the log
//! and never to a client, for it names accounts, roles and tables.

use crate::input::Faults;
use crate::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::error;

/// What every route answers.
#[derive(Debug, Serialize)]
pub struct Answer {
    resource_id: String,
    success: bool,
    error_message: String,
    return_value: Value,
    /// The address of a list's next page; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Answer {
    /// Something with this id is stored, now or before.
    pub fn stored(id: String) -> Self {
        Self::value(id, json!({}))
    }

    pub fn value(id: String, return_value: Value) -> Self {
        let error_message = String::new();
        Self { resource_id: id, success: true, error_message, return_value, next: None }
    }

    pub fn page(rows: Vec<Value>, next: Option<String>) -> Self {
        Self { next, ..Self::value(String::new(), Value::Array(rows)) }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// Why a request is not done. Nothing was changed then.
#[derive(Debug)]
pub enum Trouble {
    /// The input is wrong: all that is, a sentence each.
    Wrong(Faults),
    /// The token is missing or another.
    Unauthorized,
    NotFound(&'static str),
    Method,
    /// The claim is not there, or another's.
    Conflict(&'static str),
    TooLarge,
    MediaType,
    /// What else the framework refuses by itself.
    Unreadable(StatusCode),
    /// What the table said is in the log.
    Unavailable,
}

impl From<StoreError> for Trouble {
    fn from(StoreError(why): StoreError) -> Self {
        error!(%why, "the table did not do what it was asked");
        Self::Unavailable
    }
}

impl From<Faults> for Trouble {
    fn from(faults: Faults) -> Self {
        Self::Wrong(faults)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, error_message) = match self {
            Self::Wrong(faults) => (StatusCode::BAD_REQUEST, faults.join(" ")),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "This is for the handler: Authorization has to be Bearer and SAVEALIFE_TOKEN."
                    .to_owned(),
            ),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, format!("There is no such {what}.")),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "This route has other methods.".to_owned())
            }
            Self::Conflict(what) => (StatusCode::CONFLICT, what.to_owned()),
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "The body has more than 16 KiB.".to_owned())
            }
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body has to be JSON, and Content-Type application/json.".to_owned(),
            ),
            Self::Unreadable(status) => (status, "The request cannot be read.".to_owned()),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The table does not answer at the moment; try again.".to_owned(),
            ),
        };
        let answer = Answer {
            resource_id: String::new(),
            success: false,
            error_message,
            return_value: json!({}),
            next: None,
        };
        let mut answer = (status, Json(answer)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        answer
    }
}
