//! A store that is asked again while it does not answer, as the consumer's loops do.

use super::around::store_around;
use streamgate::progress::ClientProgress;

/// The api's client, asked again.
pub struct Persistent(pub ClientProgress);

const TRIES: usize = 100;

macro_rules! again {
    ($this:ident, $item:tt, $call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(ProgressError::Unavailable(_)) if tries < TRIES => tries += 1,
                answer => break answer,
            }
        }
    }};
}

macro_rules! all_again {
    ($this:ident, $item:tt, $call:expr) => {{
        let mut tries = 0;
        loop {
            let results = $call.await;
            let is_lost = |result: &_| matches!(result, Err(ProgressError::Unavailable(_)));
            if tries == TRIES || !results.iter().any(is_lost) {
                break results;
            }
            tries += 1;
        }
    }};
}

store_around!(Persistent, 0, again, all_again);
