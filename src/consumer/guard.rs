//! Watches over the stream's lease while it is held, and clears away the dead.
//!
//! Owns the look at the store at every beat: a worker whose lease was taken learns it
//! within one, though it may have nothing to write and so no write that is refused. It
//! also removes what killed workers left behind; nobody else would.

use super::Consumer;
use super::life::{Observer, beat_interval};
use crate::progress::{Lease, ProgressError};
use std::time::Duration;
use tracing::{debug, warn};

/// A worker that has shown no life for this long, at least, will not come back.
const LONG_DEAD: Duration = Duration::from_secs(120);

/// Returns when the lease has been taken by another.
pub(super) async fn guard(consumer: &Consumer, lease: &Lease) {
    let failover = consumer.settings.failover_time;
    let mut observer = Observer::new(LONG_DEAD.max(failover * 10));
    loop {
        tokio::time::sleep(beat_interval(failover)).await;
        match look(consumer, lease, &mut observer).await {
            Ok(true) => {}
            Ok(false) => return warn!("another worker has taken the stream"),
            // The signs of life notice an outage, and end the lease in time.
            Err(error) => debug!(%error, "the stream's lease could not be looked at"),
        }
    }
}

async fn look(
    consumer: &Consumer,
    lease: &Lease,
    observer: &mut Observer,
) -> Result<bool, ProgressError> {
    let seen = consumer.progress.coordination().await?;
    observer.observe(&seen.workers);
    for worker in observer.dead().filter(|worker| **worker != consumer.worker) {
        debug!(%worker, "a dead worker's sign of life is removed");
        consumer.progress.retire(worker).await?;
    }
    Ok(seen.stream.as_ref() == Some(lease))
}
