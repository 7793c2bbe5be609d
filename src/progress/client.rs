//! Progress through the api: this container needs no right to the table.
//!
//! Owns the calls over HTTP; what they mean is decided at the other end, and the table's
//! conditions decide there. Invariant: whatever is sent twice is safe, for every write
//! is conditional and one whose answer was lost is known as its own.

use super::problem::{PROBLEM_JSON, Problem};
use super::wire::{
    AnnounceBody, Call, CheckpointAnswer, CheckpointBody, DrainBody, ForgetBody, HELLO,
    HandOverBody, Hello, PROGRESS, ReleaseBody, RetireBody, SeededBody, ShardsAnswer, ShardsBody,
    TakeBody, VERSIONS, Welcome, agreed,
};
use super::{
    ApiToken, Checkpoint, Coordination, Heartbeat, Lease, LeaseKey, MAX_KEPT_STATE_BYTES, NewShard,
    OpenWindow, Position, Progress, ProgressError, Selection, ShardProgress, WorkerId,
};
use crate::causes;
use crate::source::ShardId;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, StatusCode, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A little longer than the api gives itself, so that its sentence arrives.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// Tens of thousands of shards, or several hundred with the largest states of windows; more
/// is not an api.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The most positions in one call, which keeps its body below the api's bound of 1 MiB
/// with the longest names there are.
const CHECKPOINTS_PER_CALL: usize = 1000;

/// Nor more than this of windows' states, in bytes.
const STATES_PER_CALL: usize = 4 * MAX_KEPT_STATE_BYTES;

/// Where the api is and what is asked of it.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `API_URL`
    pub url: Url,
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
    client: Client,
    token: HeaderValue,
    settings: ClientSettings,
    base: String,
}

/// A call that did not bring what was asked for.
enum Failed {
    /// No whole answer; `again` when a second try at once may help: a connection kept
    /// open from before the api was started anew.
    Connection {
        why: String,
        again: bool,
    },
    Answered(ProgressError),
}

impl ClientProgress {
    /// Nothing is contacted yet. Proxies of the environment are not used: the api is a
    /// neighbour, and a proxy would see the token.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    pub fn new(settings: ClientSettings) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(concat!("streamgate/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy();
        let client = match &settings.ca[..] {
            [] => client,
            ca => client.tls_certs_only(ca.iter().cloned()),
        };
        let client = client.build()?;
        let mut token =
            HeaderValue::from_str(&settings.token.header()).expect("a token is visible ASCII");
        token.set_sensitive(true);
        let base = settings.url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, token, settings, base })
    }

    fn url(&self, call: Call) -> String {
        // None of the three holds anything that a path would have to escape; together, the
        // last two are not `..` either.
        let ClientSettings { table, consumer, label, .. } = &self.settings;
        format!("{}{PROGRESS}/{table}/{consumer}@{label}/{}", self.base, call.name())
    }

    async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, ProgressError> {
        self.ask(&self.url(call), None).await
    }

    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        call: Call,
        body: &impl Serialize,
    ) -> Result<T, ProgressError> {
        self.ask(&self.url(call), Some(json(body))).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        url: &str,
        body: Option<Bytes>,
    ) -> Result<T, ProgressError> {
        let answer = match self.attempt(url, body.clone()).await {
            Err(Failed::Connection { again: true, .. }) => self.attempt(url, body).await,
            answer => answer,
        };
        let answer = answer.map_err(|failed| match failed {
            Failed::Connection { why, .. } => ProgressError::Unavailable(format!("the api: {why}")),
            Failed::Answered(error) => error,
        })?;
        serde_json::from_slice(&answer).map_err(|error| self.strange(&format!("{error}")))
    }

    async fn attempt(&self, url: &str, body: Option<Bytes>) -> Result<Bytes, Failed> {
        let request = match body {
            None => self.client.get(url),
            Some(body) => self.client.post(url).header(CONTENT_TYPE, "application/json").body(body),
        };
        let request = request.header(AUTHORIZATION, self.token.clone());
        let mut answer = request.send().await.map_err(connection)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(connection)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failed::Answered(self.strange("the answer is too large")));
            }
            body.extend_from_slice(&chunk);
        }
        if answer.status() == StatusCode::OK {
            return Ok(body.freeze());
        }
        let is_problem =
            answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
        let problem = is_problem.then(|| serde_json::from_slice::<Problem>(&body).ok()).flatten();
        Err(Failed::Answered(match problem {
            Some(problem) => problem.into(),
            None => self.strange(&format!("it answered {}", answer.status())),
        }))
    }

    /// Something between here and the api answered, or something else altogether: it may
    /// pass, as when a load balancer has no target for a moment.
    fn strange(&self, what: &str) -> ProgressError {
        ProgressError::Unavailable(format!(
            "API_URL does not answer as the private listener of streamgate api does: {what}"
        ))
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

fn connection(error: reqwest::Error) -> Failed {
    let again = !error.is_timeout();
    Failed::Connection { why: causes::in_a_line(&error.without_url()), again }
}

#[async_trait]
impl Progress for ClientProgress {
    /// First contact: whether both sides mean the same table and consumer and have a
    /// version of their interface in common, and whether the table can be used.
    async fn describe(&self) -> Result<(), ProgressError> {
        let ClientSettings { table, consumer, label, .. } = self.settings.clone();
        let hello = Hello { table, consumer, label, versions: VERSIONS.to_vec() };
        let url = format!("{}{HELLO}", self.base);
        let Welcome { table, consumer, version } = self.ask(&url, Some(json(&hello))).await?;
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

    async fn seeded(&self, lease: &Lease, begin: &Position) -> Result<(), ProgressError> {
        let (lease, begin) = (lease.clone(), begin.clone());
        self.write(Call::Seeded, &SeededBody { lease, begin }).await
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
                Ok(_) => self.strange("an answer does not fit its call"),
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
