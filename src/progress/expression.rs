//! The conditions and changes of leases and positions, as DynamoDB's expressions.
//!
//! Owns their text; the values are put in by [`super::table`]. Names of keys stand in them
//! as `#pk`, for the table's are the application's.

pub(super) const NOT_THERE: &str = "attribute_not_exists(#pk)";
pub(super) const AS_SEEN: &str = "sg_owner = :owner AND sg_counter = :counter";
pub(super) const RELEASED_AS_SEEN: &str =
    "attribute_not_exists(sg_owner) AND sg_counter = :counter";
pub(super) const HELD: &str = AS_SEEN;
pub(super) const NOT_OVERTAKEN: &str = "sg_owner = :owner AND sg_counter = :counter AND \
     (attribute_not_exists(sg_step) OR sg_step <= :step)";
pub(super) const NOT_OVERTAKEN_AND_GAP_IS_NEW: &str = "sg_owner = :owner AND sg_counter = :counter AND \
     (attribute_not_exists(sg_step) OR sg_step <= :step) AND \
     (attribute_not_exists(sg_last_gap) OR sg_last_gap <> :mark)";
pub(super) const HELD_OR_NOT_THERE: &str =
    "attribute_not_exists(#pk) OR (sg_owner = :owner AND sg_counter = :counter)";

pub(super) const TAKE: &str =
    "SET sg_owner = :worker, sg_counter = :next, sg_since = :since REMOVE sg_step";
pub(super) const BEGIN_STREAM: &str =
    "SET sg_v = :v, sg_owner = :worker, sg_counter = :next, sg_since = :since";
pub(super) const BEGIN_SHARD: &str = "SET sg_v = :v, sg_owner = :worker, sg_counter = :next, \
     sg_since = :since, sg_position = :position, sg_updated = :updated, sg_closed = :closed";
pub(super) const BEGIN_CHILD: &str = "SET sg_v = :v, sg_owner = :worker, sg_counter = :next, \
     sg_since = :since, sg_position = :position, sg_updated = :updated, sg_closed = :closed, sg_parent = :parent";
pub(super) const RELEASE: &str = "REMOVE sg_owner";
pub(super) const SEED: &str = "SET sg_seeded = :seeded, sg_begin = :begin, sg_step = :step";
pub(super) const UNSEED: &str = "SET sg_step = :step REMOVE sg_seeded, sg_begin";
pub(super) const SEEK: &str = "SET sg_position = :position, sg_updated = :updated, \
     sg_step = :step, sg_order = :order REMOVE sg_window";
pub(super) const ORDER: &str = "SET sg_v = :v, sg_counter = :next, sg_orders = :orders";
pub(super) const AS_COUNTED: &str = "sg_counter = :counter";
pub(super) const MOVE: &str = "SET sg_position = :position, sg_updated = :updated, sg_step = :step";
pub(super) const AND_GAP: &str =
    ", sg_gaps = list_append(if_not_exists(sg_gaps, :none), :gap), sg_last_gap = :mark";
pub(super) const AND_WINDOW: &str = ", sg_window = :window";
pub(super) const AND_NO_WINDOW: &str = " REMOVE sg_window";
