//! The floor of a consumer in Rust: pages fetched through the SDK, their JSON walked once.
//!
//! As the consumer does, it keeps an answer's body from the SDK, which would decode it, and
//! so pays for signing, retries and connections as everybody does who uses the SDK. The walk
//! is `serde_json`'s over everything, building nothing. It keeps no record, batch or position.

use super::Plan;
use super::floor::ARN;
use super::process::{Part, Usage, tell_and_wait};
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Measures it. It stops at the last prepared page, be the shards closed or open.
pub fn run(plan: &Plan, stream: SocketAddr) -> Usage {
    let started = Instant::now();
    let mut part = Part::start(&["--walk", &stream.to_string(), &plan.pages.to_string()]);
    let bytes: usize = part.hear().parse().expect("a number of bytes");
    assert!(bytes >= plan.total() * plan.bytes / 2, "the pages were read: {bytes}");
    part.process.usage(started.elapsed())
}

/// Walks so many pages of every shard, tells the bytes, and stays until it was looked at.
pub fn walk(address: &str, pages: &str) {
    let pages: usize = pages.parse().expect("a number");
    let shards = super::floor::describe(address.parse().expect("an address")).expect("a listing");
    let walked = Arc::<AtomicUsize>::default();
    let client = Client::new(&config(address, &walked));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let reading = shards.into_iter().map(|shard| {
            let client = client.clone();
            tokio::spawn(async move { read(&client, shard, pages).await })
        });
        for read in join_all(reading).await {
            read.expect("read");
        }
    });
    tell_and_wait(&walked.load(Relaxed).to_string());
}

async fn read(client: &Client, shard: String, pages: usize) {
    let first = client.get_shard_iterator().stream_arn(ARN).shard_id(shard);
    let first = first.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
    let mut next = first.expect("an iterator").shard_iterator;
    for _ in 0..pages {
        let Some(iterator) = next else { return };
        let page = client.get_records().shard_iterator(iterator).limit(1000).send().await;
        next = page.expect("a page").next_shard_iterator;
    }
}

fn config(address: &str, walked: &Arc<AtomicUsize>) -> SdkConfig {
    let keys = Credentials::new("bench", "bench", None, None, "bench");
    let inner = aws_smithy_http_client::Builder::new().build_http();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .http_client(Walking { inner, walked: Arc::clone(walked) })
        .build()
}

/// Walks the body of every answer and gives the SDK what it needs of it to go on.
#[derive(Clone, Debug)]
struct Walking<T> {
    inner: T,
    walked: Arc<AtomicUsize>,
}

impl HttpClient for Walking<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Walking { inner, walked: Arc::clone(&self.walked) })
    }
}

impl HttpConnector for Walking<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let reads = request.headers().get("x-amz-target").is_some_and(|it| it.ends_with("Records"));
        let (answer, walked) = (self.inner.call(request), Arc::clone(&self.walked));
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            if !reads {
                return Ok(answer);
            }
            let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
            let body = body.collect().await.map_err(ConnectorError::io)?.to_bytes();
            let _: IgnoredAny = serde_json::from_slice(&body).expect("JSON");
            walked.fetch_add(body.len(), Relaxed);
            let at = memchr::memmem::rfind(&body, br#""NextShardIterator":""#);
            let rest = at.map_or(String::new(), |at| {
                let end = memchr::memchr(b',', &body[at..]).or(memchr::memchr(b'}', &body[at..]));
                let member = &body[at..at + end.expect("the page ends")];
                String::from_utf8_lossy(member).into_owned()
            });
            *answer.body_mut() = SdkBody::from(format!("{{{rest}}}"));
            Ok(answer)
        })
    }
}
