//! The api and a consumer in one process, joined as two containers are, on an embedded
//! DynamoDB.
//!
//! Owns the joining; the token between the two is theirs and ends with them, and is told to
//! nobody but who is to sign in to the page. The callers (`streamgate local`, `examples/savealife`) own the listeners and what is said.

use super::api::stores;
use super::{ProgramError, serve_while, traces};
use crate::api::{Api, ApiMetrics, ApiSettings};
use crate::aws;
use crate::config::ConsumerConfig;
use crate::consumer::Consumer;
use crate::deliver::Handler;
use crate::local::Local;
use crate::progress::{ApiToken, ClientProgress, ClientSettings, TableSettings};
use crate::source::AwsSource;
use crate::telemetry::http::View;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Board;
use aws_config::SdkConfig;
use axum::Router;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Where the two listen.
#[derive(Debug)]
pub struct PairListeners {
    /// The consumer's health, status and metrics.
    pub status: TcpListener,
    /// The api's health and metrics, and the application's routes.
    pub public: TcpListener,
    /// The api's, for the consumer.
    pub private: TcpListener,
    /// What the page on that is signed in to with; without it there is no page.
    pub token: Option<ApiToken>,
}

/// Runs both until `drain` is cancelled and everything in flight is finished: the consumer of
/// `config` with this handler, and an api with these routes, which get the configuration of
/// AWS clients as in [`super::keep_progress`].
///
/// # Errors
/// [`ProgramError`] for what only a person can mend.
pub async fn pair(
    config: ConsumerConfig,
    handler: Arc<dyn Handler>,
    routes: impl FnOnce(&SdkConfig) -> Router,
    local: &Local,
    listeners: PairListeners,
    drain: CancellationToken,
) -> Result<(), ProgramError> {
    let PairListeners { status, public, private, token } = listeners;
    let page = token.is_some();
    let address = private.local_addr().map_err(|error| ProgramError::Failed(error.to_string()))?;
    let token = token.map_or_else(|| new_token().map(|(token, _)| token), Ok)?;
    let settings = ApiSettings {
        table: config.table.clone(),
        consumers: vec![config.consumer.clone()],
        token: token.clone(),
    };
    let metrics = Arc::new(ApiMetrics::new());
    let tables = local.table_config(metrics.aws_observer()).await;
    let routes = routes(&aws::uncounted(&tables));
    let base = config.table_settings();
    let in_table = move |consumer: &str, label: &str| {
        let (consumer, label) = (consumer.to_owned(), label.to_owned());
        TableSettings { consumer, label, ..base.clone() }
    };
    let stores = stores(tables, in_table, &metrics);
    let stop = CancellationToken::new();
    let _stop_api = stop.clone().drop_guard();
    let api = Api::new(settings, stores, metrics).routes(routes).page(page);
    let grace = config.settings.shutdown_grace;
    let serving = tokio::spawn(api.serve(public, private, stop.clone(), grace));

    let url = format!("http://{address}");
    let progress = ClientProgress::new(ClientSettings {
        urls: vec![url.parse().expect("an address makes a URL")],
        ca: Vec::new(),
        token,
        table: config.table.clone(),
        consumer: config.consumer.clone(),
        label: config.settings.stream.label().to_owned(),
    })
    .map_err(|error| ProgramError::Failed(format!("{url}: {error}")))?;
    let metrics = Arc::new(Metrics::new());
    let board = Arc::new(Board::new());
    let streams = local.stream_config(metrics.aws_observer()).await;
    let source = AwsSource::new(&streams, config.settings.stream.clone());
    let traces = traces(&config, &metrics)?;
    let consumer = Consumer::new(
        config.settings,
        Arc::new(source),
        Arc::new(progress),
        handler,
        Arc::clone(&metrics),
        Arc::clone(&board),
    );
    let consumer = consumer.traced(traces.clone());
    let result = serve_while(status, View { metrics, board }, consumer.run(drain)).await;
    if let Some(traces) = traces {
        traces.close().await;
    }
    let result = result?;
    stop.cancel();
    let _ = serving.await;
    Ok(result?)
}

/// A token that nobody knows, and its text for who is to.
///
/// # Errors
/// [`ProgramError::Failed`] where the system gives no randomness.
pub fn new_token() -> Result<(ApiToken, String), ProgramError> {
    let mut random = [0; 24];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|error| ProgramError::Failed(format!("/dev/urandom: {error}")))?;
    let text = BASE64_URL_SAFE.encode(random);
    Ok((ApiToken::new(&text).expect("32 visible characters"), text))
}
