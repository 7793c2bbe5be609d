//! The time of day, which follows tokio's clock when a test pauses and advances it.

use std::time::{Duration, SystemTime};

/// The system's time, plus what tokio's clock is ahead of the machine's. That is nothing
/// outside of tests.
pub fn now() -> SystemTime {
    let ahead = tokio::time::Instant::now().into_std();
    SystemTime::now() + ahead.saturating_duration_since(std::time::Instant::now())
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
}
