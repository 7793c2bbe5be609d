//! The consumer's listener: `/healthz`, `/readyz`, `/metrics`, `/status`.
//!
//! Owns the routes. Serves only what the board and the registry hold, so it answers
//! while everything else is stuck.

use super::metrics::Metrics;
use super::status::Board;
use crate::clock;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the listener shows.
#[derive(Clone)]
pub struct View {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The picture.
    pub board: Arc<Board>,
}

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    view: View,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "live\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(view);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn ready(State(view): State<View>) -> impl IntoResponse {
    let troubles = view.board.troubles();
    let code = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(serde_json::json!({ "ready": troubles.is_empty(), "troubles": troubles })))
}

async fn metrics(State(view): State<View>) -> impl IntoResponse {
    view.board.measure(&view.metrics, clock::now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], view.metrics.render())
}

async fn status(State(view): State<View>) -> impl IntoResponse {
    Json(view.board.to_json(clock::now()))
}
