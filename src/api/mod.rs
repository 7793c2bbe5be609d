//! The second container: progress for consumers that may not touch the table.
//!
//! Owns two listeners: the private one, where consumers with the token have their
//! progress kept, and the public one, with health, metrics and the application's own
//! routes. Invariant: nothing behind the private listener is reached without the token,
//! and no request takes more than its bound of bytes and time.

mod callers;
mod calls;
mod coordination;
mod listener;
mod metrics;
mod openapi;
mod page;
mod places;
mod private;
mod public;
mod route;
mod tls;

pub use metrics::{ApiMetrics, TABLE_OPERATIONS};
pub use openapi::document as openapi;
pub use tls::{Tls, TlsError};

use crate::progress::{ApiToken, Progress};
use axum::Router;
use callers::Callers;
use listener::Closing;
use page::Page;
use private::Private;
use public::Public;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Opens the progress of a consumer (first) and a stream's label (second). It may be
/// opened again for the same two, and holds nothing that is lost when it is dropped.
pub type Stores = Arc<dyn Fn(&str, &str) -> Arc<dyn Progress> + Send + Sync>;

/// For what is in flight when the private listener closes; what a call may take is bounded.
/// The application's routes have what is left of the grace, but no less.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the api works on.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// `TABLE_NAME`
    pub table: String,
    /// `CONSUMER_NAME`: the consumers whose progress is kept, and nobody else's.
    pub consumers: Vec<String>,
    /// `API_TOKEN`
    pub token: ApiToken,
}

/// The api.
pub struct Api {
    settings: ApiSettings,
    stores: Stores,
    metrics: Arc<ApiMetrics>,
    routes: Router,
    tls: Option<Arc<Tls>>,
    page: bool,
}

impl Api {
    /// An api over `stores`, which all lie in the table of `settings`.
    pub fn new(settings: ApiSettings, stores: Stores, metrics: Arc<ApiMetrics>) -> Self {
        Self { settings, stores, metrics, routes: Router::new(), tls: None, page: false }
    }

    /// Mounts the application's own routes on the public listener. They are not behind
    /// the token, and may not be `/healthz`, `/readyz` or `/metrics`, which are taken.
    #[must_use]
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Speaks TLS, and nothing else, on the private listener; with `None`, as without this,
    /// plain HTTP.
    #[must_use]
    pub fn tls(mut self, tls: Option<Arc<Tls>>) -> Self {
        self.tls = tls;
        self
    }

    /// Serves the page for people on the private listener, or does not, as without this.
    #[must_use]
    pub fn page(mut self, page: bool) -> Self {
        self.page = page;
        self
    }

    /// Serves both listeners until `stop`, then on until the workers that beat through
    /// this api and are stopping too have taken their leave, for at most `grace`, and at the
    /// end what is in flight: the application's routes have what is left of `grace` then, and
    /// some seconds at least. Gives whether all of it was finished.
    pub async fn serve(
        self,
        public: TcpListener,
        private: TcpListener,
        stop: CancellationToken,
        grace: Duration,
    ) -> bool {
        let Self { settings, stores, metrics, routes, tls, page } = self;
        let callers = Callers::default();
        let closing = Closing { draining: stop.clone(), closed: CancellationToken::new() };
        // Whether the table can be used does not depend on whose progress is asked for.
        let table = stores("readiness", "-");
        let open = Public::new(table, Arc::clone(&metrics), stop.clone()).router().merge(routes);
        let page = page.then(|| Page::new(&settings.token, tls.is_some(), stop.clone()));
        let behind_token = Private::new(settings, stores, metrics, callers.clone(), page);
        let watched = Arc::clone(&behind_token);
        let behind_token = behind_token.router();
        let ends = OnceLock::new();
        let drained = async {
            stop.cancelled().await;
            let _ = ends.set(Instant::now() + grace);
            // Theirs may be as long: who stops at the same time is waited for to the end.
            let _ = tokio::time::timeout(grace, callers.gone()).await;
            closing.closed.cancel();
        };
        let left = || {
            let left = ends.get().map(|ends| ends.saturating_duration_since(Instant::now()));
            left.unwrap_or_default().max(LAST_WORDS)
        };
        let watching = async {
            tokio::select! {
                () = stop.cancelled() => {}
                never = watched.watch() => match never {},
            }
        };
        let ((), (), public, private) = tokio::join!(
            drained,
            watching,
            listener::serve(public, None, open, &closing, left),
            listener::serve(private, tls, behind_token, &closing, || LAST_WORDS),
        );
        public && private
    }
}
