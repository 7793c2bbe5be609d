//! A consumer or the api as a program: what stands around it from its configuration to its
//! exit code.
//!
//! Owns the runtime, the log, the listeners, signals and how all is joined to a [`Consumer`]
//! or an api. Knows no handler and no application's route: `streamgate consumer` hands over
//! the handler that `HANDLER` names, a program in Rust its own, as in `examples`. Invariant:
//! the configuration is judged before a port is opened or anything is contacted.

mod api;
mod error;
#[cfg(feature = "local")]
mod pair;
mod signals;

pub use api::{keep_progress, load_aws};
pub use error::ProgramError;
#[cfg(feature = "local")]
pub use pair::{PairListeners, new_token, pair};
pub use signals::drain_on_signal;

use crate::aws;
use crate::config::{self, ConsumerConfig};
use crate::consumer::Consumer;
use crate::deliver::Handler;
use crate::panics;
use crate::progress::{ClientProgress, Progress, TableProgress};
use crate::source::AwsSource;
use crate::telemetry::emf::Emf;
use crate::telemetry::http::{self, View};
use crate::telemetry::logging::{self, LogFormat};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Board;
use crate::telemetry::traces::Traces;
use aws_config::SdkConfig;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Readers of a slow `/metrics` do not hold the exit up for longer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Runs a whole program on a runtime of its own, and says on stderr why it ended where that
/// was not asked for. A panic outside of a handler ends the process.
pub fn run(program: impl Future<Output = Result<(), ProgramError>>) -> ExitCode {
    panics::end_the_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let why = format!("the runtime could not be started: {error}");
            return ProgramError::Failed(why).report();
        }
    };
    let result = runtime.block_on(program);
    // Blocking threads (stdout, a name being resolved) must not hold the exit up.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// The settings in the environment, for a program that brings its own handler.
///
/// # Errors
/// All that is wrong with them, as [`config::own_handler`] has it.
pub fn from_environment() -> Result<ConsumerConfig, ProgramError> {
    Ok(config::own_handler(&|name| std::env::var(name).ok(), SystemTime::now())?)
}

/// Consumes the stream until `drain` is cancelled and everything in flight is finished.
/// Begins the log, listens on `LISTEN`, keeps the progress where the settings say.
///
/// The log and the treatment of panics ([`panics::end_the_process`]) are the whole
/// process': call this once.
///
/// # Errors
/// [`ProgramError`] for what only a person can mend.
pub async fn consume(
    config: ConsumerConfig,
    handler: Arc<dyn Handler>,
    drain: CancellationToken,
) -> Result<(), ProgramError> {
    panics::end_the_process();
    start_logging(config.log_format, &config.log_filter)?;
    let listener = listen("LISTEN", config.listen).await?;
    let metrics = Arc::new(Metrics::new());
    let aws = aws::load(Some(config.settings.stream.region()), metrics.aws_observer()).await;
    let source = AwsSource::new(&aws, config.settings.stream.clone());
    let progress = progress(&config, &aws, &metrics)?;
    let board = Arc::new(Board::new());
    let (stop_emf, emf_ended) = (CancellationToken::new(), TaskTracker::new());
    if config.emf {
        let (consumer, table) = (&config.consumer, config.settings.stream.table());
        let emf = Emf::new(Arc::clone(&metrics), Arc::clone(&board), consumer, table);
        emf_ended.spawn(emf.run(stop_emf.clone(), tokio::io::stdout()));
    }
    let traces = traces(&config, &metrics)?;
    let consumer = Consumer::new(
        config.settings,
        Arc::new(source),
        progress,
        handler,
        Arc::clone(&metrics),
        Arc::clone(&board),
    );
    let consumer = consumer.traced(traces.clone());
    let result = serve_while(listener, View { metrics, board }, consumer.run(drain)).await;
    if let Some(traces) = traces {
        traces.close().await;
    }
    stop_emf.cancel();
    emf_ended.close();
    emf_ended.wait().await;
    Ok(result??)
}

/// From here on the log is written as configured. Once a process.
///
/// # Errors
/// [`ProgramError::Failed`] for a filter that is none.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), ProgramError> {
    let filter = filter.parse();
    let filter = filter.map_err(|error| ProgramError::Failed(format!("RUST_LOG: {error}")))?;
    logging::start(format, filter);
    Ok(())
}

/// Opens the address of the setting `name`.
///
/// # Errors
/// [`ProgramError::Listen`] where it cannot be opened.
pub async fn listen(name: &'static str, address: SocketAddr) -> Result<TcpListener, ProgramError> {
    let opened = TcpListener::bind(address).await;
    opened.map_err(|error| ProgramError::Listen { name, address, error })
}

/// Where the progress is kept: the api, where there is one: no client of the table is made
/// then.
///
/// # Errors
/// [`ProgramError::Failed`] where `API_URL` cannot be spoken to as it is set.
pub fn progress(
    config: &ConsumerConfig,
    aws: &SdkConfig,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn Progress>, ProgramError> {
    if let Some(settings) = config.client_settings() {
        let client = ClientProgress::new(settings);
        let client = client.map_err(|error| ProgramError::Failed(format!("API_URL: {error}")))?;
        return Ok(Arc::new(client));
    }
    warn!(
        table = %config.table,
        "progress is written to the table directly: this role can do more than read the stream"
    );
    let table = TableProgress::new(aws, config.table_settings());
    Ok(Arc::new(table.observing_write_units(metrics.write_units_observer())))
}

/// Where traces go, as the settings have it. Hand [`Traces::close`] what is left at the end.
///
/// # Errors
/// [`ProgramError::Failed`] where the export cannot be set up.
pub fn traces(
    config: &ConsumerConfig,
    metrics: &Arc<Metrics>,
) -> Result<Option<Traces>, ProgramError> {
    let Some(settings) = &config.traces else { return Ok(None) };
    let traces = Traces::start(settings, &config.settings.stream, &config.consumer, metrics);
    traces.map(Some).map_err(|error| ProgramError::Failed(error.to_string()))
}

/// Serves the listener until `work` is done.
///
/// # Errors
/// [`ProgramError::Failed`] where the listener has no address.
pub async fn serve_while<T>(
    listener: TcpListener,
    view: View,
    work: impl Future<Output = T>,
) -> Result<T, ProgramError> {
    let address = listener.local_addr().map_err(|error| ProgramError::Failed(error.to_string()))?;
    info!(%address, "listening");
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(http::serve(listener, view, stop.clone()));
    let result = work.await;
    stop.cancel();
    tasks.close();
    let _ = tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await;
    Ok(result)
}
