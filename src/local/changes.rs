//! Which items a call may write, and what a write made of them.
//!
//! Pure. Invariant: whatever a call writes in the table is among the keys found here,
//! and a write that changes nothing makes no change, as in DynamoDB.

use crate::simulator::{Change, ChangeKind};
use serde_json::{Map, Value, json};

/// A call to the table, as far as its stream is concerned.
#[derive(Debug, PartialEq)]
pub enum Call {
    /// Leaves the streamed table's items as they are.
    PassesBy,
    /// May write the items with these keys.
    Writes(Vec<Value>),
    /// Would write past the stream, or change the table itself; the sentence says what
    /// to do instead.
    Refused(String),
}

/// The streamed table.
pub struct Streamed<'a> {
    /// Its name.
    pub table: &'a str,
    /// The names of its key attributes.
    pub key_names: [&'a str; 2],
}

impl Streamed<'_> {
    /// Judges the call of `operation` with `body`.
    pub fn judge(&self, operation: &str, body: &Value) -> Call {
        let here = body["TableName"] == self.table;
        match operation {
            "PutItem" if here => Call::Writes(vec![self.keys_of(&body["Item"])]),
            "UpdateItem" | "DeleteItem" if here => Call::Writes(vec![body["Key"].clone()]),
            "BatchWriteItem" => {
                let requests = body["RequestItems"][self.table].as_array();
                some(requests.into_iter().flatten().filter_map(|request| {
                    match (&request["PutRequest"], &request["DeleteRequest"]) {
                        (Value::Null, Value::Null) => None,
                        (Value::Null, delete) => Some(delete["Key"].clone()),
                        (put, _) => Some(self.keys_of(&put["Item"])),
                    }
                }))
            }
            "TransactWriteItems" => {
                let items = body["TransactItems"].as_array();
                some(items.into_iter().flatten().flat_map(|item| {
                    let put = Some(&item["Put"]).filter(|p| p["TableName"] == self.table);
                    let keyed = [&item["Update"], &item["Delete"]]
                        .into_iter()
                        .filter(|w| w["TableName"] == self.table)
                        .map(|w| w["Key"].clone());
                    put.map(|put| self.keys_of(&put["Item"])).into_iter().chain(keyed)
                }))
            }
            "DeleteTable" | "UpdateTable" if here => Call::Refused(format!(
                "{operation} is refused for {}: `streamgate local` reads its stream; start it again for a fresh table",
                self.table
            )),
            "CreateTable" if body["StreamSpecification"]["StreamEnabled"] == true => {
                Call::Refused(format!(
                    "`streamgate local` streams the table {} only; create others without StreamSpecification",
                    self.table
                ))
            }
            "ExecuteStatement" => judge_statements([body]),
            "BatchExecuteStatement" => {
                judge_statements(body["Statements"].as_array().into_iter().flatten())
            }
            "ExecuteTransaction" => {
                judge_statements(body["TransactStatements"].as_array().into_iter().flatten())
            }
            _ => Call::PassesBy,
        }
    }

    fn keys_of(&self, item: &Value) -> Value {
        let keys = self.key_names.iter().map(|&name| (name.to_owned(), item[name].clone()));
        Value::Object(keys.collect::<Map<_, _>>())
    }
}

fn some(keys: impl Iterator<Item = Value>) -> Call {
    let keys: Vec<Value> = keys.collect();
    if keys.is_empty() { Call::PassesBy } else { Call::Writes(keys) }
}

/// PartiQL's writes name their items in a language of their own; they are not followed.
fn judge_statements<'a>(statements: impl IntoIterator<Item = &'a Value>) -> Call {
    let reads = |statement: &Value| {
        let text = statement["Statement"].as_str().unwrap_or_default().trim_start();
        text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("SELECT"))
    };
    if statements.into_iter().all(reads) {
        return Call::PassesBy;
    }
    Call::Refused(
        "`streamgate local` does not follow PartiQL writes into the stream; use PutItem, UpdateItem or DeleteItem".to_owned(),
    )
}

/// The change that turned `before` into `after`, if there is one.
pub fn change(keys: Value, before: Option<Value>, after: Option<Value>) -> Option<Change> {
    let kind = match (&before, &after) {
        (None, Some(_)) => ChangeKind::Insert,
        (Some(_), None) => ChangeKind::Remove,
        (Some(before), Some(after)) if before != after => ChangeKind::Modify,
        _ => return None,
    };
    Some(Change { kind, keys, new_image: after, old_image: before, user_identity: None })
}

/// DescribeTable's answer says that the table has a stream.
pub fn describe_stream(answer: &mut Value, stream_arn: &str, label: &str) {
    answer["Table"]["StreamSpecification"] =
        json!({"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"});
    answer["Table"]["LatestStreamArn"] = json!(stream_arn);
    answer["Table"]["LatestStreamLabel"] = json!(label);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(operation: &str, body: Value) -> Call {
        Streamed { table: "people", key_names: ["PK", "SK"] }.judge(operation, &body)
    }

    fn key(pk: &str) -> Value {
        json!({"PK": {"S": pk}, "SK": {"S": "x"}})
    }

    #[test]
    fn finds_the_keys_of_every_kind_of_write() {
        let item = json!({"PK": {"S": "a"}, "SK": {"S": "x"}, "more": {"N": "1"}});
        let put = json!({"TableName": "people", "Item": item});
        let update = json!({"TableName": "people", "Key": key("b")});
        assert_eq!(judge("PutItem", put.clone()), Call::Writes(vec![key("a")]));
        assert_eq!(judge("UpdateItem", update.clone()), Call::Writes(vec![key("b")]));
        let batch = json!({"RequestItems": {
            "people": [{"PutRequest": {"Item": item}}, {"DeleteRequest": {"Key": key("b")}}],
            "others": [{"DeleteRequest": {"Key": key("c")}}],
        }});
        assert_eq!(judge("BatchWriteItem", batch), Call::Writes(vec![key("a"), key("b")]));
        let transaction = json!({"TransactItems": [
            {"Put": put}, {"Delete": update}, {"ConditionCheck": {"TableName": "people", "Key": key("z")}},
            {"Update": {"TableName": "others", "Key": key("c")}},
        ]});
        assert_eq!(
            judge("TransactWriteItems", transaction),
            Call::Writes(vec![key("a"), key("b")])
        );
    }

    #[test]
    fn lets_pass_what_writes_nothing_and_refuses_what_it_cannot_follow() {
        for (operation, body) in [
            ("GetItem", json!({"TableName": "people", "Key": key("a")})),
            ("PutItem", json!({"TableName": "others", "Item": {}})),
            ("ExecuteStatement", json!({"Statement": " select * from people"})),
        ] {
            assert_eq!(judge(operation, body), Call::PassesBy, "{operation}");
        }
        for (operation, body) in [
            ("ExecuteStatement", json!({"Statement": "INSERT INTO people VALUE {}"})),
            ("BatchExecuteStatement", json!({"Statements": [{"Statement": "DELETE FROM people"}]})),
            ("DeleteTable", json!({"TableName": "people"})),
            (
                "CreateTable",
                json!({"TableName": "x", "StreamSpecification": {"StreamEnabled": true}}),
            ),
        ] {
            assert!(matches!(judge(operation, body), Call::Refused(_)), "{operation}");
        }
    }

    #[test]
    fn a_write_that_changes_nothing_makes_no_change() {
        let item = || Some(json!({"PK": {"S": "a"}}));
        assert_eq!(change(key("a"), item(), item()), None);
        assert_eq!(change(key("a"), None, None), None);
        assert_eq!(change(key("a"), None, item()).unwrap().kind, ChangeKind::Insert);
        assert_eq!(change(key("a"), item(), None).unwrap().kind, ChangeKind::Remove);
    }
}
