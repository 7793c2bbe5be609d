//! What lies in the table: donors, donations, mails; their keys and their ids.
//!
//! Pure. One table holds all: `PK` says what an item is, `SK` the city, so that the index
//! `SK-PK-index`, which is the table turned round, has the donors of a city side by side.
//! Invariant: no key of a mail begins as a donor's or a donation's does.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

/// The index: `SK` its partition key, `PK` its sort key.
pub const INDEX: &str = "SK-PK-index";
pub const DONOR: &str = "DONOR#";
pub const DONATION: &str = "DONATION#";
pub const MAIL: &str = "MAIL#";
pub const CITY: &str = "CITY#";

/// An item's attributes as plain JSON.
pub type Item = Map<String, Value>;

/// What a key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub pk: String,
    pub sk: String,
}

impl Key {
    /// A mail about a donation to a donor.
    pub fn of_mail(donation: &str, donor: &str) -> Self {
        Self { pk: format!("{MAIL}{donation}"), sk: format!("{DONOR}{donor}") }
    }
}

/// Somebody who gives blood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Donor {
    pub first_name: String,
    pub city: String,
    pub blood_type: String,
    pub email: String,
}

impl Donor {
    /// The same address in the same city is the same donor, so that a sign-up may be sent
    /// again. `turn` is 0, but where the id is another's of this city already. In another city
    /// the same id is another item: 48 bits make that so rare that nothing looks for it.
    pub fn uid(&self, turn: u8) -> String {
        uid(&["donor", &self.email, &self.city, &turn.to_string()])
    }

    pub fn item(&self, uid: &str) -> Item {
        item(json!({
            "PK": format!("{DONOR}{uid}"), "SK": format!("{CITY}{}", self.city),
            "first_name": self.first_name, "city": self.city,
            "type": self.blood_type, "email": self.email,
        }))
    }
}

/// An event where blood is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Donation {
    pub city: String,
    pub datetime: String,
    pub address: String,
}

impl Donation {
    /// With a key of the client's, the same donation sent again is the same.
    pub fn uid(&self, idempotency_key: Option<&str>) -> String {
        match idempotency_key {
            Some(key) => uid(&["donation", key, &self.city, &self.datetime, &self.address]),
            None => random(6),
        }
    }

    pub fn item(&self, uid: &str) -> Item {
        item(json!({
            "PK": format!("{DONATION}{uid}"), "SK": format!("{CITY}{}", self.city),
            "city": self.city, "datetime": self.datetime, "address": self.address,
        }))
    }
}

fn item(value: Value) -> Item {
    match value {
        Value::Object(item) => item,
        _ => Item::new(),
    }
}

/// Twelve hexadecimal digits, as all ids have.
pub fn is_uid(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The id that these parts make, and no others.
fn uid(parts: &[&str]) -> String {
    // No part holds a control character, so none can run into the next.
    let hash = digest(&SHA256, parts.join("\0").as_bytes());
    hex(&hash.as_ref()[..6])
}

/// So many random bytes in hexadecimal digits.
pub fn random(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("the system has random bytes");
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_the_same_and_everything_else_another() {
        let donor = |email: &str, city: &str| Donor {
            first_name: "Ada".to_owned(),
            city: city.to_owned(),
            blood_type: "A+".to_owned(),
            email: email.to_owned(),
        };
        let ada = donor("ada@example.org", "Haarlem");
        assert!(is_uid(&ada.uid(0)), "{}", ada.uid(0));
        assert_eq!(ada.uid(0), Donor { first_name: "A.".to_owned(), ..ada.clone() }.uid(0));
        for other in [donor("ada@example.com", "Haarlem"), donor("ada@example.org", "Amsterdam")] {
            assert_ne!(ada.uid(0), other.uid(0));
        }
        assert_ne!(ada.uid(0), ada.uid(1));
        let donation = Donation {
            city: "Haarlem".to_owned(),
            datetime: "2026-04-06T12:00:00".to_owned(),
            address: "Main street".to_owned(),
        };
        assert_eq!(donation.uid(Some("k")), donation.uid(Some("k")));
        assert_ne!(donation.uid(Some("k")), donation.uid(Some("l")));
        assert_ne!(donation.uid(None), donation.uid(None));
    }
}
