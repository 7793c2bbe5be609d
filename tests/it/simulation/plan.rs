//! What a seed means: the size of the world, its settings, and which troubles it has.
//!
//! Pure. Every seed has some kinds of trouble and not others, for troubles hide each other:
//! where everything fails at once, little gets far enough to go wrong.

use super::handler::Mood;
use super::network::Weather;
use crate::support::rig::settings;
use fastrand::Rng;
use std::time::Duration;
use streamgate::batch::BatchSettings;
use streamgate::consumer::ConsumerSettings;
use streamgate::lineage::StartingPosition;
use streamgate::polling::PollIntervals;
use streamgate::simulator::{ListingOrder, Settings};

/// One kind of trouble, or of what is usual in the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Split,
    Roll,
    RollAll,
    /// Records before the durable position leave the stream.
    TrimBehind,
    /// Records leave it that nobody may have read.
    TrimAhead,
    /// A shard leaves it that is delivered to its end.
    Expire,
    /// A closed shard leaves it, however far it was read.
    Vanish,
    ExpireIterators,
    /// Calls of the stream fail for a while.
    StreamFails,
    Crash,
    /// A clean stop, and a start some time later.
    Stop,
    Freeze,
    /// A worker and an api do not hear each other, or one does not hear the other.
    CutApi,
    CutTable,
    CutStream,
    CrashApi,
    HangApi,
    /// A worker's time of day jumps.
    StepClock,
    /// Handlers fail, or take too long, for a while.
    HandlerFails,
    /// An operator pauses a shard, or all, mostly for a while.
    Pause,
    PauseStream,
    /// An operator sends a shard elsewhere, or the whole stream.
    Skip,
    SeekShard,
    SeekStream,
}

const EVENTS: [(Event, u32); 19] = [
    (Event::Split, 2),
    (Event::Roll, 4),
    (Event::RollAll, 1),
    (Event::TrimBehind, 3),
    (Event::TrimAhead, 1),
    (Event::Expire, 2),
    (Event::Vanish, 1),
    (Event::ExpireIterators, 1),
    (Event::StreamFails, 2),
    (Event::Crash, 5),
    (Event::Stop, 4),
    (Event::Freeze, 5),
    (Event::CutApi, 4),
    (Event::CutTable, 3),
    (Event::CutStream, 3),
    (Event::CrashApi, 3),
    (Event::HangApi, 3),
    (Event::StepClock, 2),
    (Event::HandlerFails, 2),
];

/// Half of all worlds have none: what holds where nobody asks for anything is stronger.
const REQUESTS: [(Event, u32); 5] = [
    (Event::Pause, 4),
    (Event::PauseStream, 1),
    (Event::Skip, 4),
    (Event::SeekShard, 4),
    (Event::SeekStream, 2),
];

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// How far a machine may run ahead of the others, and so the least that a message takes.
    pub tick: Duration,
    pub workers: usize,
    pub apis: usize,
    pub shards: usize,
    pub items: usize,
    /// How long there is trouble.
    pub storm: Duration,
    /// How long nothing happens afterwards.
    pub quiet: Duration,
    /// Between two events, on average.
    pub event_every: Duration,
    /// Between two changes, on average.
    pub change_every: Duration,
    pub weather: Weather,
    pub mood: Mood,
    pub events: Vec<(Event, u32)>,
    pub stream: Settings,
    pub settings: ConsumerSettings,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let random = &mut random;
        let millis = Duration::from_millis;
        let some =
            |random: &mut Rng, most: f64| if random.bool() { random.f64() * most } else { 0.0 };
        let weather = Weather {
            usual: random.u64(2..80),
            slow: some(random, 0.1),
            late: some(random, 0.02),
            lost: some(random, 0.05),
            twice: some(random, 0.05),
            throttled: some(random, 0.05),
        };
        let mood =
            Mood { takes: random.u64(0..400), fails: some(random, 0.1), hangs: some(random, 0.01) };
        let events = EVENTS.into_iter().filter(|_| random.bool()).collect::<Vec<_>>();
        let failover = millis(random.u64(2..=10) * 1000);
        let poll_min = millis(random.u64(100..400));
        let mut plan = Self {
            seed,
            tick: millis([10, 20, 40][random.usize(..3)]),
            workers: random.usize(1..=4),
            apis: random.usize(1..=3),
            shards: random.usize(1..=4),
            items: random.usize(2..=16),
            storm: Duration::from_secs(random.u64(50..120)),
            quiet: Duration::from_secs(if random.u8(..8) == 0 { 320 } else { 40 }),
            event_every: millis(random.u64(800..8_000)),
            change_every: millis(random.u64(50..800)),
            weather,
            mood,
            events,
            stream: stream(random),
            settings: ConsumerSettings {
                starting_position: match random.u8(..4) {
                    0 => StartingPosition::Latest,
                    _ => StartingPosition::TrimHorizon,
                },
                batches: BatchSettings {
                    size: [1, 3, 10, 100][random.usize(..4)],
                    window: millis(if random.bool() { 0 } else { random.u64(100..2_000) }),
                },
                parallelization: [1, 1, 2, 4][random.usize(..4)],
                handler_timeout: Duration::from_secs(5),
                poll_intervals: PollIntervals {
                    min: poll_min,
                    max: poll_min + millis(random.u64(200..2_000)),
                },
                failover_time: failover,
                checkpoint_interval: millis(random.u64(1..30) * 100),
                ..settings()
            },
        };
        if random.bool() {
            plan.events.extend(REQUESTS.into_iter().filter(|_| random.bool()));
        }
        plan
    }

    /// Whether what is put before the first start need not be delivered.
    pub fn starts_at_tip(&self) -> bool {
        self.settings.starting_position == StartingPosition::Latest
    }
}

fn stream(random: &mut Rng) -> Settings {
    let lag = |random: &mut Rng| {
        Duration::from_millis(if random.bool() { 0 } else { random.u64(..3_000) })
    };
    Settings {
        page_records: [1, 5, 50, 1000][random.usize(..4)],
        listing_page: random.usize(1..=100),
        listing_order: match random.bool() {
            true => ListingOrder::Creation,
            false => ListingOrder::ChildrenFirst,
        },
        child_lag: lag(random),
        parent_lag: lag(random),
        last_page_has_records: random.bool(),
        empty_pages: random.u32(..3),
        at_timestamp: random.bool(),
        child_filter: random.bool(),
        ..Settings::default()
    }
}
