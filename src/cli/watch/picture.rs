//! What is looked at: a consumer as its progress has it, and as this container's has it now;
//! without settings for the progress, the latter alone.
//!
//! Owns the asking and its JSON. Invariant: what could not be had is an error, and never shown
//! as if it were nothing.

use super::super::ask;
use super::super::dead_letters::hint;
use super::super::status::{Shard, Status};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use streamgate::progress::letters::{self, Listed};
use streamgate::progress::{
    Coordination, Heartbeat, Lease, Member, Position, Progress, Selection, ShardProgress,
};
use tokio::time::Instant;

/// Dead letters may be thousands, and listing them costs reads of the table.
const LETTERS_EVERY: Duration = Duration::from_secs(30);

/// Where it is asked.
pub struct Sources {
    pub store: Option<Arc<dyn Progress>>,
    /// The listener of the consumer in this container, which may be none.
    pub here: SocketAddr,
    letters: Option<(Instant, Vec<Listed>)>,
}

/// One look.
#[derive(Clone, Debug)]
pub struct Picture {
    pub at: SystemTime,
    pub seen: Coordination,
    pub shards: Vec<ShardProgress>,
    pub letters: Vec<Listed>,
    /// What the consumer of this container says of its own shards; none where there is none.
    pub here: Option<Status>,
    /// It has all workers, and not just the one here.
    pub is_whole: bool,
}

impl Sources {
    pub fn new(store: Option<Arc<dyn Progress>>, here: SocketAddr) -> Self {
        Self { store, here, letters: None }
    }

    /// Looks once.
    ///
    /// # Errors
    /// A sentence, where it cannot be had.
    pub async fn look(&mut self) -> Result<Picture, String> {
        let Some(store) = &self.store else {
            return super::super::status::ask_for_it(self.here).await.map(|(here, _)| alone(here));
        };
        let shards = store.load(Selection::All).await.map_err(hint)?;
        let seen = store.coordination().await.map_err(hint)?;
        let letters = match self.letters.take() {
            Some((at, letters)) if at.elapsed() < LETTERS_EVERY => (at, letters),
            _ => (Instant::now(), letters::all(&**store).await.map_err(hint)?),
        };
        let letters = &self.letters.insert(letters).1;
        let here = match ask::get(self.here, "/status").await {
            Ok((200, body)) => serde_json::from_slice(&body).ok(),
            _ => None,
        };
        let (at, letters) = (SystemTime::now(), letters.clone());
        Ok(Picture { at, seen, shards, letters, here, is_whole: true })
    }
}

/// The consumer here as if there was no other: what it says, in the words of the progress.
fn alone(here: Status) -> Picture {
    let at = SystemTime::now();
    let item = |(id, shard): (&String, &Shard)| {
        let position = match shard.state.as_str() {
            "ended" => Position::ShardEnd,
            _ => Position::TrimHorizon,
        };
        ShardProgress {
            shard: id.as_str().into(),
            parent: shard.parent.as_deref().map(Into::into),
            lease: Lease { owner: shard.owner.as_deref().map(Into::into), counter: 0 },
            since: at,
            position,
            order: 0,
            updated: at,
            closed: false,
            gaps: Vec::new(),
            window: None,
        }
    };
    let shards: Vec<ShardProgress> = here.shards.iter().map(item).collect();
    let worker = shards.iter().find_map(|shard| shard.lease.owner.clone());
    let ages = here.shards.values().map(|shard| shard.iterator_age_seconds);
    let sign = worker.map(|worker| Heartbeat {
        shards: shards.iter().filter(|shard| shard.position != Position::ShardEnd).count() as u64,
        age_ms: (ages.fold(0.0, f64::max) * 1000.0) as u64,
        draining: here.role == "draining",
        ..Heartbeat::first(worker)
    });
    let workers = sign.map(|sign| Member { sign, announced: 0 }).into_iter().collect();
    let seen = Coordination { workers, ..Coordination::default() };
    Picture { at, seen, shards, letters: Vec::new(), here: Some(here), is_whole: false }
}

/// One line of `--json`.
pub fn to_json(look: &Result<Picture, String>) -> Value {
    let time = |at| humantime::format_rfc3339_millis(at).to_string();
    match look {
        Err(why) => json!({ "at": time(SystemTime::now()), "error": why }),
        Ok(picture) if !picture.is_whole => {
            json!({ "at": time(picture.at), "here": picture.here })
        }
        Ok(picture) => {
            let mut all = super::super::fleet::to_json(&picture.seen, &picture.shards);
            all["at"] = time(picture.at).into();
            all["dead_letters"] = json!(picture.letters);
            all["here"] = json!(picture.here);
            all
        }
    }
}
