//! How a consumer behaves.
//!
//! Owns what a worker is told, once and for its whole life. Does not own where that comes
//! from: `config` reads it from the environment. Invariant: every setting is acted upon.

use crate::arn::StreamArn;
use crate::batch::BatchSettings;
use crate::deliver::{OnFailure, RetrySettings};
use crate::filter::FilterCriteria;
use crate::lineage::StartingPosition;
use crate::polling::PollIntervals;
use std::time::Duration;

/// How a consumer behaves. The names are those of the settings.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// `STREAM_ARN`.
    pub stream: StreamArn,
    /// `STARTING_POSITION`: where to begin when there is no progress.
    pub starting_position: StartingPosition,
    /// `FILTER_CRITERIA`: which records the handler gets at all.
    pub filter: FilterCriteria,
    /// `BATCH_SIZE` and `MAXIMUM_BATCHING_WINDOW_IN_SECONDS`.
    pub batches: BatchSettings,
    /// `PARALLELIZATION_FACTOR`: batches of a shard that are delivered at the same time.
    pub parallelization: usize,
    /// `TUMBLING_WINDOW_IN_SECONDS`: how long a window is; with a `parallelization` of 1 only.
    pub tumbling_window: Option<Duration>,
    /// `HANDLER_TIMEOUT`.
    pub handler_timeout: Duration,
    /// `MAXIMUM_RETRY_ATTEMPTS`, `MAXIMUM_RECORD_AGE_IN_SECONDS` and
    /// `BISECT_BATCH_ON_FUNCTION_ERROR`.
    pub retries: RetrySettings,
    /// `ON_FAILURE`: what becomes of records that are given up.
    pub on_failure: OnFailure,
    /// `POLL_INTERVAL_MIN` and `POLL_INTERVAL_MAX`.
    pub poll_intervals: PollIntervals,
    /// `FAILOVER_TIME`: the silence after which a worker's shards are for others.
    pub failover_time: Duration,
    /// `CHECKPOINT_INTERVAL`.
    pub checkpoint_interval: Duration,
    /// `SHUTDOWN_GRACE`: how long a stop may take.
    pub shutdown_grace: Duration,
    /// `MAX_BUFFERED_BYTES`.
    pub max_buffered_bytes: usize,
    /// The name of the streamed table's partition key, where it is known: items of any
    /// consumer's progress in that table come back in the stream and are left out. Where
    /// it is not set, the stream is asked.
    pub own_records_key: Option<String>,
}
