//! Redrives of dead letters that operators have asked for, until the leader has carried them out.
//!
//! Owns what stands, and how it ended, for a while; it is a part of [`Orders`](super::orders::Orders).
//! Pure. Only a consumer has the handler: who looks at letters elsewhere asks for a redrive here.
//! Invariant: a letter is removed by nothing but its redrive's success; what stands here may be
//! lost, or carried out twice, without one.

use super::json;
use super::letters::LetterId;
use super::orders::{Asked, Refused};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Redrives that may stand at a time. They are read with every look.
const MOST_STANDING: usize = 20;
/// Of those that have ended, so many are remembered for people.
const REMEMBERED: usize = 10;

/// Letters that are to be handed over again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redrive {
    /// Larger than that of every earlier one.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub id: u64,
    /// This letter, or all that there are.
    pub letter: Option<LetterId>,
    /// Who asked.
    pub asked: Asked,
    /// How it ended; `None` while it stands.
    pub ended: Option<Outcome>,
}

/// How a redrive ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Letters that the handler took.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub taken: u64,
    /// Letters that are left.
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub left: u64,
    /// Why the first of these is.
    pub why: Option<String>,
}

/// Said by the leader: a redrive has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// [`Redrive::id`]
    #[serde(with = "json::count")]
    #[schemars(schema_with = "json::count::schema")]
    pub id: u64,
    /// How.
    pub outcome: Outcome,
}

/// The first redrive that stands.
pub fn next(redrives: &[Redrive]) -> Option<&Redrive> {
    redrives.iter().find(|redrive| redrive.ended.is_none())
}

/// Has one more stand. Whether anything changes: the same stands only once.
pub(super) fn ask(
    redrives: &mut Vec<Redrive>,
    id: u64,
    letter: Option<&LetterId>,
    asked: Asked,
) -> Result<bool, Refused> {
    let stands = || redrives.iter().filter(|redrive| redrive.ended.is_none());
    if stands().any(|redrive| redrive.letter.as_ref() == letter) {
        return Ok(false);
    }
    if stands().count() >= MOST_STANDING {
        return Err(Refused::because(format!(
            "{MOST_STANDING} redrives stand already: wait until some are carried out, or ask for all letters at once"
        )));
    }
    redrives.push(Redrive { id, letter: letter.cloned(), asked, ended: None });
    Ok(true)
}

/// Notes how one ended. Whether it stood.
pub(super) fn end(redrives: &mut Vec<Redrive>, ended: &Ended) -> bool {
    let stands = |redrive: &&mut Redrive| redrive.id == ended.id && redrive.ended.is_none();
    let Some(redrive) = redrives.iter_mut().find(stands) else { return false };
    redrive.ended = Some(ended.outcome.clone());
    let over = redrives.iter().filter(|redrive| redrive.ended.is_some()).count();
    let mut surplus = over.saturating_sub(REMEMBERED);
    redrives.retain(|redrive| {
        let goes = surplus > 0 && redrive.ended.is_some();
        surplus -= usize::from(goes);
        !goes
    });
    true
}
