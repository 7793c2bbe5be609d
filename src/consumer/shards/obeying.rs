//! Carries out what operators have asked for, in the shards that this worker holds.
//!
//! Owns the halt of a shard whose loop must not go on as it did: it is paused, its position
//! is to be moved, or the whole stream begins anew. Invariant: a position is moved only
//! while no loop reads the shard, and each move counts once, for the shard's item keeps
//! the number of the last one with the position.

use super::super::lookout::View;
use super::errand::{self, Done, Lost, persist};
use super::{Consumer, Shards};
use crate::checkpoint::next_step;
use crate::clock;
use crate::progress::orders::{Move, MoveTo, Orders, SeekTo};
use crate::progress::{Lease, Position, Selection, ShardProgress};
use crate::reader::{Read, Reader};
use crate::record::Record;
use crate::source::ShardId;
use crate::telemetry::metrics::ShardState;
use std::time::SystemTime;
use tracing::{info, warn};

/// So many empty pages in a row are the tip: there is nothing more to skip.
const TIP_PAGES: u32 = 3;

/// Whether a shard is to be given back: the whole stream begins anew, or has done so and the
/// item is from before.
fn is_void(orders: &Orders, lease: &Lease) -> bool {
    orders.reset.is_some() || lease.epoch() < orders.epoch
}

/// Whether a shard's loop has to stop for what was asked.
pub(super) fn concerns(orders: &Orders, shard: &ShardId, lease: &Lease, done: u64) -> bool {
    is_void(orders, lease)
        || orders.pause(shard).is_some()
        || orders.next_move(shard, done).is_some()
}

impl Shards<'_> {
    /// Stops the loops of shards that are concerned, and sees to those that stand still.
    pub(super) fn obey(&mut self, view: &View) {
        let mut still = Vec::new();
        for (shard, held) in self.held.iter().filter(|(_, held)| !held.stopped) {
            if held.halted {
                still.push(shard.clone());
            } else if concerns(&view.orders, shard, &held.lease, held.order) {
                held.drain.cancel();
            }
        }
        for shard in still {
            self.halt(shard);
        }
    }

    /// Does what was asked with a shard that no loop reads; where nothing was, or not any
    /// more, it is read again.
    pub(super) fn halt(&mut self, shard: ShardId) {
        let stop = self.stopping();
        let Some(held) = self.held.get_mut(&shard) else { return };
        let view = self.views.borrow();
        let consumer = self.consumer;
        let lease = held.lease.clone();
        held.halted = true;
        if is_void(&view.orders, &lease) {
            let slots = self.slots.transfers(0);
            self.errands.push(Box::pin(errand::release(consumer, slots, shard, lease)));
        } else if let Some(order) = view.orders.next_move(&shard, held.order) {
            let (launch, order) = (self.launch.clone(), order.clone());
            self.errands.push(Box::pin(async move {
                let delivers = |record: &Record| launch.delivers(record);
                let reader = |item: &ShardProgress| launch.reader(item);
                tokio::select! {
                    biased;
                    // It stands until somebody has carried it out.
                    () = stop => errand::read(consumer, shard).await,
                    done = carry_out(consumer, lease, order, reader, delivers) => done,
                }
            }));
        } else if let Some(pause) = view.orders.pause(&shard) {
            let by = pause.asked.by.clone();
            consumer.board.shard(&shard, |status| {
                if status.state != ShardState::Paused {
                    info!(%shard, by, "a shard is paused, as was asked");
                }
                status.state = ShardState::Paused;
            });
            return;
        } else {
            self.errands.push(Box::pin(errand::read(consumer, shard)));
        }
        held.stopped = true;
    }
}

/// Moves a position. The shard's item as it is then is what came of it.
async fn carry_out(
    consumer: &Consumer,
    lease: Lease,
    order: Move,
    reader: impl Fn(&ShardProgress) -> Reader,
    delivers: impl Fn(&Record) -> bool,
) -> Done {
    let shard = order.shard.clone();
    let lost = |shard| Done::Moved { shard, item: None, from_latest: false };
    let these = [shard.clone()];
    let load = || consumer.progress.load(Selection::These(&these));
    let Ok(items) = persist("reading a shard's progress", load).await else { return lost(shard) };
    let Some(item) = items.into_iter().next().filter(|item| item.lease == lease) else {
        return lost(shard);
    };
    let by = &order.asked.by;
    let mut skipped = 0;
    let (position, from_latest) = match order.to {
        MoveTo::Seek(SeekTo::TrimHorizon) => (Position::TrimHorizon, false),
        MoveTo::Seek(SeekTo::AtTimestamp(time)) => (Position::AtTimestamp(time), false),
        MoveTo::Seek(SeekTo::Latest) => {
            (Position::AtTimestamp(clock::whole_second(clock::now())), true)
        }
        MoveTo::Skip(records) => {
            let position;
            let asked = order.asked.at;
            (position, skipped) = skip(&item, records, asked, reader(&item), delivers).await;
            (position, false)
        }
    };
    let (number, step) = (order.id, next_step());
    let seek = || consumer.progress.seek(&shard, &lease, step, &position, number);
    if let Err(Lost) = persist("moving a shard's position", seek).await {
        return lost(shard);
    }
    consumer.metrics.records_dropped.with_label_values(&["skipped"]).inc_by(skipped);
    match order.to {
        MoveTo::Seek(_) => {
            info!(%shard, by, from = ?item.position, to = ?position, "a shard's position is moved, as was asked");
        }
        MoveTo::Skip(asked) => warn!(
            %shard, by, asked, skipped, after = ?item.position, through = ?position,
            "records are skipped, as was asked: the handler does not get them"
        ),
    }
    let item = ShardProgress { position, order: number, window: None, ..item };
    Done::Moved { shard, item: Some(item), from_latest }
}

/// The position behind so many records that the handler would get, or behind those that
/// there were when it was `asked` for, and how many that were. On a table that streams to
/// itself the consumer's own records never end: empty pages alone do not show the tip.
async fn skip(
    item: &ShardProgress,
    records: u64,
    asked: SystemTime,
    mut reader: Reader,
    delivers: impl Fn(&Record) -> bool,
) -> (Position, u64) {
    let (mut position, mut skipped, mut empty) = (item.position.clone(), 0, 0);
    while skipped < records && empty < TIP_PAGES {
        let (page, came) = match reader.next().await {
            Read::Page { gap: None, records, came, .. } => (records, came),
            // Records were lost here, which the shard's loop has to find and to keep.
            Read::Page { gap: Some(_), .. } | Read::End { .. } => break,
        };
        empty = if came == 0 { empty + 1 } else { 0 };
        for record in page {
            let is_later = record.created().is_some_and(|created| created > asked);
            if is_later {
                return (position, skipped);
            }
            if skipped == records {
                break;
            }
            skipped += u64::from(delivers(&record));
            position = Position::After(record.sequence_number());
        }
    }
    (position, skipped)
}
