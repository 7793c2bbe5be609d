//! `streamgate consumer`.

use super::exit::Exit;
use super::signals::drain_on_signal;
use aws_config::SdkConfig;
use clap::ArgMatches;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::aws;
use streamgate::config::{self, ConsumerConfig, HandlerConfig};
use streamgate::consumer::Consumer;
use streamgate::deliver::{Discard, ExecHandler, Handler, HttpHandler, LambdaHandler, Log};
use streamgate::progress::{ClientProgress, Progress, TableProgress};
use streamgate::source::AwsSource;
use streamgate::telemetry::emf::Emf;
use streamgate::telemetry::http::{self, View};
use streamgate::telemetry::logging::{self, LogFormat};
use streamgate::telemetry::metrics::Metrics;
use streamgate::telemetry::status::Board;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let config = config::consumer(&super::lookup(matches), SystemTime::now())?;
    start_logging(config.log_format, &config.log_filter)?;
    let listener = listen("LISTEN", config.listen).await?;
    let drain = drain_on_signal().map_err(|error| Exit::Failed(error.to_string()))?;

    let metrics = Arc::new(Metrics::new());
    let aws = aws::load(Some(config.settings.stream.region()), metrics.aws_observer()).await;
    let source = AwsSource::new(&aws, config.settings.stream.clone());
    let progress = progress(&config, &aws, &metrics)?;
    let handler = handler(&config)?;
    let board = Arc::new(Board::new());
    let (stop_emf, emf_ended) = (CancellationToken::new(), TaskTracker::new());
    if config.emf {
        let (consumer, table) = (&config.consumer, config.settings.stream.table());
        let emf = Emf::new(Arc::clone(&metrics), Arc::clone(&board), consumer, table);
        emf_ended.spawn(emf.run(stop_emf.clone(), tokio::io::stdout()));
    }
    let consumer = Consumer::new(
        config.settings,
        Arc::new(source),
        progress,
        handler,
        Arc::clone(&metrics),
        Arc::clone(&board),
    );
    let result = serve_while(listener, View { metrics, board }, consumer.run(drain)).await;
    stop_emf.cancel();
    emf_ended.close();
    emf_ended.wait().await;
    result?.map_err(Exit::from)
}

/// From here on the log is written as configured.
pub(super) fn start_logging(format: LogFormat, filter: &str) -> Result<(), Exit> {
    let filter = filter.parse();
    let filter = filter.map_err(|error| Exit::Failed(format!("RUST_LOG: {error}")))?;
    logging::start(format, filter);
    Ok(())
}

/// Opens the address of the setting `name`.
pub(super) async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, Exit> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Exit::Failed(format!("{name}: {address} cannot be opened: {error}")))
}

/// The api's, where there is one: no client of the table is made then.
pub(super) fn progress(
    config: &ConsumerConfig,
    aws: &SdkConfig,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn Progress>, Exit> {
    if let Some(settings) = config.client_settings() {
        let client = ClientProgress::new(settings);
        return Ok(Arc::new(client.map_err(|error| Exit::Failed(format!("API_URL: {error}")))?));
    }
    tracing::warn!(
        table = %config.table,
        "progress is written to the table directly: this role can do more than read the stream"
    );
    let table = TableProgress::new(aws, config.table_settings());
    Ok(Arc::new(table.observing_write_units(metrics.write_units_observer())))
}

/// Serves the listener until `work` is done.
pub(super) async fn serve_while<T>(
    listener: TcpListener,
    view: View,
    work: impl Future<Output = T>,
) -> Result<T, Exit> {
    let address = listener.local_addr().map_err(|error| Exit::Failed(error.to_string()))?;
    info!(%address, "listening");
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(http::serve(listener, view, stop.clone()));
    let result = work.await;
    stop.cancel();
    tasks.close();
    // Readers of a slow /metrics do not hold the exit up.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), tasks.wait()).await;
    Ok(result)
}

pub(super) fn handler(config: &ConsumerConfig) -> Result<Arc<dyn Handler>, Exit> {
    Ok(match &config.handler {
        HandlerConfig::Log => Arc::new(Log::to_stdout()),
        HandlerConfig::Discard => Arc::new(Discard),
        HandlerConfig::Http(url) => Arc::new(
            HttpHandler::new(url.clone(), &config.consumer, config.report_batch_item_failures)
                .map_err(|error| Exit::Failed(format!("HANDLER: {error}")))?
                .signed(config.handler_secrets.clone()),
        ),
        HandlerConfig::Exec(program, arguments) => Arc::new(ExecHandler::new(
            program.clone(),
            arguments.clone(),
            config.report_batch_item_failures,
        )),
        HandlerConfig::Lambda(targets) => Arc::new(
            LambdaHandler::new(targets, config.report_batch_item_failures)
                .map_err(|error| Exit::Failed(format!("HANDLER: {error}")))?,
        ),
    })
}
