//! Signatures of requests to the handler, as Standard Webhooks 1.0 has them.
//!
//! Owns the secrets and the three headers. Invariant: a secret is never shown, not even
//! by `Debug`, and the signed content is exactly what is sent.

use crate::record::Event;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

const PREFIX: &str = "whsec_";
/// What the specification asks for, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// The secrets of `HANDLER_SECRET`: requests are signed with each, so that one can be
/// replaced without a moment in which none fits.
#[derive(Clone)]
pub struct Secrets(Arc<[hmac::Key]>);

/// The headers of one request.
pub(super) struct Headers {
    /// `webhook-id`
    pub id: String,
    /// `webhook-timestamp`, seconds since the epoch.
    pub timestamp: String,
    /// `webhook-signature`
    pub signature: String,
}

impl Secrets {
    /// One or more secrets with spaces between: `whsec_` and 24 to 64 bytes in base64.
    /// `None` when `text` is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let key = |secret: &str| {
            let bytes = BASE64_STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
            LENGTH.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        let keys: Option<Vec<_>> = text.split_whitespace().map(key).collect();
        keys.filter(|keys| !keys.is_empty()).map(|keys| Self(keys.into()))
    }

    /// Signs `event` under `id`, which stays the same when it is sent again.
    pub(super) fn sign(&self, id: String, now: SystemTime, event: &Event) -> Headers {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp = since.as_secs().to_string();
        let sign = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b"."] {
                context.update(part);
            }
            event.slices().iter().for_each(|slice| context.update(slice));
            format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
        };
        let signature = self.0.iter().map(sign).collect::<Vec<_>>().join(" ");
        Headers { id, timestamp, signature }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{EventEnvelope, parse_page};
    use bytes::Bytes;
    use std::time::Duration;

    #[test]
    fn a_secret_has_its_form_and_is_not_shown() {
        let secret = |bytes: usize| format!("{PREFIX}{}", BASE64_STANDARD.encode(vec![7; bytes]));
        assert!(Secrets::parse(&secret(24)).is_some() && Secrets::parse(&secret(64)).is_some());
        let two = format!("{} {}", secret(24), secret(32));
        assert_eq!(Secrets::parse(&two).unwrap().0.len(), 2);
        for bad in [
            secret(23),
            secret(65),
            "whsec_".into(),
            "secret".into(),
            String::new(),
            format!("{two} x"),
        ] {
            assert!(Secrets::parse(&bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{:?}", Secrets::parse(&two).unwrap()), "Secrets");
    }

    #[test]
    fn a_request_is_signed_with_every_secret_over_what_is_sent() {
        let page = Bytes::from(r#"{"Records":[{"dynamodb":{"SequenceNumber":"7"}}]}"#);
        let records = parse_page(&page).unwrap().records;
        let arn = "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap();
        let event = EventEnvelope::new(&arn).event(&records);
        let bytes = [[1; 24], [2; 24]];
        let secrets = bytes.map(|bytes| format!("{PREFIX}{}", BASE64_STANDARD.encode(bytes)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let headers = Secrets::parse(&secrets.join(" ")).unwrap().sign("id".into(), now, &event);
        assert_eq!((headers.id.as_str(), headers.timestamp.as_str()), ("id", "1700000000"));
        let content = [b"id.1700000000.", &event.to_vec()[..]].concat();
        let signatures: Vec<_> = headers.signature.split(' ').collect();
        for (signature, bytes) in signatures.iter().zip(bytes) {
            let tag = BASE64_STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
            hmac::verify(&key, &content, &tag).expect("the signature is of the content");
        }
        assert_eq!(signatures.len(), 2);
    }
}
