//! `streamgate status --watch`: the whole consumer on a terminal, looked at again and again.
//!
//! Owns the terminal and the pace. What is looked at is `picture`'s, how it is shown `view`'s,
//! what keys do `keys`'. Invariants: the terminal is as it was when this ends, by a key, a
//! signal or a panic; and a look that hangs or fails holds up neither keys nor the clock.

mod keys;
mod lineage;
mod picture;
mod view;

use super::ask;
use super::exit::Exit;
use clap::ArgMatches;
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use keys::Choice;
use picture::{Picture, Sources, to_json};
use ratatui::DefaultTerminal;
use std::io::{IsTerminal as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::program::{drain_on_signal, progress};
use streamgate::telemetry::metrics::Metrics;
use streamgate::{aws, config};
use tokio_util::sync::CancellationToken;
use view::View;

/// How often what is relative to now is drawn anew.
const TICK: Duration = Duration::from_secs(1);

pub async fn run(matches: &ArgMatches) -> Result<(), Exit> {
    let as_json = matches.get_flag("json");
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !as_json && !is_terminal {
        return Err(Exit::Usage(
            "--watch draws on a terminal, and here is none (docker exec and kubectl exec give one with -it); --watch --json prints a line for each look".to_owned(),
        ));
    }
    let interval = *matches.get_one::<Duration>("interval").expect("it has a default");
    let here = ask::addresses(matches, &[config::Command::Consumer]).map_err(Exit::Usage)?[0];
    let lookup = super::lookup(matches);
    // `streamgate local` has its progress to itself.
    let is_whole = lookup("STREAM_ARN").is_some_and(|arn| !arn.is_empty());
    let (title, store) = if is_whole {
        let config = config::consumer(&lookup, SystemTime::now())?;
        let metrics = Arc::new(Metrics::new());
        let aws = aws::load(Some(config.settings.stream.region()), metrics.aws_observer()).await;
        let title = format!("{} of {}", config.consumer, config.settings.stream.table());
        (title, Some(progress(&config, &aws, &metrics)?))
    } else {
        (format!("consumer at {here}"), None)
    };
    let sources = Sources::new(store, here);
    let drain = drain_on_signal()?;
    if as_json {
        return print(sources, interval, &drain).await;
    }
    let failed = |error: std::io::Error| Exit::Failed(format!("the terminal: {error}"));
    // Its hook gives the terminal back before a panic is told.
    let terminal = ratatui::try_init().map_err(failed)?;
    let watched = watch(terminal, &title, sources, interval, &drain).await;
    ratatui::restore();
    watched.map_err(failed)
}

/// A line for each look, until a signal or until nobody reads any more.
async fn print(
    mut sources: Sources,
    interval: Duration,
    drain: &CancellationToken,
) -> Result<(), Exit> {
    loop {
        let Some(look) = drain.run_until_cancelled(sources.look()).await else { return Ok(()) };
        let line = to_json(&look).to_string() + "\n";
        let mut out = std::io::stdout();
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Exit::Failed(format!("stdout: {error}"))),
            Ok(()) => {}
        }
        if drain.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
            return Ok(());
        }
    }
}

/// A look on its way, which gives its sources back.
type Looking = Pin<Box<dyn Future<Output = (Sources, Result<Picture, String>)> + Send>>;

fn look_after(wait: Duration, mut sources: Sources) -> Looking {
    Box::pin(async move {
        tokio::time::sleep(wait).await;
        let look = sources.look().await;
        (sources, look)
    })
}

async fn watch(
    mut terminal: DefaultTerminal,
    title: &str,
    sources: Sources,
    interval: Duration,
    drain: &CancellationToken,
) -> std::io::Result<()> {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let (mut choice, mut keys) = (Choice::default(), EventStream::new());
    let (mut picture, mut trouble): (Option<Picture>, Option<String>) = (None, None);
    let mut looking = look_after(Duration::ZERO, sources);
    loop {
        let view = View {
            title,
            picture: picture.as_ref(),
            trouble: trouble.as_deref(),
            choice: &choice,
            colours,
            now: SystemTime::now(),
        };
        let mut most = (0, 0);
        terminal.draw(|frame| most = view.draw(frame))?;
        choice.bounded(most);
        tokio::select! {
            biased;
            () = drain.cancelled() => return Ok(()),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if choice.press(key) => return Ok(()),
                // Another size is drawn in like everything else.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            (sources, look) = &mut looking => {
                match look {
                    Ok(look) => (picture, trouble) = (Some(look), None),
                    Err(why) => trouble = Some(why),
                }
                looking = look_after(interval, sources);
            }
            () = tokio::time::sleep(TICK) => {}
        }
    }
}
