//! Signature Version 4 of a call that is made again and again with another body.
//!
//! Owns what the SDK's signer would do for such a request, with what does not change from one to
//! the next made once: the key of a day and the head of the text that is signed. Pure.
//! Invariant: it is used only after it has found the very signature that the SDK gave the same
//! request ([`super::repeat`]).

use aws_credential_types::Credentials;
use aws_lc_rs::{digest, hmac};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use std::fmt::Write;
use std::ops::Range;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a signature says of how it was made: `Credential=`, `SignedHeaders=` and itself.
pub(super) struct Authorization<'a> {
    access_key: &'a str,
    /// `20260101/eu-west-1/dynamodb/aws4_request`
    scope: &'a str,
    pub signed_headers: &'a str,
    pub signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the header of this name; `None` for any other algorithm.
    pub fn parse(header: &'a str) -> Option<Self> {
        let mut members = header.strip_prefix(ALGORITHM)?.split(',').map(str::trim);
        let mut member = |name: &str| members.next()?.strip_prefix(name);
        let (access_key, scope) = member("Credential=")?.split_once('/')?;
        let signed_headers = member("SignedHeaders=")?;
        let signature = member("Signature=")?;
        Some(Self { access_key, scope, signed_headers, signature })
    }

    /// The key that it was made with, if that was derived from `credentials`.
    pub fn key(&self, credentials: &Credentials) -> Option<Key> {
        let (day, rest) = self.scope.split_once('/')?;
        let is_theirs = credentials.access_key_id() == self.access_key;
        is_theirs.then(|| Key::new(credentials, day, rest))
    }
}

/// A key that is good for a day, a region and a service.
pub(super) struct Key {
    credential: String,
    scope: String,
    key: hmac::Key,
}

impl Key {
    /// `rest` is what follows the day in the scope.
    fn new(credentials: &Credentials, day: &str, rest: &str) -> Self {
        let secret = format!("AWS4{}", credentials.secret_access_key());
        let first = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let key = [day].into_iter().chain(rest.split('/')).fold(first, |key, part| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
        });
        let scope = format!("{day}/{rest}");
        Self { credential: format!("{}/{scope}", credentials.access_key_id()), scope, key }
    }

    /// The same of another day; `None` where it is of this one.
    pub fn of_day(&self, time: &str, credentials: &Credentials) -> Option<Self> {
        let day = &time[..DAY];
        let (own, rest) = self.scope.split_once('/').expect("made of a day and the rest");
        (own != day).then(|| Self::new(credentials, day, rest))
    }

    /// The signature of a request whose canonical form begins with `head`, at `time`.
    pub fn sign(&self, head: &str, body: &[u8], time: &str) -> String {
        let canonical = format!("{head}\n{}", hex(digest::digest(&digest::SHA256, body).as_ref()));
        let canonical = digest::digest(&digest::SHA256, canonical.as_bytes());
        let scope = &self.scope;
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(canonical.as_ref()));
        hex(hmac::sign(&self.key, text.as_bytes()).as_ref())
    }

    /// The header `authorization`.
    pub fn authorization(&self, signed_headers: &str, signature: &str) -> String {
        let credential = &self.credential;
        format!(
            "{ALGORITHM} Credential={credential}, SignedHeaders={signed_headers}, Signature={signature}"
        )
    }
}

/// Digits of a day in a time.
const DAY: usize = 8;

/// Seconds since the epoch as signatures have them, `20260101T235959Z`.
pub(super) fn format_time(seconds: i64) -> Option<String> {
    let time = DateTime::from_secs(seconds).fmt(Format::DateTime).ok()?;
    let time: String = time.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    (time.len() == DAY + 8).then_some(time)
}

/// Reads such a time.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let part = |range: Range<usize>| text.get(range);
    let [year, month, day] = [part(0..4)?, part(4..6)?, part(6..8)?];
    let [hour, minute, second] = [part(9..11)?, part(11..13)?, part(13..15)?];
    let time = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    Some(DateTime::from_str(&time, Format::DateTime).ok()?.secs())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(access_key: &str, secret: &str) -> Credentials {
        Credentials::new(access_key, secret, None, None, "test")
    }

    /// The example of AWS's documentation, "get-vanilla" of its test suite.
    #[test]
    fn signs_as_the_test_suite_of_the_scheme_has_it() {
        let credentials = keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let header = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let authorization = Authorization::parse(header).unwrap();
        let key = authorization.key(&credentials).unwrap();
        let head =
            "GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date";
        let signature = key.sign(head, b"", "20150830T123600Z");
        assert_eq!(signature, authorization.signature);
        assert_eq!(key.authorization(authorization.signed_headers, &signature), header);
        assert!(key.of_day("20150830T235959Z", &credentials).is_none());
        let next = key.of_day("20150831T000000Z", &credentials).unwrap();
        assert_ne!(next.sign(head, b"", "20150831T000000Z"), signature);
        assert!(authorization.key(&keys("other", "x")).is_none());
    }

    #[test]
    fn another_way_of_signing_is_not_read() {
        for header in [
            "",
            "Bearer x",
            "AWS4-ECDSA-P256-SHA256 Credential=a/b, SignedHeaders=host, Signature=0",
            "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=0",
            "AWS4-HMAC-SHA256 Credential=a/b, Signature=0",
        ] {
            assert!(Authorization::parse(header).is_none(), "{header}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_is_read() {
        assert_eq!(format_time(1_798_761_599).unwrap(), "20261231T235959Z");
        assert_eq!(parse_time("20261231T235959Z"), Some(1_798_761_599));
        for wrong in ["", "20261231", "2026-12-31T23:59:59Z", "20261331T235959Z"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
