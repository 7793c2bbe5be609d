//! Random records, failures, settings and restarts through the whole consumer, held against
//! a small model of the documented semantics.
//!
//! The handler is the referee. It knows every record that was put and what has become of it,
//! judges each invocation when it begins, and says what may follow when it ends. It knows
//! nothing of how the consumer is made: only what docs/failures.md says.

use crate::support::rig::{Running, arn, settings, start_for};
use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use streamgate::batch::BatchSettings;
use streamgate::consumer::ConsumerSettings;
use streamgate::deliver::{
    Batch, Handler, HandlerError, OnFailure, Reason, Response, RetrySettings,
};
use streamgate::filter::FilterCriteria;
use streamgate::progress::letters::{self, DeadLetter};
use streamgate::progress::{MemoryProgress, Position, Progress, Selection, ShardProgress};
use streamgate::record::SequenceNumber;
use streamgate::simulator::{Change, Simulator};
use streamgate::source::ShardId;
use streamgate::telemetry::metrics::{InvocationOutcome, Metrics};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// `HANDLER_TIMEOUT`
const TIMEOUT: Duration = Duration::from_secs(5);
/// `MAXIMUM_RECORD_AGE_IN_SECONDS`, where it is set.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Times of creation are rounded down to the second, and the machine's clock goes on while
/// ours is paused.
const SLACK: Duration = Duration::from_secs(3);
/// By then every run is through, on a clock that costs nothing.
const FOREVER: Duration = Duration::from_secs(4 * 60 * 60);

/// How a record fares with the handler.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Good,
    /// So many invocations that it is in fail.
    Fails(u32),
    Always,
}

/// What is wrong with an invocation, whoever is in it.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// The handler never got it.
    Unreachable,
    Error,
    Timeout,
    /// The answer names a record that is not in the batch.
    Stranger,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put {
        item: u8,
        fate: Fate,
        wanted: bool,
    },
    /// Every open shard gets a child.
    Roll,
    /// So many seconds.
    Wait(u64),
    /// As `kill -9` after so many further invocations; the next begins at once.
    Kill(usize),
    /// A clean stop after so many; the next begins at once.
    Stop(usize),
}

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    shards: usize,
    size: usize,
    lanes: usize,
    retries: RetrySettings,
    is_partial: bool,
    is_filtered: bool,
    keeps: bool,
    /// Records in a page.
    page: usize,
    /// The most milliseconds that an invocation takes.
    takes: u64,
    /// Of the first invocations, in their order.
    troubles: Vec<Option<Trouble>>,
    /// Records are put before the consumer starts until this step.
    starts_at: usize,
    steps: Vec<Step>,
}

fn any_case() -> impl Strategy<Value = Case> {
    let fate = prop_oneof![
        8 => Just(Fate::Good),
        2 => (1u32..5).prop_map(Fate::Fails),
        1 => Just(Fate::Always),
    ];
    let put = (0u8..12, fate, prop::bool::weighted(0.8))
        .prop_map(|(item, fate, wanted)| Step::Put { item, fate, wanted });
    let step = prop_oneof![
        40 => put,
        1 => Just(Step::Roll),
        2 => (0u64..200).prop_map(Step::Wait),
        1 => (0usize..12).prop_map(Step::Kill),
        1 => (0usize..12).prop_map(Step::Stop),
    ];
    let trouble = prop_oneof![
        Just(Trouble::Unreachable),
        Just(Trouble::Error),
        Just(Trouble::Timeout),
        Just(Trouble::Stranger),
    ];
    let troubles = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(prop::option::weighted(0.3, trouble), 0..20),
    ];
    let max_age = prop::option::weighted(0.3, Just(MAX_AGE));
    let retries = (prop::option::weighted(0.8, 0u32..4), max_age, any::<bool>())
        .prop_map(|(max_retries, max_age, bisect)| RetrySettings { max_retries, max_age, bisect });
    let lanes = prop_oneof![Just(1usize), 1usize..=10];
    let size = prop_oneof![1usize..8, Just(100)];
    (
        (any::<u64>(), 1usize..4, size, lanes, retries, any::<[bool; 3]>()),
        (1usize..30, prop_oneof![Just(0u64), 1u64..400], troubles, 0usize..60),
        prop::collection::vec(step, 1..60),
    )
        .prop_map(|(one, two, steps)| {
            let (seed, shards, size, lanes, retries, [is_partial, is_filtered, keeps]) = one;
            let (page, takes, troubles, starts_at) = two;
            Case {
                seed,
                shards,
                size,
                lanes,
                retries,
                is_partial,
                is_filtered,
                keeps,
                page,
                takes,
                troubles,
                starts_at,
                steps,
            }
        })
}

/// A record that was put, and what has become of it.
struct Entry {
    number: SequenceNumber,
    shard: ShardId,
    item: u8,
    /// Two items have the same.
    pk: String,
    change: Change,
    put_at: Instant,
    passes: bool,
    fate: Fate,
    /// Invocations that it has yet to fail; `None`: all.
    fails: Option<u32>,
    /// How often it was taken.
    taken: usize,
    /// It may have been given up for its retries.
    exhausted: bool,
    life: Life,
}

/// What one consumer has done with a record, from its start to its end.
#[derive(Clone, Default)]
struct Life {
    /// Invocations that it was in.
    seen: u32,
    /// Of those, the failed ones that count towards the limit.
    failures: u32,
    /// Taken or given up: it does not come again.
    over: bool,
    /// The batch in which it came first.
    batch: Option<usize>,
    /// The piece in which it is to come again.
    next: Option<Vec<usize>>,
}

/// What the referee has counted in one life.
#[derive(Default)]
struct Counts {
    invoked: usize,
    failed: usize,
    delivered: usize,
    outcomes: BTreeMap<&'static str, usize>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    by_number: HashMap<String, usize>,
    /// Batches as they came first, in this life.
    batches: Vec<Vec<usize>>,
    /// Records in invocations that are under way.
    flying: Vec<Vec<usize>>,
    /// What was durable when this life began.
    floor: Vec<ShardProgress>,
    /// Pieces whose retries are used up, and how often they were tried.
    exhausted: Vec<(Vec<usize>, u32)>,
    /// Of all lives.
    invocations: usize,
    counts: Counts,
    /// What is wrong.
    faults: Vec<String>,
    /// Consumers so far that were killed: what they have under way counts no more.
    killed: usize,
}

struct Referee {
    case: Case,
    progress: MemoryProgress,
    state: Mutex<State>,
    random: Mutex<fastrand::Rng>,
    more: Notify,
}

impl State {
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(what());
        }
    }

    /// Whether a record may have been given up for its age by now.
    fn may_be_old(&self, case: &Case, record: usize, now: Instant) -> bool {
        let put_at = self.entries[record].put_at;
        case.retries.max_age.is_some_and(|max_age| now + SLACK > put_at + max_age)
    }

    /// Whether a record need not come any more.
    fn is_through(&self, case: &Case, record: usize) -> bool {
        let entry = &self.entries[record];
        !entry.passes
            || entry.taken > 0
            || entry.exhausted
            || self.may_be_old(case, record, Instant::now())
    }

    /// A position is only past what was taken or given up.
    fn check_positions(&mut self, case: &Case, durable: &[ShardProgress]) {
        for record in 0..self.entries.len() {
            let entry = &self.entries[record];
            let (pk, number) = (entry.pk.clone(), entry.number.clone());
            let holds = !is_behind(durable, entry) || self.is_through(case, record);
            self.must(holds, || format!("the position is past {pk} {number}, which is not done"));
        }
    }

    /// Judges an invocation that begins, and gives its records.
    fn begin(&mut self, case: &Case, batch: &Batch<'_>) -> Vec<usize> {
        let now = Instant::now();
        let numbers = batch.records().iter().map(|record| record.sequence_digits());
        let records: Vec<usize> = numbers.map(|number| self.by_number[number]).collect();
        let said = format!("invocation {} of {records:?}", self.invocations);
        self.must(!records.is_empty() && records.len() <= case.size, || format!("{said}: size"));
        self.must(records.is_sorted_by(|a, b| a < b), || format!("{said}: not in order"));
        let first = records[0];
        let too_old = case
            .retries
            .max_age
            .is_some_and(|most| now > self.entries[first].put_at + most + SLACK);
        self.must(!too_old, || format!("{said}: the first is too old"));

        // Where it comes from: a piece of a batch that failed, or a batch that is new.
        match self.entries[first].life.next.clone() {
            Some(piece) => {
                let gone = piece.len().saturating_sub(records.len());
                let follows = piece.ends_with(&records)
                    && piece[..gone].iter().all(|old| self.may_be_old(case, *old, now));
                self.must(follows, || format!("{said}: {piece:?} was to come"));
            }
            None => {
                let news = records.iter().all(|record| {
                    let life = &self.entries[*record].life;
                    life.seen == 0 && life.next.is_none()
                });
                self.must(news, || format!("{said}: neither new nor what was to come again"));
                for record in &records {
                    self.entries[*record].life.batch = Some(self.batches.len());
                }
                self.batches.push(records.clone());
            }
        }
        // A batch is worked front to back.
        if let Some(batch) = self.entries[first].life.batch {
            let before = self.batches[batch].iter().take_while(|record| **record < first);
            let open: Vec<usize> = before.copied().filter(|r| !self.is_over(case, *r)).collect();
            self.must(open.is_empty(), || format!("{said}: {open:?} of the batch is before it"));
        }

        for record in &records {
            let entry = &self.entries[*record];
            let life = &entry.life;
            let faults = [
                (entry.shard != batch.shard, "of another shard"),
                (!entry.passes, "not for the handler"),
                (life.over, "taken or given up, and comes again"),
                (life.seen + 1 != batch.attempt, "the attempt is another"),
                (is_behind(&self.floor, entry), "before the position at the start"),
            ];
            for (is_so, what) in faults {
                self.must(!is_so, || format!("{said}: {record} is {what}"));
            }
            // Everything of the item comes first, and of the shard what shares the partition
            // key, or all of it with one lane.
            let Entry { item, pk, shard, .. } = &self.entries[*record];
            let is_ahead = |other: &Entry| {
                let may_share = other.shard == *shard && (other.pk == *pk || case.lanes == 1);
                other.item == *item || may_share
            };
            let jumped: Vec<usize> = (0..*record)
                .filter(|other| is_ahead(&self.entries[*other]) && !records.contains(other))
                .filter(|other| !self.is_through(case, *other))
                .collect();
            self.must(jumped.is_empty(), || format!("{said}: {record} jumped {jumped:?}"));
        }

        // Who is in two batches at a time, and how many there are.
        let keys = |records: &[usize]| -> BTreeSet<(&ShardId, &str)> {
            let entries = records.iter().map(|record| &self.entries[*record]);
            entries.map(|entry| (&entry.shard, entry.pk.as_str())).collect()
        };
        let twice = self.flying.iter().any(|other| !keys(other).is_disjoint(&keys(&records)));
        let beside = self.flying.iter().filter(|other| self.entries[other[0]].shard == batch.shard);
        let crowded = beside.count() >= case.lanes;
        self.must(!twice, || format!("{said}: a partition key is in two batches at a time"));
        self.must(!crowded, || format!("{said}: more at a time than lanes"));

        for record in &records {
            self.entries[*record].life.seen += 1;
        }
        self.flying.push(records.clone());
        self.invocations += 1;
        self.counts.invoked += records.len();
        records
    }

    /// Whether this life is through with a record.
    fn is_over(&self, case: &Case, record: usize) -> bool {
        self.entries[record].life.over || self.may_be_old(case, record, Instant::now())
    }

    fn end(&mut self, records: &[usize], outcome: &'static str) {
        self.flying.retain(|other| other != records);
        *self.counts.outcomes.entry(outcome).or_default() += 1;
        if outcome != "success" {
            self.counts.failed += records.len();
        }
    }

    fn take(&mut self, records: &[usize]) {
        self.counts.delivered += records.len();
        for record in records {
            let entry = &mut self.entries[*record];
            entry.taken += 1;
            entry.life.over = true;
        }
    }

    /// All from `at` on failed: what is to come of them.
    fn fail(&mut self, case: &Case, records: &[usize], at: usize) {
        self.take(&records[..at]);
        let left = &records[at..];
        let RetrySettings { max_retries, bisect, .. } = case.retries;
        let (is_split, is_halved) = (bisect && at > 0, bisect && at == 0 && left.len() > 1);
        if is_split || is_halved {
            // Costs no retry.
            let (one, two) = left.split_at(if is_halved { left.len() / 2 } else { 0 });
            for piece in [one, two] {
                for record in piece {
                    let life = &mut self.entries[*record].life;
                    (life.next, life.failures) = (Some(piece.to_vec()), 0);
                }
            }
            return;
        }
        let mut is_exhausted = false;
        for record in left {
            let life = &mut self.entries[*record].life;
            // One that the answer has moved on to has retries of its own.
            life.failures = if at > 0 { 1 } else { life.failures + 1 };
            is_exhausted = max_retries.is_some_and(|most| life.failures > most);
            life.next = Some(left.to_vec());
        }
        if is_exhausted {
            self.exhausted.push((left.to_vec(), self.entries[left[0]].life.seen));
            for record in left {
                let entry = &mut self.entries[*record];
                (entry.exhausted, entry.life.over) = (true, true);
            }
        }
    }
}

/// Whether what is durable is past a record.
fn is_behind(durable: &[ShardProgress], entry: &Entry) -> bool {
    let item = durable.iter().find(|item| item.shard == entry.shard);
    match item.map(|item| &item.position) {
        Some(Position::After(number)) => entry.number <= *number,
        Some(Position::ShardEnd) => true,
        Some(Position::TrimHorizon | Position::AtTimestamp(_)) | None => false,
    }
}

/// An invocation that is under way. One that is dropped has timed out.
struct Flight<'a> {
    referee: &'a Referee,
    records: Vec<usize>,
    /// By how many were killed before it began.
    killed: usize,
    ended: bool,
}

impl<'a> Flight<'a> {
    fn end(&mut self) -> MutexGuard<'a, State> {
        self.ended = true;
        self.referee.lock()
    }

    /// As a handler does that works one record after the other.
    fn work(mut self) -> Result<Response, HandlerError> {
        let (records, is_partial) = (self.records.clone(), self.referee.case.is_partial);
        let case = &self.referee.case;
        let mut state = self.end();
        let fails = |state: &State, record: &usize| state.entries[*record].fails != Some(0);
        let mut failing: Vec<usize> =
            records.iter().copied().filter(|record| fails(&state, record)).collect();
        if !is_partial {
            failing.truncate(1);
        }
        for record in &failing {
            let entry = &mut state.entries[*record];
            entry.fails = entry.fails.map(|left| left - 1);
        }
        let Some(first) = failing.first() else {
            state.end(&records, "success");
            state.take(&records);
            return Ok(Response::taken());
        };
        if !is_partial {
            state.end(&records, "error");
            state.fail(case, &records, 0);
            return Err(HandlerError::failed("one of them is poison"));
        }
        let at = records.iter().position(|record| record == first).expect("it is one of them");
        state.end(&records, "partial");
        state.fail(case, &records, at);
        let numbers = failing.iter().map(|record| state.entries[*record].number.to_string());
        let mut numbers: Vec<String> = numbers.collect();
        self.referee.random.lock().unwrap().shuffle(&mut numbers);
        Ok(Response::failed(numbers))
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.referee.lock();
        if !self.ended && self.killed == state.killed {
            state.end(&self.records, "timeout");
            state.fail(&self.referee.case, &self.records, 0);
        }
        drop(state);
        self.referee.more.notify_waiters();
    }
}

#[async_trait]
impl Handler for Referee {
    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let durable = self.progress.load(Selection::All).await.expect("it is in memory");
        let (trouble, mut flight) = {
            let mut state = self.lock();
            state.check_positions(&self.case, &durable);
            let trouble = self.case.troubles.get(state.invocations).copied().flatten();
            let records = state.begin(&self.case, batch);
            (trouble, Flight { referee: self, records, killed: state.killed, ended: false })
        };
        let takes = self.random.lock().unwrap().u64(0..=self.case.takes);
        tokio::time::sleep(Duration::from_millis(takes)).await;
        let records = flight.records.clone();
        match trouble {
            None => flight.work(),
            Some(Trouble::Timeout) => std::future::pending().await,
            Some(Trouble::Unreachable) => {
                let mut state = flight.end();
                state.end(&records, "unreachable");
                // Not tried: the same again.
                for record in &records {
                    state.entries[*record].life.next = Some(records.clone());
                }
                Err(HandlerError::not_invoked("nobody is there"))
            }
            Some(Trouble::Error | Trouble::Stranger) => {
                let mut state = flight.end();
                state.end(&records, "error");
                state.fail(&self.case, &records, 0);
                match trouble {
                    Some(Trouble::Stranger) => Ok(Response::failed(vec!["1".to_owned()])),
                    _ => Err(HandlerError::failed("told to fail")),
                }
            }
        }
    }
}

/// Lets through what is wanted.
fn wanted() -> FilterCriteria {
    let pattern = r#"{"dynamodb":{"NewImage":{"wanted":{"BOOL":[true]}}}}"#;
    let criteria = json!({"Filters": [{"Pattern": pattern}]});
    FilterCriteria::parse(&criteria.to_string()).expect("a good pattern")
}

impl Referee {
    fn new(case: Case, progress: MemoryProgress) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(case.seed));
        Self { case, progress, state: Mutex::default(), random, more: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn settings(&self) -> ConsumerSettings {
        let case = &self.case;
        ConsumerSettings {
            filter: if case.is_filtered { wanted() } else { FilterCriteria::default() },
            batches: BatchSettings { size: case.size, window: Duration::ZERO },
            parallelization: case.lanes,
            handler_timeout: TIMEOUT,
            retries: case.retries,
            on_failure: if case.keeps { OnFailure::Keep } else { OnFailure::Drop },
            failover_time: 20 * SECOND,
            checkpoint_interval: SECOND / 5,
            ..settings()
        }
    }

    fn put(&self, simulator: &Simulator, item: u8, fate: Fate, is_wanted: bool) {
        let (pk, sk) = (format!("key-{}", item % 6), format!("sort-{}", item / 6));
        let mut state = self.lock();
        let n = state.entries.iter().filter(|entry| entry.item == item).count();
        let mut change = Change::item(&pk, n as u64);
        let image = change.new_image.as_mut().expect("no removal");
        image["wanted"] = json!({"BOOL": is_wanted});
        for keys in
            [&mut change.keys].into_iter().chain(&mut change.new_image).chain(&mut change.old_image)
        {
            keys["SK"] = json!({"S": sk});
        }
        let shard = simulator.shard_of(&change.keys).expect("an open shard");
        let number = simulator.put(&change);
        // Where nothing is given up, nothing may fail for ever.
        let RetrySettings { max_retries, max_age, .. } = self.case.retries;
        let fails = match fate {
            Fate::Good => Some(0),
            Fate::Fails(times) => Some(times),
            Fate::Always => (max_retries.is_none() && max_age.is_none()).then_some(9),
        };
        let index = state.entries.len();
        state.by_number.insert(number.to_string(), index);
        state.entries.push(Entry {
            number,
            shard,
            item,
            pk,
            change,
            put_at: Instant::now(),
            passes: is_wanted || !self.case.is_filtered,
            fate,
            fails,
            taken: 0,
            exhausted: false,
            life: Life::default(),
        });
    }

    async fn start(self: &Arc<Self>, simulator: &Simulator) -> Running<Self> {
        let floor = self.progress.load(Selection::All).await.expect("it is in memory");
        {
            let mut state = self.lock();
            state.check_positions(&self.case, &floor);
            let State { entries, batches, flying, counts, .. } = &mut *state;
            entries.iter_mut().for_each(|entry| entry.life = Life::default());
            batches.clear();
            flying.clear();
            *counts = Counts::default();
            state.floor = floor;
        }
        let source = Arc::new(simulator.clone());
        let progress = Arc::new(self.progress.view());
        start_for(self.settings(), source, progress, Arc::clone(self))
    }

    /// Waits for so many further invocations, or until there seem to be no more.
    async fn until_invoked(&self, further: usize) {
        let enough = self.lock().invocations + further;
        let waiting = async {
            while self.lock().invocations < enough {
                self.more.notified().await;
            }
        };
        let _ = tokio::time::timeout(30 * SECOND, waiting).await;
    }

    /// Waits until the positions are past everything, or something is wrong.
    async fn until_through(&self) {
        let is_through = async || {
            let durable = self.progress.load(Selection::All).await.expect("it is in memory");
            let state = self.lock();
            let mut entries = state.entries.iter();
            !state.faults.is_empty() || entries.all(|entry| is_behind(&durable, entry))
        };
        let through = async {
            while !is_through().await {
                tokio::time::sleep(SECOND).await;
            }
        };
        tokio::time::timeout(FOREVER, through).await.expect("the positions get past everything");
    }
}

async fn run(case: Case) {
    fastrand::seed(case.seed);
    let simulator = Simulator::builder(arn()).shards(case.shards).seed(case.seed).build();
    simulator.set(|settings| settings.page_records = case.page);
    let progress = MemoryProgress::new();
    let referee = Arc::new(Referee::new(case.clone(), progress.view()));
    let (mut running, mut lives) = (None, 0);
    for (index, step) in case.steps.iter().enumerate() {
        if running.is_none() && index >= case.starts_at {
            running = Some(referee.start(&simulator).await);
            lives += 1;
        }
        match *step {
            Step::Put { item, fate, wanted } => referee.put(&simulator, item, fate, wanted),
            Step::Roll => drop(simulator.roll_all()),
            Step::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Step::Kill(further) | Step::Stop(further) => {
                let Some(before) = running.take() else { continue };
                referee.until_invoked(further).await;
                if matches!(step, Step::Kill(_)) {
                    referee.lock().killed += 1;
                    before.kill().await;
                } else {
                    before.stop().await;
                }
                running = Some(referee.start(&simulator).await);
                lives += 1;
            }
        }
    }
    let running = match running {
        Some(running) => running,
        None => referee.start(&simulator).await,
    };
    referee.until_through().await;
    let metrics = Arc::clone(&running.metrics);
    running.stop().await;

    let durable = progress.load(Selection::All).await.expect("it is in memory");
    let faults = {
        let mut state = referee.lock();
        state.check_positions(&case, &durable);
        state.faults.clone()
    };
    assert!(faults.is_empty(), "{faults:#?}");
    let kept = letters(&progress, &referee).await;
    let state = referee.lock();
    if lives <= 1 {
        check_one_life(&case, &state, &kept, &metrics);
    }
    // Everything is accounted for.
    let is_kept = |record: &usize| kept.iter().any(|(_, records)| records.contains(record));
    for (record, entry) in state.entries.iter().enumerate().filter(|(_, entry)| entry.passes) {
        let is_lost = entry.taken == 0 && case.keeps && !is_kept(&record);
        assert!(!is_lost, "{record} was neither taken nor kept");
        let may_be_given_up = entry.exhausted || case.retries.max_age.is_some();
        assert!(entry.taken > 0 || may_be_given_up, "{record} was not taken");
    }
}

/// A letter, and which records its payload has.
type Kept = (DeadLetter, Vec<usize>);

/// The letters in the store. Their payload holds the very records.
async fn letters(progress: &MemoryProgress, referee: &Referee) -> Vec<Kept> {
    let mut kept = Vec::new();
    for listed in letters::all(progress).await.expect("it is in memory") {
        assert!(listed.whole);
        let letter = listed.letter;
        let payload = letters::payload(progress, &letter).await.expect("all of it");
        let event: Value = serde_json::from_slice(&payload).expect("JSON");
        let state = referee.lock();
        let records = event["Records"].as_array().expect("an event").iter().map(|record| {
            let record = &record["dynamodb"];
            let number = record["SequenceNumber"].as_str().expect("text");
            let index = state.by_number[number];
            let entry = &state.entries[index];
            assert_eq!(record["Keys"], entry.change.keys);
            assert_eq!(Some(&record["NewImage"]), entry.change.new_image.as_ref());
            assert!(entry.passes && entry.shard == letter.id.shard);
            if letter.reason == Reason::Age {
                let created = record["ApproximateCreationDateTime"].as_u64().expect("seconds");
                let created = SystemTime::UNIX_EPOCH + Duration::from_secs(created);
                let age = letter.given_up_at.duration_since(created).expect("later");
                assert!(age >= referee.case.retries.max_age.expect("a limit"), "{age:?}");
            }
            index
        });
        let records: Vec<usize> = records.collect();
        assert_eq!(letter.records, records.len() as u64);
        assert_eq!(letter.id.first, state.entries[records[0]].number);
        assert_eq!(letter.id.last, state.entries[records[records.len() - 1]].number);
        if letter.reason == Reason::Retries {
            let piece = (records.clone(), letter.attempts as u32);
            assert!(state.exhausted.contains(&piece), "{piece:?} had retries left");
        }
        kept.push((letter, records));
    }
    assert!(kept.is_empty() || referee.case.keeps);
    kept
}

/// What holds where nothing was stopped in between: everything happens once.
fn check_one_life(case: &Case, state: &State, kept: &[Kept], metrics: &Metrics) {
    let RetrySettings { max_retries, max_age, bisect } = case.retries;
    let passing: Vec<&Entry> = state.entries.iter().filter(|entry| entry.passes).collect();
    let count =
        |holds: &dyn Fn(&Entry) -> bool| passing.iter().filter(|entry| holds(entry)).count() as u64;
    for entry in &passing {
        let Entry { pk, number, .. } = entry;
        assert!(entry.taken + usize::from(entry.exhausted) <= 1, "{pk} {number} ended twice");
        let is_poison = match entry.fate {
            Fate::Good => false,
            Fate::Fails(times) => max_retries.is_some_and(|most| times > most),
            Fate::Always => max_retries.is_some(),
        };
        let is_alone = bisect && case.troubles.is_empty();
        assert!(!(is_alone && entry.exhausted && !is_poison), "{pk} {number} was innocent");
        let is_hopeless = matches!(entry.fate, Fate::Always) && is_poison && max_age.is_none();
        assert!(!is_hopeless || entry.exhausted, "{pk} {number} was taken");
    }
    let (taken, exhausted) = (count(&|entry| entry.taken > 0), count(&|entry| entry.exhausted));
    let aged = passing.len() as u64 - taken - exhausted;
    let lettered = |reason| {
        let letters = kept.iter().filter(|(letter, _)| letter.reason == reason);
        letters.map(|(letter, _)| letter.records).sum::<u64>()
    };
    let dropped =
        |reason: Reason| metrics.records_dropped.with_label_values(&[reason.label()]).get();
    let given_up = [(Reason::Retries, exhausted), (Reason::Age, aged)];
    for (reason, expected) in given_up {
        let expected = if case.keeps { [expected, 0] } else { [0, expected] };
        assert_eq!([lettered(reason), dropped(reason)], expected, "{reason:?}");
    }
    assert_eq!(
        metrics.records_dead_lettered.get(),
        lettered(Reason::Retries) + lettered(Reason::Age)
    );

    let counts = &state.counts;
    assert_eq!(counts.delivered as u64, taken);
    let counted = [
        ("polled", metrics.records_polled.get(), state.entries.len()),
        ("filtered", metrics.records_filtered.get(), state.entries.len() - passing.len()),
        ("invoked", metrics.records_invoked.get(), counts.invoked),
        ("failed", metrics.records_failed.get(), counts.failed),
        ("delivered", metrics.records_delivered.get(), counts.delivered),
        ("batched", metrics.batch_records.get_sample_sum() as u64, passing.len()),
    ];
    for (name, counted, expected) in counted {
        assert_eq!(counted, expected as u64, "{name}");
    }
    for outcome in InvocationOutcome::ALL.map(InvocationOutcome::label) {
        let expected = counts.outcomes.get(outcome).copied().unwrap_or_default();
        let counted = metrics.invocations.with_label_values(&[outcome]).get();
        assert_eq!(counted, expected as u64, "{outcome}");
    }
}

/// Few enough that nobody waits for them, unless PROPTEST_CASES asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 128 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_time: 20_000, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_fails_and_whenever_it_ends_every_record_is_dealt_with_as_documented(case in any_case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(case));
    }
}
