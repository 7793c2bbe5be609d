//! What an open page is told, as server-sent events.
//!
//! Owns their order: all there is first, then what changes, and all of it again for a page that
//! was too slow. Knows no connection. Invariant: a page is told nothing after its session's time,
//! nor does it hold up the stop of the api.

use super::session::Session;
use super::stream::{Shown, Viewer};
use crate::clock;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An event that says nothing comes at the latest then, so that a connection that is gone is
/// noticed at both ends: the page believes it lost after 25 seconds without one (`js/api.js`).
const QUIET: Duration = Duration::from_secs(10);

/// One page's events.
struct Events {
    viewer: Viewer,
    shown: watch::Receiver<Arc<Shown>>,
    /// The look that was told last; none so far.
    told: Option<u64>,
    ends: Instant,
    stop: CancellationToken,
    over: bool,
}

/// The body that tells `viewer` what is to be seen until `session` is over or `stop` is asked for.
pub(super) fn body(viewer: Viewer, session: &Session, stop: CancellationToken) -> Body {
    let shown = viewer.stream.shown.subscribe();
    let ends = Instant::now() + session.left(clock::now());
    let events = Events { viewer, shown, told: None, ends, stop, over: false };
    Body::from_stream(stream::unfold(events, async |mut events| {
        let told = events.next().await?;
        Some((Ok::<_, Infallible>(told), events))
    }))
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let is_there = self.shown.borrow().loaded;
        if self.told.is_none() && is_there {
            return Some(self.whole());
        }
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => {
                    self.over = true;
                    return Some(event("over", "{}"));
                }
                changed = self.shown.changed() => {
                    changed.expect("the viewer keeps it");
                    if let Some(told) = self.change() {
                        return Some(told);
                    }
                }
                () = tokio::time::sleep(QUIET) => return Some(event("ping", "{}")),
            }
        }
    }

    fn change(&mut self) -> Option<Bytes> {
        let shown = Arc::clone(&self.shown.borrow_and_update());
        if let Some(why) = &shown.trouble {
            let why = serde_json::json!({ "why": why });
            return Some(event("trouble", &why.to_string()));
        }
        match (&shown.change, self.told) {
            (Some(change), Some(told)) if told + 1 == shown.look => {
                self.told = Some(shown.look);
                Some(event("change", change))
            }
            _ if shown.loaded => Some(self.whole()),
            _ => None,
        }
    }

    fn whole(&mut self) -> Bytes {
        let shown = Arc::clone(&self.shown.borrow_and_update());
        self.told = Some(shown.look);
        event("view", &self.viewer.whole(&shown))
    }
}

/// JSON has no line ends of its own.
fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
