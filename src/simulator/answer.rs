//! One call of the service, from its JSON to its answer: counted, struck, carried out.
//!
//! The only way in, for the server and for the source in this process alike. Owns the
//! order of things: a malformed call is refused before rules are asked; a rule that
//! delays holds the reader's place on its shard.

use super::engine::Engine;
use super::fault::Plan;
use super::protocol::{self, About, Request};
use super::read::ApiError;
use super::token::Token;
use super::{Fault, Operation, Simulator, status_name};
use bytes::Bytes;
use std::time::{Duration, UNIX_EPOCH};

/// How long a hung call is held when the client does not go away.
const LONGEST_HANG: Duration = Duration::from_secs(60);

/// How a call ends.
#[derive(Debug)]
pub(super) enum Reply {
    /// 200 with this body.
    Answer(Bytes),
    /// The service refuses.
    Refused(ApiError),
    /// This body, but only its first half arrives.
    Half(Bytes),
    /// No answer at all.
    Reset,
}

impl Simulator {
    /// One call of the service: counted, struck by faults, answered.
    pub(super) async fn answer(&self, operation: Operation, body: &[u8]) -> Reply {
        self.0.counters.count(operation);
        let reply = self.answer_counted(operation, body).await;
        self.0.counters.counted.notify_waiters();
        reply
    }

    async fn answer_counted(&self, operation: Operation, body: &[u8]) -> Reply {
        if let (Operation::GetRecords, Some(load)) = (operation, &self.0.load)
            && let Some(cursor) = load.cursor(body)
        {
            let plan = self.0.faults.plan(operation, Some(load.count(cursor)));
            let empty = || Ok(load.empty_page(cursor));
            return carry_out(plan, empty, || Ok(load.page(cursor))).await;
        }
        let request = match Request::parse(operation, body, &self.0.stream) {
            Ok(request) => request,
            Err(error) => return Reply::Refused(error),
        };
        let token = match &request {
            Request::Records { iterator, .. } => match Token::decode(iterator, &self.0.stream) {
                None => return Reply::Refused(ApiError::validation("Invalid ShardIterator")),
                token => token,
            },
            _ => None,
        };
        let shard = match &request {
            Request::ListStreams { .. } => None,
            Request::Describe { child_of, .. } => child_of.as_ref(),
            Request::Iterator { shard, .. } => Some(shard),
            Request::Records { .. } => token.as_ref().map(|token| &token.shard),
        };
        let plan = self.0.faults.plan(operation, shard);
        // Held until the answer is ready, so that slow readers are readers.
        let _reading = match &token {
            Some(token) => match self.0.counters.read(&token.shard, &self.settings()) {
                Ok(reading) => Some(reading),
                Err(error) => return Reply::Refused(error),
            },
            None => None,
        };
        // A test may wait for a call that is about to hang.
        self.0.counters.counted.notify_waiters();
        let empty = || {
            let token = token.as_ref().expect("a fault of GetRecords only");
            let answer = self.engine().empty_page(token)?;
            Ok(answer.render())
        };
        carry_out(plan, empty, || self.perform(&request, token.as_ref())).await
    }

    fn perform(&self, request: &Request, token: Option<&Token>) -> Result<Bytes, ApiError> {
        let mut engine = self.engine();
        match request {
            Request::ListStreams { behind } => Ok(about(&engine).streams(behind.as_deref())),
            Request::Describe { limit, start, child_of } => {
                let listing = engine.list(*limit, start.as_ref(), child_of.as_ref());
                Ok(about(&engine).listing(&listing))
            }
            Request::Iterator { shard, start } => {
                let token = engine.iterator(shard, *start)?;
                let prepared = self.0.load.as_ref().and_then(|load| load.iterator(shard, *start));
                Ok(protocol::iterator(&prepared.unwrap_or(token)))
            }
            Request::Records { limit, .. } => {
                let token = token.expect("decoded with the request");
                let answer = engine.records(token, *limit)?;
                drop(engine);
                Ok(answer.render())
            }
        }
    }
}

/// Delays, then answers or lets the call suffer. `empty` is the answer of an empty page.
async fn carry_out(
    plan: Plan,
    empty: impl FnOnce() -> Result<Bytes, ApiError>,
    answer: impl FnOnce() -> Result<Bytes, ApiError>,
) -> Reply {
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    match plan.fault {
        None => answer().map_or_else(Reply::Refused, Reply::Answer),
        Some(Fault::EmptyPage) => empty().map_or_else(Reply::Refused, Reply::Answer),
        Some(fault) => suffer(fault, answer).await,
    }
}

async fn suffer(fault: Fault, answer: impl FnOnce() -> Result<Bytes, ApiError>) -> Reply {
    let refused = |code, message: &str| Reply::Refused(ApiError::client(code, message));
    match fault {
        Fault::Throttle => {
            refused("ThrottlingException", "Request has been throttled. Try again later")
        }
        Fault::LimitExceeded => {
            refused("LimitExceededException", "Too many operations for a given subscriber")
        }
        Fault::InternalError => Reply::Refused(ApiError {
            status: 500,
            code: "InternalServerError",
            message: "The request processing has failed because of an unknown error".into(),
        }),
        Fault::ExpiredIterator => Reply::Refused(ApiError::expired()),
        Fault::Trimmed => Reply::Refused(ApiError::trimmed()),
        Fault::NotFound => Reply::Refused(ApiError::not_found("Resource")),
        Fault::AccessDenied => {
            refused("AccessDeniedException", "User is not authorized to perform this action")
        }
        Fault::ExpiredToken => refused(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        Fault::Malformed => Reply::Answer(Bytes::from_static(b"{\"Records\":[{\"dynamodb\":{")),
        Fault::Reset => Reply::Reset,
        Fault::HalfAnswer => answer().map_or_else(Reply::Refused, Reply::Half),
        Fault::Hang => {
            tokio::time::sleep(LONGEST_HANG).await;
            Reply::Reset
        }
        Fault::Slow(_) | Fault::EmptyPage => unreachable!("carried out by the caller"),
    }
}

fn about(engine: &Engine) -> About<'_> {
    About {
        stream: &engine.stream,
        status: status_name(engine.status),
        view: engine.view,
        created: engine.started_wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}
