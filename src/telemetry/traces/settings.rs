//! What OpenTelemetry's own variables say, as far as traces go.
//!
//! Owns the types; how the texts are judged is `config`'s. Invariant: nothing here reads the
//! environment, so a flag counts over a variable, and a header is never shown.

use opentelemetry_otlp::Protocol;
use opentelemetry_sdk::trace::Sampler as SdkSampler;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Url};
use std::time::Duration;

/// Where spans go, which of them, and what they say of this process.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector's address for traces, path and all.
    pub endpoint: Url,
    /// What each request to it carries; marked as secret.
    pub headers: HeaderMap,
    /// How spans are written.
    pub encoding: Encoding,
    /// How long one export may take, further tries included.
    pub timeout: Duration,
    /// Who may vouch for the collector beside whom this machine trusts.
    pub ca: Vec<Certificate>,
    /// The attributes of this process, `service.name` among them where it is said.
    pub resource: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// What handlers are told.
    pub propagators: Propagators,
    /// Spans that wait for their export.
    pub queue: Queue,
}

/// How spans are written over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `http/protobuf`
    Protobuf,
    /// `http/json`
    Json,
}

impl From<Encoding> for Protocol {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Protobuf => Self::HttpBinary,
            Encoding::Json => Self::HttpJson,
        }
    }
}

/// Which traces are recorded. A batch begins its trace, so that what a sampler says of those
/// without a parent is all that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// All.
    All,
    /// None; handlers are told so.
    None,
    /// This part of them, by their id.
    Ratio(f64),
}

impl From<Sampler> for SdkSampler {
    fn from(sampler: Sampler) -> Self {
        let root = match sampler {
            Sampler::All => Self::AlwaysOn,
            Sampler::None => Self::AlwaysOff,
            Sampler::Ratio(part) => Self::TraceIdRatioBased(part),
        };
        // The spans within a batch follow it.
        Self::ParentBased(Box::new(root))
    }
}

/// In which forms handlers are told of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    /// W3C's `traceparent`.
    pub trace_context: bool,
    /// AWS's `X-Amzn-Trace-Id`.
    pub xray: bool,
}

/// The bounds of what waits for its export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Spans; what comes on top is dropped and counted.
    pub most: usize,
    /// Spans in one export.
    pub export: usize,
    /// The longest that one waits for others.
    pub delay: Duration,
}
