//! A call that the SDK has made, made again with another body.
//!
//! What the SDK does anew for each call costs several times what an empty GetRecords needs. So it
//! makes the first, and teaches: the endpoint it resolved, its headers and its signature's scope
//! are kept ([`form`]), and later calls repeat them over the same connections, with a body, a time
//! and a signature of their own. Owns what was learned, and until when it is good. Mends nothing:
//! what is not answered well is the SDK's again, and so is the next lesson. Invariant: only what we
//! would have signed just as the SDK did is repeated, with credentials that the SDK's provider
//! handed out and would not replace yet ([`overheard`]).

mod form;
mod overheard;

pub(super) use form::Sent;

use super::http::{BodySlot, error_code};
use crate::clock;
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use bytes::Bytes;
use form::Form;
use overheard::Overheard;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::{debug, info};

/// Lessons in a row of which nothing came, until none is taken for a while: somebody on the way
/// takes the SDK's calls and not what repeats them, and would be asked everything twice.
const MOST_BARREN: u32 = 3;
const PAUSE: Duration = Duration::from_secs(15 * 60);

/// What was learned of one operation. Travels as a request extension with the SDK's calls, to
/// be taught by those that go well. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Repeats(Arc<Inner>);

struct Inner {
    patience: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What the provider handed out last, and until when the SDK keeps it.
    credentials: Option<(Credentials, SystemTime)>,
    form: Option<Arc<Form>>,
    /// Lessons in a row of which nothing came.
    barren: u32,
    /// Until then none is taken.
    pause: Option<Instant>,
}

/// The service's reason not to answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: String,
    pub message: String,
}

impl Repeats {
    /// With the configuration for the client whose calls are to be repeated. `None` where the
    /// SDK may not try a call twice: then nobody mends one that went wrong.
    pub fn new(config: &SdkConfig) -> Option<(Self, SdkConfig)> {
        if config.retry_config()?.max_attempts() < 2 {
            return None;
        }
        let patience = config.timeout_config()?.operation_attempt_timeout()?;
        let repeats = Self(Arc::new(Inner { patience, known: Mutex::default() }));
        let provider = Overheard { inner: config.credentials_provider()?, by: repeats.clone() };
        let provider = SharedCredentialsProvider::new(provider);
        let config = config.to_builder().credentials_provider(provider).build();
        Some((repeats, config))
    }

    /// Makes the call once, with `body`. `None` where it is the SDK's to make: nothing was learned
    /// yet, it is not good any more, or it led neither to an answer nor to a refusal whose code
    /// `is_final`.
    pub async fn call(
        &self,
        body: String,
        is_final: impl Fn(&str) -> bool,
    ) -> Option<Result<Bytes, Refusal>> {
        let form = self.known().form.clone()?;
        let now = clock::now();
        let request = if now < form.until { form.request(body, now) } else { None };
        let Some(mut request) = request else { return self.forget(&form) };
        let (slot, connection) = (BodySlot::default(), CaptureSmithyConnection::new());
        request.add_extension(slot.clone());
        request.add_extension(connection.clone());
        let answer = tokio::time::timeout(self.0.patience, form.connector.call(request)).await;
        let answer = answer.ok().and_then(Result::ok);
        if let Some(body) = slot.take() {
            self.proved(&form);
            return Some(Ok(body));
        }
        let is_refused = answer.as_ref().is_some_and(|answer| answer.status().is_client_error());
        if !is_refused {
            // Not to be met by the SDK, too.
            if let Some(connection) = connection.get() {
                connection.poison();
            }
            return self.forget(&form);
        }
        let refusal = answer.and_then(|answer| Refusal::read(answer.body().bytes()?));
        match refusal.filter(|refusal| is_final(&refusal.code)) {
            Some(refusal) => {
                self.proved(&form);
                Some(Err(refusal))
            }
            None => {
                self.barren(&form);
                self.forget(&form)
            }
        }
    }

    /// What was learned led to no answer: the SDK is to find out why, and to teach anew, if it
    /// has not done so meanwhile.
    fn forget<T>(&self, form: &Arc<Form>) -> Option<T> {
        let mut known = self.known();
        if known.form.as_ref().is_some_and(|known| Arc::ptr_eq(known, form)) {
            known.form = None;
        }
        None
    }

    fn proved(&self, form: &Form) {
        if !form.proved.swap(true, Ordering::Relaxed) {
            self.known().barren = 0;
        }
    }

    /// Nothing came of a lesson, unless something has before.
    fn barren(&self, form: &Arc<Form>) {
        let mut known = self.known();
        let is_it = known.form.as_ref().is_some_and(|known| Arc::ptr_eq(known, form));
        if is_it && !form.proved.load(Ordering::Relaxed) {
            known.was_barren();
        }
    }

    /// Keeps what the SDK sent and was answered to, where we would have signed it as it did.
    pub(super) fn learn(&self, sent: &Sent, connector: SharedHttpConnector) {
        let credentials = {
            let known = self.known();
            let is_paused = known.pause.is_some_and(|until| Instant::now() < until);
            known.credentials.clone().filter(|(_, until)| !is_paused && *until > clock::now())
        };
        let Some(credentials) = credentials else { return };
        let form = Form::of(sent, connector, credentials);
        let mut known = self.known();
        match form {
            Some(form) => known.form = Some(Arc::new(form)),
            None => {
                debug!("a call of the SDK's cannot be repeated");
                known.was_barren();
            }
        }
    }

    /// What the SDK signs with from now on, and until when.
    fn overhear(&self, credentials: Credentials, until: SystemTime) {
        self.known().credentials = Some((credentials, until));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().expect("no panic while held")
    }
}

impl Known {
    fn was_barren(&mut self) {
        self.barren += 1;
        if self.barren >= MOST_BARREN {
            self.barren = 0;
            self.pause = Some(Instant::now() + PAUSE);
            info!(
                "GetRecords is called by the SDK alone for a quarter of an hour, at a few times the \
                 CPU: what repeats its calls is not answered as they are"
            );
        }
    }
}

impl Refusal {
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(alias = "Message")]
            message: Option<String>,
        }
        let code = error_code(body)?;
        let message = serde_json::from_slice::<Body>(body).ok()?.message;
        Some(Self { message: message.unwrap_or_else(|| code.clone()), code })
    }
}
