//! What tests stand on: real servers, and tables in them.
//!
//! Owns starting and finding the servers. Each is started once for the whole binary, on
//! a port of its own on 127.0.0.1. Invariant: nothing outlives the test binary.

pub mod api;
pub mod around;
pub mod chaos;
pub mod collector;
pub mod dynoxide;
pub mod endpoint;
pub mod example;
pub mod lambda;
pub mod ministack;
pub mod persistent;
pub mod process;
pub mod rig;
pub mod roles;
pub mod scripted;
pub mod smtp;
pub mod stage;
pub mod terminal;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    StreamSpecification, StreamViewType,
};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// The region all test servers are asked for.
pub const REGION: &str = "us-east-1";

/// An SDK configuration for the server at `address`, with the HTTP client of the product.
/// Made by each test for itself: a connection lives in the runtime that opened it.
pub async fn sdk_config(address: SocketAddr) -> SdkConfig {
    sdk_config_as("test", REGION, address).await
}

/// The same with another key, in another region.
pub async fn sdk_config_as(key: &str, region: &str, address: SocketAddr) -> SdkConfig {
    let credentials = Credentials::new(key, "test", None, None, "tests");
    let config = streamgate::aws::load(Some(region), Arc::new(|_, _| {})).await;
    config
        .to_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{address}"))
        .build()
}

/// A table to be made.
pub struct NewTable<'a> {
    pub name: &'a str,
    pub partition_key: (&'a str, ScalarAttributeType),
    pub sort_key: Option<(&'a str, ScalarAttributeType)>,
    pub stream: Option<StreamViewType>,
}

impl<'a> NewTable<'a> {
    /// With the keys `PK` and `SK`, both strings, and no stream.
    pub fn named(name: &'a str) -> Self {
        Self {
            name,
            partition_key: ("PK", ScalarAttributeType::S),
            sort_key: Some(("SK", ScalarAttributeType::S)),
            stream: None,
        }
    }

    /// With a stream of new and old images.
    pub fn with_stream(self) -> Self {
        Self { stream: Some(StreamViewType::NewAndOldImages), ..self }
    }

    /// Makes it; answers the ARN of its stream.
    pub async fn create(self, config: &SdkConfig) -> Option<String> {
        let keys = [
            Some((KeyType::Hash, self.partition_key)),
            self.sort_key.map(|key| (KeyType::Range, key)),
        ];
        let mut call = Client::new(config)
            .create_table()
            .table_name(self.name)
            .billing_mode(BillingMode::PayPerRequest);
        for (kind, (name, of)) in keys.into_iter().flatten() {
            let element = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            let defined = AttributeDefinition::builder().attribute_name(name).attribute_type(of);
            call = call
                .key_schema(element.build().expect("complete"))
                .attribute_definitions(defined.build().expect("complete"));
        }
        if let Some(view) = self.stream {
            let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(view);
            call = call.stream_specification(stream.build().expect("complete"));
        }
        let answer = call.send().await.expect("a table can be made");
        answer.table_description.and_then(|table| table.latest_stream_arn)
    }
}

/// A port that was free a moment ago, for servers that cannot choose one themselves.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a bound listener has an address")
}

/// A listener that nobody should come to.
pub struct Untouched(TcpListener);

impl Untouched {
    pub fn new() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }
}

impl Drop for Untouched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let came = self.0.accept().map(|(_, from)| from);
            let kind = came.expect_err("nobody should have come").kind();
            assert_eq!(kind, std::io::ErrorKind::WouldBlock);
        }
    }
}
