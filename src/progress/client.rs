//! Progress through the api: this container needs no right to the table.
//!
//! Owns the calls over HTTP; who of the api's replicas answers is [`super::failover`]'s, what they
//! mean is decided at the other end, and the table's conditions decide there. Invariant: whatever
//! is sent twice is safe, to two replicas too, for every write is conditional and one whose answer
//! was lost is known as its own.

use super::failover::{FailoverClient, strange};
use super::orders::{Orders, Request};
use super::problem::Problem;
use super::wire;
use super::wire::{
    AnnounceBody, Call, CheckpointAnswer, CheckpointBody, DrainBody, ForgetBody, HELLO,
    HandOverBody, Hello, PROGRESS, ReleaseBody, RetireBody, SeededBody, SeekBody, ShardsAnswer,
    ShardsBody, TakeBody, UnseedBody, VERSIONS, Welcome, agreed,
};
use super::{
    ApiToken, Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, MAX_KEPT_STATE_BYTES, NewShard,
    OpenWindow, Position, Progress, ProgressError, Selection, ShardProgress, WorkerId,
};
use crate::source::ShardId;
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most positions in one call, which keeps its body below the api's bound of 1 MiB
/// with the longest names there are.
const CHECKPOINTS_PER_CALL: usize = 1000;

/// Nor more than this of windows' states, in bytes.
const STATES_PER_CALL: usize = 4 * MAX_KEPT_STATE_BYTES;

/// Where the api is and what is asked of it.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `API_URL`: the addresses of the replicas, or of what stands before them; not empty.
    pub urls: Vec<Url>,
    /// `API_CA_FILE`: who may vouch for the api; none for whom this machine trusts.
    pub ca: Vec<Certificate>,
    /// `API_TOKEN`
    pub token: ApiToken,
    /// `TABLE_NAME`, which must be the api's too.
    pub table: String,
    /// `CONSUMER_NAME`
    pub consumer: String,
    /// The stream's label.
    pub label: String,
}

/// Progress kept by `streamgate api`.
pub struct ClientProgress {
    api: FailoverClient,
    settings: ClientSettings,
}

impl ClientProgress {
    /// Nothing is contacted yet.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    ///
    /// # Panics
    /// Without a URL.
    pub fn new(settings: ClientSettings) -> Result<Self, reqwest::Error> {
        let token =
            HeaderValue::from_str(&settings.token.header()).expect("a token is visible ASCII");
        let api = FailoverClient::new(&settings.urls, &settings.ca, token)?;
        Ok(Self { api, settings })
    }

    fn path(&self, call: Call) -> String {
        // None of the three holds anything that a path would have to escape; together, the
        // last two are not `..` either.
        let ClientSettings { table, consumer, label, .. } = &self.settings;
        format!("{PROGRESS}/{table}/{consumer}@{label}/{}", call.name())
    }

    async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, ProgressError> {
        self.api.ask(&self.path(call), None, call.bound(0)).await
    }

    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        call: Call,
        body: &impl Serialize,
    ) -> Result<T, ProgressError> {
        let body = json(body);
        let bound = call.bound(body.len());
        self.api.ask(&self.path(call), Some(body), bound).await
    }
}

/// Positions in calls of a bounded size, in order.
fn calls(checkpoints: &[Checkpoint]) -> impl Iterator<Item = &[Checkpoint]> {
    let state =
        |checkpoint: &Checkpoint| checkpoint.window.as_ref().map_or(0, OpenWindow::kept_bytes);
    let (mut count, mut bytes) = (0, 0);
    checkpoints.chunk_by(move |this, next| {
        (count, bytes) = (count + 1, bytes + state(this));
        let fits = count < CHECKPOINTS_PER_CALL && bytes + state(next) <= STATES_PER_CALL;
        if !fits {
            (count, bytes) = (0, 0);
        }
        fits
    })
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("bodies are plain data").into()
}

#[async_trait]
impl Progress for ClientProgress {
    /// First contact: whether both sides mean the same table and consumer and have a
    /// version of their interface in common, and whether the table can be used.
    async fn describe(&self) -> Result<(), ProgressError> {
        let ClientSettings { table, consumer, label, .. } = self.settings.clone();
        let hello = Hello { table, consumer, label, versions: VERSIONS.to_vec() };
        let Welcome { table, consumer, version } =
            self.api.ask(HELLO, Some(json(&hello)), wire::bound(0)).await?;
        // The api has compared them already, if it is one.
        let ours = (self.settings.table.as_str(), self.settings.consumer.as_str());
        if (table.as_str(), consumer.as_str()) == ours && agreed(&[version]).is_some() {
            return Ok(());
        }
        Err(ProgressError::Unsuitable(format!(
            "the api welcomes consumer {consumer} of table {table} in version {version} of their interface, and this is consumer {} of table {}, which speaks {VERSIONS:?}: set TABLE_NAME and CONSUMER_NAME to the same in both, and run the same version of streamgate",
            ours.1, ours.0
        )))
    }

    async fn coordination(&self) -> Result<Coordination, ProgressError> {
        self.read(Call::Coordination).await
    }

    async fn load(&self, which: Selection<'_>) -> Result<Vec<ShardProgress>, ProgressError> {
        let answer: ShardsAnswer = self.write(Call::Shards, &ShardsBody::of(which)).await?;
        Ok(answer.shards)
    }

    async fn heartbeat(&self, sign: &Heartbeat) -> Result<(), ProgressError> {
        self.write(Call::Heartbeat, sign).await
    }

    async fn announce(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        self.write(Call::Announce, &AnnounceBody { worker: worker.clone() }).await
    }

    async fn drain(&self, worker: &WorkerId) -> Result<(), ProgressError> {
        self.write(Call::Drain, &DrainBody { worker: worker.clone() }).await
    }

    async fn retire(&self, worker: &WorkerId, seen: Option<u64>) -> Result<(), ProgressError> {
        self.write(Call::Retire, &RetireBody { worker: worker.clone(), seen }).await
    }

    async fn take(
        &self,
        key: &LeaseKey,
        seen: Option<&Lease>,
        worker: &WorkerId,
        new: Option<&NewShard>,
    ) -> Result<Lease, ProgressError> {
        let body = TakeBody {
            shard: key.to_wire(),
            seen: seen.cloned(),
            worker: worker.clone(),
            new: new.cloned(),
        };
        self.write(Call::Take, &body).await
    }

    async fn hand_over(
        &self,
        shard: &ShardId,
        lease: &Lease,
        to: &WorkerId,
    ) -> Result<Lease, ProgressError> {
        let (shard, lease, to) = (shard.clone(), lease.clone(), to.clone());
        self.write(Call::HandOver, &HandOverBody { shard, lease, to }).await
    }

    async fn release(&self, key: &LeaseKey, lease: &Lease) -> Result<(), ProgressError> {
        self.write(Call::Release, &ReleaseBody { shard: key.to_wire(), lease: lease.clone() }).await
    }

    async fn seeded(
        &self,
        lease: &Lease,
        step: u64,
        begin: &Position,
    ) -> Result<(), ProgressError> {
        let (lease, begin) = (lease.clone(), begin.clone());
        self.write(Call::Seeded, &SeededBody { lease, step, begin }).await
    }

    async fn unseed(&self, lease: &Lease, step: u64) -> Result<(), ProgressError> {
        self.write(Call::Unseed, &UnseedBody { lease: lease.clone(), step }).await
    }

    async fn order(&self, request: &Request) -> Result<Orders, ProgressError> {
        self.write(Call::Order, request).await
    }

    async fn seek(
        &self,
        shard: &ShardId,
        lease: &Lease,
        step: u64,
        position: &Position,
        order: u64,
    ) -> Result<(), ProgressError> {
        let (shard, lease, position) = (shard.clone(), lease.clone(), position.clone());
        self.write(Call::Seek, &SeekBody { shard, lease, step, position, order }).await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Vec<Result<(), ProgressError>> {
        let mut results = Vec::with_capacity(checkpoints.len());
        for checkpoints in calls(checkpoints) {
            let answer = self.write(Call::Checkpoint, &CheckpointBody { checkpoints }).await;
            let error = match answer {
                Ok(CheckpointAnswer { results: each }) if each.len() == checkpoints.len() => {
                    let result =
                        |problem: Option<Problem>| problem.map_or(Ok(()), |p| Err(p.into()));
                    results.extend(each.into_iter().map(result));
                    continue;
                }
                Ok(_) => ProgressError::Unavailable(strange("an answer does not fit its call")),
                Err(error) => error,
            };
            results.extend(checkpoints.iter().map(|_| Err(error.clone())));
        }
        results
    }

    async fn forget(&self, shard: &ShardId, lease: &Lease) -> Result<(), ProgressError> {
        self.write(Call::Forget, &ForgetBody { shard: shard.clone(), lease: lease.clone() }).await
    }
}
