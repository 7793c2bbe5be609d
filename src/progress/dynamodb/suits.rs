//! Whether a table can hold progress.
//!
//! Owns the sentence for people where it cannot.

use super::Table;
use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, TableDescription, TableStatus};

/// Whether a table can hold progress; a sentence about what to do if not.
pub(super) fn suits(wanted: &Table, table: &TableDescription) -> Result<(), String> {
    let Table { name, partition_key, sort_key, .. } = wanted;
    match table.table_status() {
        // An updating table is read and written as ever.
        Some(TableStatus::Active | TableStatus::Updating) | None => {}
        Some(status) => {
            return Err(format!("table {name} is {status}: it can be used once it is ACTIVE"));
        }
    }
    let part = |kind: KeyType| {
        let element = table.key_schema().iter().find(|element| *element.key_type() == kind)?;
        let name = element.attribute_name();
        let kind = table
            .attribute_definitions()
            .iter()
            .find(|definition| definition.attribute_name() == name)
            .map_or(ScalarAttributeType::S, |found| found.attribute_type().clone());
        Some((name.to_owned(), kind))
    };
    let (partition, sort) = (part(KeyType::Hash), part(KeyType::Range));
    let word = |kind: &ScalarAttributeType| match kind {
        ScalarAttributeType::N => "number",
        ScalarAttributeType::B => "binary",
        _ => "string",
    };
    let has = match (&partition, &sort) {
        (Some((partition, p)), Some((sort, s))) => format!(
            "table {name} has the partition key {partition} ({}) and the sort key {sort} ({})",
            word(p),
            word(s)
        ),
        (Some((partition, p)), None) => {
            format!("table {name} has the partition key {partition} ({}) and no sort key", word(p))
        }
        _ => format!("table {name} has no partition key"),
    };
    let (Some((partition, ScalarAttributeType::S)), Some((sort, ScalarAttributeType::S))) =
        (&partition, &sort)
    else {
        return Err(format!(
            "{has}, but progress needs both, and both strings: set TABLE_NAME to a table that has them"
        ));
    };
    if (partition, sort) != (partition_key, sort_key) {
        return Err(format!(
            "{has}, but {partition_key} and {sort_key} were expected: set TABLE_PARTITION_KEY={partition} and TABLE_SORT_KEY={sort}"
        ));
    }
    Ok(())
}
