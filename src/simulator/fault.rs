//! Faults on request: which calls fail, how, how often.
//!
//! Owns the rules and the dice. Carries no fault out; that is the call's and the server's
//! business. Rules are asked in the order they were added: the first that strikes decides,
//! except that `slow` only delays and lets later rules speak.

use super::settings::millis;
use super::{Operation, Refused};
use crate::source::ShardId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// ThrottlingException, 400.
    Throttle,
    /// LimitExceededException, 400.
    LimitExceeded,
    /// InternalServerError, 500.
    InternalError,
    /// The connection closes without an answer.
    Reset,
    /// The right Content-Length, half a body, and the connection closes.
    HalfAnswer,
    /// No answer until the client goes away, or for a minute.
    Hang,
    /// The answer comes this much later.
    #[serde(rename = "slow_ms", with = "millis")]
    Slow(Duration),
    /// ExpiredIteratorException, 400.
    ExpiredIterator,
    /// TrimmedDataAccessException, 400.
    Trimmed,
    /// ResourceNotFoundException, 400.
    NotFound,
    /// AccessDeniedException, 400.
    AccessDenied,
    /// ExpiredTokenException, 400: the credentials, not the iterator.
    ExpiredToken,
    /// 200 with text that is not JSON.
    Malformed,
    /// GetRecords answers no records and an iterator that goes on at the same place.
    EmptyPage,
}

impl Fault {
    /// The name in the admin interface and in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::LimitExceeded => "limit_exceeded",
            Self::InternalError => "internal_error",
            Self::Reset => "reset",
            Self::HalfAnswer => "half_answer",
            Self::Hang => "hang",
            Self::Slow(_) => "slow",
            Self::ExpiredIterator => "expired_iterator",
            Self::Trimmed => "trimmed",
            Self::NotFound => "not_found",
            Self::AccessDenied => "access_denied",
            Self::ExpiredToken => "expired_token",
            Self::Malformed => "malformed",
            Self::EmptyPage => "empty_page",
        }
    }
}

/// Which calls a fault strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// The operation; `None` (in JSON: left out, or `"any"`) for every one.
    #[serde(default, with = "any_operation")]
    pub operation: Option<Operation>,
    /// The shard; `None` for every one. A DescribeStream names a shard only with the
    /// CHILD_SHARDS filter, and ListStreams never does.
    #[serde(default, with = "optional_shard")]
    pub shard: Option<ShardId>,
    /// The share of matching calls that are struck, 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// Strikes until the rule is spent; `None` for no end.
    #[serde(default)]
    pub count: Option<u64>,
    /// Matching calls that are let through first.
    #[serde(default)]
    pub after: u64,
}

impl FaultRule {
    /// `fault` in every call, for ever; the methods below narrow it.
    pub fn new(fault: Fault) -> Self {
        Self { fault, operation: None, shard: None, probability: 1.0, count: None, after: 0 }
    }

    /// Only in calls of `operation`.
    pub fn on(self, operation: Operation) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// Only in calls for `shard`.
    pub fn shard(self, shard: &ShardId) -> Self {
        Self { shard: Some(shard.clone()), ..self }
    }

    /// Only in this share of the calls, 0 to 1.
    pub fn probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }

    /// Only so many times.
    pub fn times(self, count: u64) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Only after so many matching calls.
    pub fn after(self, calls: u64) -> Self {
        Self { after: calls, ..self }
    }

    pub(super) fn check(&self) -> Result<(), Refused> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(Refused::new("probability must be from 0 to 1"));
        }
        if self.fault == Fault::EmptyPage
            && self.operation.is_some_and(|operation| operation != Operation::GetRecords)
        {
            return Err(Refused::new("empty_page is a fault of GetRecords only"));
        }
        Ok(())
    }

    fn matches(&self, operation: Operation, shard: Option<&ShardId>) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && (self.fault != Fault::EmptyPage || operation == Operation::GetRecords)
            && (self.shard.is_none() || self.shard.as_ref() == shard)
    }
}

/// What a call is to suffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub delay: Duration,
    pub fault: Option<Fault>,
}

/// The rules of a simulator and how often each fault struck.
pub struct Faults {
    /// Whether there is any rule: spares the calls of a benchmark the lock.
    armed: AtomicBool,
    state: Mutex<State>,
}

struct State {
    rules: Vec<Armed>,
    injected: BTreeMap<&'static str, u64>,
    random: fastrand::Rng,
}

struct Armed {
    rule: FaultRule,
    matched: u64,
    struck: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let state = State { rules: Vec::new(), injected: BTreeMap::new(), random };
        Self { armed: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Adds a rule behind those there are.
    ///
    /// # Panics
    /// If the probability is not from 0 to 1, or `EmptyPage` is asked of another
    /// operation than GetRecords.
    pub fn add(&self, rule: FaultRule) {
        rule.check().unwrap_or_else(|refused| panic!("{refused}"));
        self.add_all(vec![rule]);
    }

    /// Adds rules that were checked.
    pub(super) fn add_all(&self, rules: Vec<FaultRule>) {
        let mut state = self.lock();
        state.rules.extend(rules.into_iter().map(|rule| Armed { rule, matched: 0, struck: 0 }));
        self.armed.store(!state.rules.is_empty(), Ordering::Release);
    }

    /// Removes every rule; what was counted stays.
    pub fn clear(&self) {
        self.lock().rules.clear();
        self.armed.store(false, Ordering::Release);
    }

    /// The rules there are, spent ones too.
    pub fn rules(&self) -> Vec<FaultRule> {
        self.lock().rules.iter().map(|armed| armed.rule.clone()).collect()
    }

    /// How often each fault struck, by its name.
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.lock().injected.clone()
    }

    pub(super) fn plan(&self, operation: Operation, shard: Option<&ShardId>) -> Plan {
        let mut plan = Plan::default();
        if !self.armed.load(Ordering::Acquire) {
            return plan;
        }
        let State { rules, injected, random } = &mut *self.lock();
        for armed in rules.iter_mut().filter(|armed| armed.rule.matches(operation, shard)) {
            armed.matched += 1;
            let rule = &armed.rule;
            if armed.matched <= rule.after
                || rule.count.is_some_and(|count| armed.struck >= count)
                || random.f64() >= rule.probability
            {
                continue;
            }
            armed.struck += 1;
            *injected.entry(rule.fault.name()).or_default() += 1;
            match rule.fault {
                Fault::Slow(delay) => plan.delay += delay,
                fault => {
                    plan.fault = Some(fault);
                    break;
                }
            }
        }
        plan
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

fn always() -> f64 {
    1.0
}

mod any_operation {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<Operation>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(operation) => operation.serialize(to),
            None => to.serialize_str("any"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Operation>, D::Error> {
        #[derive(Deserialize)]
        enum Wanted {
            #[serde(rename = "any")]
            Any,
            ListStreams,
            DescribeStream,
            GetShardIterator,
            GetRecords,
        }
        Ok(match Option::<Wanted>::deserialize(from)? {
            None | Some(Wanted::Any) => None,
            Some(Wanted::ListStreams) => Some(Operation::ListStreams),
            Some(Wanted::DescribeStream) => Some(Operation::DescribeStream),
            Some(Wanted::GetShardIterator) => Some(Operation::GetShardIterator),
            Some(Wanted::GetRecords) => Some(Operation::GetRecords),
        })
    }
}

mod optional_shard {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<ShardId>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ShardId::as_str).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ShardId>, D::Error> {
        let id = Option::<String>::deserialize(from)?;
        Ok(id.map(|id| ShardId::from(id.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn struck(faults: &Faults, operation: Operation, shard: Option<&ShardId>) -> Option<Fault> {
        faults.plan(operation, shard).fault
    }

    #[test]
    fn a_rule_strikes_its_operation_and_shard_after_and_as_often_as_told() {
        let (a, b) = (ShardId::from("a"), ShardId::from("b"));
        let faults = Faults::new(1);
        let rule = FaultRule::new(Fault::Reset).on(Operation::GetRecords).shard(&a);
        faults.add(rule.after(1).times(2));
        for _ in 0..3 {
            assert_eq!(struck(&faults, Operation::GetRecords, Some(&b)), None);
            assert_eq!(struck(&faults, Operation::GetShardIterator, Some(&a)), None);
            assert_eq!(struck(&faults, Operation::DescribeStream, None), None);
        }
        let strikes: Vec<_> =
            (0..5).map(|_| struck(&faults, Operation::GetRecords, Some(&a)).is_some()).collect();
        assert_eq!(strikes, [false, true, true, false, false]);
        assert_eq!(faults.injected(), BTreeMap::from([("reset", 2)]));
        faults.clear();
        assert!(faults.rules().is_empty());
    }

    #[test]
    fn slow_lets_later_rules_speak_and_the_first_other_one_decides() {
        let faults = Faults::new(1);
        for fault in [Fault::Slow(Duration::from_secs(2)), Fault::EmptyPage, Fault::Throttle] {
            faults.add(FaultRule::new(fault));
        }
        let plan = |operation| faults.plan(operation, None);
        let delay = Duration::from_secs(2);
        assert_eq!(plan(Operation::GetRecords), Plan { delay, fault: Some(Fault::EmptyPage) });
        assert_eq!(plan(Operation::DescribeStream), Plan { delay, fault: Some(Fault::Throttle) });
    }

    #[test]
    fn the_same_seed_strikes_the_same_calls() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.add(FaultRule::new(Fault::Throttle).probability(0.3));
            (0..1000)
                .map(|_| struck(&faults, Operation::GetRecords, None).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let share = run(7).into_iter().filter(|struck| *struck).count();
        assert!((200..400).contains(&share), "{share} of 1000 at 0.3");
    }

    #[test]
    fn rules_are_read_from_json() {
        let rule = |value| serde_json::from_value::<FaultRule>(value);
        assert_eq!(
            rule(json!({"fault": {"slow_ms": 250}, "operation": "any"})).unwrap(),
            FaultRule::new(Fault::Slow(Duration::from_millis(250)))
        );
        assert_eq!(
            rule(json!({"fault": "throttle", "operation": "GetRecords", "shard": "s",
                        "probability": 0.5, "count": 3, "after": 1}))
            .unwrap(),
            FaultRule::new(Fault::Throttle)
                .on(Operation::GetRecords)
                .shard(&ShardId::from("s"))
                .probability(0.5)
                .times(3)
                .after(1)
        );
        for bad in [
            json!({"fault": "nonsense"}),
            json!({"fault": "slow"}),
            json!({"fault": "reset", "operation": "PutItem"}),
            json!({"fault": "reset", "often": true}),
        ] {
            assert!(rule(bad.clone()).is_err(), "{bad}");
        }
        assert!(FaultRule::new(Fault::Reset).probability(f64::NAN).check().is_err());
        assert!(FaultRule::new(Fault::Reset).probability(1.1).check().is_err());
        assert!(FaultRule::new(Fault::EmptyPage).on(Operation::DescribeStream).check().is_err());
    }
}
