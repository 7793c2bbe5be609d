//! Reads of a consumer's coordination that several callers share.
//!
//! Every worker asks for it about twice a second, and one answer of the table serves all who ask
//! within a tenth of one. Owns how old a shared answer may be and what makes it too old: nothing
//! but time and a write. Knows neither store nor JSON. Invariant: an answer that was there before
//! its caller asked comes of a read that began at most [`MAX_AGE`] ago, and after every write that
//! this replica had answered by then.
//!
//! Why that is safe: a worker stops at nine tenths of `FAILOVER_TIME` if it cannot show life, and
//! is believed dead after the whole of it. The shortest is a second, so that a view that is up to
//! a tenth of one old hides no sign of life that still counts. The age counts from before the
//! table was asked: what is written while it answers may be missing in the answer.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// How long after its beginning a read is given to those who ask.
pub(super) const MAX_AGE: Duration = Duration::from_millis(100);

/// The reads of one consumer and stream. `T` is what one gives, cheap to clone.
pub(super) struct Reads<T: Clone, E: Clone> {
    last: Mutex<Option<Read<T, E>>>,
}

struct Read<T: Clone, E: Clone> {
    began: Instant,
    /// Whoever waits for it drives it, and it ends with the last of them.
    answer: Shared<BoxFuture<'static, Result<T, E>>>,
}

/// A write that is under way. What was read before its end may lack it.
pub(super) struct Writing<'a, T: Clone, E: Clone>(&'a Reads<T, E>);

impl<T: Clone, E: Clone> Reads<T, E> {
    pub fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    /// The last read, if it may still be given, or a new one. A failure is shared by those who
    /// wait for it, and by nobody after.
    pub fn read<F>(&self, read: impl FnOnce() -> F) -> Shared<BoxFuture<'static, Result<T, E>>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut last = self.lock();
        // One that takes long holds up nobody who asks later.
        let may_be_given = |read: &Read<T, E>| {
            let has_failed = read.answer.peek().is_some_and(Result::is_err);
            read.began.elapsed() <= MAX_AGE && !has_failed
        };
        if let Some(read) = last.as_ref().filter(|read| may_be_given(read)) {
            return read.answer.clone();
        }
        let (began, answer) = (Instant::now(), read().boxed().shared());
        *last = Some(Read { began, answer: answer.clone() });
        answer
    }

    /// To be held until a write has ended, however it ends.
    pub fn writing(&self) -> Writing<'_, T, E> {
        Writing(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Read<T, E>>> {
        self.last.lock().expect("no panic while held")
    }
}

impl<T: Clone, E: Clone> Drop for Writing<'_, T, E> {
    fn drop(&mut self) {
        // Those who wait for it asked before this write is answered.
        self.0.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use tokio::time::advance;

    /// A table whose reads end when they are let, and say how many have begun.
    struct Table {
        reads: Reads<usize, &'static str>,
        begun: Arc<AtomicUsize>,
        may_end: Arc<Semaphore>,
    }

    impl Table {
        fn new(may_end: usize) -> Arc<Self> {
            let (begun, may_end) = (Arc::default(), Arc::new(Semaphore::new(may_end)));
            Arc::new(Self { reads: Reads::new(), begun, may_end })
        }

        async fn ask(&self) -> Result<usize, &'static str> {
            self.ask_for(Ok).await
        }

        async fn ask_for(
            &self,
            answer: fn(usize) -> Result<usize, &'static str>,
        ) -> Result<usize, &'static str> {
            let (begun, may_end) = (Arc::clone(&self.begun), Arc::clone(&self.may_end));
            let read = async move || {
                let read = begun.fetch_add(1, Ordering::Relaxed) + 1;
                may_end.acquire().await.expect("never closed").forget();
                answer(read)
            };
            self.reads.read(read).await
        }

        /// Asks, and waits in vain until the other tasks have nothing to do.
        async fn asking(self: &Arc<Self>) -> tokio::task::JoinHandle<Result<usize, &'static str>> {
            let table = Arc::clone(self);
            let asking = tokio::spawn(async move { table.ask().await });
            tokio::task::yield_now().await;
            asking
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_given_until_its_read_began_too_long_ago() {
        let table = Table::new(9);
        assert_eq!(table.ask().await, Ok(1));
        advance(MAX_AGE).await;
        assert_eq!(table.ask().await, Ok(1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(table.ask().await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_while_a_read_is_young_wait_for_it() {
        let table = Table::new(0);
        let first = table.asking().await;
        advance(MAX_AGE).await;
        let second = table.asking().await;
        // The time of the read itself counts too: this one may not have what was there before.
        advance(Duration::from_millis(1)).await;
        let third = table.asking().await;
        assert_eq!(table.begun.load(Ordering::Relaxed), 2);
        table.may_end.add_permits(2);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(1), Ok(1)));
        assert_eq!(third.await.unwrap(), Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_holds_up_nobody_who_asks_later() {
        let table = Table::new(0);
        let hangs = table.asking().await;
        advance(2 * MAX_AGE).await;
        let later = table.asking().await;
        table.may_end.add_permits(1);
        // The permit goes to who has waited longest.
        assert_eq!(hangs.await.unwrap(), Ok(1));
        table.may_end.add_permits(1);
        assert_eq!(later.await.unwrap(), Ok(2));
        let given_up = table.asking().await;
        given_up.abort();
        assert_eq!(table.asking().await.await.unwrap(), Ok(2), "a younger one was there");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stays_carries_on_what_another_began() {
        let table = Table::new(0);
        let first = table.asking().await;
        let second = table.asking().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        table.may_end.add_permits(1);
        assert_eq!(second.await.unwrap(), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_seen_by_all_who_ask_after_it_was_answered() {
        let table = Table::new(1);
        assert_eq!(table.ask().await, Ok(1));
        let write = table.reads.writing();
        assert_eq!(table.ask().await, Ok(1), "it is not answered yet");
        drop(write);
        // A read that began before the write had ended is not given either.
        let early = table.asking().await;
        drop(table.reads.writing());
        let late = table.asking().await;
        table.may_end.add_permits(2);
        assert_eq!((early.await.unwrap(), late.await.unwrap()), (Ok(2), Ok(3)));
        assert_eq!(table.ask().await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_for_those_who_wait_for_them() {
        let table = Table::new(9);
        assert_eq!(table.ask_for(|_| Err("no answer")).await, Err("no answer"));
        assert_eq!(table.ask().await, Ok(2));
    }
}
