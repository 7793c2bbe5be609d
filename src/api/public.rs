//! The public listener: `/healthz`, `/readyz`, `/metrics`.
//!
//! Owns whether the table is known to work. Anybody may ask, so the table is asked at
//! most once in a while, however often this is.

use super::metrics::ApiMetrics;
use crate::progress::{Progress, ProgressError};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long an answer of the table holds.
const FRESH: Duration = Duration::from_secs(5);
/// A probe waits no longer than this for the table.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the listener shows.
pub(super) struct Public {
    table: Arc<dyn Progress>,
    metrics: Arc<ApiMetrics>,
    stop: CancellationToken,
    last: Mutex<Option<(Instant, Result<(), ProgressError>)>>,
}

impl Public {
    pub fn new(
        table: Arc<dyn Progress>,
        metrics: Arc<ApiMetrics>,
        stop: CancellationToken,
    ) -> Self {
        Self { table, metrics, stop, last: Mutex::default() }
    }

    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "live\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self))
    }

    async fn table(&self) -> Result<(), ProgressError> {
        // Those who ask meanwhile wait for the same answer.
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = tokio::time::timeout(PROBE_TIMEOUT, self.table.describe()).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(ProgressError::Unavailable("the table does not answer in time".to_owned()))
        });
        let was_well = last.as_ref().is_none_or(|(_, answer)| answer.is_ok());
        match &answer {
            Err(error) if was_well => warn!(%error, "the table cannot be used"),
            Ok(()) if !was_well => info!("the table can be used again"),
            _ => {}
        }
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

async fn ready(State(public): State<Arc<Public>>) -> impl IntoResponse {
    let troubles = if public.stop.is_cancelled() {
        json!({ "stop": "this api is stopping" })
    } else {
        match public.table().await {
            Ok(()) => json!({}),
            Err(error) => json!({ "table": in_public(&error) }),
        }
    };
    // The same form as the consumer's.
    let is_ready = troubles == json!({});
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": is_ready, "troubles": troubles })))
}

/// What strangers may read: AWS' own words name accounts, roles and tables.
fn in_public(error: &ProgressError) -> String {
    match error {
        ProgressError::AccessDenied { action, .. } => {
            format!("AWS refused {action}; the log has its words")
        }
        ProgressError::Credentials(_) => {
            "AWS did not accept the credentials; the log has its words".to_owned()
        }
        ProgressError::Unavailable(_) => "the table does not answer; the log says more".to_owned(),
        ProgressError::Unsuitable(_) | ProgressError::LeaseLost { .. } => {
            "the table cannot hold progress; the log says why".to_owned()
        }
    }
}

async fn metrics(State(public): State<Arc<Public>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], public.metrics.render())
}
