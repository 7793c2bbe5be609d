//! One change of one item, and the text DynamoDB Streams makes of it.
//!
//! Owns a record's JSON: member names, images per view type, SizeBytes. A record is
//! rendered once, when it is put, so that reading costs a copy. Does not know shards.

use super::Refused;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What happened to the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeKind {
    /// It did not exist before.
    Insert,
    /// It existed and is different now.
    Modify,
    /// It is gone.
    Remove,
}

impl ChangeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        }
    }
}

/// Which images a stream's records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamViewType {
    /// None.
    KeysOnly,
    /// The item after the change.
    NewImage,
    /// The item before the change.
    OldImage,
    /// Both.
    #[default]
    NewAndOldImages,
}

impl StreamViewType {
    /// The name as AWS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }

    fn has_new(self) -> bool {
        matches!(self, Self::NewImage | Self::NewAndOldImages)
    }

    fn has_old(self) -> bool {
        matches!(self, Self::OldImage | Self::NewAndOldImages)
    }
}

/// Who made the change, where it was a service: expiry by time to live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserIdentity {
    /// `dynamodb.amazonaws.com`
    #[serde(rename = "PrincipalId", alias = "principalId", alias = "principal_id")]
    pub principal_id: String,
    /// `Service`
    #[serde(rename = "Type", alias = "type")]
    pub kind: String,
}

/// One change of one item, in DynamoDB's attribute-value JSON.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The item's key attributes, `{"PK":{"S":"a"},"SK":{"S":"b"}}`. They choose the shard.
    pub keys: Value,
    /// The item after the change; left out of a REMOVE's record whatever is given.
    #[serde(default)]
    pub new_image: Option<Value>,
    /// The item before the change; left out of an INSERT's record whatever is given.
    #[serde(default)]
    pub old_image: Option<Value>,
    /// Set for expiry by time to live.
    #[serde(default)]
    pub user_identity: Option<UserIdentity>,
}

impl Change {
    /// The `n`-th change of the item `pk` (sort key `item`), whose attribute `n` counts
    /// the changes: an INSERT for 0, a MODIFY from `n - 1` to `n` after it.
    pub fn item(pk: &str, n: u64) -> Self {
        let image =
            |n: u64| json!({"PK": {"S": pk}, "SK": {"S": "item"}, "n": {"N": n.to_string()}});
        Self {
            kind: if n == 0 { ChangeKind::Insert } else { ChangeKind::Modify },
            keys: json!({"PK": {"S": pk}, "SK": {"S": "item"}}),
            new_image: Some(image(n)),
            old_image: n.checked_sub(1).map(image),
            user_identity: None,
        }
    }

    /// The removal of the item `pk` (sort key `item`) by time to live.
    pub fn expiry(pk: &str) -> Self {
        Self {
            kind: ChangeKind::Remove,
            old_image: Some(json!({"PK": {"S": pk}, "SK": {"S": "item"}})),
            new_image: None,
            user_identity: Some(UserIdentity {
                principal_id: "dynamodb.amazonaws.com".into(),
                kind: "Service".into(),
            }),
            ..Self::item(pk, 0)
        }
    }

    /// Whether a table could have made this change.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let keys = match &self.keys {
            Value::Object(keys) if (1..=2).contains(&keys.len()) => keys,
            _ => return Err(Refused::new("keys must be an object of one or two key attributes")),
        };
        for (name, value) in keys {
            match only_member(value) {
                Some(("S" | "N" | "B", Value::String(_))) => {}
                _ => {
                    return Err(Refused::new(format!(
                        "the key attribute {name} must be {{\"S\":\"…\"}}, {{\"N\":\"…\"}} or {{\"B\":\"…\"}}"
                    )));
                }
            }
        }
        for image in self.new_image.iter().chain(&self.old_image) {
            let attributes = image.as_object().map(Map::values);
            if !attributes.is_some_and(|mut values| values.all(|v| only_member(v).is_some())) {
                return Err(Refused::new(
                    "an image must be an object of attribute values, {\"name\":{\"S\":\"…\"}}",
                ));
            }
        }
        Ok(())
    }

    /// Where the item lies in the hash space that shards divide. The same keys give the
    /// same place whatever order their members are written in.
    pub(super) fn place(&self) -> u64 {
        place(&self.keys)
    }
}

/// See [`Change::place`].
pub(super) fn place(keys: &Value) -> u64 {
    let mut members: Vec<String> = match keys {
        Value::Object(keys) => keys.iter().map(|(name, value)| format!("{name}:{value}")).collect(),
        other => vec![other.to_string()],
    };
    members.sort_unstable();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in members.iter().flat_map(|member| member.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV leaves the high bits, by which shards divide the space, close together for
    // similar keys.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// What a record says beside its change.
pub(super) struct Envelope<'a> {
    pub region: &'a str,
    pub view: StreamViewType,
    pub number: u128,
    /// Seconds since the epoch.
    pub created: u64,
    pub event_id: u128,
}

impl Envelope<'_> {
    /// The record as GetRecords answers it, members in AWS's (alphabetical) order.
    pub fn render(&self, change: &Change) -> Bytes {
        let new = change
            .new_image
            .as_ref()
            .filter(|_| self.view.has_new() && change.kind != ChangeKind::Remove);
        let old = change
            .old_image
            .as_ref()
            .filter(|_| self.view.has_old() && change.kind != ChangeKind::Insert);
        let size: usize = [Some(&change.keys), new, old].into_iter().flatten().map(item_size).sum();
        let mut text = String::with_capacity(512 + 2 * size);
        let mut write = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments).expect("writing to a string cannot fail");
        };
        let region = Value::from(self.region);
        write(format_args!(r#"{{"awsRegion":{region},"dynamodb":{{"#));
        write(format_args!(
            r#""ApproximateCreationDateTime":{},"Keys":{}"#,
            self.created, change.keys
        ));
        if let Some(image) = new {
            write(format_args!(r#","NewImage":{image}"#));
        }
        if let Some(image) = old {
            write(format_args!(r#","OldImage":{image}"#));
        }
        let (number, size, view) = (self.number, size.max(1), self.view.name());
        write(format_args!(r#","SequenceNumber":"{number}","SizeBytes":{size}"#));
        let (id, kind) = (self.event_id, change.kind.name());
        write(format_args!(r#","StreamViewType":"{view}"}},"eventID":"{id:032x}""#));
        write(format_args!(r#","eventName":"{kind}","eventSource":"aws:dynamodb""#));
        write(format_args!(r#","eventVersion":"1.1""#));
        if let Some(identity) = &change.user_identity {
            let identity = serde_json::to_string(identity).expect("text is always JSON");
            write(format_args!(r#","userIdentity":{identity}"#));
        }
        write(format_args!("}}"));
        Bytes::from(text)
    }
}

/// Bytes of an item by DynamoDB's rules: names and values, numbers about half their
/// digits, three for a container.
fn item_size(item: &Value) -> usize {
    let Value::Object(attributes) = item else { return 0 };
    attributes.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    let Some((kind, value)) = only_member(value) else { return 0 };
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    let list =
        |one: &dyn Fn(&Value) -> usize| value.as_array().map_or(0, |v| v.iter().map(one).sum());
    match kind {
        "S" => text(value),
        "N" => text(value).div_ceil(2) + 1,
        "B" => text(value) * 3 / 4,
        "SS" => list(&text),
        "NS" => list(&|value| text(value).div_ceil(2) + 1),
        "BS" => list(&|value| text(value) * 3 / 4),
        "M" => 3 + item_size(value),
        "L" => 3 + list(&value_size),
        _ => 1,
    }
}

fn only_member(value: &Value) -> Option<(&str, &Value)> {
    match value {
        Value::Object(members) if members.len() == 1 => {
            members.iter().next().map(|(name, value)| (name.as_str(), value))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(view: StreamViewType, change: &Change) -> Value {
        let envelope = Envelope {
            region: "eu-west-1",
            view,
            number: 300_000_000_000_000_499_659,
            created: 1_700_000_000,
            event_id: 0xab,
        };
        serde_json::from_slice(&envelope.render(change)).unwrap()
    }

    #[test]
    fn a_record_has_the_members_of_the_real_one() {
        assert_eq!(
            rendered(StreamViewType::NewAndOldImages, &Change::item("a", 7)),
            json!({
                "awsRegion": "eu-west-1",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1_700_000_000,
                    "Keys": {"PK": {"S": "a"}, "SK": {"S": "item"}},
                    "NewImage": {"PK": {"S": "a"}, "SK": {"S": "item"}, "n": {"N": "7"}},
                    "OldImage": {"PK": {"S": "a"}, "SK": {"S": "item"}, "n": {"N": "6"}},
                    "SequenceNumber": "300000000000000499659",
                    "SizeBytes": 33,
                    "StreamViewType": "NEW_AND_OLD_IMAGES",
                },
                "eventID": "000000000000000000000000000000ab",
                "eventName": "MODIFY",
                "eventSource": "aws:dynamodb",
                "eventVersion": "1.1",
            })
        );
    }

    #[test]
    fn images_follow_view_type_and_kind() {
        let insert = Change { old_image: Some(json!({})), ..Change::item("a", 0) };
        let modify = Change::item("a", 1);
        let remove = Change { new_image: Some(json!({})), ..Change::expiry("a") };
        for (view, expected) in [
            (StreamViewType::KeysOnly, [(false, false), (false, false), (false, false)]),
            (StreamViewType::NewImage, [(true, false), (true, false), (false, false)]),
            (StreamViewType::OldImage, [(false, false), (false, true), (false, true)]),
            (StreamViewType::NewAndOldImages, [(true, false), (true, true), (false, true)]),
        ] {
            for (change, expected) in [&insert, &modify, &remove].into_iter().zip(expected) {
                let record = rendered(view, change);
                let has = |image: &str| record["dynamodb"].get(image).is_some();
                assert_eq!((has("NewImage"), has("OldImage")), expected, "{view:?} {change:?}");
                assert_eq!(record["dynamodb"]["StreamViewType"], view.name());
            }
        }
    }

    #[test]
    fn expiry_names_the_service_as_the_api_spells_it() {
        let record = rendered(StreamViewType::KeysOnly, &Change::expiry("a"));
        assert_eq!(
            record["userIdentity"],
            json!({"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"})
        );
    }

    #[test]
    fn refuses_what_no_table_could_have_written() {
        for keys in [json!({}), json!("a"), json!({"PK": "a"}), json!({"PK": {"M": {}}})] {
            assert!(Change { keys, ..Change::item("a", 0) }.check().is_err());
        }
        for image in [json!([]), json!({"n": 1}), json!({"n": {}})] {
            assert!(Change { new_image: Some(image), ..Change::item("a", 0) }.check().is_err());
        }
    }

    #[test]
    fn the_order_of_key_members_does_not_move_an_item() {
        let one: Value = serde_json::from_str(r#"{"PK":{"S":"a"},"SK":{"S":"b"}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"SK":{"S":"b"},"PK":{"S":"a"}}"#).unwrap();
        assert_eq!(place(&one), place(&other));
    }
}
