//! The items in the table.
//!
//! Owns the calls of DynamoDB and is the only file with the SDK's types. Decides nothing:
//! what may be written is a condition of the call, judged by the table.

use crate::items::{CITY, DONOR, INDEX, Item, Key, MAIL};
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use serde_json::{Number, Value};
use std::collections::HashMap;
use streamgate::causes;

/// So many calls make one page, however little of what they read is wanted.
const MOST_SCANS: usize = 10;
/// A scan reads items of every kind; so many for each that is asked for, where it would read a
/// megabyte.
const READ_FOR_ONE: usize = 10;

/// The items of one table.
pub struct Store {
    client: Client,
    table: String,
}

/// The table did not do what it was asked, in its own words.
#[derive(Debug)]
pub struct StoreError(pub String);

/// Some items of a list, and where the next begin.
pub struct Page {
    pub items: Vec<Item>,
    pub next: Option<Key>,
}

/// What came of a write with a condition.
pub enum Written {
    /// It is there.
    Now,
    /// This stood there and stands there still.
    Refused(Item),
}

type Attributes = HashMap<String, AttributeValue>;

impl Store {
    pub fn new(aws: &SdkConfig, table: String) -> Self {
        Self { client: Client::new(aws), table }
    }

    /// Writes an item where there is none.
    pub async fn add(&self, item: &Item) -> Result<Written, StoreError> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(attributes(item)))
            .condition_expression("attribute_not_exists(PK)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match call.send().await {
            Ok(_) => Ok(Written::Now),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(stands)) => {
                    Ok(Written::Refused(stands.item().map(of_attributes).unwrap_or_default()))
                }
                _ => Err(failed(&error)),
            },
        }
    }

    /// The first item under a partition key.
    pub async fn find(&self, pk: String) -> Result<Option<Item>, StoreError> {
        Ok(self.under(pk, None, 1).await?.items.pop())
    }

    /// All items of a kind; a page may be short, where there is much of other kinds.
    pub async fn all(
        &self,
        kind: &str,
        mut from: Option<Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut items = Vec::new();
        for _ in 0..MOST_SCANS {
            let call = self
                .client
                .scan()
                .table_name(&self.table)
                .filter_expression("begins_with(PK, :kind)")
                .expression_attribute_values(":kind", text(kind))
                .limit(count(limit.saturating_mul(READ_FOR_ONE)))
                .set_exclusive_start_key(from.map(key));
            let answer = call.send().await.map_err(|error| failed(&error))?;
            items.extend(answer.items().iter().map(of_attributes));
            from = answer.last_evaluated_key().and_then(of_key);
            if items.len() > limit {
                items.truncate(limit);
                // The last that is given is where the next page goes on.
                from = items.last().and_then(|item| {
                    let part = |name| item.get(name)?.as_str().map(str::to_owned);
                    Some(Key { pk: part("PK")?, sk: part("SK")? })
                });
                break;
            }
            if from.is_none() || items.len() == limit {
                break;
            }
        }
        Ok(Page { items, next: from })
    }

    /// The donors of a city, by the index.
    pub async fn donors_of(
        &self,
        city: &str,
        from: Option<Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let call = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("SK = :city AND begins_with(PK, :donor)")
            .expression_attribute_values(":city", text(&format!("{CITY}{city}")))
            .expression_attribute_values(":donor", text(DONOR))
            .limit(count(limit))
            .set_exclusive_start_key(from.map(key));
        let answer = call.send().await.map_err(|error| failed(&error))?;
        let items = answer.items().iter().map(of_attributes).collect();
        Ok(Page { items, next: answer.last_evaluated_key().and_then(of_key) })
    }

    /// The mails about a donation.
    pub async fn mails_of(
        &self,
        donation: &str,
        from: Option<Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.under(format!("{MAIL}{donation}"), from, limit).await
    }

    async fn under(&self, pk: String, from: Option<Key>, limit: usize) -> Result<Page, StoreError> {
        let call = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("PK = :pk")
            .expression_attribute_values(":pk", text(&pk))
            .consistent_read(true)
            .limit(count(limit))
            .set_exclusive_start_key(from.map(key));
        let answer = call.send().await.map_err(|error| failed(&error))?;
        let items = answer.items().iter().map(of_attributes).collect();
        Ok(Page { items, next: answer.last_evaluated_key().and_then(of_key) })
    }

    /// Turns a mail that is `sending`, by this attempt or, without one, by any, into another
    /// state. Gives whether it is in that state now.
    pub async fn settle(
        &self,
        mail: Key,
        state: &str,
        at: u64,
        attempt: Option<&str>,
    ) -> Result<bool, StoreError> {
        let mut condition = "(#state = :sending OR #state = :state)".to_owned();
        let mut call = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(mail)))
            .update_expression("SET #state = :state, #at = :at")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":sending", text("sending"))
            .expression_attribute_values(":state", text(state))
            .expression_attribute_values(":at", AttributeValue::N(at.to_string()));
        if let Some(attempt) = attempt {
            condition.push_str(" AND attempt = :attempt");
            call = call.expression_attribute_values(":attempt", text(attempt));
        }
        match call.condition_expression(condition).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(failed(&error)),
            },
        }
    }

    /// Takes a mail that is `sending`, by this attempt or, without one, by any, out of the
    /// table. Gives whether none is there now.
    pub async fn give_back(&self, mail: Key, attempt: Option<&str>) -> Result<bool, StoreError> {
        let mut is_it = "#state = :sending".to_owned();
        let mut call = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key(mail)))
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":sending", text("sending"));
        if let Some(attempt) = attempt {
            is_it.push_str(" AND attempt = :attempt");
            call = call.expression_attribute_values(":attempt", text(attempt));
        }
        let condition = format!("attribute_not_exists(PK) OR ({is_it})");
        match call.condition_expression(condition).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(failed(&error)),
            },
        }
    }
}

/// The service's own words, or what kept it from saying any.
fn failed<E, R>(error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    StoreError(match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => causes::in_a_line(error),
    })
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn count(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

fn key(Key { pk, sk }: Key) -> Attributes {
    Attributes::from([("PK".to_owned(), text(&pk)), ("SK".to_owned(), text(&sk))])
}

fn of_key(attributes: &Attributes) -> Option<Key> {
    let part = |name| attributes.get(name)?.as_s().ok().cloned();
    Some(Key { pk: part("PK")?, sk: part("SK")? })
}

/// Texts and whole numbers are all that is written.
fn attributes(item: &Item) -> Attributes {
    let attribute = |value: &Value| match value {
        Value::String(value) => text(value),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        _ => AttributeValue::Null(true),
    };
    item.iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

/// What an older program wrote may hold more: NULL, for what was missing.
fn of_attributes(attributes: &Attributes) -> Item {
    let value = |attribute: &AttributeValue| match attribute {
        AttributeValue::S(text) => Value::String(text.clone()),
        AttributeValue::N(number) => number.parse::<Number>().map_or(Value::Null, Value::Number),
        AttributeValue::Bool(is) => Value::Bool(*is),
        _ => Value::Null,
    };
    attributes.iter().map(|(name, attribute)| (name.clone(), value(attribute))).collect()
}
