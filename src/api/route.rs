//! What a path of the private listener means.
//!
//! Owns paths and methods. Knows nothing of bodies.

use super::{metrics, openapi};
use crate::progress::wire::{self, Call, HELLO, PROGRESS};
use axum::http::Method;
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// What a path means. Names stand in it as any client may escape them.
pub(super) enum Route {
    Hello,
    OpenApi,
    Progress { call: Call, table: String, consumer: String, label: String },
}

impl Route {
    pub fn of(path: &str) -> Option<Self> {
        if path == HELLO {
            return Some(Self::Hello);
        }
        if path == openapi::PATH {
            return Some(Self::OpenApi);
        }
        let mut parts = path.strip_prefix(PROGRESS)?.strip_prefix('/')?.split('/');
        let mut name = || Some(percent_decode_str(parts.next()?).decode_utf8().ok()?.into_owned());
        let (table, whose, call) = (name()?, name()?, Call::named(&name()?)?);
        let (consumer, label) = whose.split_once('@')?;
        let (consumer, label) = (consumer.to_owned(), label.to_owned());
        parts.next().is_none().then_some(Self::Progress { call, table, consumer, label })
    }

    pub fn method(&self) -> Method {
        match self {
            Self::OpenApi => Method::GET,
            Self::Progress { call, .. } if call.reads() => Method::GET,
            _ => Method::POST,
        }
    }

    /// How long it may take, with a body of so many bytes.
    pub fn bound(&self, body: usize) -> Duration {
        match self {
            Self::Progress { call, .. } => call.bound(body),
            Self::Hello | Self::OpenApi => wire::bound(body),
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            Self::Hello => metrics::HELLO,
            Self::OpenApi => metrics::OPENAPI,
            Self::Progress { call, .. } => call.name(),
        }
    }
}
