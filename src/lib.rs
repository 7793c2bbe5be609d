//! Streamgate runs a DynamoDB stream's handler in your own containers.
//!
//! A record's way: [`source`] → lineage → reader → filter → batch → deliver →
//! checkpoint ([`progress`]). See `ARCHITECTURE.md` for the map.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod arn;
pub mod aws;
pub mod backoff;
pub mod batch;
pub mod budget;
pub mod causes;
pub mod check;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod deliver;
pub mod filter;
pub mod frontier;
pub mod lineage;
#[cfg(feature = "local")]
pub mod local;
pub mod panics;
pub mod planner;
pub mod policy;
pub mod polling;
pub mod program;
pub mod progress;
pub mod reader;
pub mod record;
pub mod simulator;
pub mod source;
pub mod telemetry;
