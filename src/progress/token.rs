//! The secret that the consumer and the api share, `API_TOKEN`.
//!
//! Owns its form and its comparison. Invariant: it is never shown, not even by `Debug`.

use aws_lc_rs::hmac;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Shorter ones can be guessed.
pub const MIN_TOKEN_LENGTH: usize = 16;
/// Longer ones are a mistake, and would make headers that servers refuse.
pub const MAX_TOKEN_LENGTH: usize = 1024;

/// A bearer token: 16 to 1024 visible ASCII characters.
#[derive(Clone)]
pub struct ApiToken(Arc<str>);

impl ApiToken {
    /// `text` as a token; `None` when it is too short or long, or cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (MIN_TOKEN_LENGTH..=MAX_TOKEN_LENGTH).contains(&text.len());
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.into()))
    }

    /// Whether `given` is the token. Takes as long wherever the first difference is; a
    /// different length shows, which tells nobody the token.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// A key of its own for `purpose`: it tells nobody the token, nor the key of another purpose.
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        let token = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let tag = hmac::sign(&token, purpose.as_bytes());
        *tag.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_enough_fits_a_header_and_is_not_shown() {
        let token = ApiToken::new("0123456789abcdef").unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        for other in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef0"] {
            assert!(!token.matches(other.as_bytes()), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        for bad in ["0123456789abcde", "0123456789 abcdef", "0123456789abcdé", "", "\n"] {
            assert!(ApiToken::new(bad).is_none(), "{bad:?}");
        }
        assert!(ApiToken::new(&"x".repeat(1025)).is_none());
    }
}
