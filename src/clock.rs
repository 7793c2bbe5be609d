//! The time of day, which follows tokio's clock when a test pauses and advances it.

use std::cell::Cell;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

thread_local! {
    /// The time of day at a moment of tokio's clock, where a test has set it.
    static SET: Cell<Option<(SystemTime, Instant)>> = const { Cell::new(None) };
}

/// The system's time, plus what tokio's clock is ahead of the machine's. That is nothing
/// outside of tests.
pub fn now() -> SystemTime {
    if let Some((time, at)) = SET.get() {
        return time + Instant::now().saturating_duration_since(at);
    }
    let ahead = Instant::now().into_std();
    SystemTime::now() + ahead.saturating_duration_since(std::time::Instant::now())
}

/// For tests: it is `time` now on this thread, whatever the machine says, and goes on with
/// tokio's clock. One thread can so be several machines, each with a time of its own.
pub fn set(time: SystemTime) {
    SET.set(Some((time, Instant::now())));
}

/// DynamoDB rounds creation times down to the second, so a time to begin at must be too:
/// records written later in the same second would look older than it.
pub fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_a_paused_clock() {
        let before = now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let passed = now().duration_since(before).unwrap();
        assert!(passed >= Duration::from_secs(3599) && passed < Duration::from_secs(3700));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_was_set_follows_it_too_and_the_machines_no_more() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        set(time);
        assert_eq!(now(), time);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(now(), time + Duration::from_secs(3600));
        set(time);
        assert_eq!(now(), time);
    }
}
