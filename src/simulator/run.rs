//! The simulator as a process of its own: options in, served until told to stop.
//!
//! Owns the clock-driven resharding. Does not read arguments or the environment.

use super::{LoadOptions, Refused, Settings, Simulator, StreamViewType};
use crate::arn::StreamArn;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Shards open at once beyond which the resharding rolls over instead of splitting.
const MOST_OPEN: usize = 64;
/// Faster resharding would fill the listing with shards nobody can read in time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What `simulate` is to run.
#[derive(Clone, Debug)]
pub struct SimulateOptions {
    /// The stream to be.
    pub stream: StreamArn,
    /// Which images records carry.
    pub view_type: StreamViewType,
    /// Shards open at the start.
    pub shards: usize,
    /// Splits a random open shard at this interval, children in turn; with 64 open ones
    /// it is rolled over instead.
    pub split_every: Option<Duration>,
    /// Makes number steps, event ids, the choice of shards and fault dice repeat.
    pub seed: u64,
    /// How long an iterator can be used.
    pub iterator_life: Duration,
    /// Pages made beforehand.
    pub load: Option<LoadOptions>,
}

impl SimulateOptions {
    /// `stream` with one open shard and nothing in it.
    pub fn new(stream: StreamArn) -> Self {
        Self {
            stream,
            view_type: StreamViewType::default(),
            shards: 1,
            split_every: None,
            seed: 0,
            iterator_life: Settings::default().iterator_life,
            load: None,
        }
    }
}

/// Runs a simulator on `listener` until `stop`.
///
/// # Errors
/// [`Refused`] for options that make no sense, before anything is served.
pub async fn simulate(
    options: SimulateOptions,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), Refused> {
    if options.split_every.is_some_and(|every| every < SHORTEST_INTERVAL) {
        return Err(Refused::new(format!(
            "shards can be split every {SHORTEST_INTERVAL:?} at the most often"
        )));
    }
    let mut builder = Simulator::builder(options.stream)
        .view_type(options.view_type)
        .shards(options.shards)
        .seed(options.seed)
        .settings(Settings { iterator_life: options.iterator_life, ..Settings::default() });
    if let Some(load) = options.load {
        builder = builder.load(load);
    }
    let simulator = builder.try_build()?;
    let resharding = async {
        match options.split_every {
            Some(every) => reshard(&simulator, every, options.seed).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = simulator.serve(listener, stop) => {}
        () = resharding => {}
    }
    Ok(())
}

/// Splits a random open shard at each interval until the end of time, children in turn;
/// with 64 open ones it is rolled over instead.
pub async fn reshard(simulator: &Simulator, every: Duration, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        tokio::time::sleep(every).await;
        let open = simulator.open_shards();
        // Someone may disable the stream, or split the same shard by hand.
        let Some(shard) = random.choice(&open) else { continue };
        let resharded = if open.len() < MOST_OPEN {
            simulator.engine().split(shard).map(|children| children.to_vec())
        } else {
            simulator.engine().rollover(shard).map(|child| vec![child])
        };
        match resharded {
            Ok(children) => tracing::info!(%shard, ?children, "closed a shard"),
            Err(refused) => tracing::debug!(%refused, "did not close a shard"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arn() -> StreamArn {
        "arn:aws:dynamodb:eu-west-1:1:table/cats/stream/2026".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn splits_at_its_interval_and_rolls_over_at_the_cap() {
        let simulator = Simulator::builder(arn()).build();
        let every = Duration::from_secs(1);
        let _ = tokio::time::timeout(every / 2, reshard(&simulator, every, 1)).await;
        assert_eq!(simulator.open_shards().len(), 1, "not before its time");
        let _ = tokio::time::timeout(every * 100, reshard(&simulator, every, 1)).await;
        assert_eq!(simulator.open_shards().len(), MOST_OPEN);
        assert!(simulator.shards().len() > 2 * MOST_OPEN);
        simulator.disable();
        let shards = simulator.shards();
        let _ = tokio::time::timeout(every * 10, reshard(&simulator, every, 1)).await;
        assert_eq!(simulator.shards(), shards, "a disabled stream is left alone");
    }

    #[tokio::test]
    async fn options_that_make_no_sense_are_refused_before_anything_is_served() {
        let options = SimulateOptions::new(arn());
        let load = LoadOptions { records_per_page: 1001, ..LoadOptions::default() };
        for options in [
            SimulateOptions { shards: 0, ..options.clone() },
            SimulateOptions { split_every: Some(Duration::ZERO), ..options.clone() },
            SimulateOptions { load: Some(load), ..options.clone() },
            SimulateOptions {
                load: Some(LoadOptions { pages: usize::MAX, ..LoadOptions::default() }),
                ..options.clone()
            },
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            assert!(simulate(options, listener, CancellationToken::new()).await.is_err());
        }
    }

    #[tokio::test]
    async fn ends_when_it_is_told_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let options = SimulateOptions {
            split_every: Some(Duration::from_secs(1)),
            ..SimulateOptions::new(arn())
        };
        let running = tokio::spawn(simulate(options, listener, stop.clone()));
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
