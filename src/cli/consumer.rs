//! `streamgate consumer`: the consumer's program with the handler that `HANDLER` names.

use super::exit::Exit;
use clap::ArgMatches;
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::config::{self, ConsumerConfig, HandlerConfig};
use streamgate::deliver::{Discard, ExecHandler, Handler, HttpHandler, LambdaHandler, Log};
use streamgate::program::{consume, drain_on_signal};

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let config = config::consumer(&super::lookup(matches), SystemTime::now())?;
    let handler = handler(&config)?;
    consume(config, handler, drain_on_signal()?).await
}

pub(super) fn handler(config: &ConsumerConfig) -> Result<Arc<dyn Handler>, Exit> {
    Ok(match &config.handler {
        HandlerConfig::Log => Arc::new(Log::to_stdout()),
        HandlerConfig::Discard => Arc::new(Discard),
        HandlerConfig::Http(url) => Arc::new(
            HttpHandler::new(url.clone(), &config.consumer, config.answers)
                .map_err(|error| Exit::Failed(format!("HANDLER: {error}")))?
                .as_cloud_events(config.cloud_events.clone())
                .signed(config.handler_secrets.clone()),
        ),
        HandlerConfig::Exec(program, arguments) => {
            Arc::new(ExecHandler::new(program.clone(), arguments.clone(), config.answers))
        }
        HandlerConfig::Lambda(targets) => Arc::new(
            LambdaHandler::new(targets, config.answers)
                .map_err(|error| Exit::Failed(format!("HANDLER: {error}")))?,
        ),
    })
}
