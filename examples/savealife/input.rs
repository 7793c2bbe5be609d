//! What clients send, judged.
//!
//! Pure. Owns what is allowed and the sentences about it. Invariant: every fault of an
//! input is named in one answer, and nothing that has one goes any further. Members that
//! nobody asked for are passed over.

use crate::items::{Donation, Donor};
use lettre::Address;
use serde_json::{Map, Value};

const BLOOD_TYPES: [&str; 10] = ["A+", "A-", "B+", "B-", "AB+", "AB-", "0+", "0-", "O+", "O-"];
const MOST_IN_A_NAME: usize = 100;
const MOST_IN_AN_ADDRESS: usize = 200;
/// Of an e-mail address: RFC 5321 lets no longer one through.
const MOST_IN_AN_EMAIL: usize = 254;

/// What is wrong, a sentence each.
pub type Faults = Vec<String>;

/// `POST /donor/signup`
pub fn donor(body: &[u8]) -> Result<Donor, Faults> {
    let mut fields = Fields::of(body)?;
    let first_name = fields.text("first_name", MOST_IN_A_NAME);
    let city = fields.text("city", MOST_IN_A_NAME);
    let blood_type = fields.read("type", MOST_IN_A_NAME, blood_type);
    let email = fields.read("email", MOST_IN_AN_EMAIL, email);
    fields.finish()?;
    let all = || {
        Some(Donor { first_name: first_name?, city: city?, blood_type: blood_type?, email: email? })
    };
    Ok(all().expect("every member without a fault has a value"))
}

/// `POST /donation/create`
pub fn donation(body: &[u8]) -> Result<Donation, Faults> {
    let mut fields = Fields::of(body)?;
    let city = fields.text("city", MOST_IN_A_NAME);
    let datetime = fields.read("datetime", MOST_IN_A_NAME, datetime);
    let address = fields.text("address", MOST_IN_AN_ADDRESS);
    fields.finish()?;
    let all = || Some(Donation { city: city?, datetime: datetime?, address: address? });
    Ok(all().expect("every member without a fault has a value"))
}

/// The header `Idempotency-Key`.
pub fn idempotency_key(text: &[u8]) -> Result<&str, Faults> {
    let is_one = (1..=255).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    let key = std::str::from_utf8(text).ok().filter(|_| is_one);
    key.ok_or_else(|| vec!["Idempotency-Key has 1 to 255 visible ASCII characters.".to_owned()])
}

/// The members of a JSON object, and what is wrong with them.
pub struct Fields {
    object: Map<String, Value>,
    faults: Faults,
}

impl Fields {
    pub fn of(body: &[u8]) -> Result<Self, Faults> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self { object, faults: Faults::new() }),
            Ok(_) => Err(vec!["The body is JSON, but no object.".to_owned()]),
            Err(_) if body.is_empty() => {
                Err(vec!["The body is empty; it has to be a JSON object.".to_owned()])
            }
            Err(error) => Err(vec![format!("The body is not JSON: {error}.")]),
        }
    }

    /// A text of 1 to `most` characters, without the white space around it.
    pub fn text(&mut self, name: &str, most: usize) -> Option<String> {
        let text = match self.object.get(name) {
            None | Some(Value::Null) => return self.fault(format!("{name} is missing.")),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(_) => return self.fault(format!("{name} is not a text.")),
        };
        match text.chars().count() {
            0 => self.fault(format!("{name} is empty.")),
            count if count > most => {
                self.fault(format!("{name} has {count} characters; {most} are allowed."))
            }
            _ if text.chars().any(char::is_control) => {
                self.fault(format!("{name} holds control characters."))
            }
            _ => Some(text),
        }
    }

    /// A text that `read` judges; its error is a fault.
    pub fn read<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name, most)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(what) => self.fault(format!("{name} {what}")),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    pub fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }

    fn fault<T>(&mut self, sentence: String) -> Option<T> {
        self.faults.push(sentence);
        None
    }
}

fn blood_type(text: &str) -> Result<String, String> {
    let known = BLOOD_TYPES.contains(&text).then(|| text.to_owned());
    known.ok_or_else(|| format!("is none of {}.", BLOOD_TYPES.join(", ")))
}

/// Its domain in lower case, for it is the same in any.
fn email(text: &str) -> Result<String, String> {
    if !text.is_ascii() {
        return Err("holds characters beyond ASCII, which not every mail server takes.".to_owned());
    }
    let address: Address = text.parse().map_err(|_| "is not an e-mail address.".to_owned())?;
    Ok(format!("{}@{}", address.user(), address.domain().to_ascii_lowercase()))
}

fn datetime(text: &str) -> Result<String, String> {
    let is_real = || {
        let time = humantime::parse_rfc3339(&format!("{text}Z")).ok()?;
        // A day that is not in the calendar, or a 60th second, comes back as another.
        let again = humantime::format_rfc3339_seconds(time).to_string();
        (again.strip_suffix('Z') == Some(text)).then(|| text.to_owned())
    };
    is_real().ok_or_else(|| "is not a time like 2026-04-06T12:00:00.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused<T: std::fmt::Debug>(judged: Result<T, Faults>) -> String {
        judged.unwrap_err().join(" ")
    }

    #[test]
    fn every_fault_is_named_and_none_is_let_through() {
        let good = json!({
            "first_name": " Ada ", "city": "Haarlem", "type": "A+",
            "email": " ada@Example.ORG", "blood_types": ["A+"],
        });
        let ada = donor(good.to_string().as_bytes()).unwrap();
        assert_eq!([&*ada.first_name, &*ada.email], ["Ada", "ada@example.org"]);
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            refused(donor(body.to_string().as_bytes()))
        };
        for (name, value, says) in [
            ("first_name", json!(null), "first_name is missing."),
            ("first_name", json!("  "), "first_name is empty."),
            (
                "first_name",
                json!("x".repeat(101)),
                "first_name has 101 characters; 100 are allowed.",
            ),
            ("first_name", json!("a\u{7}b"), "first_name holds control characters."),
            ("city", json!(7), "city is not a text."),
            ("type", json!("C+"), "type is none of A+, A-, B+, B-, AB+, AB-, 0+, 0-, O+, O-."),
            ("email", json!("ada"), "email is not an e-mail address."),
            ("email", json!("a@b@c"), "email is not an e-mail address."),
            ("email", json!("ada@example.org\r\nBcc: x@y.z"), "email holds control characters."),
            (
                "email",
                json!("äda@example.org"),
                "email holds characters beyond ASCII, which not every mail server takes.",
            ),
        ] {
            assert_eq!(with(name, value), says);
        }
        assert_eq!(
            refused(donor(b"{}")),
            "first_name is missing. city is missing. type is missing. email is missing."
        );
        for (body, says) in [
            (&b""[..], "The body is empty"),
            (b"[]", "The body is JSON, but no object."),
            (b"{", "The body is not JSON: "),
            (b"\xff", "The body is not JSON: "),
        ] {
            assert!(refused(donation(body)).starts_with(says), "{says}");
        }
    }

    #[test]
    fn a_time_is_a_real_one() {
        let at = |datetime: &str| {
            let body = json!({"city": "Haarlem", "datetime": datetime, "address": "Main street"});
            donation(body.to_string().as_bytes()).is_ok()
        };
        for good in ["2022-04-06T12:00:00", "2028-02-29T00:00:00", "2026-12-31T23:59:59"] {
            assert!(at(good), "{good}");
        }
        for bad in [
            "2022-04-06",
            "2022-04-06 12:00:00",
            "2022-02-29T00:00:00",
            "2022-13-01T00:00:00",
            "2022-04-06T24:00:00",
            "2022-04-06T12:00:60",
            "2022-04-06T12:00:00Z",
            "tomorrow",
            "2022-04-06T12:00:00.5",
            "2022-04-31T12:00:00",
        ] {
            assert!(!at(bad), "{bad}");
        }
    }
}
