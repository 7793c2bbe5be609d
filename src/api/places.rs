//! Places for connections, and who leaves when there are more connections than places.
//!
//! Owns their number. Knows no HTTP but that a connection without a request in flight
//! may be closed at any time. Invariant: never more connections than places, and one
//! that has shown the token, or whose request is being answered, leaves for nobody; so
//! strangers, however many, keep no consumer out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The places of one listener.
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    by_id: HashMap<u64, Connection>,
}

struct Connection {
    /// When it was opened, or its last request answered.
    idle_since: Instant,
    requests: u32,
    known: bool,
    leave: CancellationToken,
}

/// One connection's place; given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: CancellationToken,
}

/// A request in flight; over when dropped.
pub(super) struct InFlight(Arc<Place>);

impl Places {
    /// So many places.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for a connection. Where all are taken, the stranger that has been idle
    /// longest leaves; `None` where there is no such.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.by_id.len() >= self.most {
            let strangers = taken.by_id.iter().filter(|(_, c)| !c.known && c.requests == 0);
            let oldest = *strangers.min_by_key(|(_, c)| c.idle_since)?.0;
            taken.by_id.remove(&oldest)?.leave.cancel();
        }
        let (id, leave) = (taken.next, CancellationToken::new());
        taken.next += 1;
        let connection = Connection {
            idle_since: Instant::now(),
            requests: 0,
            known: false,
            leave: leave.clone(),
        };
        taken.by_id.insert(id, connection);
        drop(taken);
        Some(Place { places: Arc::clone(self), id, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("no panic while held")
    }
}

impl Place {
    /// Cancelled when the place is another's: the connection has to be closed.
    pub fn leave(&self) -> &CancellationToken {
        &self.leave
    }

    /// Whether a request of it is being answered.
    pub fn is_answered(&self) -> bool {
        let taken = self.places.lock();
        taken.by_id.get(&self.id).is_some_and(|connection| connection.requests > 0)
    }

    /// Its caller has shown the token.
    pub fn known(&self) {
        self.change(|connection| connection.known = true);
    }

    /// A request has come.
    pub fn request(self: &Arc<Self>) -> InFlight {
        self.change(|connection| connection.requests += 1);
        InFlight(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut Connection)) {
        self.places.lock().by_id.get_mut(&self.id).map(change);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().by_id.remove(&self.id);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.change(|connection| {
            connection.requests -= 1;
            connection.idle_since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_stranger_that_was_idle_longest_leaves() {
        let places = Places::new(3);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(Arc::new(places.take().unwrap()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let left = |all: &[Arc<Place>]| -> Vec<bool> {
            all.iter().map(|place| place.leave().is_cancelled()).collect()
        };
        // The first has just had an answer.
        drop(all[0].request());
        all.push(Arc::new(places.take().unwrap()));
        assert_eq!(left(&all), [false, true, false, false]);
        // Who has shown the token stays, and who waits for an answer.
        all[2].known();
        let request = all[0].request();
        all.push(Arc::new(places.take().unwrap()));
        assert_eq!(left(&all), [false, true, false, true, false]);
        all[4].known();
        assert!(places.take().is_none(), "nobody can leave");
        drop(request);
        assert!(places.take().is_some());
        // Places that were given up are not given back a second time.
        drop(all);
        assert_eq!(places.lock().by_id.len(), 0);
    }
}
