//! The stream's shards as a leader knows them, from looks at the whole listing.
//!
//! Owns how often to look, what a look that fails means, and the word to people when a
//! stream that is disabled has been read to its end. What follows from a listing is
//! [`crate::lineage`]'s.

use super::family::Family;
use super::{Consumer, may_pass};
use crate::source::{SourceErrorKind, StreamDescription, StreamStatus};
use crate::telemetry::status::Part;
use std::time::Duration;
use tracing::{info, warn};

/// How often the whole listing is looked at. It finds what was missed at shard ends and
/// what may be forgotten; children are normally found when their parent ends.
const INTERVAL: Duration = Duration::from_secs(60);
/// While the stream is being enabled, and after a listing that failed.
const RETRY: Duration = Duration::from_secs(5);
const GONE: &str = "the stream is gone: it was deleted with its table, or disabled more than 24 hours ago; set STREAM_ARN to the table's LatestStreamArn";

/// What is known of the listings of one time as leader.
pub(super) struct Listings<'a> {
    consumer: &'a Consumer,
    family: &'a Family,
    /// The stream's, as last listed; `None` before the first listing.
    status: Option<StreamStatus>,
    /// Everything in it was delivered.
    all_read: bool,
    /// Looks that failed in a row.
    failures: u32,
}

impl<'a> Listings<'a> {
    /// None so far.
    pub fn new(consumer: &'a Consumer, family: &'a Family) -> Self {
        Self { consumer, family, status: None, all_read: false, failures: 0 }
    }

    /// Whether the stream's shards are known.
    pub fn known(&self) -> bool {
        self.status.is_some()
    }

    /// Looks at the whole listing. Whether that succeeded.
    pub async fn look(&mut self) -> bool {
        let board = &self.consumer.board;
        let error = match self.consumer.source.describe().await {
            Ok(listing) => {
                self.failures = 0;
                if board.well(Part::Stream) {
                    info!("the stream can be listed again");
                }
                self.take_in(&listing);
                return true;
            }
            Err(error) => error,
        };
        self.failures = self.failures.saturating_add(1);
        // One failure may be a throttled call.
        if self.failures > 1 || !may_pass(&error) {
            let why = match error.kind {
                SourceErrorKind::NotFound => GONE.to_owned(),
                _ => error.to_string(),
            };
            board.trouble(Part::Stream, &why);
        }
        if self.failures.is_power_of_two() {
            warn!(%error, failures = self.failures, "the stream's shards could not be listed, trying again");
        }
        false
    }

    /// Takes in a listing.
    pub fn take_in(&mut self, listing: &StreamDescription) {
        self.status = Some(listing.status);
        self.family.with(|lineage| lineage.list(listing));
        self.family.set_finished(listing.status == StreamStatus::Disabled);
    }

    /// How long until the next look: up to a fifth less than the interval, so that consumers
    /// do not list together.
    pub fn wait(&self) -> Duration {
        if self.failures > 0 || self.status == Some(StreamStatus::Enabling) {
            return RETRY;
        }
        INTERVAL.mul_f64(1.0 - fastrand::f64() / 5.0)
    }

    /// Says, once, that nothing more is to come.
    pub fn tell_when_all_is_read(&mut self) {
        let all_read = self.status == Some(StreamStatus::Disabled)
            && self.family.with(|lineage| lineage.all_ended());
        if all_read && !self.all_read {
            warn!(
                stream = %self.consumer.settings.stream,
                "the stream is disabled and everything in it has been delivered; if it is enabled again it has a new ARN: set STREAM_ARN to the table's LatestStreamArn"
            );
        }
        self.all_read = all_read;
    }
}
