//! What operators have asked of the consumer, until it is carried out.
//!
//! Owns what stands and what may be asked beside it; the owners of shards and the leader
//! carry it out. Pure: a store reads what stands, has it changed here, and writes it back
//! if nobody else has meanwhile. Invariant: a request that is sent twice counts once.

use super::asking::{MAX_BY_BYTES, is_name};
use super::json;
use super::letters::LetterId;
use super::redrives::{self, Ended, Redrive};
use crate::source::ShardId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Pauses and moves that may stand at a time. They are read with every look.
pub const MAX_STANDING: usize = 1_000;
/// Requests that are remembered for people.
const REMEMBERED: usize = 20;
/// How long one is known that comes twice: longer than any call is under way.
const KNOWN: Duration = Duration::from_secs(120);

/// Where to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeekTo {
    /// With the oldest record kept.
    TrimHorizon,
    /// With what is written from now on.
    Latest,
    /// With the first record not older than this (milliseconds).
    AtTimestamp(
        #[serde(with = "json::millis")]
        #[schemars(schema_with = "json::millis::schema")]
        SystemTime,
    ),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Read no more: this shard, or none.
    Pause(Option<ShardId>),
    /// Read again: this shard, or all.
    Resume(Option<ShardId>),
    /// Go on elsewhere in this shard.
    SeekShard(ShardId, SeekTo),
    /// Begin anew with all shards, as if there was no progress.
    SeekStream(SeekTo),
    /// Leave out so many records of this shard that the handler would get next.
    Skip(
        ShardId,
        #[serde(with = "json::count")]
        #[schemars(schema_with = "json::count::schema")]
        u64,
    ),
    /// These moves are carried out, or their shards have ended: said by the leader.
    Settle(
        #[serde(with = "json::count::list")]
        #[schemars(schema_with = "json::count::list::schema")]
        Vec<u64>,
    ),
    /// The seek of the stream is carried out: said by the leader.
    Reset(
        #[serde(with = "json::count")]
        #[schemars(schema_with = "json::count::schema")]
        u64,
    ),
    /// Hand this dead letter to the handler again, or all.
    Redrive(Option<LetterId>),
    /// A redrive is carried out: said by the leader.
    Redriven(Ended),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// What is asked.
    pub order: Order,
    /// Who asks.
    pub by: String,
    /// Any number of its own: by it one that comes twice is known.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub nonce: u64,
}

/// Who asked, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asked {
    /// Who.
    pub by: String,
    /// When (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub at: SystemTime,
}

/// A pause that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    /// Of this shard, or of the stream.
    pub shard: Option<ShardId>,
    /// Who asked.
    pub asked: Asked,
}

/// Where a shard's position is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoveTo {
    /// There.
    Seek(SeekTo),
    /// Past so many records.
    Skip(
        #[serde(with = "json::count")]
        #[schemars(schema_with = "json::count::schema")]
        u64,
    ),
}

/// A move of a shard's position that stands until it is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// Larger than that of every earlier one. The shard's item keeps that of the last one
    /// carried out.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub id: u64,
    /// Of this shard.
    pub shard: ShardId,
    /// Where to.
    pub to: MoveTo,
    /// Who asked.
    pub asked: Asked,
}

/// A seek of the whole stream that stands until it is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reset {
    /// Its number.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub id: u64,
    /// Where to begin.
    pub to: SeekTo,
    /// Who asked.
    pub asked: Asked,
}

/// A request of the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Past {
    /// The request.
    pub request: Request,
    /// When it was made (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub at: SystemTime,
}

/// Everything that stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orders {
    /// Grows with every change.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub version: u64,
    /// Pauses.
    pub pauses: Vec<Pause>,
    /// Moves, in the order in which they were asked for.
    pub moves: Vec<Move>,
    /// A seek of the whole stream.
    pub reset: Option<Reset>,
    /// Where the last seek of the whole stream began, in place of `STARTING_POSITION`.
    pub start: Option<SeekTo>,
    /// How often the whole stream has begun anew. Items of shards that were made in an
    /// earlier epoch count for nothing.
    #[serde(default, with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub epoch: u64,
    /// Redrives of dead letters, those that have ended first forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redrives: Vec<Redrive>,
    /// The last requests, the newest last; not those of the leader, nor redrives.
    pub past: Vec<Past>,
    /// By these a request is known that comes twice; the oldest first.
    #[serde(default)]
    pub nonces: Vec<Nonce>,
}

/// The nonce of a request that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nonce {
    /// The nonce.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub nonce: u64,
    /// When it was made (milliseconds).
    #[serde(with = "json::millis")]
    #[schemars(schema_with = "json::millis::schema")]
    pub at: SystemTime,
}

/// A request that cannot be met; nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Orders {
    /// The pause that keeps this shard from being read, if there is one.
    pub fn pause(&self, shard: &ShardId) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.shard.as_ref().is_none_or(|paused| paused == shard))
    }

    /// The first move of this shard behind the last one carried out.
    pub fn next_move(&self, shard: &ShardId, done: u64) -> Option<&Move> {
        self.moves.iter().find(|order| order.shard == *shard && order.id > done)
    }

    /// What stands once the request is made; `None` where nothing changes.
    ///
    /// # Errors
    /// [`Refused`] with a sentence for who asked.
    pub fn with(&self, request: &Request, now: SystemTime) -> Result<Option<Self>, Refused> {
        let Request { order, by, nonce } = request;
        if self.nonces.iter().any(|known| known.nonce == *nonce) {
            return Ok(None);
        }
        if !is_name(by) {
            return Err(Refused(format!(
                "who asks is named in 1 to {MAX_BY_BYTES} bytes that are seen"
            )));
        }
        let asked = || Asked { by: by.clone(), at: now };
        let mut orders = Self { version: self.version + 1, ..self.clone() };
        let id = orders.version;
        match order {
            Order::Pause(shard) => {
                if orders.pauses.iter().any(|pause| pause.shard == *shard) {
                    return Ok(None);
                }
                orders.pauses.push(Pause { shard: shard.clone(), asked: asked() });
            }
            Order::Resume(None) => {
                if orders.pauses.is_empty() {
                    return Ok(None);
                }
                orders.pauses.clear();
            }
            Order::Resume(Some(shard)) => {
                let before = orders.pauses.len();
                orders.pauses.retain(|pause| pause.shard.as_ref() != Some(shard));
                if let Some(pause) = orders.pause(shard) {
                    return Err(Refused(format!(
                        "the whole stream was paused by {}: resume it, and pause what is to stay so",
                        pause.asked.by
                    )));
                }
                if orders.pauses.len() == before {
                    return Ok(None);
                }
            }
            Order::SeekShard(..) | Order::Skip(..) | Order::SeekStream(_)
                if orders.reset.is_some() =>
            {
                return Err(Refused(
                    "a seek of the whole stream is under way: ask again when it is done".to_owned(),
                ));
            }
            Order::SeekShard(_, SeekTo::AtTimestamp(time))
            | Order::SeekStream(SeekTo::AtTimestamp(time))
                if *time > now =>
            {
                return Err(Refused(format!(
                    "{} is in the future: everything until then would be left out",
                    humantime::format_rfc3339_seconds(*time)
                )));
            }
            Order::SeekShard(shard, to) => {
                let (shard, to) = (shard.clone(), MoveTo::Seek(*to));
                orders.moves.push(Move { id, shard, to, asked: asked() });
            }
            Order::Skip(_, 0) => {
                return Err(Refused("at least one record has to be skipped".to_owned()));
            }
            Order::Skip(shard, records) => {
                let (shard, to) = (shard.clone(), MoveTo::Skip(*records));
                orders.moves.push(Move { id, shard, to, asked: asked() });
            }
            Order::SeekStream(to) => {
                orders.moves.clear();
                orders.reset = Some(Reset { id, to: *to, asked: asked() });
            }
            Order::Settle(ids) => orders.moves.retain(|order| !ids.contains(&order.id)),
            Order::Reset(id) => match orders.reset.take() {
                Some(reset) if reset.id == *id => {
                    orders.start = Some(reset.to);
                    orders.epoch += 1;
                }
                _ => return Ok(None),
            },
            Order::Redrive(letter) => {
                if !redrives::ask(&mut orders.redrives, id, letter.as_ref(), asked())? {
                    return Ok(None);
                }
            }
            Order::Redriven(ended) => {
                if !redrives::end(&mut orders.redrives, ended) {
                    return Ok(None);
                }
            }
        }
        if orders.pauses.len() + orders.moves.len() > MAX_STANDING {
            return Err(Refused(format!(
                "{MAX_STANDING} pauses and moves stand already: pause the whole stream, or wait until some are carried out"
            )));
        }
        if order.is_remembered() {
            orders.past.push(Past { request: request.clone(), at: now });
            let surplus = orders.past.len().saturating_sub(REMEMBERED);
            orders.past.drain(..surplus);
        }
        // By each api's own clock: one that is wrong forgets early or late, and never too much
        // for an item.
        let is_old = |known: &Nonce| now.duration_since(known.at).is_ok_and(|age| age > KNOWN);
        orders.nonces.retain(|known| !is_old(known));
        orders.nonces.push(Nonce { nonce: *nonce, at: now });
        let surplus = orders.nonces.len().saturating_sub(MAX_STANDING);
        orders.nonces.drain(..surplus);
        Ok(Some(orders))
    }
}

impl Order {
    /// Whether an operator asks it, and not the leader.
    pub fn is_an_operators(&self) -> bool {
        !matches!(self, Self::Settle(_) | Self::Reset(_) | Self::Redriven(_))
    }

    /// Redrives are remembered where they stand, with how they ended.
    fn is_remembered(&self) -> bool {
        self.is_an_operators() && !matches!(self, Self::Redrive(_))
    }
}

impl Refused {
    pub(super) fn because(why: String) -> Self {
        Self(why)
    }
}

impl fmt::Display for SeekTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("the trim horizon"),
            Self::Latest => f.write_str("the latest record"),
            Self::AtTimestamp(time) => write!(f, "{}", humantime::format_rfc3339_seconds(*time)),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shard: &Option<ShardId>| match shard {
            Some(shard) => format!("shard {shard}"),
            None => "the stream".to_owned(),
        };
        match self {
            Self::Pause(shard) => write!(f, "pause {}", whole(shard)),
            Self::Resume(shard) => write!(f, "resume {}", whole(shard)),
            Self::SeekShard(shard, to) => write!(f, "seek shard {shard} to {to}"),
            Self::SeekStream(to) => write!(f, "seek the stream to {to}"),
            Self::Skip(shard, records) => write!(f, "skip {records} records of shard {shard}"),
            Self::Redrive(Some(letter)) => write!(f, "redrive the dead letter {letter}"),
            Self::Redrive(None) => f.write_str("redrive all dead letters"),
            Self::Settle(_) | Self::Reset(_) | Self::Redriven(_) => {
                f.write_str("note what was carried out")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Makes a request; the number of its own is how many there were before.
    fn ask(orders: &mut Orders, order: Order) -> Result<bool, Refused> {
        static NONCE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let nonce = NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let changed = orders.with(&Request { order, by: "me".to_owned(), nonce }, at(nonce))?;
        let has_changed = changed.is_some();
        *orders = changed.unwrap_or_else(|| orders.clone());
        Ok(has_changed)
    }

    fn shard(id: &str) -> ShardId {
        ShardId::from(id)
    }

    #[test]
    fn pauses_stand_until_they_are_resumed() {
        let mut orders = Orders::default();
        assert_eq!(ask(&mut orders, Order::Pause(Some(shard("a")))), Ok(true));
        assert_eq!(ask(&mut orders, Order::Pause(Some(shard("a")))), Ok(false));
        assert!(orders.pause(&shard("a")).is_some() && orders.pause(&shard("b")).is_none());
        ask(&mut orders, Order::Pause(None)).unwrap();
        assert!(orders.pause(&shard("b")).is_some());
        let refused = ask(&mut orders, Order::Resume(Some(shard("a")))).unwrap_err();
        assert!(refused.to_string().contains("paused by me"), "{refused}");
        assert_eq!(orders.pauses.len(), 2, "nothing has changed");
        ask(&mut orders, Order::Resume(None)).unwrap();
        assert!(orders.pauses.is_empty());
        assert_eq!(ask(&mut orders, Order::Resume(Some(shard("a")))), Ok(false));
    }

    #[test]
    fn moves_are_carried_out_in_order_and_settled() {
        let mut orders = Orders::default();
        ask(&mut orders, Order::Skip(shard("a"), 1)).unwrap();
        ask(&mut orders, Order::SeekShard(shard("a"), SeekTo::Latest)).unwrap();
        ask(&mut orders, Order::Skip(shard("b"), 7)).unwrap();
        let first = orders.next_move(&shard("a"), 0).unwrap().clone();
        assert_eq!(first.to, MoveTo::Skip(1));
        let second = orders.next_move(&shard("a"), first.id).unwrap().clone();
        assert_eq!(second.to, MoveTo::Seek(SeekTo::Latest));
        assert!(orders.next_move(&shard("a"), second.id).is_none());
        ask(&mut orders, Order::Settle(vec![first.id, second.id])).unwrap();
        assert_eq!(orders.moves.len(), 1);
        assert!(ask(&mut orders, Order::Skip(shard("a"), 0)).is_err());
    }

    #[test]
    fn a_seek_of_the_stream_stands_alone_and_is_remembered() {
        let mut orders = Orders::default();
        ask(&mut orders, Order::Skip(shard("a"), 1)).unwrap();
        ask(&mut orders, Order::SeekStream(SeekTo::TrimHorizon)).unwrap();
        assert!(orders.moves.is_empty(), "they would be of no meaning");
        assert!(ask(&mut orders, Order::Skip(shard("a"), 1)).is_err());
        assert!(ask(&mut orders, Order::SeekStream(SeekTo::Latest)).is_err());
        let id = orders.reset.as_ref().unwrap().id;
        assert_eq!(ask(&mut orders, Order::Reset(id + 1)), Ok(false));
        // It was taken back with the copy: nothing has changed.
        assert!(orders.reset.is_some());
        assert_eq!(ask(&mut orders, Order::Reset(id)), Ok(true));
        assert_eq!((orders.reset.clone(), orders.start), (None, Some(SeekTo::TrimHorizon)));
        assert_eq!(orders.epoch, 1);
        assert_eq!(ask(&mut orders, Order::Reset(id)), Ok(false));
    }

    #[test]
    fn nobody_is_sent_into_the_future() {
        let orders = Orders::default();
        let seek = Order::SeekStream(SeekTo::AtTimestamp(at(101)));
        let request = Request { order: seek, by: "x".to_owned(), nonce: 1 };
        let refused = orders.with(&request, at(100)).unwrap_err().to_string();
        assert!(refused.contains("1970-01-01T00:01:41Z is in the future"), "{refused}");
        assert!(orders.with(&request, at(101)).is_ok());
    }

    #[test]
    fn a_request_that_comes_twice_counts_once_and_there_is_an_end_to_them() {
        let orders = Orders::default();
        let skip =
            |n: u64| Request { order: Order::Skip(shard("a"), 1), by: "x".to_owned(), nonce: n };
        let mut once = orders.with(&skip(7), at(1)).unwrap().unwrap();
        assert_eq!(once.with(&skip(7), at(2)), Ok(None));
        for n in 8..8 + MAX_STANDING as u64 - 1 {
            once = once.with(&skip(n), at(n)).unwrap().unwrap();
        }
        assert!(once.with(&skip(1), at(1)).unwrap_err().to_string().contains("stand already"));
        assert_eq!(once.past.len(), REMEMBERED);
        for by in ["", "a\nb", "a\u{202e}b", "a\u{200b}", &"x".repeat(MAX_BY_BYTES + 1)] {
            let request = Request { by: by.to_owned(), ..skip(1) };
            assert!(orders.with(&request, at(1)).is_err(), "{by:?}");
        }
    }

    #[test]
    fn redrives_stand_once_until_they_have_ended_and_are_remembered_for_a_while() {
        let mut orders = Orders::default();
        let letter = |n: u64| format!("s:{n}-{n}:0000000000000000").parse().ok();
        assert_eq!(ask(&mut orders, Order::Redrive(None)), Ok(true));
        assert_eq!(ask(&mut orders, Order::Redrive(None)), Ok(false), "it stands");
        for n in 1..20 {
            assert_eq!(ask(&mut orders, Order::Redrive(letter(n))), Ok(true));
        }
        let refused = ask(&mut orders, Order::Redrive(letter(20))).unwrap_err();
        assert!(refused.to_string().contains("20 redrives stand already"), "{refused}");
        for _ in 0..20 {
            let id = redrives::next(&orders.redrives).unwrap().id;
            let outcome = redrives::Outcome { taken: 1, left: 0, why: None };
            let ended = Order::Redriven(Ended { id, outcome });
            assert_eq!(ask(&mut orders, ended.clone()), Ok(true));
            assert_eq!(ask(&mut orders, ended), Ok(false), "it has ended");
        }
        assert!(redrives::next(&orders.redrives).is_none());
        assert_eq!(orders.redrives.len(), 10);
        assert!(orders.past.is_empty(), "they are remembered where they stand");
    }

    #[test]
    fn orders_are_read_as_they_were_written() {
        let mut orders = Orders::default();
        ask(&mut orders, Order::Redrive(None)).unwrap();
        ask(&mut orders, Order::Pause(None)).unwrap();
        ask(&mut orders, Order::Skip(shard("a"), 3)).unwrap();
        ask(&mut orders, Order::SeekStream(SeekTo::AtTimestamp(at(9)))).unwrap();
        let text = serde_json::to_string(&orders).unwrap();
        assert_eq!(serde_json::from_str::<Orders>(&text).unwrap(), orders);
    }
}
