//! Why a consumer ends by itself, in sentences for the person who has to mend it.

use crate::arn::StreamArn;
use crate::progress::ProgressError;
use crate::source::{SourceError, SourceErrorKind};
use std::time::Duration;

/// Why a consumer could not do its work. Everything that may pass by itself is waited
/// for instead.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// AWS refused a call that has never worked: the role lacks the action.
    #[error(
        "AWS refused {action}: {message}. The role that makes this call needs to allow {action} on {resource}"
    )]
    Refused {
        /// The IAM action.
        action: String,
        /// What it has to be allowed on.
        resource: String,
        /// The service's words.
        message: String,
    },
    /// Nobody is there to sign the calls, or their signature is not accepted.
    #[error(
        "AWS credentials are missing or not accepted: {0}. Give the container that makes the call a task role (ECS), a service account with a role (Kubernetes), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials(String),
    /// The stream of the configuration is not there.
    #[error(
        "the stream {stream} does not exist (any more): {message}. Take LatestStreamArn from `aws dynamodb describe-table --table-name {}`; a stream that was disabled and enabled again has a new ARN", stream.table()
    )]
    NoStream {
        /// The stream.
        stream: StreamArn,
        /// The service's words.
        message: String,
    },
    /// The stream's ARN or another argument is not accepted.
    #[error("{0}")]
    Invalid(String),
    /// Progress cannot be kept there.
    #[error("{0}")]
    Unsuitable(String),
    /// The time of `SHUTDOWN_GRACE` passed and something was still in flight.
    #[error(
        "the stop took longer than SHUTDOWN_GRACE ({grace:?}) and {what} was cut off: its records come again"
    )]
    GracePassed {
        /// The bound.
        grace: Duration,
        /// What was in flight.
        what: &'static str,
    },
}

impl ConsumerError {
    /// A call to `stream` that only a person can mend.
    pub(crate) fn of_stream(stream: &StreamArn, error: SourceError) -> Self {
        match error.kind {
            SourceErrorKind::NotFound => {
                Self::NoStream { stream: stream.clone(), message: error.message }
            }
            SourceErrorKind::Credentials => Self::Credentials(error.message),
            SourceErrorKind::AccessDenied => Self::Refused {
                action: format!("dynamodb:{}", error.operation.name()),
                resource: stream.to_string(),
                message: error.message,
            },
            _ => Self::Invalid(error.to_string()),
        }
    }

    /// A call to the store of progress that only a person can mend.
    pub fn of_store(error: ProgressError) -> Self {
        match error {
            ProgressError::AccessDenied { action, message } => Self::Refused {
                action: action.to_owned(),
                resource: "the table TABLE_NAME".to_owned(),
                message,
            },
            ProgressError::Credentials(why) => Self::Credentials(why),
            error => Self::Unsuitable(error.to_string()),
        }
    }
}
