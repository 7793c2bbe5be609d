//! Asks AWS whether a call is allowed, without an effect.
//!
//! Owns the harmless form of each call. The one file that holds clients of both
//! services, for it asks what neither container may do at run time. Invariant: nothing
//! is changed, whatever is allowed: writes are made under a condition that contradicts
//! itself, so that a permitted one fails on it.

use crate::arn::StreamArn;
use crate::aws::Failure;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::collections::HashMap;

/// How AWS answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Granted,
    /// The service's words.
    Refused(String),
    /// Neither: the network, credentials, throttling.
    Unknown(String),
}

const NEVER: &str = "attribute_exists(#pk) AND attribute_not_exists(#pk)";
/// Of the form of a shard's id; there is no such shard.
const NO_SHARD: &str = "shardId-00000000000000000000-00000000";

/// A table, and an item of it that is asked about.
pub(super) struct TableProbe {
    client: aws_sdk_dynamodb::Client,
    table: String,
    partition_key: String,
    sort_key: String,
    /// The item's key values.
    item: (String, String),
}

impl TableProbe {
    pub fn new(
        config: &SdkConfig,
        table: &str,
        keys: (&str, &str),
        partition: impl Into<String>,
    ) -> Self {
        Self {
            client: aws_sdk_dynamodb::Client::new(config),
            table: table.to_owned(),
            partition_key: keys.0.to_owned(),
            sort_key: keys.1.to_owned(),
            item: (partition.into(), "check".to_owned()),
        }
    }

    /// The calls a table knows that are asked about.
    pub const CALLS: [&str; 7] = [
        "dynamodb:DescribeTable",
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
    ];

    fn key(&self) -> HashMap<String, AttributeValue> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        HashMap::from([
            (self.partition_key.clone(), text(&self.item.0)),
            (self.sort_key.clone(), text(&self.item.1)),
        ])
    }

    /// Whether `action`, one of [`Self::CALLS`], is allowed.
    pub async fn ask(&self, action: &str) -> Access {
        let (client, table) = (&self.client, &self.table);
        let value = AttributeValue::S(self.item.0.clone());
        match action {
            "dynamodb:DescribeTable" => {
                access(client.describe_table().table_name(table).send().await)
            }
            "dynamodb:GetItem" => {
                access(client.get_item().table_name(table).set_key(Some(self.key())).send().await)
            }
            "dynamodb:Query" => {
                let call = client
                    .query()
                    .table_name(table)
                    .select(Select::Count)
                    .limit(1)
                    .key_condition_expression("#pk = :pk")
                    .expression_attribute_names("#pk", &self.partition_key)
                    .expression_attribute_values(":pk", value);
                access(call.send().await)
            }
            "dynamodb:Scan" => {
                access(client.scan().table_name(table).select(Select::Count).limit(1).send().await)
            }
            "dynamodb:PutItem" => {
                let call = client
                    .put_item()
                    .table_name(table)
                    .set_item(Some(self.key()))
                    .condition_expression(NEVER)
                    .expression_attribute_names("#pk", &self.partition_key);
                access(call.send().await)
            }
            "dynamodb:UpdateItem" => {
                let call = client
                    .update_item()
                    .table_name(table)
                    .set_key(Some(self.key()))
                    .update_expression("SET sg_check = :pk")
                    .condition_expression(NEVER)
                    .expression_attribute_names("#pk", &self.partition_key)
                    .expression_attribute_values(":pk", value);
                access(call.send().await)
            }
            "dynamodb:DeleteItem" => {
                let call = client
                    .delete_item()
                    .table_name(table)
                    .set_key(Some(self.key()))
                    .condition_expression(NEVER)
                    .expression_attribute_names("#pk", &self.partition_key);
                access(call.send().await)
            }
            other => Access::Unknown(format!("{other} is not known here")),
        }
    }

    /// The stream of the table, if it has one and may be described.
    pub async fn stream(&self) -> Option<StreamArn> {
        let answer = self.client.describe_table().table_name(&self.table).send().await.ok()?;
        answer.table?.latest_stream_arn?.parse().ok()
    }
}

/// A stream that should not be readable.
pub(super) struct StreamProbe {
    client: aws_sdk_dynamodbstreams::Client,
    stream: StreamArn,
}

impl StreamProbe {
    pub fn new(config: &SdkConfig, stream: StreamArn) -> Self {
        Self { client: aws_sdk_dynamodbstreams::Client::new(config), stream }
    }

    pub async fn describe(&self) -> Access {
        let call = self.client.describe_stream().stream_arn(self.stream.as_str()).limit(1);
        access(call.send().await)
    }

    /// Of a shard there is not: without an iterator nothing can be read, and with this
    /// one neither.
    pub async fn iterator(&self) -> Access {
        let call = self
            .client
            .get_shard_iterator()
            .stream_arn(self.stream.as_str())
            .shard_id(NO_SHARD)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        access(call.send().await)
    }
}

/// Whether streams may be listed, which is allowed on all of them or none.
pub(super) async fn list_streams(config: &SdkConfig) -> Access {
    access(aws_sdk_dynamodbstreams::Client::new(config).list_streams().limit(1).send().await)
}

/// What an answer says about permission: a service that judges the request itself has
/// let it in.
fn access<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> Access
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Err(error) = answer else { return Access::Granted };
    let failure = Failure::of(&error);
    if failure.is_denied() {
        return Access::Refused(failure.message);
    }
    let judged = matches!(
        failure.code.as_deref(),
        Some(
            "ConditionalCheckFailedException" | "ValidationException" | "ResourceNotFoundException"
        )
    );
    if judged { Access::Granted } else { Access::Unknown(failure.message) }
}
