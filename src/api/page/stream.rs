//! A stream that is looked at, and what its looks remember.
//!
//! Owns when the next look is due: at workers and orders every two seconds while a page is open,
//! and every twenty for the history; at shards only for open pages, the more of them the rarer.
//! What is shown is [`super::picture`]'s. Invariant: what a look costs depends neither on how many
//! pages are open nor, where none is, on how many shards there are.

use super::history::{History, STEP};
use super::listing::Listing;
use super::picture::Picture;
use crate::api::private::Private;
use crate::clock;
use crate::progress::{Coordination, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// Between two looks at workers and orders while a page is open.
const LOOK: Duration = Duration::from_secs(2);
/// So many shards are worth a look a second: their items are read at 64 of them a read unit or so.
const SHARDS_A_SECOND: usize = 100;
/// A look takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A consumer and the label of its stream.
pub(super) type Whose = (String, String);

/// The stream of a consumer.
pub(super) struct Stream {
    pub whose: Whose,
    pub shown: watch::Sender<Arc<Shown>>,
    viewers: AtomicUsize,
    memory: Mutex<Memory>,
    /// The dead letters.
    pub letters: Listing,
}

/// What was seen last, and what has changed since the look before.
#[derive(Default)]
pub(super) struct Shown {
    /// Grows with every look.
    pub look: u64,
    pub picture: Arc<Picture>,
    /// The shards are in it: only then is there something to show.
    pub loaded: bool,
    /// As [`Picture::since`] has it, in text; none with the first look.
    pub change: Option<Arc<str>>,
    /// Why the table could not be looked at.
    pub trouble: Option<String>,
}

/// What a stream's looks remember.
struct Memory {
    history: History,
    is_looking: bool,
    looked: Option<Instant>,
    loaded: Option<Instant>,
    beats: BTreeMap<WorkerId, (u64, Instant)>,
}

/// A page that is open. Its stream is looked at more often while there is one.
pub(super) struct Viewer {
    pub stream: Arc<Stream>,
    /// Its place among the pages that may be open.
    _open: OwnedSemaphorePermit,
}

impl Viewer {
    pub fn new(stream: Arc<Stream>, open: OwnedSemaphorePermit) -> Self {
        stream.viewers.fetch_add(1, Ordering::Relaxed);
        Self { stream, _open: open }
    }

    /// All that is to be shown.
    pub fn whole(&self, shown: &Shown) -> String {
        let series = self.stream.memory().history.series(None);
        shown.picture.whole(clock::now(), &series).to_string()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.stream.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stream {
    pub fn new(whose: Whose, started: SystemTime) -> Self {
        let memory = Memory {
            history: History::new(started),
            is_looking: false,
            looked: None,
            loaded: None,
            beats: BTreeMap::new(),
        };
        Self {
            whose,
            shown: watch::Sender::default(),
            viewers: AtomicUsize::new(0),
            memory: Mutex::new(memory),
            letters: Listing::default(),
        }
    }

    pub fn is_viewed(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// The redrives that have ended, as far as was seen.
    pub fn ended_redrives(&self) -> BTreeSet<u64> {
        let shown = self.shown.borrow();
        let redrives = shown.picture.seen.orders.redrives.iter();
        redrives.filter(|one| one.ended.is_some()).map(|one| one.id).collect()
    }

    /// When to look again; `None` for at once.
    pub fn next_look(&self) -> Option<Instant> {
        let wait = if self.is_viewed() { LOOK } else { STEP };
        self.memory().looked.map(|looked| looked + wait)
    }

    /// Something has happened: the next look is due at once.
    pub fn is_due(&self) {
        self.memory().looked = None;
    }

    /// Whether a look is under way.
    pub fn is_looking(&self) -> bool {
        self.memory().is_looking
    }

    /// A look is under way until [`Self::look`] is through.
    pub fn begin_look(&self) {
        let mut memory = self.memory();
        (memory.is_looking, memory.looked) = (true, Some(Instant::now()));
    }

    /// Looks once, and shows what is seen.
    pub async fn look(&self, private: &Private) {
        let before = Arc::clone(&self.shown.borrow());
        let looking = tokio::time::timeout(PATIENCE, self.see(private, &before));
        let seen = looking.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let now = clock::now();
        let look = before.look + 1;
        let shown = match seen {
            Err(why) => {
                let (picture, loaded) = (Arc::clone(&before.picture), before.loaded);
                self.memory().note(now, None);
                Shown { look, picture, loaded, change: None, trouble: Some(why) }
            }
            Ok(picture) => {
                let point = self.memory().note(now, Some(&picture));
                let loaded = self.memory().loaded.is_some();
                let change = (loaded && before.loaded).then(|| {
                    let series = point.then(|| self.memory().history.series(Some(now - STEP / 2)));
                    let change = picture.since(&before.picture, now, series.as_ref());
                    change.to_string().into()
                });
                Shown { look, picture: Arc::new(picture), loaded, change, trouble: None }
            }
        };
        self.shown.send_replace(Arc::new(shown));
        self.memory().is_looking = false;
    }

    async fn see(&self, private: &Private, before: &Shown) -> Result<Picture, String> {
        let (consumer, label) = &self.whose;
        let store = private.store(consumer, label).map_err(|problem| problem.detail)?;
        let seen = store.seen().await.map_err(|problem| problem.detail)?;
        let (silent, due) = {
            let mut memory = self.memory();
            let has_moved = has_moved(&before.picture.seen, &seen);
            (memory.observe(&seen), memory.wants_shards(before.picture.shards.len(), has_moved))
        };
        let shards = if !self.is_viewed() {
            self.memory().loaded = None;
            Vec::new()
        } else if due {
            let began = Instant::now();
            let shards = store.shards().await.map_err(|error| error.to_string())?;
            self.memory().loaded = Some(began);
            shards
        } else {
            before.picture.shards.clone()
        };
        Ok(Picture { seen, silent, shards })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic while held")
    }
}

/// Whether shards have probably come, gone or changed hands.
fn has_moved(before: &Coordination, now: &Coordination) -> bool {
    let of = |seen: &Coordination| -> Vec<(WorkerId, u64, u64)> {
        let members = seen.workers.iter();
        members.map(|m| (m.sign.worker.clone(), m.sign.shards, m.announced)).collect()
    };
    before.orders.version != now.orders.version || of(before) != of(now)
}

impl Memory {
    /// For how long the beats have stood still.
    fn observe(&mut self, seen: &Coordination) -> BTreeMap<WorkerId, Duration> {
        let now = Instant::now();
        let mut beats = BTreeMap::new();
        for sign in seen.workers.iter().map(|member| &member.sign) {
            let known = self.beats.get(&sign.worker).filter(|(beat, _)| *beat == sign.beat);
            beats.insert(sign.worker.clone(), known.copied().unwrap_or((sign.beat, now)));
        }
        self.beats = beats;
        let silent = self.beats.iter().map(|(worker, (_, at))| (worker.clone(), now - *at));
        silent.collect()
    }

    /// Whether it is time to read the shards, of which there were so many.
    fn wants_shards(&self, shards: usize, has_moved: bool) -> bool {
        let pause = Duration::from_secs((shards / SHARDS_A_SECOND) as u64);
        self.loaded.is_none_or(|at| has_moved || at.elapsed() >= pause)
    }

    /// Adds a point to the history when it is time. Whether it was.
    fn note(&mut self, now: SystemTime, picture: Option<&Picture>) -> bool {
        let is_due = self.history.last().is_none_or(|last| {
            // A clock that was set back must not stop the history.
            now.duration_since(last).map_or(true, |elapsed| elapsed + LOOK / 2 >= STEP)
        });
        if is_due {
            let paused = picture.is_some_and(|picture| !picture.seen.orders.pauses.is_empty());
            self.history.add(now, picture.into_iter().flat_map(Picture::living), paused);
        }
        is_due
    }
}
