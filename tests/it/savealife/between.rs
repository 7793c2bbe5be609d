//! Between the handler and the api: a test sees each call, and can do something of its own before
//! it is handed on.
//!
//! Changes neither calls nor answers.

use crate::support::process::client;
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What the handler asks of the api.
pub struct Call {
    pub path: String,
    /// Null where there is none.
    pub body: Value,
}

/// A listener in front of an api; it ends with the runtime of the test.
pub struct Between {
    /// What `SAVEALIFE_API_URL` is, to go through it.
    pub url: String,
}

impl Between {
    /// Hands calls on to `api` once `before` is done with each.
    pub async fn start<F>(api: &str, before: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (api, before, client) = (api.to_owned(), Arc::new(before), client());
        let hand_on = move |request: Request| {
            let (before, client) = (Arc::clone(&before), client.clone());
            let (parts, body) = request.into_parts();
            let url = format!("{api}{}", parts.uri);
            async move {
                let body = to_bytes(body, 1 << 20).await.expect("a whole call");
                let read = serde_json::from_slice(&body).unwrap_or_default();
                before(Call { path: parts.uri.path().to_owned(), body: read }).await;
                let request = client.request(parts.method, url).body(body);
                let headers = [header::AUTHORIZATION, header::CONTENT_TYPE];
                let request = headers.into_iter().fold(request, |request, name| {
                    match parts.headers.get(&name) {
                        Some(value) => request.header(name, value),
                        None => request,
                    }
                });
                answer(request.send().await.expect("the api answers")).await
            }
        };
        let router = Router::new().fallback(hand_on);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url }
    }
}

async fn answer(answer: reqwest::Response) -> Response {
    let status: StatusCode = answer.status();
    let body: Bytes = answer.bytes().await.expect("a whole answer");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
