//! Which credentials the SDK signs with, and until when.
//!
//! Owns the ear at its provider. The SDK keeps what it is given until shortly before it expires,
//! or for a quarter of an hour where nothing says when; then it asks again. Invariant: the
//! provider is asked by the SDK alone.

use super::Repeats;
use crate::clock;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use std::fmt;
use std::time::Duration;

/// The SDK asks its provider again so long before credentials expire, and a little more.
const BEFORE_EXPIRY: Duration = Duration::from_secs(15);
/// And after so long where they do not say when they expire.
const WITHOUT_EXPIRY: Duration = Duration::from_secs(15 * 60);

/// The provider of the SDK's credentials; what it hands out is noted.
pub(super) struct Overheard {
    pub inner: SharedCredentialsProvider,
    pub by: Repeats,
}

impl fmt::Debug for Overheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl ProvideCredentials for Overheard {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let credentials: provider::Result = self.inner.provide_credentials().await;
            let credentials = credentials?;
            let expiry = credentials.expiry().unwrap_or_else(|| clock::now() + WITHOUT_EXPIRY);
            self.by.overhear(credentials.clone(), expiry - BEFORE_EXPIRY);
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.inner.fallback_on_interrupt()
    }
}
