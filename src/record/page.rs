//! One pass over a GetRecords answer: where its records lie and what they are called.
//!
//! Owns the shape of the answer. Members it does not know are stepped over and stay in
//! the records' slices. A record without a sequence number cannot be checkpointed, so
//! the whole answer counts as malformed and is fetched again.

use super::scan::{ScanError, Scanner};
use super::sequence_number::is_valid;
use super::{Marks, Record};
use bytes::Bytes;
use std::ops::Range;

/// A GetRecords answer taken apart.
#[derive(Debug)]
pub struct RawPage {
    /// In the order of the shard.
    pub records: Vec<Record>,
    /// Absent when the shard is closed and this was its last page.
    pub next_iterator: Option<String>,
}

/// The answer is not what GetRecords answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed GetRecords answer: {0}")]
pub struct MalformedPage(String);

impl From<ScanError> for MalformedPage {
    fn from(error: ScanError) -> Self {
        Self(error.to_string())
    }
}

/// Takes a GetRecords answer apart without copying its records.
///
/// # Errors
/// [`MalformedPage`] for text that is not UTF-8 JSON of the expected shape, nests too
/// deeply, or holds a record without a sequence number.
pub fn parse_page(body: &Bytes) -> Result<RawPage, MalformedPage> {
    if u32::try_from(body.len()).is_err() {
        return Err(MalformedPage("larger than 4 GiB".into()));
    }
    if std::str::from_utf8(body).is_err() {
        return Err(MalformedPage("not UTF-8".into()));
    }
    let mut found: Vec<(Range<usize>, Found)> = Vec::new();
    let (mut next, mut is_page) = (None, false);
    let mut scanner = Scanner::new(body);
    scanner.object(|scanner, key| {
        match &body[key] {
            b"Records" => {
                is_page = true;
                found.clear();
                scanner.array(|scanner| {
                    let (span, record) = record(scanner, body)?;
                    found.push((span, record));
                    Ok(())
                })?;
            }
            b"NextShardIterator" => next = scanner.string_or_null()?,
            _ => {
                scanner.value()?;
            }
        }
        Ok(())
    })?;
    scanner.end()?;
    // Without this, one stray `{}` would read as the end of the shard.
    if !is_page {
        return Err(MalformedPage("no Records".into()));
    }
    Ok(RawPage {
        records: found
            .into_iter()
            .map(|(span, found)| found.cut(body, span))
            .collect::<Result<_, _>>()?,
        next_iterator: next.map(|span| unescape(&body[span])).transpose()?,
    })
}

/// Spans of interest, still relative to the page.
#[derive(Default)]
struct Found {
    sequence_number: Option<Range<usize>>,
    keys: Option<Range<usize>>,
    user_identity: Option<Range<usize>>,
    created: Option<u64>,
    has_source_arn: bool,
}

fn record(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<(Range<usize>, Found), ScanError> {
    let mut found = Found::default();
    let span = scanner.object(|scanner, key| {
        match &body[key.clone()] {
            b"dynamodb" => {
                scanner
                    .object(|scanner, key| stream_record(scanner, &body[key], body, &mut found))?;
            }
            b"userIdentity" => {
                // From the quote before the key.
                found.user_identity = Some(key.start - 1..scanner.value()?.end);
            }
            b"eventSourceARN" => {
                scanner.value()?;
                found.has_source_arn = true;
            }
            _ => {
                scanner.value()?;
            }
        }
        Ok(())
    })?;
    Ok((span, found))
}

fn stream_record(
    scanner: &mut Scanner<'_>,
    key: &[u8],
    body: &[u8],
    found: &mut Found,
) -> Result<(), ScanError> {
    match key {
        b"SequenceNumber" => found.sequence_number = Some(scanner.string()?),
        b"Keys" => found.keys = Some(scanner.value()?),
        b"ApproximateCreationDateTime" => found.created = epoch_millis(&body[scanner.value()?]),
        _ => {
            scanner.value()?;
        }
    }
    Ok(())
}

/// Epoch seconds as JSON writes them, `1733000000`, `1.733E9` or with a fraction.
fn epoch_millis(number: &[u8]) -> Option<u64> {
    let seconds: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let millis = seconds * 1000.0;
    // Up to the year 9999, which is as far as times can be written.
    (millis.is_finite() && (0.0..253_402_300_800_000.0).contains(&millis)).then_some(millis as u64)
}

impl Found {
    fn cut(self, body: &Bytes, span: Range<usize>) -> Result<Record, MalformedPage> {
        let inside = |range: Range<usize>| {
            // The page was checked to be shorter than 4 GiB.
            (range.start - span.start) as u32..(range.end - span.start) as u32
        };
        let Some(sequence_number) =
            self.sequence_number.filter(|range| is_valid(&body[range.clone()]))
        else {
            return Err(MalformedPage(format!(
                "no sequence number in the record at byte {}",
                span.start
            )));
        };
        Ok(Record {
            marks: Marks {
                sequence_number: inside(sequence_number),
                keys: self.keys.map(inside),
                user_identity: self.user_identity.map(inside),
                created: self.created,
                has_source_arn: self.has_source_arn,
            },
            bytes: body.slice(span),
            charge: None,
        })
    }
}

/// Iterators hold no characters that need escapes on AWS; elsewhere `/` may be escaped.
fn unescape(raw: &[u8]) -> Result<String, MalformedPage> {
    let text = std::str::from_utf8(raw).expect("the page was checked to be UTF-8");
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    serde_json::from_str(&format!("\"{text}\"")).map_err(|e| MalformedPage(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"NextShardIterator":"arn:aws\/x|1|abc","Records":[
        {"awsRegion":"eu-central-1","dynamodb":{"ApproximateCreationDateTime":1.7E9,
         "Keys":{"PK":{"S":"a\"b"}},"NewImage":{"n":{"N":"3.140"}},"SequenceNumber":"123456789012345678901",
         "SizeBytes":26,"StreamViewType":"NEW_IMAGE","Added":[{"later":1}]},
         "eventID":"e1","eventName":"REMOVE","eventSource":"aws:dynamodb","eventVersion":"1.1",
         "userIdentity" : {"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"}, "more":null}]}"#;

    fn page(text: &str) -> Result<RawPage, MalformedPage> {
        parse_page(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn marks_what_is_needed_and_keeps_the_rest() {
        let page = page(ONE).unwrap();
        assert_eq!(page.next_iterator.as_deref(), Some("arn:aws/x|1|abc"));
        let [record] = &page.records[..] else { panic!("one record expected") };
        assert_eq!(record.sequence_digits(), "123456789012345678901");
        assert_eq!(record.keys(), Some(r#"{"PK":{"S":"a\"b"}}"#));
        let created = record.created().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(created.as_millis(), 1_700_000_000_000);
        let text = std::str::from_utf8(record.as_bytes()).unwrap();
        assert!(text.starts_with(r#"{"awsRegion""#) && text.ends_with(r#""more":null}"#));
        let identity = record.marks.user_identity.clone().unwrap();
        assert!(record.text(&identity).starts_with(r#""userIdentity" : {"#));
    }
    use std::time::SystemTime;

    #[test]
    fn an_absent_or_null_iterator_ends_the_shard() {
        for text in [r#"{"Records":[]}"#, r#"{"Records":[],"NextShardIterator":null}"#] {
            let page = page(text).unwrap();
            assert!(page.records.is_empty() && page.next_iterator.is_none(), "{text}");
        }
    }

    #[test]
    fn refuses_half_answers_and_records_it_could_not_checkpoint() {
        for text in [
            "",
            "{",
            &ONE[..ONE.len() / 2],
            "[]",
            "{}",
            r#"{"NextShardIterator":"x"}"#,
            r#"{"Records":{}}"#,
            r#"{"Records":[{"dynamodb":{}}]}"#,
            r#"{"Records":[{"dynamodb":{"SequenceNumber":"12x"}}]}"#,
            r#"{"Records":[{"dynamodb":{"SequenceNumber":12}}]}"#,
            r#"{"Records":[]} trailing"#,
        ] {
            assert!(page(text).is_err(), "{text}");
        }
        assert!(parse_page(&Bytes::from_static(b"{\"x\":\"\xff\"}")).is_err());
    }
}
