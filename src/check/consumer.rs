//! The checks of the consumer: its stream, its progress, its handler, its role.

use super::probe::{Access, TableProbe, list_streams};
use super::{Finding, needed, unneeded};
use crate::config::{ConsumerConfig, HandlerConfig};
use crate::consumer::ConsumerError;
use crate::progress::{
    ClientProgress, ClientSettings, Progress, TABLE_ACTIONS, TableProgress, leading_keys,
};
use crate::source::{
    AwsSource, IteratorPosition, ShardIterator, Source, SourceError, SourceErrorKind, StreamStatus,
};
use aws_config::SdkConfig;
use reqwest::Url;
use std::time::Duration;
use tokio::net::TcpStream;

const CONTAINER: &str = "consumer";
/// How long a handler may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything a consumer of this configuration needs, and what its role should not
/// allow. Takes a few seconds; changes nothing, and invokes no handler.
pub async fn consumer(config: &ConsumerConfig, aws: &SdkConfig) -> Vec<Finding> {
    let (stream, progress, handler) =
        tokio::join!(stream(config, aws), progress(config, aws), handler(config));
    [stream, progress, handler].concat()
}

async fn stream(config: &ConsumerConfig, aws: &SdkConfig) -> Vec<Finding> {
    let arn = &config.settings.stream;
    let source = AwsSource::new(aws, arn.clone());
    let (on, mut found) = (format!("the stream {arn}"), Vec::new());
    let judge = |action: &str, error: SourceError| match error.kind {
        SourceErrorKind::AccessDenied => {
            needed(action, &on, CONTAINER, Access::Refused(error.message))
        }
        SourceErrorKind::NotFound | SourceErrorKind::Invalid | SourceErrorKind::Credentials => {
            Finding::bad(ConsumerError::of_stream(arn, error).to_string())
        }
        _ => needed(action, &on, CONTAINER, Access::Unknown(error.to_string())),
    };
    let listing = match source.describe().await {
        Ok(listing) => listing,
        Err(error) => return vec![judge("dynamodb:DescribeStream", error)],
    };
    found.push(needed("dynamodb:DescribeStream", &on, CONTAINER, Access::Granted));
    let view = listing.view_type.as_deref().unwrap_or("an unknown view type");
    found.push(match listing.status {
        StreamStatus::Enabled | StreamStatus::Enabling => Finding::good(format!(
            "the stream is enabled, its records have {view}, it lists {} shards",
            listing.shards.len()
        )),
        StreamStatus::Disabling | StreamStatus::Disabled => Finding::bad(
            "the stream is disabled: what is left in it can be read for a day; enable the table's stream again and take its new ARN",
        ),
    });
    if let Some(fault) = config.settings.filter.fault_with(view) {
        found.push(Finding::bad(fault));
    }
    let Some(shard) = listing.shards.last() else {
        found.push(Finding::open("the stream lists no shard yet that could be read"));
        return found;
    };
    let iterator = match source.iterator(&shard.id, &IteratorPosition::TrimHorizon).await {
        Ok(iterator) => iterator,
        Err(error) => {
            found.push(judge("dynamodb:GetShardIterator", error));
            return found;
        }
    };
    found.push(needed("dynamodb:GetShardIterator", &on, CONTAINER, Access::Granted));
    found.push(match read(&source, &iterator).await {
        Ok(()) => needed("dynamodb:GetRecords", &on, CONTAINER, Access::Granted),
        Err(error) => judge("dynamodb:GetRecords", error),
    });
    found
}

async fn read(source: &AwsSource, iterator: &ShardIterator) -> Result<(), SourceError> {
    source.records(iterator).await.map(drop)
}

async fn progress(config: &ConsumerConfig, aws: &SdkConfig) -> Vec<Finding> {
    let keys = (config.partition_key.as_str(), config.sort_key.as_str());
    let [own, _] = leading_keys(&config.consumer, config.settings.stream.label());
    let probe = |table: &str, partition: &str| TableProbe::new(aws, table, keys, partition);
    let mut found = Vec::new();
    if let Some(settings) = config.client_settings() {
        // Each by itself: the consumer asks others only while the first does not answer.
        let is_only = settings.urls.len() == 1;
        for url in settings.urls.clone() {
            let place = if is_only { String::new() } else { format!(" at {url}") };
            found.push(match ClientProgress::new(ClientSettings { urls: vec![url], ..settings.clone() }) {
                Ok(api) => kept(
                    api.describe().await,
                    format!("the api{place} keeps the progress, and takes this consumer's token, name and table"),
                ),
                Err(error) => Finding::bad(format!("API_URL: {error}")),
            });
        }
        // The stream's own table may be another, and is none of its business either.
        let mut tables = vec![config.table.as_str()];
        tables.extend(Some(config.settings.stream.table()).filter(|name| *name != config.table));
        for table in tables {
            let probe = probe(table, &own);
            for action in TableProbe::CALLS {
                let on = format!("table {table}");
                found.push(unneeded(action, &on, CONTAINER, probe.ask(action).await));
            }
        }
    } else {
        let table = TableProgress::new(aws, config.table_settings());
        found.push(kept(table.describe().await, "the table can hold the progress"));
        let (own, foreign) = (probe(&config.table, &own), probe(&config.table, "check"));
        for action in TableProbe::CALLS {
            if TABLE_ACTIONS.contains(&action) {
                let on = format!("this consumer's items of table {}", config.table);
                found.push(needed(action, &on, CONTAINER, own.ask(action).await));
            }
            // The table's description has no items that could be told apart.
            if action != "dynamodb:DescribeTable" {
                let on = format!("other items of table {}", config.table);
                found.push(unneeded(action, &on, CONTAINER, foreign.ask(action).await));
            }
        }
    }
    let listed = list_streams(aws).await;
    found.push(unneeded("dynamodb:ListStreams", "all streams", CONTAINER, listed));
    found
}

/// What a store said of itself.
pub(super) fn kept(
    answer: Result<(), crate::progress::ProgressError>,
    good: impl Into<String>,
) -> Finding {
    use crate::progress::ProgressError;
    match answer {
        Ok(()) => Finding::good(good),
        Err(ProgressError::Unavailable(why)) => {
            Finding::open(format!("progress could not be asked for: {why}"))
        }
        Err(error) => Finding::bad(ConsumerError::of_store(error).to_string()),
    }
}

/// A connection and no more: an invocation would be a batch.
async fn handler(config: &ConsumerConfig) -> Vec<Finding> {
    let targets: Vec<&Url> = match &config.handler {
        HandlerConfig::Http(url) => vec![url],
        HandlerConfig::Lambda(targets) => targets.iter().collect(),
        HandlerConfig::Log | HandlerConfig::Discard | HandlerConfig::Exec(..) => {
            return vec![Finding::good("the handler is in this process")];
        }
    };
    futures_util::future::join_all(targets.into_iter().map(accepts)).await
}

async fn accepts(url: &Url) -> Finding {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = (host, url.port_or_known_default().unwrap_or_default());
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    match connecting {
        Ok(Ok(_)) => {
            Finding::good(format!("the handler accepts connections at {host}:{}", address.1))
        }
        Ok(Err(error)) => Finding::bad(format!(
            "HANDLER: {host}:{} does not accept connections: {error}; does it run there, and does the network let this container reach it?",
            address.1
        )),
        Err(_) => Finding::bad(format!(
            "HANDLER: {host}:{} does not answer within {CONNECT_TIMEOUT:?}; does the network let this container reach it?",
            address.1
        )),
    }
}
