//! Tumbling windows: stretches of time whose records share a state that the handler keeps.
//!
//! Owns which window a record belongs to, the state of the one that is open, and how both
//! stand in the event. When a window is closed is said by those who read and deliver.
//! Invariant: the state is that after all records that are done and no others, so that it
//! may be kept beside the position.

use crate::progress::OpenWindow;
use crate::record::Record;
use crate::source::ShardId;
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tracing::warn;

/// A larger state ends its window (Lambda's bound).
pub const MAX_STATE_BYTES: usize = 1 << 20;
/// A window that is over by the clock may still get records: creation times are rounded
/// down, and a write takes its time to the stream.
const LATENESS: Duration = Duration::from_secs(2);
/// A state before the first answer.
const NO_STATE: &str = "{}";

/// One window: from its start to before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Its first moment, a multiple of its length since the epoch.
    pub start: SystemTime,
    /// The first moment after it.
    pub end: SystemTime,
}

/// What an invocation is told of the window that it belongs to.
#[derive(Clone, Debug)]
pub struct WindowCall {
    /// The window.
    pub window: Window,
    /// The state, JSON, as the last answer left it; `{}` at first.
    pub state: Arc<str>,
    /// The window is over: there are no records, and no answer changes the state any more.
    pub is_final: bool,
    /// It is over because the state grew beyond [`MAX_STATE_BYTES`].
    pub is_terminated_early: bool,
}

impl WindowCall {
    /// The members that it adds to an event.
    pub(super) fn members(&self, shard: &ShardId, stream: &str) -> String {
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        let window = json!({"start": time(self.window.start), "end": time(self.window.end)});
        format!(
            r#""window":{window},"state":{},"shardId":{},"eventSourceARN":{},"isFinalInvokeForWindow":{},"isWindowTerminatedEarly":{}"#,
            self.state,
            json!(shard.as_str()),
            json!(stream),
            self.is_final,
            self.is_terminated_early
        )
    }
}

/// The windows of one shard.
pub struct Windows {
    length: Duration,
    open: Mutex<Option<Arc<OpenWindow>>>,
}

impl Windows {
    /// Windows of `length`, at least a second; `kept` is the one that was open when the
    /// position was written from which the shard is read on.
    pub fn new(length: Duration, kept: Option<OpenWindow>) -> Self {
        let kept = kept.filter(|kept| {
            let is_json = serde_json::from_str::<&RawValue>(&kept.state).is_ok();
            if !is_json {
                warn!("the state of a tumbling window in the store is not JSON and is dropped");
            }
            is_json
        });
        Self { length, open: Mutex::new(kept.map(Arc::new)) }
    }

    /// The window of a record, but none before `latest`: creation times may step back a
    /// little, and windows do not open twice for it.
    pub fn of(&self, record: &Record, latest: Option<Window>) -> Window {
        let latest = latest.or_else(|| self.current());
        let Some(created) = record.created() else {
            return latest.unwrap_or_else(|| self.at(SystemTime::UNIX_EPOCH));
        };
        let window = self.at(created);
        match latest {
            Some(latest) if created < latest.end => latest,
            _ => window,
        }
    }

    fn at(&self, time: SystemTime) -> Window {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let length = self.length.as_secs().max(1);
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(since / length * length);
        Window { start, end: start + Duration::from_secs(length) }
    }

    /// The window that is open.
    pub fn current(&self) -> Option<Window> {
        self.lock().as_ref().map(|open| Window { start: open.start, end: open.end })
    }

    /// The window that is open, with its state.
    pub fn open(&self) -> Option<Arc<OpenWindow>> {
        self.lock().clone()
    }

    /// Whether the open window is over, records that are late included.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.lock().as_ref().is_some_and(|open| open.end + LATENESS <= now)
    }

    /// Opens `window`, where it is not open already.
    pub(super) fn turn_to(&self, window: Window) {
        let mut open = self.lock();
        if open.as_ref().is_none_or(|open| (open.start, open.end) != (window.start, window.end)) {
            let Window { start, end } = window;
            *open = Some(Arc::new(OpenWindow { start, end, state: NO_STATE.to_owned() }));
        }
    }

    /// What the handler has made of the state.
    pub(super) fn set_state(&self, state: &RawValue) {
        let mut open = self.lock();
        if let Some(now) = open.as_ref() {
            let state = state.get().to_owned();
            *open = Some(Arc::new(OpenWindow { state, ..OpenWindow::clone(now) }));
        }
    }

    /// Whether the state is larger than it may be.
    pub(super) fn is_too_large(&self) -> bool {
        self.lock().as_ref().is_some_and(|open| open.state.len() > MAX_STATE_BYTES)
    }

    /// The window is over and the handler knows.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// What an invocation is told now.
    pub(super) fn call(&self, is_final: bool, is_terminated_early: bool) -> Option<WindowCall> {
        self.lock().as_ref().map(|open| WindowCall {
            window: Window { start: open.start, end: open.end },
            state: open.state.as_str().into(),
            is_final,
            is_terminated_early,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OpenWindow>>> {
        self.open.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse_page;
    use bytes::Bytes;

    fn record(seconds: u64) -> Record {
        let page = format!(
            r#"{{"Records":[{{"dynamodb":{{"SequenceNumber":"1","ApproximateCreationDateTime":{seconds}}}}}]}}"#
        );
        parse_page(&Bytes::from(page)).unwrap().records.remove(0)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn windows_are_aligned_and_none_opens_twice_for_a_late_record() {
        let windows = Windows::new(Duration::from_secs(300), None);
        let window = |from: u64| Window { start: at(from), end: at(from + 300) };
        assert_eq!(windows.of(&record(1_500), None), window(1_500));
        assert_eq!(windows.of(&record(1_799), None), window(1_500));
        assert_eq!(windows.of(&record(1_800), None), window(1_800));
        assert_eq!(windows.of(&record(1_799), Some(window(1_800))), window(1_800));
        windows.turn_to(window(1_800));
        assert_eq!(windows.of(&record(1_500), None), window(1_800));
        assert!(!windows.is_over(at(2_101)) && windows.is_over(at(2_102)));
        // One that was kept by a consumer with shorter windows ends where it said.
        let kept = OpenWindow { start: at(60), end: at(120), state: "1".to_owned() };
        let windows = Windows::new(Duration::from_secs(900), Some(kept));
        let short = Window { start: at(60), end: at(120) };
        assert_eq!(windows.of(&record(119), None), short);
        assert_eq!(windows.of(&record(300), None), Window { start: at(0), end: at(900) });
    }

    #[test]
    fn an_event_says_what_lambdas_does() {
        let windows = Windows::new(Duration::from_secs(60), None);
        windows.turn_to(windows.of(&record(120), None));
        windows.set_state(serde_json::from_str(r#"{"n": 1.50}"#).unwrap());
        let call = windows.call(true, false).unwrap();
        assert_eq!(
            call.members(&ShardId::from("shardId-1"), "arn:x"),
            r#""window":{"end":"1970-01-01T00:03:00Z","start":"1970-01-01T00:02:00Z"},"state":{"n": 1.50},"shardId":"shardId-1","eventSourceARN":"arn:x","isFinalInvokeForWindow":true,"isWindowTerminatedEarly":false"#
        );
        let broken = OpenWindow { start: at(0), end: at(60), state: "{".to_owned() };
        assert!(Windows::new(Duration::from_secs(60), Some(broken)).open().is_none());
    }
}
