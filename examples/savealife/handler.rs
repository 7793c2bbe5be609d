//! The handler container: Lambda's event in, mails out.
//!
//! Owns the listener and the answer, which names the records that have to come again. What
//! an invocation began goes on when the consumer no longer waits for it. Invariant: a record
//! is answered for when everybody it concerns has a mail, or never will have one.

use crate::event::{Event, Told};
use crate::ledger::Ledger;
use crate::mailing::{Announced, Mailing};
use crate::settings::{self, HandlerConfig};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::sync::Arc;
use streamgate::program::{ProgramError, drain_on_signal, listen, start_logging};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// A batch closes at 6 MB.
const MOST_BYTES: usize = 8 << 20;

struct Handler {
    mailing: Mailing,
    invocations: TaskTracker,
}

/// `savealife handler`
pub async fn run() -> Result<(), ProgramError> {
    let config = settings::handler(&settings::environment)?;
    start_logging(config.log_format, &config.log_filter)?;
    let listener = listen("LISTEN", config.listen).await?;
    let address = listener.local_addr().map_err(|error| ProgramError::Failed(error.to_string()))?;
    info!(%address, "listening");
    serve(config, listener, drain_on_signal()?).await
}

/// Serves until `drain`, then what is in flight: no further mail is begun, and those that
/// were are noted.
pub async fn serve(
    config: HandlerConfig,
    listener: TcpListener,
    drain: CancellationToken,
) -> Result<(), ProgramError> {
    let ledger = Ledger::new(&config);
    let ledger =
        ledger.map_err(|error| ProgramError::Failed(format!("SAVEALIFE_API_URL: {error}")))?;
    let mailing = Mailing::new(ledger, config.smtp.clone(), drain.clone());
    let handler = Arc::new(Handler { mailing, invocations: TaskTracker::new() });
    let router = Router::new()
        .route("/", post(invoke))
        .route("/healthz", get(|| async { "live\n" }))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Arc::clone(&handler));
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(drain.clone().cancelled_owned());
    let mut serving = tokio::spawn(serving.into_future());
    tokio::select! {
        biased;
        () = drain.cancelled() => {}
        _ = &mut serving => {
            return Err(ProgramError::Failed("the handler takes no requests any more".to_owned()));
        }
    }
    let finished = async {
        let _ = serving.await;
        handler.invocations.close();
        handler.invocations.wait().await;
    };
    let grace = config.shutdown_grace;
    if tokio::time::timeout(grace, finished).await.is_err() {
        warn!(
            ?grace,
            "the stop took longer than SHUTDOWN_GRACE; mails that were on their way count as unknown"
        );
    }
    Ok(())
}

async fn invoke(State(handler): State<Arc<Handler>>, body: Bytes) -> Response {
    let event: Event = match serde_json::from_slice(&body) {
        Ok(event) => event,
        Err(error) => {
            // Its own words would repeat the event.
            let (line, column) = (error.line(), error.column());
            let why = format!(
                "this is not the event of a DynamoDB stream: line {line} column {column}\n"
            );
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    let here = Arc::clone(&handler);
    // A consumer that goes away, or has waited enough, stops no mail between claim and note.
    let working = handler.invocations.spawn(async move { here.handle(event).await });
    match working.await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Handler {
    /// The records that have to come again. One that fails holds nobody else's mail up, but
    /// where nothing can be mailed none of the others is begun.
    async fn handle(&self, event: Event) -> Value {
        let mut failures = Vec::new();
        let mut is_stopped = false;
        for record in &event.records {
            let is_done = match record.told() {
                Told::News(_) if is_stopped => false,
                Told::News(news) => {
                    let announced = self.mailing.announce(&news).await;
                    is_stopped = announced == Announced::Stopped;
                    announced == Announced::Done
                }
                Told::Nothing => true,
                Told::Unreadable => {
                    let record = record.identifier();
                    warn!(record, "a donation says too little to be announced; nobody is mailed");
                    true
                }
            };
            if !is_done {
                failures.push(json!({"itemIdentifier": record.identifier()}));
            }
        }
        json!({"batchItemFailures": failures})
    }
}
