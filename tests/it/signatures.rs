//! What is signed without the SDK, judged by botocore.

use crate::support::ministack::python;
use crate::support::sdk_config;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use std::path::Path;
use std::process::Stdio;
use streamgate::source::{AwsSource, IteratorPosition, Source};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn botocore_would_have_signed_what_repeats_the_sdks_calls_the_same() {
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/judge_signatures.py");
    let mut judge = Command::new(python())
        .arg(judge)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the venv's python runs");
    let mut says = BufReader::new(judge.stdout.take().expect("piped")).lines();
    let mut next = async || says.next_line().await.expect("text").expect("a line");
    let address = next().await.replace(' ', ":").parse().expect("an address");
    let keys = Credentials::new(
        "AKIDJUDGED",
        "its/secret+key",
        Some("its+token==".into()),
        None,
        "judged",
    );
    let config = sdk_config(address).await.into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(keys)).build();
    let stream = "arn:aws:dynamodb:us-east-1:1:table/cats/stream/2026";
    let source = AwsSource::new(&config, stream.parse().expect("an ARN"));
    let shard = source.describe().await.expect("judged good").shards.remove(0).id;
    let iterator = source.iterator(&shard, &IteratorPosition::TrimHorizon).await;
    let mut iterator = iterator.expect("judged good");
    for _ in 0..5 {
        let page = source.records(&iterator).await.expect("judged good");
        iterator = page.next.expect("an open shard");
    }
    let mut heard = Vec::new();
    for _ in 0..7 {
        heard.push(next().await);
    }
    let repeated = "GetRecords good repeated";
    let by_sdk = ["DescribeStream good sdk", "GetShardIterator good sdk", "GetRecords good sdk"];
    assert_eq!(heard, [&by_sdk[..], &[repeated; 4]].concat());
}
