//! The looks at the table that all open pages share.
//!
//! Owns which streams are looked at: those for whom workers show life, for the history, and those
//! with an open page; and how many at a time. What a look is and when the next is due is
//! [`super::stream`]'s. Invariant: what nobody shows life for and nobody looks at costs nothing,
//! and a look that hangs holds up no other stream's.

use super::history::{KEPT_FOR, STEP};
use super::stream::{Stream, Viewer, Whose};
use crate::api::private::Private;
use crate::clock;
use crate::progress::problem::{Problem, ProblemCode};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

/// Streams that are looked at.
const MOST_STREAMS: usize = 64;
/// Looks that are under way at a time. One that hangs holds up nobody else's.
const MOST_LOOKS: usize = 16;

/// The streams of this api for whom workers show life, and those that somebody looks at.
pub(in crate::api) struct Streams {
    started: SystemTime,
    known: Mutex<BTreeMap<Whose, Arc<Stream>>>,
    wake: Notify,
}

impl Streams {
    pub fn new() -> Self {
        Self { started: clock::now(), known: Mutex::default(), wake: Notify::new() }
    }

    /// A stream that is known, or of which the table knows something: an address that names
    /// anything else has nothing looked at or kept.
    pub async fn find(&self, private: &Private, whose: &Whose) -> Result<Arc<Stream>, Problem> {
        let known = self.lock().get(whose).cloned();
        if let Some(stream) = known {
            return Ok(stream);
        }
        let (consumer, label) = whose;
        let store = private.store(consumer, label)?;
        let seen = store.seen().await?;
        let is_there = seen.stream.is_some() || !seen.workers.is_empty() || seen.orders.version > 0;
        if !is_there {
            let detail =
                format!("no consumer {consumer} has ever read a stream with the label {label}");
            return Err(Problem::new(ProblemCode::Unsuitable, detail));
        }
        self.of(whose).ok_or_else(|| {
            let detail = format!("{MOST_STREAMS} streams are looked at by this replica already");
            Problem::new(ProblemCode::Unavailable, detail)
        })
    }

    /// A stream to look at for as long as somebody keeps it; `None` where there are too many.
    fn of(&self, whose: &Whose) -> Option<Arc<Stream>> {
        let mut known = self.lock();
        if let Some(stream) = known.get(whose) {
            return Some(Arc::clone(stream));
        }
        if known.len() >= MOST_STREAMS {
            return None;
        }
        let stream = Arc::new(Stream::new(whose.clone(), self.started));
        known.insert(whose.clone(), Arc::clone(&stream));
        Some(stream)
    }

    /// One more page of it is open.
    pub fn view(&self, stream: Arc<Stream>, open: OwnedSemaphorePermit) -> Viewer {
        let viewer = Viewer::new(stream, open);
        self.wake.notify_one();
        viewer
    }

    /// Something was asked for, and those who look should see it soon.
    pub fn look_soon(&self, stream: &Stream) {
        stream.is_due();
        self.wake.notify_one();
    }

    /// Looks for ever.
    pub async fn run(&self, private: &Private) -> Infallible {
        let mut looking: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            self.choose(private);
            let now = Instant::now();
            // Whom a consumer asks for meanwhile is found with the next step at the latest.
            let mut next = now + STEP;
            for stream in self.idle() {
                match stream.next_look().filter(|at| *at > now) {
                    Some(at) => next = next.min(at),
                    None if looking.len() < MOST_LOOKS => {
                        stream.begin_look();
                        looking.push(Box::pin(async move { stream.look(private).await }));
                    }
                    // With the next that is through.
                    None => break,
                }
            }
            tokio::select! {
                Some(()) = looking.next() => {}
                () = tokio::time::sleep_until(next) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Takes in for whom workers show life, and lets go of whom nobody does and nobody looks at:
    /// their history is over.
    fn choose(&self, private: &Private) {
        let beating = private.beating(KEPT_FOR);
        let lives: BTreeSet<&Whose> = beating.iter().collect();
        self.lock().retain(|whose, stream| lives.contains(whose) || Arc::strong_count(stream) > 1);
        for whose in &beating {
            // Where there is no room, it has no history.
            let _ = self.of(whose);
        }
    }

    /// Those that no look is under way at, first of all those with open pages.
    fn idle(&self) -> Vec<Arc<Stream>> {
        let known = self.lock();
        let idle = known.values().filter(|stream| !stream.is_looking());
        let mut idle: Vec<_> = idle.cloned().collect();
        idle.sort_by_key(|stream| !stream.is_viewed());
        idle
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Whose, Arc<Stream>>> {
        self.known.lock().expect("no panic while held")
    }
}
