//! The event that the consumer hands over, as far as this handler reads it.
//!
//! Pure. The filter lets new donations through and nothing else; what comes all the same is
//! passed over here.

use crate::items::{DONATION, is_uid};
use serde::Deserialize;
use std::collections::HashMap;

/// Lambda's event for a DynamoDB stream.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    pub records: Vec<Record>,
}

/// A change of the table.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    event_name: String,
    dynamodb: Change,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    sequence_number: String,
    #[serde(default)]
    new_image: HashMap<String, HashMap<String, serde_json::Value>>,
}

/// A donation that was just created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub donation: String,
    pub city: String,
    pub datetime: String,
    pub address: String,
}

/// What a record is to this handler.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    News(News),
    /// A donation whose item says too little to be announced.
    Unreadable,
    Nothing,
}

impl Record {
    /// What names it in the answer.
    pub fn identifier(&self) -> &str {
        &self.dynamodb.sequence_number
    }

    pub fn told(&self) -> Told {
        let text = |name: &str| self.dynamodb.new_image.get(name)?.get("S")?.as_str();
        let Some(donation) = text("PK").and_then(|pk| pk.strip_prefix(DONATION)) else {
            return Told::Nothing;
        };
        if self.event_name != "INSERT" {
            return Told::Nothing;
        }
        let part = |name| text(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let news = || {
            is_uid(donation).then_some(())?;
            Some(News {
                donation: donation.to_owned(),
                city: part("city")?,
                datetime: part("datetime")?,
                address: part("address")?,
            })
        };
        news().map_or(Told::Unreadable, Told::News)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn new_donations_are_news_and_nothing_else_is() {
        let told = |kind: &str, image: serde_json::Value| {
            let change = json!({"SequenceNumber": "1", "NewImage": image, "Keys": {}});
            let event = json!({"Records": [{"eventName": kind, "dynamodb": change}]});
            let event: Event = serde_json::from_value(event).unwrap();
            event.records[0].told()
        };
        let image = json!({
            "PK": {"S": "DONATION#aa493a26bc8f"}, "SK": {"S": "CITY#Haarlem"},
            "city": {"S": "Haarlem"}, "datetime": {"S": "2026-04-06T12:00:00"},
            "address": {"S": "Main street"},
        });
        assert!(
            matches!(told("INSERT", image.clone()), Told::News(news) if news.city == "Haarlem")
        );
        assert_eq!(told("MODIFY", image.clone()), Told::Nothing);
        assert_eq!(told("INSERT", json!({"PK": {"S": "DONOR#aa493a26bc8f"}})), Told::Nothing);
        assert_eq!(told("INSERT", json!({"n": {"N": "1"}})), Told::Nothing);
        let mut old = image;
        old["city"] = json!({"NULL": true});
        assert_eq!(told("INSERT", old), Told::Unreadable);
    }
}
