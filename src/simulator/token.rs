//! Shard iterators: `<stream ARN>|1|<opaque>`.
//!
//! Owns what an iterator carries; the simulator remembers none of them. A checksum
//! makes damaged or invented tokens recognisable, it is no protection against forgery.

use crate::arn::StreamArn;
use crate::source::ShardId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A place in a shard at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub shard: ShardId,
    /// The first record above this number is next.
    pub after: u128,
    /// Empty pages still to be answered before that record.
    pub empty_pages: u32,
    /// Milliseconds since the simulator's start.
    pub issued: u64,
    /// Iterators of earlier generations were expired by request.
    pub generation: u32,
}

impl Token {
    pub fn encode(&self, stream: &StreamArn) -> String {
        let Self { shard, after, empty_pages, issued, generation } = self;
        let text = format!("{shard} {after} {empty_pages} {issued} {generation}");
        let opaque = URL_SAFE_NO_PAD.encode(format!("{text} {}", checksum(&text)));
        format!("{stream}|1|{opaque}")
    }

    /// `None` for a text that no simulator of `stream` made.
    pub fn decode(token: &str, stream: &StreamArn) -> Option<Self> {
        let opaque = token.strip_prefix(stream.as_str())?.strip_prefix("|1|")?;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(opaque).ok()?).ok()?;
        let (text, check) = text.rsplit_once(' ')?;
        if check != checksum(text).to_string() {
            return None;
        }
        let mut parts = text.split(' ');
        Some(Self {
            shard: ShardId::from(parts.next()?),
            after: parts.next()?.parse().ok()?,
            empty_pages: parts.next()?.parse().ok()?,
            issued: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
        })
    }
}

fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_there_and_back_and_refuses_the_rest() {
        let arn = |label: &str| -> StreamArn {
            format!("arn:aws:dynamodb:eu-west-1:1:table/cats/stream/{label}").parse().unwrap()
        };
        let token = Token {
            shard: ShardId::from("shardId-00000001414562045508-2bac9cd2"),
            after: u128::MAX,
            empty_pages: 1,
            issued: 2,
            generation: 3,
        };
        let text = token.encode(&arn("x"));
        assert!(text.starts_with(&format!("{}|1|", arn("x"))));
        assert_eq!(Token::decode(&text, &arn("x")), Some(token));
        assert_eq!(Token::decode(&text, &arn("y")), None);
        for damaged in [&text[..text.len() - 1], &text.replace("|1|", "|1|A"), "", "garbage"] {
            assert_eq!(Token::decode(damaged, &arn("x")), None, "{damaged}");
        }
    }
}
