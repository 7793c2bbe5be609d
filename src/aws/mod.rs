//! One way to set up AWS clients, shared by the stream's and the table's.
//!
//! Owns credentials, region, time-outs and the SDK's own few retries. Does not hold a
//! client: the consumer's code gets a stream client, the store's a table client, each
//! made in one file, so that no room can reach what its role may not do.

mod http;
mod repeat;
mod signing;

pub use http::{AttemptObserver, AttemptOutcome};
pub(crate) use http::{BodySlot, CountingClient};
pub(crate) use repeat::Repeats;

use crate::causes;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for 1 MB over a poor link, short enough that a hung answer is noticed.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The SDK's own tries. They mend a stale connection or a skewed clock; anything that
/// lasts longer is retried by our loops, where it is counted and can be seen.
const ATTEMPTS: u32 = 2;

/// Reads the AWS environment (keys, roles, endpoints, profiles) as every SDK does.
/// Nothing is contacted yet. `region` counts over the environment's.
pub async fn load(region: Option<&str>, observer: AttemptObserver) -> SdkConfig {
    let mut loader = client_settings(aws_config::defaults(BehaviorVersion::latest()), observer);
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    loader.load().await
}

/// The same for clients that are not Streamgate's: their attempts are not in its metrics.
pub(crate) fn uncounted(config: &SdkConfig) -> SdkConfig {
    config.to_builder().http_client(CountingClient::new(Arc::new(|_, _| {}))).build()
}

/// What holds for every client, wherever its endpoint and credentials come from.
pub(crate) fn client_settings(loader: ConfigLoader, observer: AttemptObserver) -> ConfigLoader {
    loader
        .http_client(CountingClient::new(observer))
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .build(),
        )
        // The attempt's time-out covers a stalled body.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// A failed call in the words that matter: the service's code, or none when it never
/// answered, and a sentence.
pub(crate) struct Failure {
    pub code: Option<String>,
    pub message: String,
    /// The answer came but could not be read.
    pub unreadable: bool,
    /// The call never left: credentials could not be found or the request not be built.
    pub not_sent: bool,
}

impl Failure {
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let code = error.code().map(str::to_owned);
        let message = match (error, error.message()) {
            (SdkError::ServiceError(_), Some(message)) => message.to_owned(),
            (SdkError::TimeoutError(_), _) => "no answer in time".to_owned(),
            _ => causes::in_a_line(error),
        };
        let unreadable = matches!(error, SdkError::ResponseError(_))
            || error.raw_response().is_some_and(|response| response.status().is_success());
        let not_sent = match error {
            SdkError::ConstructionFailure(_) => true,
            // `Other` with a kind is a transport error the SDK would have retried.
            SdkError::DispatchFailure(failure) => {
                failure.is_user() || (failure.is_other() && failure.as_other().is_none())
            }
            _ => false,
        };
        Self { code, message, unreadable, not_sent }
    }

    /// Whether the code says the caller is too fast.
    pub fn is_throttle(&self) -> bool {
        self.code.as_deref().is_some_and(is_throttle)
    }

    /// Whether the code says the role lacks a permission.
    pub fn is_denied(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some("AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation")
        )
    }

    /// Whether keys, token or clock were not accepted.
    pub fn is_credentials(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some(
                "UnrecognizedClientException"
                    | "ExpiredTokenException"
                    | "ExpiredToken"
                    | "InvalidSignatureException"
                    | "IncompleteSignatureException"
                    | "IncompleteSignature"
                    | "MissingAuthenticationTokenException"
                    | "MissingAuthenticationToken"
                    | "InvalidClientTokenId"
            )
        )
    }
}

/// The codes by which services say "slow down", modelled or not.
pub(crate) fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "SlowDown"
    )
}
