//! What the outside may see: metrics, logs, health, status, traces.
//!
//! Owns names and forms; the numbers are put in by the rooms that know them.

pub mod emf;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod status;
pub mod traces;
