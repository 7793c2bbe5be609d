//! The settings of `streamgate policy`: those of the container that decide what it may do.
//!
//! Its secrets and addresses are not among them, so that a policy can be made anywhere.

use super::common::{consumer_name, consumer_names, table_name};
use super::settings::Command;
use super::values::{Faults, Values};
use crate::arn::{StreamArn, partition_of};
use crate::policy::{self, OwnTable, Place, Policy};

/// The policy of `streamgate consumer` as it is set up.
///
/// # Errors
/// Every fault there is, not just the first.
pub fn consumer_policy(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Policy, Faults> {
    let mut values = Values::new(Command::Consumer, lookup);
    let stream = values.required("STREAM_ARN", |text| {
        text.parse::<StreamArn>().map_err(|error| error.to_string())
    });
    let table = values.required("TABLE_NAME", table_name);
    let consumer = values.read("CONSUMER_NAME", consumer_name);
    let has_api = values.get("API_URL").is_some();
    let log_group = values.get("LOG_GROUP");
    values.finish()?;
    let all = || {
        let (stream, table, consumer) = (stream?, table?, consumer?);
        let own = OwnTable { table: &table, consumer: &consumer };
        Some(policy::consumer(&stream, (!has_api).then_some(own), log_group.as_deref()))
    };
    Ok(all().expect("every setting without a fault has a value"))
}

/// The policy of `streamgate api` as it is set up.
///
/// # Errors
/// Every fault there is, not just the first.
pub fn api_policy(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Policy, Faults> {
    let mut values = Values::new(Command::Api, lookup);
    let table = values.required("TABLE_NAME", table_name);
    let consumers = values.read("CONSUMER_NAME", consumer_names);
    let region = values.get("AWS_REGION");
    if region.is_none() {
        values.fault("AWS_REGION", "is not set; it says where the table is");
    }
    let account = values.get("AWS_ACCOUNT_ID").filter(|id| {
        let is_account = id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit());
        if !is_account {
            values.fault("AWS_ACCOUNT_ID", format!("is {id:?}; twelve digits are allowed"));
        }
        is_account
    });
    if values.get("AWS_ACCOUNT_ID").is_none() {
        let what = "is not set; it says whose the table is: twelve digits, as `aws sts get-caller-identity` tells them";
        values.fault("AWS_ACCOUNT_ID", what);
    }
    let log_group = values.get("LOG_GROUP");
    values.finish()?;
    let all = || {
        let region = region?;
        let partition = partition_of(&region).to_owned();
        let place = Place { partition, region, account: account? };
        Some(policy::api(&table?, &consumers?, &place, log_group.as_deref()))
    };
    Ok(all().expect("every setting without a fault has a value"))
}
