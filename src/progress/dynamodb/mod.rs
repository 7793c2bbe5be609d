//! The table's calls through the AWS SDK: the only room that knows its types.
//!
//! Owns four calls (see [`ACTIONS`]), the reading of their errors, and the check that a
//! table can hold progress (`suits`). Does not know what stands in items. Invariant: reads are
//! strongly consistent, and a refused write brings the item that refused it, where the
//! endpoint sends it.

mod suits;
mod values;

use super::ProgressError;
use super::item::{Attributes, Value};
use super::keys::ItemKey;
use crate::aws::Failure;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure::AllOld,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::collections::HashMap;
use std::sync::Arc;
use suits::suits;
use values::{attributes, old, sdk_values};

/// Every IAM action this store asks for, all on the table itself.
pub const ACTIONS: [&str; 4] = [DESCRIBE_TABLE, QUERY, UPDATE_ITEM, DELETE_ITEM];
const DESCRIBE_TABLE: &str = "dynamodb:DescribeTable";
const QUERY: &str = "dynamodb:Query";
const UPDATE_ITEM: &str = "dynamodb:UpdateItem";
const DELETE_ITEM: &str = "dynamodb:DeleteItem";

/// A table and the names of its keys.
pub(super) struct Table {
    client: Client,
    region: String,
    name: String,
    partition_key: String,
    sort_key: String,
    write_units: WriteUnitsObserver,
}

/// Told the write capacity units that each write has taken, as the answer has them: what
/// is paid for. A refused condition takes some too, which no answer tells.
pub type WriteUnitsObserver = Arc<dyn Fn(f64) + Send + Sync>;

/// Why a write did not happen.
pub(super) enum Refusal {
    /// Its condition failed on this item, if the answer brought it.
    Condition(Option<Attributes>),
    Failed(ProgressError),
}

/// Which items of a partition are asked for.
pub(super) struct Page<'a> {
    pub partition: &'a str,
    /// How their sort keys begin.
    pub prefix: &'a str,
    /// They come after this one.
    pub after: Option<&'a ItemKey>,
    pub limit: usize,
}

/// Which items of a partition a query gives.
#[derive(Clone, Copy)]
pub(super) enum Only<'a> {
    /// All of them.
    Any,
    /// The one with this sort key.
    Sort(&'a str),
    /// Those with this owner. The others are read too, and paid for.
    Owner(&'a str),
}

/// An expression's values by their names, `:name`.
pub(super) type Values<'a> = Vec<(&'a str, Value)>;

impl Table {
    pub fn new(config: &SdkConfig, name: String, partition_key: String, sort_key: String) -> Self {
        let region = config.region().map_or_else(|| "this region".to_owned(), ToString::to_string);
        let write_units: WriteUnitsObserver = Arc::new(|_| {});
        Self { client: Client::new(config), region, name, partition_key, sort_key, write_units }
    }

    pub fn observe_write_units(&mut self, observer: WriteUnitsObserver) {
        self.write_units = observer;
    }

    fn wrote(&self, taken: Option<&ConsumedCapacity>) {
        if let Some(units) = taken.and_then(ConsumedCapacity::capacity_units) {
            (self.write_units)(units);
        }
    }

    /// Whether the table is there and can hold progress; writes nothing.
    pub async fn describe(&self) -> Result<(), ProgressError> {
        let answer = self
            .client
            .describe_table()
            .table_name(&self.name)
            .send()
            .await
            .map_err(|error| self.failed(DESCRIBE_TABLE, &error))?;
        match answer.table {
            Some(table) => suits(self, &table).map_err(ProgressError::Unsuitable),
            None => Err(ProgressError::Unavailable("DescribeTable: no description".to_owned())),
        }
    }

    fn key(&self, key: &ItemKey) -> HashMap<String, AttributeValue> {
        HashMap::from([
            (self.partition_key.clone(), AttributeValue::S(key.partition.clone())),
            (self.sort_key.clone(), AttributeValue::S(key.sort.clone())),
        ])
    }

    /// The names an expression uses: the table's are the application's and may be any.
    fn names(&self, expression: &str) -> Option<HashMap<String, String>> {
        let names: HashMap<_, _> = [("#pk", &self.partition_key), ("#sk", &self.sort_key)]
            .into_iter()
            .filter(|(name, _)| expression.contains(name))
            .map(|(name, key)| (name.to_owned(), key.clone()))
            .collect();
        // An empty map is refused.
        (!names.is_empty()).then_some(names)
    }

    /// Changes or makes an item if `condition` holds.
    pub async fn update(
        &self,
        key: &ItemKey,
        update: &str,
        condition: &str,
        values: Values<'_>,
    ) -> Result<(), Refusal> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(self.key(key)))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_names(self.names(condition))
            .set_expression_attribute_values(Some(sdk_values(values)))
            .return_values_on_condition_check_failure(AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let answer = answer.map(|answer| self.wrote(answer.consumed_capacity()));
        answer.map_err(|error| match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                Refusal::Condition(old(refused.item()))
            }
            _ => Refusal::Failed(self.failed(UPDATE_ITEM, &error)),
        })
    }

    /// Removes an item if the condition holds, or in any case.
    pub async fn delete(
        &self,
        key: &ItemKey,
        condition: Option<(&str, Values<'_>)>,
    ) -> Result<(), Refusal> {
        let mut call = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(self.key(key)))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        if let Some((condition, values)) = condition {
            call = call
                .condition_expression(condition)
                .set_expression_attribute_names(self.names(condition))
                .set_expression_attribute_values(Some(sdk_values(values)))
                .return_values_on_condition_check_failure(AllOld);
        }
        let answer = call.send().await.map(|answer| self.wrote(answer.consumed_capacity()));
        answer.map_err(|error| match error.as_service_error() {
            Some(DeleteItemError::ConditionalCheckFailedException(refused)) => {
                Refusal::Condition(old(refused.item()))
            }
            _ => Refusal::Failed(self.failed(DELETE_ITEM, &error)),
        })
    }

    /// Items of a partition; all pages.
    pub async fn query(
        &self,
        partition: &str,
        only: Only<'_>,
    ) -> Result<Vec<(ItemKey, Attributes)>, ProgressError> {
        let (condition, filter, value) = match only {
            Only::Any => ("#pk = :pk", None, None),
            Only::Sort(sort) => ("#pk = :pk AND #sk = :sk", None, Some((":sk", sort))),
            Only::Owner(owner) => ("#pk = :pk", Some("sg_owner = :owner"), Some((":owner", owner))),
        };
        let values = std::iter::once((":pk", partition)).chain(value);
        let values = values.map(|(name, text)| (name, Value::from(text))).collect();
        let call = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression(condition)
            .set_filter_expression(filter.map(str::to_owned))
            .set_expression_attribute_names(self.names(condition))
            .set_expression_attribute_values(Some(sdk_values(values)));
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = call
                .clone()
                .set_exclusive_start_key(start.take())
                .send()
                .await
                .map_err(|error| self.failed(QUERY, &error))?;
            for item in page.items.unwrap_or_default() {
                items.push(self.keyed(partition, &item));
            }
            match page.last_evaluated_key {
                Some(last) if !last.is_empty() => start = Some(last),
                _ => return Ok(items),
            }
        }
    }

    /// Some items of a partition, with the attributes that `projection` names: all that
    /// there are up to the limit.
    pub async fn query_page(
        &self,
        page: &Page<'_>,
        projection: &str,
    ) -> Result<Vec<(ItemKey, Attributes)>, ProgressError> {
        const CONDITION: &str = "#pk = :pk AND begins_with(#sk, :prefix)";
        let values = vec![(":pk", page.partition.into()), (":prefix", page.prefix.into())];
        let call = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression(CONDITION)
            .projection_expression(projection)
            .set_expression_attribute_names(self.names(CONDITION))
            .set_expression_attribute_values(Some(sdk_values(values)));
        let mut items = Vec::new();
        let mut start = page.after.map(|key| self.key(key));
        while items.len() < page.limit {
            let limit = i32::try_from(page.limit - items.len()).unwrap_or(i32::MAX);
            let answer = call.clone().limit(limit).set_exclusive_start_key(start.take());
            let answer = answer.send().await.map_err(|error| self.failed(QUERY, &error))?;
            for item in answer.items.unwrap_or_default() {
                items.push(self.keyed(page.partition, &item));
            }
            match answer.last_evaluated_key {
                Some(last) if !last.is_empty() => start = Some(last),
                _ => break,
            }
        }
        Ok(items)
    }

    fn keyed(
        &self,
        partition: &str,
        item: &HashMap<String, AttributeValue>,
    ) -> (ItemKey, Attributes) {
        let item = attributes(item);
        let sort = match item.get(&self.sort_key) {
            Some(Value::Text(sort)) => sort.clone(),
            _ => String::new(),
        };
        (ItemKey { partition: partition.to_owned(), sort }, item)
    }

    fn failed<E>(&self, action: &'static str, error: &SdkError<E, HttpResponse>) -> ProgressError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let failure = Failure::of(error);
        let name = action.trim_start_matches("dynamodb:");
        let sentence = || format!("{name}: {}", failure.message);
        match failure.code.as_deref() {
            Some("ResourceNotFoundException") => ProgressError::Unsuitable(format!(
                "there is no table {} in {}: set TABLE_NAME to one that exists, and AWS_REGION to where it is",
                self.name, self.region
            )),
            Some(
                "ValidationException"
                | "SerializationException"
                | "UnknownOperationException"
                | "ItemCollectionSizeLimitExceededException",
            ) => ProgressError::Unsuitable(sentence()),
            _ if failure.is_denied() => {
                ProgressError::AccessDenied { action, message: failure.message }
            }
            _ if failure.is_credentials() || failure.not_sent => {
                ProgressError::Credentials(sentence())
            }
            _ => ProgressError::Unavailable(sentence()),
        }
    }
}
