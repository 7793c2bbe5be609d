//! `streamgate api`.

use super::exit::Exit;
use aws_config::SdkConfig;
use clap::ArgMatches;
use std::sync::Arc;
use std::time::Duration;
use streamgate::api::{Api, ApiMetrics, ApiSettings, Stores};
use streamgate::aws;
use streamgate::config::{self, Fault, Faults};
use streamgate::consumer::ConsumerError;
use streamgate::program::{drain_on_signal, listen, start_logging};
use streamgate::progress::{Progress, ProgressError, TableProgress};
use tracing::{info, warn};

/// An agent that hands out credentials may start after its containers.
const CREDENTIAL_TRIES: u32 = 5;
/// Between two looks at a table that does not answer yet.
const PAUSE: Duration = Duration::from_secs(1);

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let config = config::api(&super::lookup(matches))?;
    start_logging(config.log_format, &config.log_filter)?;
    let metrics = Arc::new(ApiMetrics::new());
    let aws = load_aws(metrics.aws_observer()).await?;
    let public = listen("LISTEN", config.listen).await?;
    let private = listen("PRIVATE_LISTEN", config.private_listen).await?;
    let drain = drain_on_signal()?;
    for (message, listener) in [("listening", &public), ("listening for consumers", &private)] {
        let address = listener.local_addr().map_err(|error| Exit::Failed(error.to_string()))?;
        info!(%address, "{message}");
    }

    let grace = config.shutdown_grace;
    let settings = ApiSettings {
        table: config.table.clone(),
        consumers: config.consumers.clone(),
        token: config.token.clone(),
    };
    let tls = config.tls.clone();
    let write_units = metrics.write_units_observer();
    let stores: Stores = Arc::new(move |consumer, label| {
        let store = TableProgress::new(&aws, config.table_settings(consumer, label));
        Arc::new(store.observing_write_units(Arc::clone(&write_units)))
    });
    let table = stores("start", "-");
    let serving = Api::new(settings, stores, metrics).tls(tls).serve(public, private, drain, grace);
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
    Err(Exit::Failed(format!(
        "the stop took longer than SHUTDOWN_GRACE ({grace:?}) and requests were cut off: their consumers ask again"
    )))
}

/// The AWS environment, which has to say where the table is.
pub(super) async fn load_aws(observer: aws::AttemptObserver) -> Result<SdkConfig, Exit> {
    let aws = aws::load(None, observer).await;
    if aws.region().is_none() {
        let what = "is not set, and nothing else says in which region the table is".to_owned();
        return Err(Faults(vec![Fault { name: "AWS_REGION", what }]).into());
    }
    Ok(aws)
}

/// Whether the table can be used, as far as only a person can mend it; what may pass by
/// itself is waited for.
async fn check(table: &dyn Progress) -> Result<(), Exit> {
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
