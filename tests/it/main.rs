//! The integration tests: one binary, so that servers are started once and the crate is
//! linked once. Run by `scripts/test`, which installs what they need.

mod api;
mod architecture;
mod catalogue;
mod commands;
mod conformance;
mod corridor;
mod costs;
mod crowd;
mod dead_letters;
mod embedded;
mod exec;
mod exits;
mod failures;
mod filter;
mod fleet;
mod idle;
mod lambda;
mod model;
mod openapi;
mod operate;
mod operators;
mod outages;
mod pair;
mod parallel;
mod processes;
mod program;
mod replicas;
mod roles;
mod savealife;
mod sharing;
mod simulation;
mod support;
mod table;
mod tls;
mod windows;
