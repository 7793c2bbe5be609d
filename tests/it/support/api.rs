//! The api in this process, on ports of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use streamgate::api::{Api, ApiMetrics, ApiSettings, Stores};
use streamgate::progress::{ApiToken, ClientProgress, ClientSettings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "a-token-for-tests-only";
pub const LABEL: &str = "2026-01-02T03:04:05.678";

/// A running api. It ends with the runtime of the test.
pub struct RunningApi {
    pub public: SocketAddr,
    pub private: SocketAddr,
    pub table: String,
}

impl RunningApi {
    /// For the usual consumer, and those of the scenarios of conformance.
    pub async fn start(table: &str, stores: Stores) -> Self {
        let scenarios =
            (0..1000).flat_map(|n| [format!("consumer-{n}"), format!("consumer-{n}.b")]);
        let consumers = ["streamgate".to_owned()].into_iter().chain(scenarios).collect();
        Self::start_for(consumers, table, stores, |api| api).await
    }

    pub async fn start_for(
        consumers: Vec<String>,
        table: &str,
        stores: Stores,
        with: impl FnOnce(Api) -> Api,
    ) -> Self {
        let public = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let private = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let running = Self {
            public: public.local_addr().expect("it is bound"),
            private: private.local_addr().expect("it is bound"),
            table: table.to_owned(),
        };
        let token = ApiToken::new(TOKEN).expect("long enough");
        let settings = ApiSettings { table: table.to_owned(), consumers, token };
        let api = with(Api::new(settings, stores, Arc::new(ApiMetrics::new())));
        tokio::spawn(api.serve(public, private, CancellationToken::new(), Duration::ZERO));
        running
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.private)
    }

    /// What a consumer of this api is set up with.
    pub fn settings(&self, consumer: &str, label: &str) -> ClientSettings {
        ClientSettings {
            urls: vec![self.url().parse().expect("an address is a URL")],
            ca: Vec::new(),
            token: ApiToken::new(TOKEN).expect("long enough"),
            table: self.table.clone(),
            consumer: consumer.to_owned(),
            label: label.to_owned(),
        }
    }

    pub fn client(&self, consumer: &str, label: &str) -> ClientProgress {
        ClientProgress::new(self.settings(consumer, label)).expect("a client can be made")
    }
}
