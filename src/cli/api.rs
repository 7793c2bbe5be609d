//! `streamgate api`: the api's program, with no routes but its own.

use super::exit::Exit;
use axum::Router;
use clap::ArgMatches;
use streamgate::config;
use streamgate::program::{drain_on_signal, keep_progress};

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let config = config::api(&super::lookup(matches))?;
    keep_progress(config, |_| Router::new(), drain_on_signal()?).await
}
