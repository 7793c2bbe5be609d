//! Names for people, short enough for a line of the trace.

use streamgate::progress::{LeaseKey, Position};
use streamgate::source::ShardId;

/// Enough of a shard's name to tell it from others.
pub fn short(shard: &ShardId) -> &str {
    let name = shard.as_str();
    &name[name.len().saturating_sub(8)..]
}

pub fn key_name(key: &LeaseKey) -> &str {
    match key {
        LeaseKey::Stream => "stream",
        LeaseKey::Shard(shard) => short(shard),
    }
}

pub fn position_name(position: &Position) -> &str {
    match position {
        Position::TrimHorizon => "horizon",
        Position::AtTimestamp(_) => "time",
        Position::After(number) => number.as_str(),
        Position::ShardEnd => "end",
    }
}
