//! DynamoDB Streams through the AWS SDK: the only file that knows its stream types.
//!
//! Owns the three calls and the reading of their errors. GetRecords answers are kept
//! as bytes and its calls repeated without the SDK where that can be (see [`crate::aws`]);
//! [`crate::record`] takes the answers apart.

use super::{
    IteratorPosition, MAX_RECORDS_PER_PAGE, Page, Shard, ShardId, ShardIterator, Source,
    SourceError, SourceErrorKind, SourceOperation, StreamDescription, StreamStatus,
};
use crate::arn::StreamArn;
use crate::aws::{self, BodySlot, Failure, Repeats};
use crate::record::parse_page;
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::{self, ShardFilter, ShardFilterType, ShardIteratorType};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;

/// A stream on AWS, or on anything that speaks its protocol
/// (`AWS_ENDPOINT_URL_DYNAMODB_STREAMS`).
pub struct AwsSource {
    client: Client,
    stream: StreamArn,
    /// GetRecords, by far the most frequent call.
    repeats: Option<Repeats>,
}

impl AwsSource {
    /// Reads `stream` with the credentials and endpoints of `config`.
    pub fn new(config: &SdkConfig, stream: StreamArn) -> Self {
        match Repeats::new(config) {
            Some((repeats, config)) => {
                Self { client: Client::new(&config), stream, repeats: Some(repeats) }
            }
            None => Self { client: Client::new(config), stream, repeats: None },
        }
    }

    /// One listing, all its pages. Only an absent `LastEvaluatedShardId` ends it.
    async fn list(&self, filter: Option<ShardFilter>) -> Result<StreamDescription, SourceError> {
        let mut listing = StreamDescription {
            status: StreamStatus::Enabled,
            partition_key: None,
            view_type: None,
            shards: Vec::new(),
        };
        let mut after: Option<String> = None;
        loop {
            let answer = self
                .client
                .describe_stream()
                .stream_arn(self.stream.as_str())
                .set_exclusive_start_shard_id(after.take())
                .set_shard_filter(filter.clone())
                .send()
                .await
                .map_err(|error| failed(SourceOperation::DescribeStream, &error))?;
            let Some(page) = answer.stream_description else {
                return Err(malformed(SourceOperation::DescribeStream, "no stream description"));
            };
            listing.status = status(page.stream_status.as_ref());
            listing.partition_key = page.key_schema.as_deref().and_then(partition_key);
            listing.view_type = page.stream_view_type.map(|view| view.as_str().to_owned());
            listing.shards.extend(page.shards.unwrap_or_default().into_iter().filter_map(shard));
            match page.last_evaluated_shard_id {
                Some(last) if !last.is_empty() => after = Some(last),
                _ => return Ok(listing),
            }
        }
    }
}

/// GetRecords.
impl AwsSource {
    /// By repeating an earlier call of the SDK's; `None` where the SDK is to make it.
    async fn records_repeated(
        &self,
        iterator: &ShardIterator,
    ) -> Result<Option<Bytes>, SourceError> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct GetRecords<'a> {
            shard_iterator: &'a str,
            limit: i32,
        }
        let Some(repeats) = &self.repeats else { return Ok(None) };
        let shard_iterator = iterator.as_str();
        let request = GetRecords { shard_iterator, limit: MAX_RECORDS_PER_PAGE };
        let request = serde_json::to_string(&request).expect("text and a number");
        // What another try would not change. The rest is for the SDK to mend.
        let is_final = |code: &str| final_kind(code).is_some();
        match repeats.call(request, is_final).await {
            None => Ok(None),
            Some(Ok(body)) => Ok(Some(body)),
            Some(Err(refusal)) => {
                let (operation, message) = (SourceOperation::GetRecords, refusal.message);
                let kind = final_kind(&refusal.code).expect("no other comes here");
                Err(SourceError { operation, kind, message })
            }
        }
    }

    async fn records_by_sdk(&self, iterator: &ShardIterator) -> Result<Bytes, SourceError> {
        let slot = BodySlot::default();
        let (extension, repeats) = (slot.clone(), self.repeats.clone());
        self.client
            .get_records()
            .shard_iterator(iterator.as_str())
            .limit(MAX_RECORDS_PER_PAGE)
            .customize()
            .mutate_request(move |request| {
                request.add_extension(extension.clone());
                if let Some(repeats) = &repeats {
                    request.add_extension(repeats.clone());
                }
            })
            .send()
            .await
            .map_err(|error| failed(SourceOperation::GetRecords, &error))?;
        slot.take().ok_or_else(|| malformed(SourceOperation::GetRecords, "no body"))
    }
}

#[async_trait]
impl Source for AwsSource {
    async fn describe(&self) -> Result<StreamDescription, SourceError> {
        self.list(None).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let filter = ShardFilter::builder()
            .r#type(ShardFilterType::ChildShards)
            .shard_id(parent.as_str())
            .build();
        let listing = self.list(Some(filter)).await?;
        // An endpoint that does not know the filter answers with every shard.
        Ok(listing
            .shards
            .into_iter()
            .filter(|shard| shard.parent.as_ref() == Some(parent))
            .collect())
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, SourceError> {
        let call = self
            .client
            .get_shard_iterator()
            .stream_arn(self.stream.as_str())
            .shard_id(shard.as_str());
        let call = match position {
            IteratorPosition::TrimHorizon => {
                call.shard_iterator_type(ShardIteratorType::TrimHorizon)
            }
            IteratorPosition::Latest => call.shard_iterator_type(ShardIteratorType::Latest),
            IteratorPosition::AtTimestamp(time) => {
                call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp((*time).into())
            }
            IteratorPosition::After(number) => call
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(number.as_str()),
        };
        let answer =
            call.send().await.map_err(|error| failed(SourceOperation::GetShardIterator, &error))?;
        answer
            .shard_iterator
            .map(ShardIterator::from)
            .ok_or_else(|| malformed(SourceOperation::GetShardIterator, "no iterator"))
    }

    async fn records(&self, iterator: &ShardIterator) -> Result<Page, SourceError> {
        let body = match self.records_repeated(iterator).await? {
            Some(body) => body,
            None => self.records_by_sdk(iterator).await?,
        };
        let page = parse_page(&body)
            .map_err(|error| malformed(SourceOperation::GetRecords, &error.to_string()))?;
        Ok(Page {
            records: page.records,
            next: page.next_iterator.map(ShardIterator::from),
            bytes: body.len(),
        })
    }
}

fn shard(shard: types::Shard) -> Option<Shard> {
    let range = shard.sequence_number_range?;
    Some(Shard {
        id: ShardId::from(shard.shard_id?.as_str()),
        parent: shard
            .parent_shard_id
            .filter(|id| !id.is_empty())
            .map(|id| ShardId::from(id.as_str())),
        closed: range.ending_sequence_number.is_some(),
    })
}

fn partition_key(schema: &[types::KeySchemaElement]) -> Option<String> {
    let hash = schema.iter().find(|element| element.key_type == types::KeyType::Hash)?;
    Some(hash.attribute_name.clone())
}

fn status(status: Option<&types::StreamStatus>) -> StreamStatus {
    match status {
        Some(types::StreamStatus::Enabling) => StreamStatus::Enabling,
        Some(types::StreamStatus::Disabling) => StreamStatus::Disabling,
        Some(types::StreamStatus::Disabled) => StreamStatus::Disabled,
        _ => StreamStatus::Enabled,
    }
}

fn malformed(operation: SourceOperation, what: &str) -> SourceError {
    SourceError { operation, kind: SourceErrorKind::Malformed, message: what.to_owned() }
}

fn failed<E>(operation: SourceOperation, error: &SdkError<E, HttpResponse>) -> SourceError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = Failure::of(error);
    let kind = match failure.code.as_deref() {
        Some("ValidationException" | "SerializationException") => SourceErrorKind::Invalid,
        _ if failure.is_denied() => SourceErrorKind::AccessDenied,
        _ if failure.is_credentials() || failure.not_sent => SourceErrorKind::Credentials,
        _ if failure.unreadable => SourceErrorKind::Malformed,
        _ => SourceErrorKind::Unavailable,
    };
    let kind = failure.code.as_deref().and_then(final_kind).unwrap_or(kind);
    SourceError { operation, kind, message: failure.message }
}

/// What a code says of the iterator or of our pace: the same would be answered again.
fn final_kind(code: &str) -> Option<SourceErrorKind> {
    match code {
        "ExpiredIteratorException" => Some(SourceErrorKind::ExpiredIterator),
        "TrimmedDataAccessException" => Some(SourceErrorKind::Trimmed),
        "ResourceNotFoundException" => Some(SourceErrorKind::NotFound),
        code if aws::is_throttle(code) => Some(SourceErrorKind::Throttled),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
