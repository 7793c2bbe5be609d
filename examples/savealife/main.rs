//! Save a life: donors of blood sign up, an organisation announces a donation event, and the
//! donors of its city get a mail. An application on Streamgate's library, in three containers:
//!
//! - `savealife api`: the application's routes beside Streamgate's private ones, under a role
//!   that may work on one table;
//! - `streamgate consumer`: as it is, under a role that may read that table's stream;
//! - `savealife handler`: mails, without any role.
//!
//! `savealife local` runs all of it in one process. README.md walks through both.

mod answer;
mod event;
mod handler;
mod input;
mod items;
mod ledger;
mod local;
mod mail_routes;
mod mailer;
mod mailing;
mod message;
mod paging;
mod routes;
mod settings;
mod sink;
mod store;

use std::process::ExitCode;
use std::sync::Arc;
use streamgate::program::{self, ProgramError, drain_on_signal, keep_progress};

const USAGE: &str = "\
savealife COMMAND
  api                     the routes of the application, and consumers' progress
  handler                 mails the donors of a donation's city
  local [--free-ports]    both, a consumer, DynamoDB and a mail server on 127.0.0.1";

fn main() -> ExitCode {
    program::run(async {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments[..] {
            ["api"] => api().await,
            ["handler"] => handler::run().await,
            ["local"] => local::run(local::Ports::Usual).await,
            ["local", "--free-ports"] => local::run(local::Ports::Free).await,
            _ => Err(ProgramError::Usage(USAGE.to_owned())),
        }
    })
}

/// The api container: what `streamgate api` does, with routes.
async fn api() -> Result<(), ProgramError> {
    let (config, token) = settings::api(&settings::environment)?;
    let table = config.table.clone();
    let routes = |aws: &_| routes::router(Arc::new(store::Store::new(aws, table)), token);
    keep_progress(config, routes, drain_on_signal()?).await
}
