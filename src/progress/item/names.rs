//! The names of attributes and the words of positions.
//!
//! Owns the format as it stands in tables: a name is never given another meaning.

/// The format written, in [`VERSION`]. A later one that cannot be read as this gets
/// another number.
pub const FORMAT: u64 = 1;

pub const VERSION: &str = "sg_v";
pub const OWNER: &str = "sg_owner";
pub const COUNTER: &str = "sg_counter";
pub const POSITION: &str = "sg_position";
/// When the position was written, in milliseconds since the epoch.
pub const UPDATED: &str = "sg_updated";
/// The last write's [`step`](crate::progress::Checkpoint::step); none since the lease was taken.
pub const STEP: &str = "sg_step";
pub const PARENT: &str = "sg_parent";
pub const GAPS: &str = "sg_gaps";
/// The last gap as text, by which a repeated write of it is recognised.
pub const LAST_GAP: &str = "sg_last_gap";
/// The tumbling window that is open at the position, as JSON; none where none is.
pub const WINDOW: &str = "sg_window";
pub const SEEDED: &str = "sg_seeded";
/// Where shards begin that have no item; none means at their beginning.
pub const BEGIN: &str = "sg_begin";
/// Since when the owner has had the lease, in milliseconds since the epoch.
pub const SINCE: &str = "sg_since";
/// The last operator's move that was carried out.
pub const ORDER: &str = "sg_order";
/// What operators have asked for, as JSON.
pub const ORDERS: &str = "sg_orders";
/// The shard took no more records when its item was made.
pub const CLOSED: &str = "sg_closed";
pub const BEAT: &str = "sg_beat";
pub const FAILOVER_MS: &str = "sg_failover_ms";
pub const SHARDS: &str = "sg_shards";
pub const LOAD: &str = "sg_load";
pub const AGE_MS: &str = "sg_age_ms";
pub const DRAINING: &str = "sg_draining";
pub const NOTED: &str = "sg_noted";
/// What a worker reports, as JSON; none in items of before there was one.
pub const REPORT: &str = "sg_report";
/// Counted by others.
pub const ANNOUNCED: &str = "sg_announced";
/// What a dead letter says, as JSON.
pub const LETTER: &str = "sg_letter";
/// Whether all of a dead letter is there.
pub const WHOLE: &str = "sg_whole";
/// A dead letter's payload, or a part of it.
pub const PAYLOAD: &str = "sg_payload";

pub const GAP_AFTER: &str = "after";
pub const GAP_RESUMED_AT: &str = "resumed_at";
pub const GAP_FOUND_AT: &str = "found_at";

pub const TRIM_HORIZON: &str = "TRIM_HORIZON";
pub const SHARD_END: &str = "SHARD_END";
pub const AT_TIMESTAMP_PREFIX: &str = "AT_TIMESTAMP:";
pub const AFTER_PREFIX: &str = "AFTER:";
