//! Attribute values between progress and the SDK.
//!
//! Owns the two directions. Invariant: what progress writes is read back as the same.

use super::Values;
use crate::progress::item::{Attributes, Value};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::Blob;
use std::collections::HashMap;

pub(super) fn old(item: Option<&HashMap<String, AttributeValue>>) -> Option<Attributes> {
    item.filter(|item| !item.is_empty()).map(attributes)
}

pub(super) fn attributes(item: &HashMap<String, AttributeValue>) -> Attributes {
    item.iter().map(|(name, value)| (name.clone(), from_sdk(value))).collect()
}

fn from_sdk(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => Value::Text(text.clone()),
        AttributeValue::N(digits) => Value::Number(digits.clone()),
        AttributeValue::Bool(bool) => Value::Bool(*bool),
        AttributeValue::B(bytes) => Value::Bytes(bytes.as_ref().to_vec().into()),
        AttributeValue::L(list) => Value::List(list.iter().map(from_sdk).collect()),
        AttributeValue::M(map) => Value::Map(attributes(map)),
        _ => Value::Foreign,
    }
}

pub(super) fn to_sdk(value: Value) -> AttributeValue {
    match value {
        Value::Text(text) => AttributeValue::S(text),
        Value::Number(digits) => AttributeValue::N(digits),
        Value::Bool(bool) => AttributeValue::Bool(bool),
        Value::Bytes(bytes) => AttributeValue::B(Blob::new(Vec::from(bytes))),
        Value::List(list) => AttributeValue::L(list.into_iter().map(to_sdk).collect()),
        Value::Map(map) => {
            AttributeValue::M(map.into_iter().map(|(name, value)| (name, to_sdk(value))).collect())
        }
        Value::Foreign => AttributeValue::Null(true),
    }
}

pub(super) fn sdk_values(values: Values<'_>) -> HashMap<String, AttributeValue> {
    values.into_iter().map(|(name, value)| (name.to_owned(), to_sdk(value))).collect()
}
