//! `streamgate dead-letters redrive`: letters handed to the handler again, one after the other.
//!
//! Owns their order and what is told meanwhile: a line for each letter, and on a terminal one
//! below that says how far it is. All of it goes to stderr: stdout may be the handler's.

use super::consumer::handler;
use super::dead_letters::failed;
use super::exit::Exit;
use serde_json::json;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamgate::config::ConsumerConfig;
use streamgate::deliver::{Deliverer, HeldItems, Redriven};
use streamgate::program::{drain_on_signal, traces};
use streamgate::progress::Progress;
use streamgate::progress::letters::Listed;
use streamgate::telemetry::metrics::Metrics;
use streamgate::telemetry::status::Board;
use tokio_util::sync::CancellationToken;

/// How often the line below is written anew while a handler works.
const TICK: Duration = Duration::from_secs(1);
/// Characters of the bar.
const BAR: usize = 20;

/// In order; after one that fails, later ones with an item of it stay.
pub async fn run(
    config: &ConsumerConfig,
    store: Arc<dyn Progress>,
    found: Vec<Listed>,
    metrics: Arc<Metrics>,
    as_json: bool,
) -> Result<(), Exit> {
    let drain = drain_on_signal()?;
    let traces = traces(config, &metrics)?;
    let deliverer = Deliverer {
        handler: handler(config)?,
        timeout: config.settings.handler_timeout,
        retries: config.settings.retries,
        destination: None,
        stream: config.settings.stream.to_string(),
        metrics,
        board: Arc::new(Board::new()),
        traces: traces.clone(),
    };
    if found.is_empty() && !as_json {
        eprintln!("there are no dead letters");
    }
    let redriven = redrive(&deliverer, &*store, &found, as_json, &drain).await;
    if let Some(traces) = traces {
        traces.close().await;
    }
    match redriven? {
        0 => Ok(()),
        left => Err(Exit::Failed(format!("{left} of {} dead letters are left", found.len()))),
    }
}

/// Gives how many are left.
async fn redrive(
    deliverer: &Deliverer,
    store: &dyn Progress,
    found: &[Listed],
    as_json: bool,
    drain: &CancellationToken,
) -> Result<usize, Exit> {
    let (mut left, mut held) = (0, HeldItems::default());
    let mut bar = Bar::new(found.len(), as_json);
    for (index, listed) in found.iter().enumerate() {
        if drain.is_cancelled() {
            left += found.len() - index;
            break;
        }
        let redriving = deliverer.redrive(store, listed, &mut held);
        let outcome = bar.during(index, redriving).await.map_err(failed)?;
        left += usize::from(outcome != Redriven::Taken);
        tell(index + 1, found.len(), listed, &outcome, as_json);
    }
    Ok(left)
}

fn tell(index: usize, count: usize, listed: &Listed, outcome: &Redriven, as_json: bool) {
    let letter = &listed.letter;
    let (word, taken, why) = match outcome {
        Redriven::Taken => ("taken", letter.records as usize, None),
        Redriven::PartlyTaken { taken, why, .. } => ("partly taken", *taken, Some(why)),
        Redriven::Failed { why } => ("not taken", 0, Some(why)),
    };
    if as_json {
        let rest = match outcome {
            Redriven::PartlyTaken { rest, .. } => Some(rest),
            _ => None,
        };
        let line = json!({
            "index": index, "of": count, "id": letter.id, "outcome": word, "records": letter.records,
            "taken": taken, "why": why, "rest": rest,
        });
        eprintln!("{line}");
    } else {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        eprintln!(
            "{index} of {count}  {}  {taken} of {} records {word}{why}",
            letter.id, letter.records
        );
    }
}

/// The line below the others, on a terminal. It is gone when nothing is under way.
struct Bar {
    is_shown: bool,
    count: usize,
    began: Instant,
}

impl Bar {
    fn new(count: usize, as_json: bool) -> Self {
        let is_shown = !as_json && std::io::stderr().is_terminal();
        Self { is_shown, count, began: Instant::now() }
    }

    /// Shows how far it is for as long as `work` on one more takes.
    async fn during<T>(&mut self, done: usize, work: impl Future<Output = T>) -> T {
        if !self.is_shown {
            return work.await;
        }
        tokio::pin!(work);
        loop {
            self.write(&line(done, self.count, self.began.elapsed()));
            tokio::select! {
                biased;
                result = &mut work => {
                    self.write("");
                    return result;
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// In place of what stands there. A terminal that has gone is no fault.
    fn write(&self, text: &str) {
        let mut out = std::io::stderr();
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
    }
}

/// How far it is: `done` letters of `count`, after so long.
fn line(done: usize, count: usize, since: Duration) -> String {
    let full = (BAR * done).checked_div(count).unwrap_or(BAR).min(BAR);
    let since = humantime::format_duration(Duration::from_secs(since.as_secs()));
    format!("[{}{}] {done} of {count} done, {since}", "#".repeat(full), ".".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_far_it_is() {
        let at = |done, count| line(done, count, Duration::from_millis(61_900));
        assert_eq!(at(0, 3), "[....................] 0 of 3 done, 1m 1s");
        assert_eq!(at(2, 3), "[#############.......] 2 of 3 done, 1m 1s");
        assert_eq!(at(3, 3), "[####################] 3 of 3 done, 1m 1s");
        assert_eq!(at(0, 0), "[####################] 0 of 0 done, 1m 1s");
    }
}
