//! The ARN of a DynamoDB stream, taken apart once.
//!
//! Owns the syntax of `arn:PARTITION:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL`.
//! Does not know whether such a stream exists. Invariant: a `StreamArn` has all six
//! parts, non-empty, so nobody downstream checks again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The ARN of one stream of one table. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamArn(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    whole: String,
    partition: String,
    region: String,
    account: String,
    table: String,
    label: String,
}

/// Why a text is not the ARN of a stream. The sentence says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamArnError {
    /// The text is the ARN of a table; its stream has an ARN of its own.
    #[error(
        "is the ARN of a table, not of its stream; take LatestStreamArn from `aws dynamodb describe-table`, it ends in /stream/LABEL"
    )]
    Table,
    /// Anything else that does not have the shape.
    #[error(
        "is not the ARN of a DynamoDB stream; expected arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL"
    )]
    Malformed,
}

impl StreamArn {
    /// The whole ARN as it was given.
    pub fn as_str(&self) -> &str {
        &self.0.whole
    }

    /// The part of AWS it is in, `aws` or `aws-cn`.
    pub fn partition(&self) -> &str {
        &self.0.partition
    }

    /// The region of the stream, `eu-central-1`.
    pub fn region(&self) -> &str {
        &self.0.region
    }

    /// The twelve digits of the account; emulators may use other text.
    pub fn account(&self) -> &str {
        &self.0.account
    }

    /// The table the stream belongs to.
    pub fn table(&self) -> &str {
        &self.0.table
    }

    /// The time the stream was enabled, as ISO 8601 text. Re-enabling a stream gives a
    /// new label, so progress is kept apart by it.
    pub fn label(&self) -> &str {
        &self.0.label
    }
}

impl FromStr for StreamArn {
    type Err = StreamArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The label is a time and holds colons itself, so only five are split.
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next().filter(|p| !p.is_empty());
        let malformed = StreamArnError::Malformed;
        let (
            Some("arn"),
            Some(partition),
            Some("dynamodb"),
            Some(region),
            Some(account),
            Some(resource),
        ) = (part(), part(), part(), part(), part(), part())
        else {
            return Err(malformed);
        };
        let path: Vec<&str> = resource.split('/').collect();
        match path[..] {
            ["table", table] if !table.is_empty() => Err(StreamArnError::Table),
            ["table", table, "stream", label] if valid_table_name(table) && !label.is_empty() => {
                Ok(Self(Arc::new(Parts {
                    whole: text.to_owned(),
                    partition: partition.to_owned(),
                    region: region.to_owned(),
                    account: account.to_owned(),
                    table: table.to_owned(),
                    label: label.to_owned(),
                })))
            }
            _ => Err(malformed),
        }
    }
}

/// The part of AWS that a region belongs to.
pub fn partition_of(region: &str) -> &'static str {
    const OTHERS: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("us-iso-", "aws-iso"),
        ("eu-isoe-", "aws-iso-e"),
        ("eusc-", "aws-eusc"),
    ];
    let found = OTHERS.into_iter().find(|(prefix, _)| region.starts_with(prefix));
    found.map_or("aws", |(_, partition)| partition)
}

/// Whether `name` can be the name of a DynamoDB table: 3 to 255 of `a-z A-Z 0-9 _ . -`.
pub fn valid_table_name(name: &str) -> bool {
    (3..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.whole)
    }
}

impl fmt::Debug for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_parts_of_a_stream_arn() {
        let arn: StreamArn =
            "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/my.table/stream/2026-01-02T03:04:05.678"
                .parse()
                .unwrap();
        assert_eq!(
            (arn.region(), arn.account(), arn.table(), arn.label()),
            ("cn-north-1", "123456789012", "my.table", "2026-01-02T03:04:05.678")
        );
        assert_eq!(arn.partition(), "aws-cn");
        assert_eq!(partition_of(arn.region()), arn.partition());
        assert_eq!(
            [partition_of("eu-west-1"), partition_of("us-gov-west-1")],
            ["aws", "aws-us-gov"]
        );
    }

    #[test]
    fn a_table_arn_is_told_apart_from_nonsense() {
        let error = |text: &str| text.parse::<StreamArn>().unwrap_err();
        assert_eq!(error("arn:aws:dynamodb:eu-central-1:1:table/people"), StreamArnError::Table);
        for text in [
            "",
            "people",
            "arn:aws:kinesis:eu-central-1:1:stream/people",
            "arn:aws:dynamodb::1:table/people/stream/x",
            "arn:aws:dynamodb:eu-central-1:1:table/people/stream/",
            "arn:aws:dynamodb:eu-central-1:1:table//stream/x",
            "arn:aws:dynamodb:eu-central-1:1:table/people/index/x",
        ] {
            assert_eq!(error(text), StreamArnError::Malformed, "{text}");
        }
    }
}
