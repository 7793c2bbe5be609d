//! The admin interface: what a test's hand or a user's curl does to the stream.
//!
//! Owns the paths under `/_simulator/` and their JSON; see `docs/simulator.md`, whose
//! table a test holds against [`PATHS`]. Invariant: a request is either carried out whole
//! or answered 400 with a sentence, and then nothing has changed.

use super::server::{ReplyBody, whole};
use super::{Change, FaultRule, Refused, ShardState, Simulator, number, status_name};
use crate::source::ShardId;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const PREFIX: &str = "/_simulator/";

/// Every method and path there is.
pub(super) const PATHS: [(&str, &str); 14] = [
    ("GET", "state"),
    ("GET", "settings"),
    ("GET", "faults"),
    ("POST", "put"),
    ("POST", "split"),
    ("POST", "rollover"),
    ("POST", "trim"),
    ("POST", "remove"),
    ("POST", "expire-iterators"),
    ("POST", "disable"),
    ("POST", "enable"),
    ("POST", "faults"),
    ("DELETE", "faults"),
    ("POST", "settings"),
];

/// The largest admin request: thousands of changes may be put at once.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct OneShard {
    shard: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Rollover {
    shard: Option<String>,
    all: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Trim {
    shard: Option<String>,
    up_to: Option<String>,
    older_than_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Value>),
    One(Value),
}

pub(super) async fn handle(
    simulator: &Simulator,
    what: &str,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let method = request.method().clone();
    if !PATHS.contains(&(method.as_str(), what)) {
        let known = PATHS.map(|(method, path)| format!("{method} {PREFIX}{path}")).join(", ");
        return answer(StatusCode::NOT_FOUND, &error(format!("there is: {known}")));
    }
    // Only browsers send it, and only for a page; no page has business here, and any may try.
    if request.headers().contains_key(ORIGIN) {
        return answer(StatusCode::FORBIDDEN, &error("not for web pages".to_owned()));
    }
    let body = match whole(request, MAX_REQUEST_BYTES).await {
        Ok(body) => body,
        Err(refused) => return answer(StatusCode::BAD_REQUEST, &error(refused.message)),
    };
    match act(simulator, &method, what, &body) {
        Ok(value) => answer(StatusCode::OK, &value),
        Err(refused) => answer(StatusCode::BAD_REQUEST, &error(refused.to_string())),
    }
}

fn act(simulator: &Simulator, method: &Method, what: &str, body: &[u8]) -> Result<Value, Refused> {
    match (method.as_str(), what) {
        ("GET", "state") => Ok(state(simulator)),
        ("GET", "settings") => Ok(json!(simulator.settings())),
        ("GET", "faults") => Ok(json!(simulator.faults().rules())),
        ("POST", "put") => put(simulator, body),
        ("POST", "split") => {
            let OneShard { shard } = parse_or_default(body)?;
            let mut engine = simulator.engine();
            let shard = shard_or(shard, || engine.widest_shard())?;
            let children = engine.split(&shard)?;
            Ok(json!({"shard": shard.as_str(), "children": children.map(text)}))
        }
        ("POST", "rollover") => rollover(simulator, body),
        ("POST", "trim") => trim(simulator, body),
        ("POST", "remove") => {
            let OneShard { shard } = parse_or_default(body)?;
            let shard = shard_or(shard, || None)?;
            simulator.engine().remove(&shard)?;
            Ok(json!({"removed": shard.as_str()}))
        }
        ("POST", "expire-iterators") => {
            simulator.expire_iterators();
            Ok(json!({}))
        }
        ("POST", "disable") => {
            simulator.disable();
            Ok(json!({}))
        }
        ("POST", "enable") => {
            simulator.engine().enable()?;
            Ok(json!({}))
        }
        ("POST", "faults") => {
            let rules: Vec<FaultRule> = one_or_many(body)?;
            rules.iter().try_for_each(FaultRule::check)?;
            simulator.faults().add_all(rules);
            Ok(json!(simulator.faults().rules()))
        }
        ("DELETE", "faults") => {
            simulator.faults().clear();
            Ok(json!([]))
        }
        ("POST", "settings") => {
            let patch: Value = parse(body)?;
            let mut engine = simulator.engine();
            engine.settings = engine.settings.patched(&patch)?;
            Ok(json!(engine.settings))
        }
        _ => unreachable!("every path of the table is above"),
    }
}

fn put(simulator: &Simulator, body: &[u8]) -> Result<Value, Refused> {
    let changes: Vec<Change> = one_or_many(body)?;
    // All are checked before the first is put. The lock is held over all of them, so the
    // stream cannot be disabled in between.
    changes.iter().try_for_each(Change::check)?;
    let mut engine = simulator.engine();
    let numbers = changes.iter().map(|change| engine.put(change)).collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    Ok(json!({"sequence_numbers": numbers}))
}

fn rollover(simulator: &Simulator, body: &[u8]) -> Result<Value, Refused> {
    let Rollover { shard, all } = parse_or_default(body)?;
    let mut engine = simulator.engine();
    let shards = if all {
        if shard.is_some() {
            return Err(Refused::new("give either shard or all, not both"));
        }
        engine.open_shards().cloned().collect()
    } else {
        vec![shard_or(shard, || engine.widest_shard())?]
    };
    let children =
        shards.iter().map(|shard| engine.rollover(shard)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"children": children.into_iter().map(text).collect::<Vec<_>>()}))
}

fn trim(simulator: &Simulator, body: &[u8]) -> Result<Value, Refused> {
    let mut engine = simulator.engine();
    let trimmed = match parse_or_default(body)? {
        Trim { shard: Some(shard), up_to: Some(up_to), older_than_ms: None } => {
            let up_to = up_to
                .parse()
                .map_err(|_| Refused::new("up_to must be the digits of a sequence number"))?;
            engine.trim(&ShardId::from(shard.as_str()), up_to)?
        }
        Trim { shard: None, up_to: None, older_than_ms: Some(age) } => {
            engine.trim_older_than(Duration::from_millis(age))
        }
        _ => {
            return Err(Refused::new(
                "trim needs either shard and up_to, or older_than_ms for all shards",
            ));
        }
    };
    Ok(json!({"trimmed": trimmed}))
}

fn state(simulator: &Simulator) -> Value {
    let calls = simulator.calls();
    let shards: Vec<Value> = simulator.shards().iter().map(shard).collect();
    let reads: serde_json::Map<String, Value> =
        calls.reads.iter().map(|(id, count)| (id.to_string(), json!(count))).collect();
    let engine = simulator.engine();
    json!({
        "stream": simulator.stream().as_str(),
        "status": status_name(engine.status),
        "view_type": engine.view.name(),
        "last_sequence_number": number(engine.last_number).as_str(),
        "shards": shards,
        "calls": {
            "ListStreams": calls.list_streams,
            "DescribeStream": calls.describe_stream,
            "GetShardIterator": calls.get_shard_iterator,
            "GetRecords": calls.get_records,
            "GetRecords_by_shard": reads,
        },
        "faults_injected": calls.faults,
    })
}

fn shard(state: &ShardState) -> Value {
    let digits = |number: &crate::record::SequenceNumber| number.as_str().to_owned();
    json!({
        "shard": state.id.as_str(),
        "parent": state.parent.as_ref().map(ShardId::as_str),
        "open": state.open,
        "records": state.records,
        "starting_sequence_number": digits(&state.start),
        "ending_sequence_number": state.end.as_ref().map(digits),
        "first_record": state.range.as_ref().map(|(first, _)| digits(first)),
        "last_record": state.range.as_ref().map(|(_, last)| digits(last)),
        "trimmed_to": state.trimmed_to.as_ref().map(digits),
    })
}

fn shard_or(
    shard: Option<String>,
    default: impl FnOnce() -> Option<ShardId>,
) -> Result<ShardId, Refused> {
    shard
        .map(|id| ShardId::from(id.as_str()))
        .or_else(default)
        .ok_or_else(|| Refused::new("name a shard, {\"shard\":\"shardId-…\"}; none is open"))
}

fn one_or_many<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, Refused> {
    let values = match parse(body)? {
        OneOrMany::Many(values) => values,
        OneOrMany::One(value) => vec![value],
    };
    let read = |(index, value)| {
        serde_json::from_value(value)
            .map_err(|error| Refused::new(format!("entry {}: {error}", index + 1)))
    };
    values.into_iter().enumerate().map(read).collect()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| Refused::new(format!("cannot read the body: {error}")))
}

/// No body at all leaves everything to the defaults.
fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refused> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

fn text(shard: ShardId) -> String {
    shard.to_string()
}

fn error(sentence: String) -> Value {
    json!({"error": sentence})
}

fn answer(status: StatusCode, value: &Value) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(format!("{value}\n").into()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Fault, Settings};
    use std::collections::BTreeSet;

    const PAGE: &str = include_str!("../../docs/simulator.md");

    /// First cells of the table whose head begins with `head`, back-quoted words only.
    fn table(head: &str) -> BTreeSet<String> {
        let rows = PAGE.lines().skip_while(|line| !line.starts_with(head)).skip(2);
        rows.take_while(|line| line.starts_with('|'))
            .flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_page_for_users_names_every_path_fault_and_setting() {
        let paths = PATHS.map(|(method, path)| format!("{method} {path}"));
        assert_eq!(table("| call |"), BTreeSet::from(paths));

        let faults: BTreeSet<String> = [
            Fault::Throttle,
            Fault::LimitExceeded,
            Fault::InternalError,
            Fault::Reset,
            Fault::HalfAnswer,
            Fault::Hang,
            Fault::Slow(Duration::from_millis(250)),
            Fault::ExpiredIterator,
            Fault::Trimmed,
            Fault::NotFound,
            Fault::AccessDenied,
            Fault::ExpiredToken,
            Fault::Malformed,
            Fault::EmptyPage,
        ]
        .into_iter()
        .map(|fault| match json!(fault) {
            Value::String(name) => name,
            other => serde_json::to_string(&other).unwrap().replace(':', ": "),
        })
        .collect();
        assert_eq!(table("| fault |"), faults);

        let defaults = json!(Settings::default());
        let names = defaults.as_object().unwrap().keys().cloned().collect();
        assert_eq!(table("| setting |"), names);
        for (name, value) in defaults.as_object().unwrap() {
            let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
            let shown = row.split('|').nth(2).unwrap().trim().trim_matches('`');
            assert_eq!(shown, value.to_string(), "{name}");
        }
    }
}
