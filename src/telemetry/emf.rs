//! CloudWatch's embedded metric format on stdout: metrics without a right to write them.
//!
//! Owns a line a minute, under the names of Lambda's own metrics, for dashboards and
//! alarms that know them. The log driver carries it to CloudWatch Logs, where metrics
//! are made of it. Counts nothing itself. Invariant: over all lines of a process every
//! event is counted once, those since the last full minute in a last line at its end.

use super::metrics::{DROP_REASONS, Metrics};
use super::status::Board;
use crate::clock;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const NAMESPACE: &str = "Streamgate";
const INTERVAL: Duration = Duration::from_secs(60);
/// How often the age is looked at, of which a line has the largest.
const LOOK: Duration = Duration::from_secs(1);

/// Counters by their name in CloudWatch.
type Counts = [(&'static str, u64); 7];

/// The lines of one consumer.
pub struct Emf {
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    consumer: String,
    table: String,
    before: Counts,
    largest_age: f64,
}

impl Emf {
    /// For the consumer of a name, of the stream of a table.
    pub fn new(metrics: Arc<Metrics>, board: Arc<Board>, consumer: &str, table: &str) -> Self {
        let before = counts(&metrics);
        let (consumer, table) = (consumer.to_owned(), table.to_owned());
        Self { metrics, board, consumer, table, before, largest_age: 0.0 }
    }

    /// Writes a line a minute to `out`, and one at the stop; gives it back.
    pub async fn run<W: AsyncWrite + Unpin>(mut self, stop: CancellationToken, mut out: W) -> W {
        let mut is_told = false;
        let looks = INTERVAL.as_secs() / LOOK.as_secs();
        while !stop.is_cancelled() {
            for _ in 0..looks {
                let look = stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
                self.look();
                if look.is_none() {
                    break;
                }
            }
            let line = format!("{}\n", self.line(clock::now()));
            let written = async {
                out.write_all(line.as_bytes()).await?;
                out.flush().await
            };
            if let Err(error) = written.await
                && !std::mem::replace(&mut is_told, true)
            {
                warn!(%error, "metrics for CloudWatch cannot be written to stdout");
            }
        }
        out
    }

    fn look(&mut self) {
        self.board.measure(&self.metrics, clock::now());
        self.largest_age = self.largest_age.max(self.metrics.iterator_age.get());
    }

    /// What happened since the last line.
    fn line(&mut self, now: SystemTime) -> Value {
        let counts = counts(&self.metrics);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut metrics = vec![json!({"Name": "IteratorAge", "Unit": "Milliseconds"})];
        metrics.extend(counts.map(|(name, _)| json!({"Name": name, "Unit": "Count"})));
        let mut line = json!({
            "_aws": {
                "Timestamp": since.as_millis() as u64,
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["Consumer", "Table"]],
                    "Metrics": metrics,
                }],
            },
            "Consumer": self.consumer,
            "Table": self.table,
            "IteratorAge": (self.largest_age * 1000.0).round() as u64,
        });
        for ((name, count), (_, before)) in counts.into_iter().zip(self.before) {
            line[name] = (count - before).into();
        }
        self.before = counts;
        self.largest_age = 0.0;
        line
    }
}

fn counts(metrics: &Metrics) -> Counts {
    let dropped = |reason| metrics.records_dropped.with_label_values(&[reason]).get();
    let dropped = DROP_REASONS.map(dropped).iter().sum();
    [
        ("PolledEventCount", metrics.records_polled.get()),
        ("FilteredOutEventCount", metrics.records_filtered.get()),
        ("InvokedEventCount", metrics.records_invoked.get()),
        ("FailedInvokeEventCount", metrics.records_failed.get()),
        ("DroppedEventCount", dropped),
        ("OnFailureDestinationDeliveredEventCount", metrics.records_dead_lettered.get()),
        ("Gaps", metrics.gaps.get()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ShardId;

    #[tokio::test(start_paused = true)]
    async fn a_line_a_minute_counts_each_event_once_and_the_last_at_the_stop() {
        let (metrics, board) = (Arc::new(Metrics::new()), Arc::new(Board::new()));
        metrics.records_polled.inc_by(100);
        let emf = Emf::new(Arc::clone(&metrics), Arc::clone(&board), "audit", "orders");
        let stop = CancellationToken::new();
        let running = tokio::spawn(emf.run(stop.clone(), Vec::new()));
        let second = Duration::from_secs(1);
        metrics.records_polled.inc_by(7);
        let shard = ShardId::from("shardId-1");
        let behind = clock::now().checked_sub(90 * second);
        board.shard(&shard, |status| status.behind(behind));
        tokio::time::sleep(30 * second).await;
        board.shard(&shard, |status| status.behind(None));
        tokio::time::sleep(31 * second).await;
        metrics.records_polled.inc_by(3);
        metrics.gaps.inc();
        stop.cancel();
        let written = String::from_utf8(running.await.unwrap()).unwrap();
        let lines: Vec<Value> =
            written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, last] = &lines[..] else { panic!("{lines:#?}") };
        assert_eq!((&first["PolledEventCount"], &last["PolledEventCount"]), (&json!(7), &json!(3)));
        assert_eq!((&first["Gaps"], &last["Gaps"]), (&json!(0), &json!(1)));
        let age = first["IteratorAge"].as_u64().unwrap();
        assert!((90_000..130_000).contains(&age), "{age}");
        assert_eq!(last["IteratorAge"], 0);
        let directive = &first["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Dimensions"], json!([["Consumer", "Table"]]));
        assert_eq!((&first["Consumer"], &first["Table"]), (&json!("audit"), &json!("orders")));
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(first[metric["Name"].as_str().unwrap()].is_u64(), "{metric}");
        }
    }
}
