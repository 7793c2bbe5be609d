//! Makes positions durable: rarely enough to be cheap, and at once where it matters.
//!
//! Owns when a position is written: at most once in `CHECKPOINT_INTERVAL` for a shard,
//! at most once in five minutes where only the consumer's own records moved it, and at
//! once at shard end, at a stop and for a gap. All shards that are due go in one call.
//!
//! What a crash delivers again: per shard, the batch in flight and what was delivered
//! since its last write, that is at most `CHECKPOINT_INTERVAL` and one write's time.
//! Invariant: a position is written only after everything before it was delivered, never
//! under a lease that is known to be lost, and a durable one never moves back.

use crate::backoff::Backoff;
use crate::clock;
use crate::frontier::Mark;
use crate::progress::{Checkpoint, Lease, Position, Progress, ProgressError};
use crate::record::SequenceNumber;
use crate::source::ShardId;
use crate::telemetry::metrics::{Metrics, epoch_seconds};
use crate::telemetry::status::{Board, Part};
use crate::telemetry::traces::CheckpointTrace;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a position that only own records moved may wait. Each write of it makes
/// another own record where the table streams to itself: this keeps idle idle.
const QUIET_INTERVAL: Duration = Duration::from_secs(300);
/// Retries of a store that does not answer, all shards together.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Batches of a shard whose wait for a checkpoint is traced at the same time: a store that is
/// away for long, or a lane that is stuck, must not gather more of them.
const MOST_TRACED: usize = 1_000;

/// Orders the writes of this process, whose worker owns its leases alone: one that was
/// given up for lost and arrives after the next is known as the earlier of the two.
static STEPS: AtomicU64 = AtomicU64::new(1);

/// The next [`Checkpoint::step`] of this process.
pub fn next_step() -> u64 {
    STEPS.fetch_add(1, Ordering::Relaxed)
}

/// Writes the positions of all shards of a process.
pub struct Checkpointer {
    store: Arc<dyn Progress>,
    interval: Duration,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    slots: Mutex<BTreeMap<ShardId, Slot>>,
    /// Something may be due earlier than known.
    wake: Notify,
    /// Something was written, or a lease found lost.
    settled: Notify,
}

struct Slot {
    lease: Lease,
    /// Not durable yet. Marks are folded into one unless two of them carry gaps.
    pending: VecDeque<Mark>,
    last_write: Option<Instant>,
    urgent: bool,
    /// Own records alone have moved the position since the last write began.
    quiet_since: bool,
    /// Cancelled when the store says that the lease has passed on.
    lost: CancellationToken,
    /// With traces: batches whose position is not durable, and who wait for it.
    traced: Vec<CheckpointTrace>,
}

/// One shard's way to its durable position. Dropping it forgets what is pending.
pub struct ShardCheckpoint {
    checkpointer: Arc<Checkpointer>,
    shard: ShardId,
    lost: CancellationToken,
}

/// The lease has passed on; nothing more may be written for the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLost;

impl Checkpointer {
    /// Writes to `store` once [`Self::run`] runs.
    pub fn new(
        store: Arc<dyn Progress>,
        interval: Duration,
        metrics: Arc<Metrics>,
        board: Arc<Board>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            interval,
            metrics,
            board,
            slots: Mutex::default(),
            wake: Notify::new(),
            settled: Notify::new(),
        })
    }

    /// Begins to keep `shard`'s position under `lease`. `lost` is cancelled when the
    /// store says that the lease has passed on.
    pub fn shard(
        self: &Arc<Self>,
        shard: ShardId,
        lease: Lease,
        lost: CancellationToken,
    ) -> ShardCheckpoint {
        let slot = Slot {
            lease,
            pending: VecDeque::new(),
            last_write: None,
            urgent: false,
            quiet_since: true,
            lost: lost.clone(),
            traced: Vec::new(),
        };
        self.lock().insert(shard.clone(), slot);
        ShardCheckpoint { checkpointer: Arc::clone(self), shard, lost }
    }

    /// Writes what is due, for ever; drop it to stop.
    pub async fn run(&self) {
        let mut retry = RETRY;
        loop {
            let wake = self.wake.notified();
            match self.next_due() {
                None => wake.await,
                Some(due) if due > Instant::now() => {
                    tokio::select! {
                        biased;
                        () = wake => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                Some(_) => {
                    if let Err(why) = self.write_due().await {
                        let wait = retry.next(fastrand::f64());
                        if retry.failures().is_power_of_two() {
                            let failures = retry.failures();
                            warn!(
                                failures,
                                %why,
                                retry_in_ms = wait.as_millis() as u64,
                                "positions could not be written, trying again"
                            );
                        }
                        tokio::time::sleep(wait).await;
                    } else {
                        retry.reset();
                    }
                }
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.lock().values().filter_map(|slot| slot.due(self.interval, now)).min()
    }

    /// What is to be written now.
    fn begin_due(&self) -> Vec<Checkpoint> {
        let now = Instant::now();
        self.lock()
            .iter_mut()
            .filter(|(_, slot)| slot.due(self.interval, now).is_some_and(|due| due <= now))
            .filter_map(|(shard, slot)| {
                slot.quiet_since = true;
                let mark = slot.pending.front()?;
                Some(Checkpoint {
                    shard: shard.clone(),
                    lease: slot.lease.clone(),
                    step: next_step(),
                    position: mark.position.clone(),
                    gap: mark.gap.clone(),
                    window: mark.window.as_deref().cloned(),
                })
            })
            .collect()
    }

    /// Writes every slot that is due. The error is that of a position for which the store
    /// did not answer.
    async fn write_due(&self) -> Result<(), ProgressError> {
        let checkpoints = self.begin_due();
        let results = self.store.checkpoint(&checkpoints).await;
        let mut answered = Ok(());
        for (checkpoint, result) in checkpoints.iter().zip(results) {
            answered = answered.and(self.settle(checkpoint, result));
        }
        self.settled.notify_waiters();
        answered
    }

    /// Takes in one result; an error when the store did not answer.
    fn settle(
        &self,
        checkpoint: &Checkpoint,
        result: Result<(), ProgressError>,
    ) -> Result<(), ProgressError> {
        let outcome = |outcome| self.metrics.checkpoints.with_label_values(&[outcome]).inc();
        let mut slots = self.lock();
        let slot = slots.get_mut(&checkpoint.shard).filter(|slot| slot.lease == checkpoint.lease);
        match result {
            Ok(()) => {
                outcome("ok");
                self.metrics.last_checkpoint.set(epoch_seconds(clock::now()));
                if self.board.well(Part::Checkpoints) {
                    info!("progress can be written again");
                }
                if let Some(slot) = slot {
                    slot.last_write = Some(Instant::now());
                    slot.wrote(checkpoint);
                }
                Ok(())
            }
            Err(ProgressError::LeaseLost { owner }) => {
                outcome("lease_lost");
                if let Some(slot) = slot {
                    warn!(shard = %checkpoint.shard, owner = owner.as_ref().map(tracing::field::display), "lease lost, the shard is stopped without a checkpoint");
                    slot.pending.clear();
                    slot.traced.clear();
                    slot.lost.cancel();
                }
                Ok(())
            }
            Err(error) => {
                outcome("error");
                self.board.trouble(Part::Checkpoints, &error.to_string());
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Slot>> {
        self.slots.lock().expect("no panic while held")
    }
}

impl Slot {
    /// When it has to be written; `now` for at once, `None` for nothing to write.
    fn due(&self, interval: Duration, now: Instant) -> Option<Instant> {
        let mark = self.pending.front()?;
        if self.urgent || mark.gap.is_some() {
            return Some(now);
        }
        let interval = if mark.quiet { interval.max(QUIET_INTERVAL) } else { interval };
        Some(self.last_write.map_or(now, |last| last + interval))
    }

    fn advance(&mut self, mark: Mark) {
        self.quiet_since &= mark.quiet;
        match self.pending.back_mut() {
            Some(last) if last.gap.is_none() || mark.gap.is_none() => {
                last.position = mark.position;
                last.quiet &= mark.quiet;
                last.window = mark.window;
                last.gap = last.gap.take().or(mark.gap);
            }
            _ => self.pending.push_back(mark),
        }
    }

    /// Removes what `checkpoint` made durable; what was folded in since then stays, and is
    /// quiet where that is: else a write under way while own records are read would make the
    /// next write soon, and that the next, for ever.
    fn wrote(&mut self, checkpoint: &Checkpoint) {
        for trace in self.traced.extract_if(.., |trace| is_past(&checkpoint.position, trace.last()))
        {
            trace.durable();
        }
        let Some(mark) = self.pending.front_mut() else { return };
        let is_same_window = mark.window.as_deref() == checkpoint.window.as_ref();
        if mark.position == checkpoint.position && mark.gap == checkpoint.gap && is_same_window {
            self.pending.pop_front();
        } else if mark.gap == checkpoint.gap {
            mark.gap = None;
            mark.quiet = self.quiet_since;
        }
        self.urgent &= !self.pending.is_empty();
    }
}

/// Whether `record` is before the position.
fn is_past(position: &Position, record: &SequenceNumber) -> bool {
    match position {
        Position::After(last) => record <= last,
        Position::ShardEnd => true,
        Position::TrimHorizon | Position::AtTimestamp(_) => false,
    }
}

impl ShardCheckpoint {
    /// Everything up to `mark` is delivered. Returns at once.
    pub fn advance(&self, mark: Mark) {
        let mut slots = self.checkpointer.lock();
        if let Some(slot) = slots.get_mut(&self.shard) {
            let was_idle = slot.pending.is_empty() || mark.gap.is_some();
            let was_quiet = slot.pending.front().is_some_and(|first| first.quiet);
            slot.advance(mark);
            if was_idle || was_quiet {
                self.checkpointer.wake.notify_one();
            }
        }
    }

    /// A batch is handed over that waits, with traces, for its position to be durable.
    pub fn traced(&self, trace: Option<CheckpointTrace>) {
        let Some(trace) = trace else { return };
        if let Some(slot) = self.checkpointer.lock().get_mut(&self.shard)
            && slot.traced.len() < MOST_TRACED
        {
            slot.traced.push(trace);
        }
    }

    /// Writes what is pending now and waits until it is durable, as long as it takes.
    ///
    /// # Errors
    /// [`LeaseLost`] when the store says so.
    pub async fn flush(&self) -> Result<(), LeaseLost> {
        loop {
            let settled = self.checkpointer.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            if self.lost.is_cancelled() {
                return Err(LeaseLost);
            }
            {
                let mut slots = self.checkpointer.lock();
                match slots.get_mut(&self.shard) {
                    Some(slot) if !slot.pending.is_empty() => slot.urgent = true,
                    _ => return Ok(()),
                }
            }
            self.checkpointer.wake.notify_one();
            settled.await;
        }
    }

    /// Writes the sentinel of a shard that was delivered to its end, and waits for it.
    ///
    /// # Errors
    /// [`LeaseLost`] when the store says so.
    pub async fn end(&self) -> Result<(), LeaseLost> {
        self.advance(Mark::at(Position::ShardEnd));
        self.flush().await
    }
}

impl Drop for ShardCheckpoint {
    fn drop(&mut self) {
        self.checkpointer.lock().remove(&self.shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Gap;
    use std::time::SystemTime;

    fn mark(number: u64, quiet: bool) -> Mark {
        let position = Position::After(number.to_string().parse().unwrap());
        Mark { quiet, ..Mark::at(position) }
    }

    fn slot() -> Slot {
        let lease = Lease { owner: Some("w".into()), counter: 1 };
        let lost = CancellationToken::new();
        let pending = VecDeque::new();
        let traced = Vec::new();
        Slot { lease, pending, last_write: None, urgent: false, quiet_since: true, lost, traced }
    }

    #[tokio::test(start_paused = true)]
    async fn own_records_that_are_read_during_a_write_do_not_make_the_next() {
        let store = Arc::new(crate::progress::MemoryProgress::new());
        let (key, worker) = (crate::progress::LeaseKey::Shard("s".into()), "w".into());
        let new = crate::progress::NewShard {
            parent: None,
            position: Position::TrimHorizon,
            closed: false,
            epoch: 0,
        };
        let lease = store.take(&key, None, &worker, Some(&new)).await.unwrap();
        let (interval, board) = (Duration::from_secs(1), Arc::new(Board::new()));
        let (metrics, lost) = (Arc::new(Metrics::new()), CancellationToken::new());
        let checkpointer = Checkpointer::new(store.clone(), interval, Arc::clone(&metrics), board);
        let shard = checkpointer.shard("s".into(), lease.clone(), lost);
        let written = |number| Checkpoint {
            shard: "s".into(),
            lease: lease.clone(),
            step: 1,
            position: mark(number, false).position,
            gap: None,
            window: None,
        };
        shard.advance(mark(1, false));
        checkpointer.write_due().await.unwrap();
        // The next write is on its way while own records are read.
        tokio::time::advance(interval).await;
        shard.advance(mark(2, false));
        checkpointer.begin_due();
        shard.advance(mark(3, true));
        checkpointer.settle(&written(2), Ok(())).unwrap();
        assert_eq!(checkpointer.next_due(), Some(Instant::now() + QUIET_INTERVAL));
        // With one of the application's among them it is to be written soon.
        checkpointer.begin_due();
        shard.advance(mark(4, false));
        shard.advance(mark(5, true));
        assert_eq!(checkpointer.next_due(), Some(Instant::now() + interval));
    }

    #[test]
    fn a_batch_is_durable_once_the_position_has_reached_its_last_record() {
        let record: SequenceNumber = "100".parse().unwrap();
        for (position, past) in [
            (Position::TrimHorizon, false),
            (Position::AtTimestamp(SystemTime::UNIX_EPOCH), false),
            (mark(99, false).position, false),
            (mark(100, false).position, true),
            (mark(1_000, false).position, true),
            (Position::ShardEnd, true),
        ] {
            assert_eq!(is_past(&position, &record), past, "{position:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn own_records_alone_wait_five_minutes_and_others_the_interval() {
        let interval = Duration::from_secs(1);
        let mut slot = slot();
        let (written, now) = (Instant::now(), Instant::now() + interval / 2);
        slot.pending.push_back(mark(0, false));
        assert_eq!(
            slot.due(interval, now),
            Some(now),
            "never written: at once, by the asker's clock"
        );
        slot.pending.clear();
        slot.last_write = Some(written);
        slot.advance(mark(1, true));
        assert_eq!(slot.due(interval, now), Some(written + QUIET_INTERVAL));
        slot.advance(mark(2, false));
        assert_eq!(slot.due(interval, now), Some(written + interval));
        slot.urgent = true;
        assert_eq!(slot.due(interval, now), Some(now));
    }

    #[tokio::test]
    async fn a_gap_stays_until_it_was_written_and_no_two_are_folded_into_one() {
        let gap = |n: u64| Gap {
            after: Some(n.to_string().parse().unwrap()),
            resumed_at: None,
            found_at: SystemTime::UNIX_EPOCH,
        };
        let mut slot = slot();
        slot.advance(Mark { gap: Some(gap(1)), ..mark(1, false) });
        slot.advance(mark(2, false));
        slot.advance(Mark { gap: Some(gap(3)), ..mark(3, false) });
        assert_eq!(slot.pending.len(), 2);
        let first = slot.pending[0].clone();
        assert_eq!((first.position, first.gap), (mark(2, false).position, Some(gap(1))));
    }
}
