//! Pages that were read ahead and wait for the desk.
//!
//! Owns the bound on their number. Reader and desk of a shard share it within one task, and
//! most shards have nothing in it for hours: it takes no memory before it is used. Either
//! side may be dropped while it waits; nothing is lost.

use crate::reader::Read;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Pages read and not yet batched: enough to hide the next read behind the handler's
/// work, little enough that one stuck shard does not take the whole byte budget.
const READ_AHEAD_PAGES: usize = 2;

/// What lies between the reader and the desk, in the order of the shard.
#[derive(Default)]
pub(super) struct Ahead {
    pages: Mutex<VecDeque<Read>>,
    came: Notify,
    went: Notify,
}

impl Ahead {
    /// Waits until there is room, then lays `read` down.
    pub async fn put(&self, read: Read) {
        while self.lock().len() >= READ_AHEAD_PAGES {
            self.went.notified().await;
        }
        self.lock().push_back(read);
        self.came.notify_one();
    }

    /// The oldest; waits until there is one.
    pub async fn take(&self) -> Read {
        loop {
            if let Some(read) = self.pop() {
                self.went.notify_one();
                return read;
            }
            self.came.notified().await;
        }
    }

    fn pop(&self) -> Option<Read> {
        let mut pages = self.lock();
        let read = pages.pop_front();
        if pages.is_empty() {
            *pages = VecDeque::new();
        }
        read
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Read>> {
        self.pages.lock().expect("no panic while held")
    }
}
