//! Positions of shards, as writes to items of the table.
//!
//! Owns the two ways a position moves: as the shard is delivered, with what was found on
//! the way, and as an operator asks; and where the stream begins. Invariant: a write that a later one has overtaken
//! changes nothing.

use super::dynamodb::{Refusal, Values};
use super::expression::{
    AND_GAP, AND_NO_WINDOW, AND_WINDOW, MOVE, NOT_OVERTAKEN, NOT_OVERTAKEN_AND_GAP_IS_NEW, SEEK,
};
use super::fencing;
use super::item::{self, Reader, Value};
use super::keys::ItemKey;
use super::table::{TableProgress, fence_in, held_values};
use super::{Checkpoint, Gap, Lease, LeaseKey, Position, ProgressError};
use crate::source::ShardId;
use std::time::SystemTime;

impl TableProgress {
    /// One position of [`Progress::checkpoint`](super::Progress::checkpoint).
    pub(super) async fn write_position(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<(), ProgressError> {
        let key = self.keys.shard(&checkpoint.shard);
        let mut moved = vec![
            (":position", Value::Text(item::position_text(&checkpoint.position))),
            (":updated", Value::from(item::millis(SystemTime::now()))),
            (":step", Value::from(checkpoint.step)),
        ];
        let window = checkpoint.window.as_ref().map(item::window_text);
        let and_window = if window.is_some() { AND_WINDOW } else { AND_NO_WINDOW };
        moved.extend(window.map(|text| (":window", Value::Text(text))));
        if let Some(gap) = &checkpoint.gap
            && self.write_with_gap(&key, checkpoint, gap, moved.clone(), and_window).await?
        {
            return Ok(());
        }
        let Checkpoint { lease, step, .. } = checkpoint;
        let update = format!("{MOVE}{and_window}");
        match self.update_held(&key, lease, &update, NOT_OVERTAKEN, moved).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let judge =
                    |now: Option<&_>, written| fencing::checkpoint(now, written, lease, *step);
                self.judge(&key, refusal, judge).await
            }
        }
    }

    /// Writes a position and its gap at once. Whether that is all: a gap that is there
    /// already is not written again, but its position may have been an earlier one.
    async fn write_with_gap(
        &self,
        key: &ItemKey,
        checkpoint: &Checkpoint,
        gap: &Gap,
        mut values: Values<'_>,
        and_window: &str,
    ) -> Result<bool, ProgressError> {
        let Some(held) = held_values(&checkpoint.lease) else { return Ok(false) };
        let mark = item::gap_mark(gap);
        values.extend(held);
        values.extend([
            (":none", Value::List(Vec::new())),
            (":gap", Value::List(vec![item::gap_value(gap)])),
            (":mark", Value::from(mark.as_str())),
        ]);
        let condition = NOT_OVERTAKEN_AND_GAP_IS_NEW;
        let update = format!("{MOVE}{AND_GAP}{and_window}");
        let old = match self.table.update(key, &update, condition, values).await {
            Ok(()) => return Ok(true),
            Err(Refusal::Condition(old)) => old,
            Err(Refusal::Failed(error)) => return Err(error),
        };
        let item = self.refuser(key, old).await?;
        let (lease, step) = fence_in(key, item.as_ref())?;
        let verdict = fencing::checkpoint(lease.as_ref(), step, &checkpoint.lease, checkpoint.step);
        let (fencing::Verdict::Write, Some(item)) = (&verdict, item) else {
            return verdict.after_refusal().map(|()| true);
        };
        let reader = Reader::new(key, &item)?;
        if !reader.last_gap_is(&mark)? {
            return fencing::Verdict::Write.after_refusal().map(|()| true);
        }
        Ok(reader.position()? == item::kept_position(&checkpoint.position))
    }

    /// [`Progress::seeded`](super::Progress::seeded) and
    /// [`Progress::unseed`](super::Progress::unseed)
    pub(super) async fn write_seeded(
        &self,
        lease: &Lease,
        step: u64,
        update: &str,
        mut values: Values<'_>,
    ) -> Result<(), ProgressError> {
        let key = self.keys.lease(&LeaseKey::Stream);
        values.push((":step", Value::from(step)));
        match self.update_held(&key, lease, update, NOT_OVERTAKEN, values).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let judge =
                    |now: Option<&_>, written| fencing::checkpoint(now, written, lease, step);
                self.judge(&key, refusal, judge).await
            }
        }
    }

    /// [`Progress::seek`](super::Progress::seek)
    pub(super) async fn write_move(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError> {
        let key = self.keys.shard(shard);
        let moved = vec![
            (":position", Value::Text(item::position_text(position))),
            (":updated", Value::from(item::millis(SystemTime::now()))),
            (":step", Value::from(step)),
            (":order", Value::from(order)),
        ];
        match self.update_held(&key, lease, SEEK, NOT_OVERTAKEN, moved).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let judge =
                    |now: Option<&_>, written| fencing::checkpoint(now, written, lease, step);
                self.judge(&key, refusal, judge).await
            }
        }
    }
}
