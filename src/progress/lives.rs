//! Workers' signs of life, as items of the table.
//!
//! Owns the conditions under which they are written and removed. Who is dead is not
//! decided here. Invariant: a sign that was removed is not written again, but by the first
//! beat of a life; a sign is removed by others only with the beat they have seen.

use super::dynamodb::{Refusal, Values};
use super::expression::NOT_THERE;
use super::fencing;
use super::item::{self, Reader, Value};
use super::keys::ItemKey;
use super::table::TableProgress;
use super::{Heartbeat, ProgressError, WorkerId};

const LATER_BEAT: &str = "sg_beat < :beat";
/// One that is gone is removed already: no refusal, which some endpoints log as a fault.
const AS_LAST_BEAT: &str = "attribute_not_exists(#pk) OR sg_beat = :beat";
const THERE: &str = "attribute_exists(#pk)";
const BEAT: &str = "SET sg_v = :v, sg_beat = :beat, sg_failover_ms = :failover_ms, \
     sg_shards = :shards, sg_load = :load, sg_age_ms = :age_ms, sg_draining = :draining, sg_noted = :noted, \
     sg_report = :report";
const ANNOUNCE: &str = "ADD sg_announced :one";

impl TableProgress {
    /// [`Progress::heartbeat`](super::Progress::heartbeat)
    pub(super) async fn beat(&self, sign: &Heartbeat) -> Result<(), ProgressError> {
        let key = self.keys.worker(&sign.worker);
        let condition = if sign.beat == fencing::FIRST_BEAT { NOT_THERE } else { LATER_BEAT };
        match self.table.update(&key, BEAT, condition, beat_values(sign)).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let judge = |last| fencing::beat(last, sign.beat);
                self.judge_beat(&key, refusal, judge).await
            }
        }
    }

    /// [`Progress::retire`](super::Progress::retire)
    pub(super) async fn remove_sign(
        &self,
        worker: &WorkerId,
        seen: Option<u64>,
    ) -> Result<(), ProgressError> {
        let key = self.keys.worker(worker);
        let condition = seen.map(|beat| (AS_LAST_BEAT, vec![(":beat", beat.into())]));
        match self.table.delete(&key, condition).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let judge = |last| fencing::retire(last, seen, worker);
                self.judge_beat(&key, refusal, judge).await
            }
        }
    }

    /// [`Progress::announce`](super::Progress::announce)
    pub(super) async fn count_announcement(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        let one = vec![(":one", Value::from(1))];
        match self.table.update(&self.keys.worker(worker), ANNOUNCE, THERE, one).await {
            // It has left, and others see to what it had.
            Ok(()) | Err(Refusal::Condition(_)) => Ok(()),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// Turns a refused condition into the write's end, by the beat that refused it.
    async fn judge_beat(
        &self,
        key: &ItemKey,
        refusal: Refusal,
        judge: impl FnOnce(Option<u64>) -> fencing::Verdict,
    ) -> Result<(), ProgressError> {
        let old = match refusal {
            Refusal::Condition(old) => old,
            Refusal::Failed(error) => return Err(error),
        };
        let item = self.refuser(key, old).await?;
        let beat = item.as_ref().map(|item| Reader::new(key, item)?.beat()).transpose()?;
        judge(beat).after_refusal()
    }
}

fn beat_values(sign: &Heartbeat) -> Values<'static> {
    vec![
        (":v", item::FORMAT.into()),
        (":beat", sign.beat.into()),
        (":failover_ms", sign.failover_ms.into()),
        (":shards", sign.shards.into()),
        (":load", sign.load.into()),
        (":age_ms", sign.age_ms.into()),
        (":draining", Value::Bool(sign.draining)),
        (":noted", sign.noted.into()),
        (":report", Value::Text(serde_json::to_string(&sign.report).expect("plain data"))),
    ]
}
