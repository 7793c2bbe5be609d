//! The checks of the api: its table, its role.

use super::consumer::kept;
use super::probe::{StreamProbe, TableProbe, list_streams};
use super::{Finding, needed, unneeded};
use crate::config::ApiConfig;
use crate::progress::{OWN_PREFIX, Progress, TABLE_ACTIONS, TableProgress};
use aws_config::SdkConfig;

const CONTAINER: &str = "api";

/// Everything an api of this configuration needs, and what its role should not allow.
/// Takes a few seconds and changes nothing. Other actions on the table are not judged:
/// the application's own routes may need them.
pub async fn api(config: &ApiConfig, aws: &SdkConfig) -> Vec<Finding> {
    let table = TableProgress::new(aws, config.table_settings("check", "-"));
    let mut found = vec![kept(table.describe().await, "the table can hold the progress")];
    let keys = (config.partition_key.as_str(), config.sort_key.as_str());
    // Of an item that no stream's progress is in.
    let probe = |consumer: &str| {
        let partition = format!("{OWN_PREFIX}{consumer}#check");
        TableProbe::new(aws, &config.table, keys, partition)
    };
    for consumer in &config.consumers {
        let on = format!("the items of consumer {consumer} in table {}", config.table);
        for action in TABLE_ACTIONS {
            found.push(needed(action, &on, CONTAINER, probe(consumer).ask(action).await));
        }
    }
    match probe("-").stream().await {
        Some(arn) => {
            let stream = StreamProbe::new(aws, arn);
            let on = "the table's stream";
            let describe = stream.describe().await;
            found.push(unneeded("dynamodb:DescribeStream", on, CONTAINER, describe));
            let iterator = stream.iterator().await;
            found.push(unneeded("dynamodb:GetShardIterator", on, CONTAINER, iterator));
        }
        None => found.push(Finding::good("the table has no stream that this role could read")),
    }
    let listed = list_streams(aws).await;
    found.push(unneeded("dynamodb:ListStreams", "all streams", CONTAINER, listed));
    found
}
