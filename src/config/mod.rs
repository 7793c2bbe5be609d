//! From text in the environment or on the command line to settings with meaning.
//!
//! Owns reading and judging; contacts nothing. Invariant: every fault is found in one
//! go and named by its variable, so that a deployment is mended once, not five times.

mod api;
mod common;
mod consumer;
mod handler;
mod own_handler;
mod policy;
mod settings;
mod traces;
mod values;

pub use api::{ApiConfig, api};
pub use consumer::{ApiAddress, ConsumerConfig, consumer};
pub use handler::HandlerConfig;
pub use own_handler::own_handler;
pub use policy::{api_policy, consumer_policy};
pub use settings::{Command, SETTINGS, Setting};
pub use values::{Fault, Faults, Values};
