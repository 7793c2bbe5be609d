//! Progress in a DynamoDB table that the application shares with it.
//!
//! Owns the conditions under which items change; what stands in them is
//! [`super::item`]'s, where they lie [`super::keys`]', how to call [`super::dynamodb`]'s.
//! Invariant: every write is conditional (but the removal of a heartbeat), and a refused
//! one is judged by the item that refused it, so that a write whose answer was lost, to
//! the SDK's own retry too, is known as its own.

use super::dynamodb::{Refusal, Table, Values, WriteUnitsObserver};
use super::fencing;
use super::item::{self, Attributes, Reader, UnreadableItem, Value};
use super::keys::{ItemKey, Namespace, STREAM_SORT, WORKER_SORT_PREFIX};
use super::{
    Checkpoint, Coordination, Gap, Lease, LeaseKey, NewShard, Progress, ProgressError,
    ShardProgress, WorkerId, first_take,
};
use crate::source::ShardId;
use async_trait::async_trait;
use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::time::SystemTime;

/// How many calls one batch has under way: a round of checkpoints of many shards is
/// done in a few round trips, and does not take every connection.
const CONCURRENT_CALLS: usize = 16;

const NOT_THERE: &str = "attribute_not_exists(#pk)";
const AS_SEEN: &str = "sg_owner = :owner AND sg_counter = :counter";
const RELEASED_AS_SEEN: &str = "attribute_not_exists(sg_owner) AND sg_counter = :counter";
const HELD: &str = AS_SEEN;
const NOT_OVERTAKEN: &str = "sg_owner = :owner AND sg_counter = :counter AND \
     (attribute_not_exists(sg_step) OR sg_step <= :step)";
const NOT_OVERTAKEN_AND_GAP_IS_NEW: &str = "sg_owner = :owner AND sg_counter = :counter AND \
     (attribute_not_exists(sg_step) OR sg_step <= :step) AND \
     (attribute_not_exists(sg_last_gap) OR sg_last_gap <> :mark)";
const HELD_OR_NOT_THERE: &str =
    "attribute_not_exists(#pk) OR (sg_owner = :owner AND sg_counter = :counter)";
const LATER_BEAT: &str = "attribute_not_exists(sg_beat) OR sg_beat < :beat";

const TAKE: &str = "SET sg_owner = :worker, sg_counter = :next REMOVE sg_step";
const BEGIN_STREAM: &str = "SET sg_v = :v, sg_owner = :worker, sg_counter = :next";
const BEGIN_SHARD: &str = "SET sg_v = :v, sg_owner = :worker, sg_counter = :next, \
     sg_position = :position, sg_updated = :updated";
const BEGIN_CHILD: &str = "SET sg_v = :v, sg_owner = :worker, sg_counter = :next, \
     sg_position = :position, sg_updated = :updated, sg_parent = :parent";
const RELEASE: &str = "REMOVE sg_owner";
const SEED: &str = "SET sg_seeded = :seeded";
const BEAT: &str = "SET sg_v = :v, sg_beat = :beat";
const MOVE: &str = "SET sg_position = :position, sg_updated = :updated, sg_step = :step";
const AND_GAP: &str =
    ", sg_gaps = list_append(if_not_exists(sg_gaps, :none), :gap), sg_last_gap = :mark";
const AND_WINDOW: &str = ", sg_window = :window";
const AND_NO_WINDOW: &str = " REMOVE sg_window";

/// Which items of which table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// `TABLE_NAME`
    pub table: String,
    /// `TABLE_PARTITION_KEY`
    pub partition_key: String,
    /// `TABLE_SORT_KEY`
    pub sort_key: String,
    /// `CONSUMER_NAME`; see [`super::valid_consumer_name`].
    pub consumer: String,
    /// The stream's label: a stream that is enabled again begins anew.
    pub label: String,
}

/// Progress in the items of a table that the application shares with it.
pub struct TableProgress {
    pub(super) table: Table,
    pub(super) keys: Namespace,
}

impl TableProgress {
    /// Keeps progress with the credentials and endpoints of `config`. Nothing is
    /// contacted yet.
    pub fn new(config: &SdkConfig, settings: TableSettings) -> Self {
        let keys = Namespace::new(&settings.consumer, &settings.label);
        let TableSettings { table, partition_key, sort_key, .. } = settings;
        Self { table: Table::new(config, table, partition_key, sort_key), keys }
    }

    /// Tells `observer` what the writes cost.
    #[must_use]
    pub fn observing_write_units(mut self, observer: WriteUnitsObserver) -> Self {
        self.table.observe_write_units(observer);
        self
    }

    /// The item that refused a write: the one the answer brought, or, from an endpoint
    /// that brings none, as it stands now.
    async fn refuser(
        &self,
        key: &ItemKey,
        old: Option<Attributes>,
    ) -> Result<Option<Attributes>, ProgressError> {
        match old {
            Some(item) => Ok(Some(item)),
            None => {
                let items = self.table.query(&key.partition, Some(&key.sort)).await?;
                Ok(items.into_iter().next().map(|(_, item)| item))
            }
        }
    }

    /// Turns a refused condition into the write's end, by the lease and the step that
    /// refused it.
    async fn judge(
        &self,
        key: &ItemKey,
        refusal: Refusal,
        judge: impl FnOnce(Option<&Lease>, Option<u64>) -> fencing::Verdict,
    ) -> Result<(), ProgressError> {
        let old = match refusal {
            Refusal::Condition(old) => old,
            Refusal::Failed(error) => return Err(error),
        };
        let item = self.refuser(key, old).await?;
        let (lease, step) = fence_in(key, item.as_ref())?;
        judge(lease.as_ref(), step).after_refusal()
    }

    /// A write under `lease` to `key`.
    async fn update_held(
        &self,
        key: &ItemKey,
        lease: &Lease,
        update: &str,
        condition: &str,
        values: Values<'_>,
    ) -> Result<(), Refusal> {
        match held_values(lease) {
            Some(held) => {
                let values = held.into_iter().chain(values).collect();
                self.table.update(key, update, condition, values).await
            }
            None => Err(Refusal::Condition(None)),
        }
    }

    async fn write(&self, checkpoint: &Checkpoint) -> Result<(), ProgressError> {
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
}

#[async_trait]
impl Progress for TableProgress {
    async fn describe(&self) -> Result<(), ProgressError> {
        self.table.describe().await
    }

    async fn coordination(&self) -> Result<Coordination, ProgressError> {
        let mut coordination = Coordination::default();
        for (key, item) in self.table.query(self.keys.control(), None).await? {
            if key.sort == STREAM_SORT {
                let stream = Reader::new(&key, &item)?;
                coordination.stream = Some(stream.lease()?);
                coordination.seeded = stream.seeded()?;
            } else if key.sort.starts_with(WORKER_SORT_PREFIX) {
                coordination.workers.push(Reader::new(&key, &item)?.heartbeat()?);
            }
        }
        Ok(coordination)
    }

    async fn load(&self) -> Result<Vec<ShardProgress>, ProgressError> {
        let partitions: Vec<String> = self.keys.shard_partitions().collect();
        let queries: Vec<_> =
            partitions.iter().map(|partition| self.table.query(partition, None)).collect();
        let found: Vec<Vec<(ItemKey, Attributes)>> =
            stream::iter(queries).buffer_unordered(CONCURRENT_CALLS).try_collect().await?;
        let mut shards = found
            .iter()
            .flatten()
            .map(|(key, item)| Reader::new(key, item)?.shard())
            .collect::<Result<Vec<_>, UnreadableItem>>()?;
        shards.sort_unstable_by(|a, b| a.shard.cmp(&b.shard));
        Ok(shards)
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: u64) -> Result<(), ProgressError> {
        let key = self.keys.worker(worker);
        let values = vec![(":v", item::FORMAT.into()), (":beat", beat.into())];
        match self.table.update(&key, BEAT, LATER_BEAT, values).await {
            // It stands already, or a later one does and this one comes late.
            Ok(()) | Err(Refusal::Condition(_)) => Ok(()),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    async fn retire(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        match self.table.delete(&self.keys.worker(worker), None).await {
            Ok(()) | Err(Refusal::Condition(_)) => Ok(()),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        let item_key = self.keys.lease(key);
        let taken = fencing::taken(seen, worker);
        let mut values = vec![(":worker", worker.as_str().into()), (":next", taken.counter.into())];
        let (update, condition) = match seen {
            Some(seen) => {
                values.push((":counter", seen.counter.into()));
                match &seen.owner {
                    Some(owner) => {
                        values.push((":owner", owner.as_str().into()));
                        (TAKE, AS_SEEN)
                    }
                    None => (TAKE, RELEASED_AS_SEEN),
                }
            }
            None => {
                values.push((":v", item::FORMAT.into()));
                (begin(first_take(key, new)?, &mut values), NOT_THERE)
            }
        };
        match self.table.update(&item_key, update, condition, values).await {
            Ok(()) => {}
            Err(refusal) => {
                self.judge(&item_key, refusal, |now, _| fencing::take(now, seen, worker)).await?;
            }
        }
        Ok(taken)
    }

    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError> {
        let key = self.keys.lease(key);
        let written = match held_values(lease) {
            Some(held) => self.table.update(&key, RELEASE, HELD, held).await,
            None => Err(Refusal::Condition(None)),
        };
        match written {
            Ok(()) => Ok(()),
            Err(refusal) => self.judge(&key, refusal, |now, _| fencing::release(now, lease)).await,
        }
    }

    async fn seeded(&self, lease: &Lease) -> Result<(), ProgressError> {
        let key = self.keys.lease(&LeaseKey::Stream);
        let seeded = vec![(":seeded", Value::Bool(true))];
        match self.update_held(&key, lease, SEED, HELD, seeded).await {
            Ok(()) => Ok(()),
            Err(refusal) => self.judge(&key, refusal, |now, _| fencing::held(now, lease)).await,
        }
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Result<(), ProgressError>> {
        let writes: Vec<_> = checkpoints.iter().map(|checkpoint| self.write(checkpoint)).collect();
        stream::iter(writes).buffered(CONCURRENT_CALLS).collect().await
    }

    async fn forget(&self, shard: &ShardId, lease: &Lease) -> Result<(), ProgressError> {
        let key = self.keys.shard(shard);
        let written = match held_values(lease) {
            Some(held) => self.table.delete(&key, Some((HELD_OR_NOT_THERE, held))).await,
            None => Err(Refusal::Condition(None)),
        };
        match written {
            Ok(()) => Ok(()),
            Err(refusal) => self.judge(&key, refusal, |now, _| fencing::forget(now, lease)).await,
        }
    }
}

impl From<UnreadableItem> for ProgressError {
    fn from(item: UnreadableItem) -> Self {
        Self::Unsuitable(item.to_string())
    }
}

/// The expression that makes an item; adds what it needs to `values`.
fn begin(first: Option<&NewShard>, values: &mut Values<'_>) -> &'static str {
    let Some(first) = first else { return BEGIN_STREAM };
    values.push((":position", Value::Text(item::position_text(&first.position))));
    values.push((":updated", item::millis(SystemTime::now()).into()));
    match &first.parent {
        None => BEGIN_SHARD,
        Some(parent) => {
            values.push((":parent", parent.as_str().into()));
            BEGIN_CHILD
        }
    }
}

/// What [`HELD`] compares with; `None` for a lease nobody holds, under which nobody writes.
fn held_values(lease: &Lease) -> Option<Values<'static>> {
    let owner = lease.owner.as_ref()?;
    Some(vec![(":owner", owner.as_str().into()), (":counter", lease.counter.into())])
}

/// The lease that an item keeps, and the last step under it.
fn fence_in(
    key: &ItemKey,
    item: Option<&Attributes>,
) -> Result<(Option<Lease>, Option<u64>), UnreadableItem> {
    let Some(item) = item else { return Ok((None, None)) };
    let reader = Reader::new(key, item)?;
    Ok((Some(reader.lease()?), reader.step()?))
}
