//! Where records come from: the four things a consumer asks of a stream.
//!
//! Owns the words (shard, iterator, page) and the verdict on each failure. Does not
//! know who answers: AWS, the simulator over HTTP, or the simulator in this process.
//! Invariant: no SDK type passes this file.

mod aws;

pub use aws::AwsSource;

use crate::record::{Record, SequenceNumber};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// The most records one GetRecords call may be asked for (the service's bound).
pub const MAX_RECORDS_PER_PAGE: i32 = 1000;

/// The name of a shard, `shardId-00000001414562045508-2bac9cd2`. Opaque.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// The id as the service wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ShardId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard as DescribeStream lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// The shard it continues. The parent may have expired and be listed no more.
    pub parent: Option<ShardId>,
    /// Whether it has an ending sequence number: nothing will be added to it.
    pub closed: bool,
}

/// Whether the stream takes new records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// Being set up; no shards yet.
    Enabling,
    /// Taking records.
    Enabled,
    /// Being shut; shards are closing.
    Disabling,
    /// Shut: what it holds can be read for 24 hours and nothing will be added.
    Disabled,
}

/// A stream with all its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamDescription {
    /// Whether it takes new records.
    pub status: StreamStatus,
    /// The name of the table's partition key, where the endpoint tells it.
    pub partition_key: Option<String>,
    /// Which images its records have, `NEW_AND_OLD_IMAGES`, where the endpoint tells it.
    pub view_type: Option<String>,
    /// In the order listed; children may come before their parents.
    pub shards: Vec<Shard>,
}

/// Where a new iterator begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IteratorPosition {
    /// The oldest record kept.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// The first record not older than this.
    AtTimestamp(SystemTime),
    /// The record after this one.
    After(SequenceNumber),
}

/// A read cursor. Good for 15 minutes from when it was answered.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardIterator(Arc<str>);

impl ShardIterator {
    /// The token to send.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ShardIterator {
    fn from(token: String) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for ShardIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardIterator")
    }
}

/// What one GetRecords call brought.
#[derive(Debug)]
pub struct Page {
    /// In the order of the shard; empty pages are normal, even before records.
    pub records: Vec<Record>,
    /// The cursor to go on with; `None` when the shard is closed and read to its end.
    /// A page may carry records and still be the last.
    pub next: Option<ShardIterator>,
    /// Bytes of the whole answer, which its records keep alive.
    pub bytes: usize,
}

/// The API call that failed; the names are IAM's without their prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceOperation {
    /// `dynamodb:DescribeStream`
    DescribeStream,
    /// `dynamodb:GetShardIterator`
    GetShardIterator,
    /// `dynamodb:GetRecords`
    GetRecords,
}

impl SourceOperation {
    /// Every operation, which is every action that reading needs.
    pub const ALL: [Self; 3] = [Self::DescribeStream, Self::GetShardIterator, Self::GetRecords];

    /// The name as AWS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DescribeStream => "DescribeStream",
            Self::GetShardIterator => "GetShardIterator",
            Self::GetRecords => "GetRecords",
        }
    }
}

/// What kind of failure it was, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The iterator is older than 15 minutes: ask for a new one.
    ExpiredIterator,
    /// The position is behind the trim horizon: data was lost.
    Trimmed,
    /// The shard or the whole stream is not there (any more).
    NotFound,
    /// Too many calls, or more than two readers on a shard: back off.
    Throttled,
    /// The role may not make the call.
    AccessDenied,
    /// Keys, token or clock are not accepted.
    Credentials,
    /// The service does not accept the arguments.
    Invalid,
    /// A server fault, a broken connection, a time-out: try again.
    Unavailable,
    /// The answer could not be read: try again.
    Malformed,
}

/// A call to the stream that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {message}", operation.name())]
pub struct SourceError {
    /// The call.
    pub operation: SourceOperation,
    /// What to do about it.
    pub kind: SourceErrorKind,
    /// The service's words, or the transport's.
    pub message: String,
}

/// A stream that can be read.
///
/// Implementations do not retry for ever: callers own the waiting, so that it is
/// counted and can be seen.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The stream and all its shards, every page of the listing.
    async fn describe(&self) -> Result<StreamDescription, SourceError>;

    /// The children of `parent`. Empty when they cannot be seen yet, or never will.
    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError>;

    /// A cursor into `shard`.
    async fn iterator(
        &self,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, SourceError>;

    /// The next page.
    async fn records(&self, iterator: &ShardIterator) -> Result<Page, SourceError>;
}
