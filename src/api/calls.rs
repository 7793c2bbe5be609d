//! From a call's body to its answer, by way of the store.
//!
//! Owns the joining of bodies and methods, who of the callers is noted, and which calls change
//! what others read together. What a call does is the store's.

use super::callers::Callers;
use super::coordination::Reads;
use crate::progress::orders::{Order, Orders, Request};
use crate::progress::problem::{Problem, ProblemCode};
use crate::progress::wire::{
    AnnounceBody, Call, CheckpointAnswer, CheckpointBody, DrainBody, ForgetBody, HandOverBody,
    LetterBody, LettersAnswer, LettersBody, PartAnswer, PartBody, ReleaseBody, RetireBody,
    SeededBody, SeekBody, ShardsAnswer, ShardsBody, TakeBody, UnseedBody, WriteLetterBody,
    WritePartBody,
};
use crate::progress::{
    Checkpoint, Coordination, Heartbeat, LeaseKey, Progress, ProgressError, Selection,
    ShardProgress, asking,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// A body in JSON, or what went wrong.
pub(super) type Answer = Result<Bytes, Problem>;

/// The progress of one consumer of one stream, and the reads of it that are shared.
pub(super) struct Store {
    progress: Arc<dyn Progress>,
    coordination: Reads<Bytes, Problem>,
    /// When a worker showed life last through this replica.
    beat: Mutex<Option<Instant>>,
}

impl Store {
    pub fn new(progress: Arc<dyn Progress>) -> Self {
        Self { progress, coordination: Reads::new(), beat: Mutex::default() }
    }

    /// For how long no worker has shown life through this replica; `None` where none ever has.
    pub fn silent(&self) -> Option<Duration> {
        self.beat.lock().expect("no panic while held").map(|at| at.elapsed())
    }

    pub fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    /// Workers and orders, by a read that is shared.
    pub async fn seen(&self) -> Result<Coordination, Problem> {
        read(&self.coordination().await?)
    }

    /// Every shard's item.
    pub async fn shards(&self) -> Result<Vec<ShardProgress>, ProgressError> {
        self.progress.load(Selection::All).await
    }

    /// Asks the consumer for something, and has those who look see it.
    pub async fn ask(&self, order: Order, by: &str, nonce: u64) -> Result<Orders, Problem> {
        let _writing = self.coordination.writing();
        Ok(asking::ask(&*self.progress, order, by, nonce).await?)
    }

    async fn coordination(&self) -> Answer {
        let progress = Arc::clone(&self.progress);
        let read = async move || answer(&progress.coordination().await?);
        self.coordination.read(read).await
    }
}

/// Whether a call leaves what [`Call::Coordination`] answers as it is. A call that is not named
/// here is taken to change it, which costs a read and nothing else.
fn leaves_coordination(call: Call) -> bool {
    let is_position = matches!(call, Call::Shards | Call::Checkpoint | Call::HandOver | Call::Seek);
    let is_letter = matches!(
        call,
        Call::WriteLetter
            | Call::WritePart
            | Call::Letters
            | Call::ReadPart
            | Call::RemovePart
            | Call::BreakLetter
            | Call::RemoveLetter
    );
    call == Call::Coordination || is_position || is_letter
}

/// Makes the call on `store`.
pub(super) async fn answering(store: &Store, callers: &Callers, call: Call, body: &[u8]) -> Answer {
    let (shared, store) = (store, store.progress());
    let _writing = (!leaves_coordination(call)).then(|| shared.coordination.writing());
    match call {
        Call::Coordination => shared.coordination().await,
        Call::Shards => {
            let asked: ShardsBody = read(body)?;
            answer(&ShardsAnswer { shards: store.load(asked.selection()).await? })
        }
        Call::Heartbeat => {
            let sign: Heartbeat = read(body)?;
            store.heartbeat(&sign).await?;
            callers.beats(&sign.worker);
            *shared.beat.lock().expect("no panic while held") = Some(Instant::now());
            answer(&())
        }
        Call::Announce => {
            let AnnounceBody { worker } = read(body)?;
            answer(&store.announce(&worker).await?)
        }
        Call::Drain => {
            let DrainBody { worker } = read(body)?;
            callers.drains(&worker, Arc::clone(&shared.progress));
            answer(&())
        }
        Call::Retire => {
            let RetireBody { worker, seen } = read(body)?;
            store.retire(&worker, seen).await?;
            callers.retires(&worker);
            answer(&())
        }
        Call::Take => {
            let TakeBody { shard, seen, worker, new } = read(body)?;
            let key = LeaseKey::from_wire(shard);
            answer(&store.take(&key, seen.as_ref(), &worker, new.as_ref()).await?)
        }
        Call::HandOver => {
            let HandOverBody { shard, lease, to } = read(body)?;
            answer(&store.hand_over(&shard, &lease, &to).await?)
        }
        Call::Release => {
            let ReleaseBody { shard, lease } = read(body)?;
            answer(&store.release(&LeaseKey::from_wire(shard), &lease).await?)
        }
        Call::Seeded => {
            let SeededBody { lease, step, begin } = read(body)?;
            answer(&store.seeded(&lease, step, &begin).await?)
        }
        Call::Unseed => {
            let UnseedBody { lease, step } = read(body)?;
            answer(&store.unseed(&lease, step).await?)
        }
        Call::Order => {
            let request: Request = read(body)?;
            answer(&store.order(&request).await?)
        }
        Call::Seek => {
            let SeekBody { shard, lease, step, position, order } = read(body)?;
            answer(&store.seek(&shard, &lease, step, &position, order).await?)
        }
        Call::Checkpoint => {
            let CheckpointBody::<Vec<Checkpoint>> { checkpoints } = read(body)?;
            let results = store.checkpoint(&checkpoints).await;
            let results = results.into_iter().map(|result| result.err().map(Problem::from));
            answer(&CheckpointAnswer { results: results.collect() })
        }
        Call::Forget => {
            let ForgetBody { shard, lease } = read(body)?;
            answer(&store.forget(&shard, &lease).await?)
        }
        Call::WriteLetter => {
            let WriteLetterBody { letter, payload, whole } = read(body)?;
            answer(&store.write_letter(&letter, payload.as_ref(), whole).await?)
        }
        Call::WritePart => {
            let WritePartBody { id, part, bytes } = read(body)?;
            answer(&store.write_part(&id, part, &bytes).await?)
        }
        Call::Letters => {
            let LettersBody { after } = read(body)?;
            answer(&LettersAnswer { letters: store.list_letters(after.as_ref()).await? })
        }
        Call::ReadPart => {
            let PartBody { id, part } = read(body)?;
            answer(&PartAnswer { bytes: store.read_part(&id, part).await? })
        }
        Call::RemovePart => {
            let PartBody { id, part } = read(body)?;
            answer(&store.remove_part(&id, part).await?)
        }
        Call::BreakLetter => {
            let LetterBody { id } = read(body)?;
            answer(&store.break_letter(&id).await?)
        }
        Call::RemoveLetter => {
            let LetterBody { id } = read(body)?;
            answer(&store.remove_letter(&id).await?)
        }
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(ProblemCode::Malformed, format!("the body cannot be read: {error}"))
    })
}

pub(super) fn answer(body: &impl Serialize) -> Answer {
    Ok(serde_json::to_vec(body).expect("answers are plain data").into())
}
