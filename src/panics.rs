//! What a panic ends: inside a handler its batch, anywhere else the process.
//!
//! Owns the line between the two and the hook that keeps it. Invariant: after
//! [`end_the_process`] nothing goes on beside a task that panicked, so no shard stands
//! still unseen: the next process goes on from the checkpoint.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

thread_local! {
    /// This thread runs what may panic.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// What was contained panicked. Why is on stderr: the message may hold what the handler
/// was working on, and this goes into logs and dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked; stderr says where and why")]
pub struct Panicked;

/// From here on a panic that is not [`contained`] aborts the process, after its message was
/// written. For programs: it is a hook of the whole process.
pub fn end_the_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            if !CONTAINED.get() {
                std::process::abort();
            }
        }));
    });
}

/// `future`, whose panics end it and nothing else, also where it is dropped before its end.
/// It must leave nothing half done that others see: a lock that it held is poisoned.
///
/// What it spawns is not within: contain that too, where it may panic.
pub fn contained<F: Future>(future: F) -> Contained<F> {
    Contained(Some(Box::pin(future)))
}

/// The future that [`contained`] gives.
#[must_use = "futures do nothing unless awaited"]
pub struct Contained<F>(Option<Pin<Box<F>>>);

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else { return Poll::Ready(Err(Panicked)) };
        match contain(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        let future = self.0.take();
        // Nobody waits for it any more.
        let _ = contain(|| drop(future));
    }
}

fn contain<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(outer);
    result.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    /// Set in the process that is to end.
    const CHILD: &str = "STREAMGATE_TEST_PANICS";
    const SIGABRT: i32 = 6;

    #[tokio::test]
    async fn a_panic_in_a_task_ends_the_process_and_one_that_is_contained_does_not() {
        if std::env::var_os(CHILD).is_some() {
            end_the_process();
            end_the_process();
            assert_eq!(contained(async { panic!("within") }).await, Err::<(), _>(Panicked));
            let within = tokio::spawn(contained(async { panic!("in a task of its own") }));
            assert_eq!(within.await.expect("it is contained"), Err::<(), _>(Panicked));
            tokio::spawn(async { panic!("elsewhere") });
            return tokio::time::sleep(Duration::from_secs(600)).await;
        }
        let name =
            "panics::tests::a_panic_in_a_task_ends_the_process_and_one_that_is_contained_does_not";
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
        let ended = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(SIGABRT), "{said}");
        for message in ["within", "in a task of its own", "elsewhere"] {
            assert_eq!(said.lines().filter(|line| *line == message).count(), 1, "{said}");
        }
    }

    #[tokio::test]
    async fn what_panics_when_it_is_dropped_is_contained_too() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let waits = contained(async {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), waits).await.is_err());
        assert!(!CONTAINED.get(), "it is over");
    }

    #[tokio::test]
    async fn what_does_not_panic_gives_what_it_gives() {
        assert_eq!(contained(async { contained(async { 7 }).await }).await, Ok(Ok(7)));
        let inner =
            async { assert_eq!(contained(async { panic!("in") }).await, Err::<(), _>(Panicked)) };
        let outer = contained(async {
            inner.await;
            assert!(CONTAINED.get(), "still within the outer one");
        });
        assert_eq!(outer.await, Ok(()));
    }
}
