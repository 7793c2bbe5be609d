//! The api as a program: the listeners, the table's stores and its first look, around an
//! application's own routes.
//!
//! Owns how they are joined. Knows no route: `streamgate api` hands over none, a program in
//! Rust its own, as in `examples/savealife`.

use super::{ProgramError, listen, start_logging};
use crate::api::{Api, ApiMetrics, ApiSettings, Stores};
use crate::aws::{self, AttemptObserver};
use crate::config::{ApiConfig, Fault, Faults};
use crate::consumer::ConsumerError;
use crate::panics;
use crate::progress::{Progress, ProgressError, TableProgress, TableSettings};
use aws_config::SdkConfig;
use axum::Router;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// An agent that hands out credentials may start after its containers.
const CREDENTIAL_TRIES: u32 = 5;
/// Between two looks at a table that does not answer yet.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps consumers' progress in the table until `drain` is cancelled and everything in
/// flight is finished, beside the application's `routes` on the public listener.
///
/// `routes` gets the AWS configuration, for clients of its own: one environment, one role;
/// what they call is not in Streamgate's metrics. The routes are not behind the token, and may
/// not be `/healthz`, `/readyz` or `/metrics`. At the end their requests have what is left of
/// `SHUTDOWN_GRACE`.
/// Begins the log, listens on `LISTEN` and `PRIVATE_LISTEN`. The log and the treatment of
/// panics ([`panics::end_the_process`]) are the whole process': call this once.
///
/// # Errors
/// [`ProgramError`] for what only a person can mend, and where `SHUTDOWN_GRACE` was too short.
pub async fn keep_progress(
    config: ApiConfig,
    routes: impl FnOnce(&SdkConfig) -> Router,
    drain: CancellationToken,
) -> Result<(), ProgramError> {
    panics::end_the_process();
    start_logging(config.log_format, &config.log_filter)?;
    let metrics = Arc::new(ApiMetrics::new());
    let aws = load_aws(metrics.aws_observer()).await?;
    let public = listen("LISTEN", config.listen).await?;
    let private = listen("PRIVATE_LISTEN", config.private_listen).await?;
    for (message, listener) in [("listening", &public), ("listening for consumers", &private)] {
        let address =
            listener.local_addr().map_err(|error| ProgramError::Failed(error.to_string()))?;
        info!(%address, "{message}");
    }

    let grace = config.shutdown_grace;
    let settings = ApiSettings {
        table: config.table.clone(),
        consumers: config.consumers.clone(),
        token: config.token.clone(),
    };
    let routes = routes(&aws::uncounted(&aws));
    let (tls, page) = (config.tls.clone(), config.page);
    let in_table = move |consumer: &str, label: &str| config.table_settings(consumer, label);
    let stores = stores(aws, in_table, &metrics);
    let table = stores("start", "-");
    let api = Api::new(settings, stores, metrics).routes(routes).tls(tls).page(page);
    let serving = api.serve(public, private, drain, grace);
    tokio::pin!(serving);
    let finished = tokio::select! {
        finished = serving.as_mut() => finished,
        checked = check(&*table) => {
            checked?;
            serving.await
        }
    };
    if finished {
        return Ok(());
    }
    Err(ProgramError::Failed(format!(
        "the stop took longer than SHUTDOWN_GRACE ({grace:?}) and requests were cut off: their consumers ask again"
    )))
}

/// The stores of a table, which `in_table` describes for a consumer (first) and a stream's
/// label (second); what their writes cost is counted.
pub(super) fn stores(
    aws: SdkConfig,
    in_table: impl Fn(&str, &str) -> TableSettings + Send + Sync + 'static,
    metrics: &Arc<ApiMetrics>,
) -> Stores {
    let write_units = metrics.write_units_observer();
    Arc::new(move |consumer, label| {
        let store = TableProgress::new(&aws, in_table(consumer, label));
        Arc::new(store.observing_write_units(Arc::clone(&write_units)))
    })
}

/// The AWS environment, which has to say where the table is.
///
/// # Errors
/// [`ProgramError::Configuration`] where it does not.
pub async fn load_aws(observer: AttemptObserver) -> Result<SdkConfig, ProgramError> {
    let aws = aws::load(None, observer).await;
    if aws.region().is_none() {
        let what = "is not set, and nothing else says in which region the table is".to_owned();
        return Err(Faults(vec![Fault { name: "AWS_REGION", what }]).into());
    }
    Ok(aws)
}

/// Whether the table can be used, as far as only a person can mend it; what may pass by
/// itself is waited for.
async fn check(table: &dyn Progress) -> Result<(), ProgramError> {
    let mut tries: u32 = 0;
    loop {
        let why = match table.describe().await {
            Ok(()) => {
                info!("the table can be used");
                return Ok(());
            }
            Err(ProgressError::Unavailable(why)) => why,
            Err(ProgressError::Credentials(why)) if tries < CREDENTIAL_TRIES => why,
            Err(error) => return Err(ConsumerError::of_store(error).into()),
        };
        tries = tries.saturating_add(1);
        if tries.is_power_of_two() {
            warn!(tries, %why, "the table cannot be used yet");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
