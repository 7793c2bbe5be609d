//! Progress in a DynamoDB table that the application shares with it.
//!
//! Owns reading, and what a refused write means; under which conditions items change is
//! `leases`', `lives`', `positions`' and `standing`'s, what stands in them [`super::item`]'s,
//! where they lie [`super::keys`]', how to call [`super::dynamodb`]'s.
//! Invariant: every write is conditional (but the removal of a heartbeat), and a refused
//! one is judged by the item that refused it, so that a write whose answer was lost, to
//! the SDK's own retry too, is known as its own.

use super::dynamodb::{Only, Refusal, Table, Values, WriteUnitsObserver};
use super::expression::{HELD_OR_NOT_THERE, SEED, UNSEED};
use super::fencing;
use super::item::{self, Attributes, Reader, UnreadableItem, Value};
use super::keys::{ItemKey, Namespace, ORDERS_SORT, STREAM_SORT, WORKER_SORT_PREFIX};
use super::orders::{Orders, Request};
use super::{
    Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, NewShard, Position, Progress,
    ProgressError, Selection, ShardProgress, WorkerId,
};
use crate::source::ShardId;
use async_trait::async_trait;
use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};

/// How many calls one batch has under way: a round of checkpoints of many shards is
/// done in a few round trips, and does not take every connection.
const CONCURRENT_CALLS: usize = 16;

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
    pub(super) async fn refuser(
        &self,
        key: &ItemKey,
        old: Option<Attributes>,
    ) -> Result<Option<Attributes>, ProgressError> {
        match old {
            Some(item) => Ok(Some(item)),
            None => {
                let items = self.table.query(&key.partition, Only::Sort(&key.sort)).await?;
                Ok(items.into_iter().next().map(|(_, item)| item))
            }
        }
    }

    /// Turns a refused condition into the write's end, by the lease and the step that
    /// refused it.
    pub(super) async fn judge(
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
    pub(super) async fn update_held(
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
}

#[async_trait]
impl Progress for TableProgress {
    async fn describe(&self) -> Result<(), ProgressError> {
        self.table.describe().await
    }

    async fn coordination(&self) -> Result<Coordination, ProgressError> {
        let mut coordination = Coordination::default();
        for (key, item) in self.table.query(self.keys.control(), Only::Any).await? {
            if key.sort == STREAM_SORT {
                let stream = Reader::new(&key, &item)?;
                coordination.stream = Some(stream.lease()?);
                coordination.seeded = stream.seeded()?;
            } else if key.sort.starts_with(WORKER_SORT_PREFIX) {
                coordination.workers.push(Reader::new(&key, &item)?.member()?);
            } else if key.sort == ORDERS_SORT {
                coordination.orders = Reader::new(&key, &item)?.orders()?;
            }
        }
        Ok(coordination)
    }

    async fn load(&self, which: Selection<'_>) -> Result<Vec<ShardProgress>, ProgressError> {
        let keys: Vec<ItemKey>;
        let partitions: Vec<String>;
        let asked: Vec<(&str, Only<'_>)> = match which {
            Selection::These(shards) => {
                keys = shards.iter().map(|shard| self.keys.shard(shard)).collect();
                keys.iter().map(|key| (&*key.partition, Only::Sort(&key.sort))).collect()
            }
            Selection::All | Selection::Of(_) => {
                let only = match which {
                    Selection::Of(worker) => Only::Owner(worker.as_str()),
                    _ => Only::Any,
                };
                partitions = self.keys.shard_partitions().collect();
                partitions.iter().map(|partition| (&**partition, only)).collect()
            }
        };
        let queries: Vec<_> =
            asked.into_iter().map(|(partition, only)| self.table.query(partition, only)).collect();
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

    async fn heartbeat(&self, sign: &Heartbeat) -> Result<(), ProgressError> {
        self.beat(sign).await
    }

    async fn retire(&self, worker: &WorkerId, seen: Option<u64>) -> Result<(), ProgressError> {
        self.remove_sign(worker, seen).await
    }

    async fn announce(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        self.count_announcement(worker).await
    }

    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        self.take_lease(key, seen, worker, new).await
    }

    async fn hand_over(
        &self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError> {
        self.pass_lease_on(shard, lease, to).await
    }

    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError> {
        self.give_lease_back(key, lease).await
    }

    async fn seeded(
        &self,
        lease: &Lease,
        step: u64,
        begin: &Position,
    ) -> Result<(), ProgressError> {
        let begin = Value::Text(item::position_text(begin));
        let seeded = vec![(":seeded", Value::Bool(true)), (":begin", begin)];
        self.write_seeded(lease, step, SEED, seeded).await
    }

    async fn unseed(&self, lease: &Lease, step: u64) -> Result<(), ProgressError> {
        self.write_seeded(lease, step, UNSEED, Vec::new()).await
    }

    async fn order(&self, request: &Request) -> Result<Orders, ProgressError> {
        self.change_orders(request).await
    }

    async fn seek(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError> {
        self.write_move(shard, lease, step, position, order).await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Result<(), ProgressError>> {
        let writes: Vec<_> =
            checkpoints.iter().map(|checkpoint| self.write_position(checkpoint)).collect();
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

/// What [`HELD`](super::expression::HELD) compares with; `None` for a lease nobody holds, under which nobody writes.
pub(super) fn held_values(lease: &Lease) -> Option<Values<'static>> {
    let owner = lease.owner.as_ref()?;
    Some(vec![(":owner", owner.as_str().into()), (":counter", lease.counter.into())])
}

/// The lease that an item keeps, and the last step under it.
pub(super) fn fence_in(
    key: &ItemKey,
    item: Option<&Attributes>,
) -> Result<(Option<Lease>, Option<u64>), UnreadableItem> {
    let Some(item) = item else { return Ok((None, None)) };
    let reader = Reader::new(key, item)?;
    Ok((Some(reader.lease()?), reader.step()?))
}
