//! The IAM policies of both containers, made from the actions that their clients name.
//!
//! Owns which action is allowed on what, for a configuration. Attaches nothing and calls
//! nothing. Invariant: an action stands here exactly when `source` or `progress` makes
//! its call, and no resource is `*`: each names one stream, one table, one log group.

use crate::arn::StreamArn;
use crate::progress::{TABLE_ACTIONS, leading_keys, leading_keys_of};
use crate::source::SourceOperation;
use serde::Serialize;
use std::collections::BTreeMap;

/// The one table action that has no items, and so no `dynamodb:LeadingKeys`.
const DESCRIBE_TABLE: &str = "dynamodb:DescribeTable";

/// An IAM policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

/// What is allowed on one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    action: Vec<String>,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Conditions>,
}

/// Operator, key, values.
type Conditions = BTreeMap<&'static str, BTreeMap<&'static str, Vec<String>>>;

/// Where resources lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `aws`, `aws-cn`, `aws-us-gov`, …
    pub partition: String,
    /// `eu-central-1`
    pub region: String,
    /// The twelve digits of the account.
    pub account: String,
}

impl Place {
    /// Where a stream is.
    pub fn of(stream: &StreamArn) -> Self {
        let [partition, region, account] =
            [stream.partition(), stream.region(), stream.account()].map(str::to_owned);
        Self { partition, region, account }
    }

    fn table(&self, name: &str) -> String {
        let Self { partition, region, account } = self;
        format!("arn:{partition}:dynamodb:{region}:{account}:table/{name}")
    }

    fn log_streams(&self, group: &str) -> String {
        let Self { partition, region, account } = self;
        format!("arn:{partition}:logs:{region}:{account}:log-group:{group}:log-stream:*")
    }
}

/// What a consumer without an api needs of the table beside the stream.
#[derive(Clone, Copy, Debug)]
pub struct OwnTable<'a> {
    /// `TABLE_NAME`
    pub table: &'a str,
    /// `CONSUMER_NAME`
    pub consumer: &'a str,
}

/// The consumer's: read one stream, and, where it has no api, keep its progress in the
/// items of one table that are its own. `log_group`: write logs itself, as with FireLens.
pub fn consumer(
    stream: &StreamArn,
    table: Option<OwnTable<'_>>,
    log_group: Option<&str>,
) -> Policy {
    let place = Place::of(stream);
    let actions = SourceOperation::ALL.map(|operation| format!("dynamodb:{}", operation.name()));
    let mut statements = vec![allow("ReadStream", actions, stream.to_string())];
    if let Some(OwnTable { table, consumer }) = table {
        let keys = leading_keys(consumer, stream.label()).to_vec();
        statements.extend(keep_progress(place.table(table), keys));
    }
    policy(statements, &place, log_group)
}

/// The api's: keep the progress of these consumers in one table. The application's own
/// routes need more.
pub fn api(table: &str, consumers: &[String], place: &Place, log_group: Option<&str>) -> Policy {
    let keys = consumers.iter().map(|consumer| leading_keys_of(consumer)).collect();
    policy(keep_progress(place.table(table), keys).to_vec(), place, log_group)
}

/// Progress in the items of `table` under `keys`, and no others: the table is the
/// application's.
fn keep_progress(table: String, keys: Vec<String>) -> [Statement; 2] {
    let (described, items): (Vec<_>, Vec<_>) =
        TABLE_ACTIONS.into_iter().partition(|action| *action == DESCRIBE_TABLE);
    let condition = BTreeMap::from([(
        "ForAllValues:StringLike",
        BTreeMap::from([("dynamodb:LeadingKeys", keys)]),
    )]);
    let described = allow("DescribeTable", described, table.clone());
    [described, Statement { condition: Some(condition), ..allow("KeepProgress", items, table) }]
}

fn policy(mut statement: Vec<Statement>, place: &Place, log_group: Option<&str>) -> Policy {
    if let Some(group) = log_group {
        let actions = ["logs:CreateLogStream", "logs:PutLogEvents"];
        statement.push(allow("WriteLogs", actions, place.log_streams(group)));
    }
    Policy { version: "2012-10-17", statement }
}

fn allow(
    sid: &'static str,
    actions: impl IntoIterator<Item = impl Into<String>>,
    resource: String,
) -> Statement {
    let action = actions.into_iter().map(Into::into).collect();
    Statement { sid, effect: "Allow", action, resource, condition: None }
}

impl Policy {
    /// The document, as IAM takes it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a policy is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn stream() -> StreamArn {
        "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/orders/stream/2026-01-02T03:04:05.678"
            .parse()
            .unwrap()
    }

    fn statements(policy: &Policy) -> Vec<Value> {
        let json: Value = serde_json::from_str(&policy.to_json()).unwrap();
        assert_eq!(json["Version"], "2012-10-17");
        json["Statement"].as_array().unwrap().clone()
    }

    #[test]
    fn the_consumer_reads_its_stream_and_nothing_else() {
        let expected = json!([{
            "Sid": "ReadStream",
            "Effect": "Allow",
            "Action": ["dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords"],
            "Resource": stream().to_string(),
        }]);
        assert_eq!(json!(statements(&consumer(&stream(), None, None))), expected);
    }

    #[test]
    fn without_an_api_it_keeps_its_own_items_in_the_streams_region() {
        let table = OwnTable { table: "progress", consumer: "audit" };
        let all = statements(&consumer(&stream(), Some(table), None));
        let arn = "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/progress";
        assert_eq!((&all[1]["Resource"], &all[2]["Resource"]), (&json!(arn), &json!(arn)));
        assert_eq!(all[1]["Action"], json!(["dynamodb:DescribeTable"]));
        let keys = &all[2]["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
        let own = "streamgate#audit#2026-01-02T03:04:05.678";
        assert_eq!(keys, &json!([own, format!("{own}#*")]));
        let asked = [&all[1]["Action"], &all[2]["Action"]];
        let count: usize = asked.iter().map(|actions| actions.as_array().unwrap().len()).sum();
        assert_eq!(count, TABLE_ACTIONS.len());
    }

    #[test]
    fn the_api_works_on_its_table_and_logs_where_it_is_told() {
        let consumers = ["orders", "audit"].map(str::to_owned);
        let place = Place::of(&stream());
        let all = statements(&api("orders", &consumers, &place, Some("/ecs/api")));
        let asked = [&all[0]["Action"], &all[1]["Action"]].map(|a| a.as_array().unwrap().clone());
        assert_eq!(json!(asked.concat()), json!(TABLE_ACTIONS));
        let keys = &all[1]["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
        assert_eq!(keys, &json!(["streamgate#orders#*", "streamgate#audit#*"]));
        let group = "arn:aws-cn:logs:cn-north-1:123456789012:log-group:/ecs/api:log-stream:*";
        assert_eq!(all[2]["Resource"], group);
        assert_eq!(all.len(), 3);
    }
}
