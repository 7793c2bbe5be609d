//! What an hour costs: the formulas of docs/costs.md, held against what is counted.
//!
//! Workers share the shards of a simulated stream on a paused clock until all have settled; then
//! every write, read and poll of the next minutes is counted. The tables of the page are made of
//! the same formulas, for sizes that no test runs. Nothing here knows how long anything takes.

use crate::catalogue::assert_generated;
use crate::support::rig::{Running, arn, settings, start_for};
use crate::support::{NewTable, dynoxide, sdk_config};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use streamgate::config::SETTINGS;
use streamgate::consumer::ConsumerSettings;
use streamgate::deliver::Discard;
use streamgate::polling::PollIntervals;
use streamgate::progress::{
    Checkpoint, Heartbeat, LeaseKey, MemoryProgress, MemoryWrites, NewShard, OpenWindow, Position,
    Progress, TableProgress, TableSettings, WorkerId,
};
use streamgate::simulator::{Change, Simulator};
use streamgate::source::ShardId;

const PAGE: &str = "docs/costs.md";
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// The wait of a read or a listing is taken off by chance: of a tenth and a fifth, half on average.
const POLL_SHARE: f64 = 0.95;
const LISTING_SHARE: f64 = 0.9;
/// Idle shards are polled together, in steps: half of one later, on average.
const STEP: Duration = Duration::from_millis(50);
/// How often the leader lists the stream, at most.
const LISTING: Duration = Duration::from_secs(60);
/// How often a worker looks at the others, unless it is alone.
const LOOK: Duration = Duration::from_millis(500);
/// How long a replica of the api gives out what it has read.
const SHARED: Duration = Duration::from_millis(100);
/// Replicas of the api, as the chart and the template have them.
const APIS: f64 = 2.0;

/// What items take in the table, rounded up.
const SIGN_BYTES: f64 = 256.0;
const STREAM_BYTES: f64 = 256.0;
const SHARD_BYTES: f64 = 384.0;
/// Over how many partition keys shards are spread, each a query of its own.
const PARTITIONS: f64 = 16.0;
/// A strongly consistent read unit.
const READ_UNIT: f64 = 4096.0;

/// List prices in US dollars, us-east-1, on demand, November 2026.
const WRITE_UNIT_PRICE: f64 = 0.625 / 1e6;
const READ_UNIT_PRICE: f64 = 0.125 / 1e6;
const GET_RECORDS_PRICE: f64 = 0.02 / 1e5;

/// So many in an hour.
fn hourly(every: Duration) -> f64 {
    HOUR.as_secs_f64() / every.as_secs_f64()
}

/// A consumer of so many replicas over so many shards.
#[derive(Clone, Copy, Debug)]
struct Size {
    workers: f64,
    shards: f64,
    /// Every read brings records; else none does.
    busy: bool,
    polls: PollIntervals,
}

/// What is done in an hour in which nobody comes or goes and no shard ends.
#[derive(Clone, Copy, Debug)]
struct Hour {
    heartbeats: f64,
    checkpoints: f64,
    other_writes: f64,
    looks: f64,
    loads: f64,
    get_records: f64,
}

fn size(workers: usize, shards: usize, busy: bool) -> Size {
    let polls = settings().poll_intervals;
    Size { workers: workers as f64, shards: shards as f64, busy, polls }
}

impl Size {
    /// With idle shards that are read so often.
    fn polling(self, max: Duration) -> Self {
        Self { polls: PollIntervals { max, ..self.polls }, ..self }
    }

    /// The formulas, for the default settings.
    fn hour(self) -> Hour {
        let ConsumerSettings { failover_time, checkpoint_interval, .. } = settings();
        let beats = hourly(failover_time / 3);
        let listings = hourly(LISTING.mul_f64(LISTING_SHARE));
        let looks = if self.workers > 1.0 { self.workers * hourly(LOOK) } else { beats };
        let poll = match self.busy {
            true => self.polls.min.mul_f64(POLL_SHARE),
            false => self.polls.max.mul_f64(POLL_SHARE) + (self.polls.max / 20).min(STEP) / 2,
        };
        Hour {
            heartbeats: self.workers * beats,
            checkpoints: if self.busy { self.shards * hourly(checkpoint_interval) } else { 0.0 },
            other_writes: 0.0,
            looks: looks + listings,
            loads: listings,
            get_records: self.shards * hourly(poll),
        }
    }

    fn write_units(self) -> f64 {
        let Hour { heartbeats, checkpoints, other_writes, .. } = self.hour();
        heartbeats + checkpoints + other_writes
    }

    /// At most: an api reads anew after [`SHARED`] and after a sign of life, and for nobody
    /// who does not ask.
    fn read_units(self) -> f64 {
        let Hour { heartbeats, looks, loads, .. } = self.hour();
        let shared = (APIS * hourly(SHARED) + heartbeats).min(looks);
        let look = (STREAM_BYTES + self.workers * SIGN_BYTES) / READ_UNIT;
        let load = (self.shards / PARTITIONS * SHARD_BYTES / READ_UNIT).ceil().max(1.0);
        shared * look.ceil() + loads * PARTITIONS * load
    }

    /// What the KCL writes by its documentation's defaults: it renews each lease every third of
    /// failoverTimeMillis (10 s), each worker reports its metrics every 30 s, and the leader
    /// keeps its lock by a write every 30 s. Positions are written as often as ours.
    fn kcl_write_units(self) -> f64 {
        let renewals = self.shards * hourly(10 * SECOND / 3);
        let reports = (self.workers + 1.0) * hourly(30 * SECOND);
        renewals + reports + self.hour().checkpoints
    }
}

/// A key of an item for each shard.
fn key_of_each_shard(simulator: &Simulator) -> Vec<String> {
    let mut keys: BTreeMap<ShardId, String> = BTreeMap::new();
    let shards = simulator.open_shards().len();
    for number in 0.. {
        if keys.len() == shards {
            break;
        }
        let key = format!("item-{number}");
        let shard = simulator.shard_of(&Change::item(&key, 0).keys).expect("all keys have one");
        keys.entry(shard).or_insert(key);
    }
    keys.into_values().collect()
}

/// More often than a shard is read.
async fn keep_busy(simulator: Simulator, keys: Vec<String>) {
    for n in 0.. {
        for key in &keys {
            simulator.put_item(key, n);
        }
        if n % 100 == 0 {
            simulator.trim_older_than(MINUTE);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Counted so far.
fn counted(simulator: &Simulator, views: &[Arc<MemoryProgress>]) -> Hour {
    let sum = |count: &dyn Fn(&MemoryProgress) -> u64| -> f64 {
        views.iter().map(|view| count(view)).sum::<u64>() as f64
    };
    Hour {
        heartbeats: sum(&|view| view.writes().heartbeats),
        checkpoints: sum(&|view| view.writes().checkpoints),
        other_writes: sum(&|view| view.writes().besides_heartbeats() - view.writes().checkpoints),
        looks: sum(&|view| view.reads().coordinations),
        loads: sum(&|view| view.reads().loads),
        get_records: simulator.calls().get_records as f64,
    }
}

/// Runs a consumer of this size until it has settled, and then for so long. Gives what an hour of
/// that would have taken.
async fn measured(size: Size, time: Duration) -> Hour {
    let simulator = Simulator::builder(arn()).shards(size.shards as usize).seed(7).build();
    let busy = size
        .busy
        .then(|| tokio::spawn(keep_busy(simulator.clone(), key_of_each_shard(&simulator))));
    let store = MemoryProgress::new();
    let views: Vec<_> = (0..size.workers as usize).map(|_| Arc::new(store.view())).collect();
    let source: Arc<Simulator> = Arc::new(simulator.clone());
    let start = |view: &Arc<MemoryProgress>| {
        let settings = ConsumerSettings { poll_intervals: size.polls, ..settings() };
        start_for(settings, Arc::clone(&source) as _, Arc::clone(view) as _, Arc::new(Discard))
    };
    let workers: Vec<Running<Discard>> = views.iter().map(start).collect();
    settled(&workers, size).await;
    let before = counted(&simulator, &views);
    tokio::time::sleep(time).await;
    let after = counted(&simulator, &views);
    if let Some(busy) = busy {
        busy.abort();
    }
    for worker in workers {
        worker.stop().await;
    }
    let an_hour = |count: fn(&Hour) -> f64| (count(&after) - count(&before)) * hourly(time);
    Hour {
        heartbeats: an_hour(|hour| hour.heartbeats),
        checkpoints: an_hour(|hour| hour.checkpoints),
        other_writes: an_hour(|hour| hour.other_writes),
        looks: an_hour(|hour| hour.looks),
        loads: an_hour(|hour| hour.loads),
        get_records: an_hour(|hour| hour.get_records),
    }
}

/// All shards are held, nobody has two more than another, and that for some rounds of shares.
async fn settled(workers: &[Running<Discard>], size: Size) {
    let began = tokio::time::Instant::now();
    let mut since = began;
    while since.elapsed() < 3 * MINUTE {
        tokio::time::sleep(SECOND).await;
        let held: Vec<i64> = workers.iter().map(|w| w.metrics.leases_held.get()).collect();
        let is_shared = held.iter().max().unwrap() - held.iter().min().unwrap() <= 1;
        if !is_shared || held.iter().sum::<i64>() != size.shards as i64 {
            assert!(began.elapsed() < 30 * MINUTE, "{held:?}");
            since = tokio::time::Instant::now();
        }
    }
}

fn assert_near(what: &str, size: Size, counted: f64, formula: f64, within: f64) {
    let off = (counted - formula).abs();
    assert!(off <= formula * within, "{what} of {size:?}: {counted} counted, {formula} expected");
}

/// `listings` says that the time is long enough to count what is done once a minute.
async fn assert_measured(size: Size, time: Duration, listings: bool) {
    let (counted, formula) = (measured(size, time).await, size.hour());
    println!("{size:?}: {counted:?}");
    assert_near("heartbeats", size, counted.heartbeats, formula.heartbeats, 0.01);
    assert_near("checkpoints", size, counted.checkpoints, formula.checkpoints, 0.02);
    assert_near("looks", size, counted.looks, formula.looks, 0.02);
    assert_near("GetRecords", size, counted.get_records, formula.get_records, 0.02);
    assert_near("other writes", size, counted.other_writes, formula.other_writes, 0.0);
    if listings {
        assert_near("loads", size, counted.loads, formula.loads, 0.05);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_hour_of_one_worker_costs_what_the_page_says() {
    assert_measured(size(1, 10, false), HOUR, true).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_hour_of_ten_workers_costs_what_the_page_says() {
    assert_measured(size(10, 10, false), HOUR, true).await;
}

#[tokio::test(start_paused = true)]
async fn many_idle_shards_cost_no_more_writes_than_few() {
    assert_measured(size(1, 1000, false).polling(15 * SECOND), 15 * MINUTE, false).await;
    assert_measured(size(10, 100, false), 6 * MINUTE, false).await;
}

#[tokio::test(start_paused = true)]
async fn busy_shards_cost_what_the_page_says() {
    assert_measured(size(1, 10, true), 5 * MINUTE, false).await;
    assert_measured(size(10, 10, true), 5 * MINUTE, false).await;
}

/// The writes of all kinds, besides the heartbeats.
fn writes(views: &[Arc<MemoryProgress>]) -> MemoryWrites {
    views.iter().map(|view| view.writes()).fold(MemoryWrites::default(), |a, b| MemoryWrites {
        heartbeats: 0,
        retirements: a.retirements + b.retirements,
        announcements: a.announcements + b.announcements,
        takes: a.takes + b.takes,
        hand_overs: a.hand_overs + b.hand_overs,
        releases: a.releases + b.releases,
        seeds: a.seeds + b.seeds,
        orders: a.orders + b.orders,
        seeks: a.seeks + b.seeks,
        checkpoints: a.checkpoints + b.checkpoints,
        forgets: a.forgets + b.forgets,
        letters: a.letters + b.letters,
    })
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_joins_leaves_or_dies_costs_what_the_page_says() {
    let size = |workers| size(workers, 12, false);
    let simulator = Simulator::builder(arn()).shards(12).seed(7).build();
    let source: Arc<Simulator> = Arc::new(simulator);
    let store = MemoryProgress::new();
    let views: Vec<_> = (0..4).map(|_| Arc::new(store.view())).collect();
    let start = |view: &Arc<MemoryProgress>| {
        start_for(settings(), Arc::clone(&source) as _, Arc::clone(view) as _, Arc::new(Discard))
    };
    let mut workers: Vec<Running<Discard>> = views[..3].iter().map(start).collect();
    settled(&workers, size(3)).await;

    let mut before = writes(&views);
    let mut since = |views: &[Arc<MemoryProgress>]| {
        let now = writes(views);
        let was = std::mem::replace(&mut before, now);
        (now, was)
    };
    workers.push(start(&views[3]));
    settled(&workers, size(4)).await;
    let (now, was) = since(&views);
    assert_eq!(now.retirements - was.retirements, 1, "what is left of its name is cleared away");
    assert_eq!(now.hand_overs - was.hand_overs, 3, "its share");
    let told = now.announcements - was.announcements;
    assert!((1..=3).contains(&told), "{told} told");
    assert_eq!(
        (now.takes, now.releases, now.checkpoints),
        (was.takes, was.releases, was.checkpoints)
    );

    let leads = workers.iter().position(|worker| worker.metrics.leads.get() == 1).expect("one");
    workers.remove(leads).stop().await;
    settled(&workers, size(3)).await;
    let (now, was) = since(&views);
    assert_eq!(now.hand_overs - was.hand_overs, 3, "what it had");
    let told = now.announcements - was.announcements;
    // By whoever gave it, and by the new leader, which cannot know of that.
    assert!((1..=6).contains(&told), "{told} told");
    assert_eq!(now.retirements - was.retirements, 1, "its sign of life");
    assert_eq!(now.releases - was.releases, 1, "it leads no more");
    let takes = now.takes - was.takes;
    assert!((1..=3).contains(&takes), "one leads now, and few are refused: {takes}");
    assert_eq!(now.checkpoints, was.checkpoints, "nothing was to be written");

    let reads = workers.iter().position(|worker| worker.metrics.leads.get() == 0).expect("two");
    workers.remove(reads).kill().await;
    settled(&workers, size(2)).await;
    let (now, was) = since(&views);
    assert_eq!(now.retirements - was.retirements, 1, "its sign of life");
    assert_eq!(now.takes - was.takes, 4, "what it had");
    let told = now.announcements - was.announcements;
    assert!(told <= 1, "{told} told");
    assert_eq!(now.hand_overs, was.hand_overs, "they go to where they stay");
    for worker in workers {
        worker.stop().await;
    }
}

#[test]
fn the_formulas_are_of_the_default_settings() {
    let default = |name: &str| SETTINGS.iter().find(|s| s.name == name).expect("a setting").default;
    let ours = settings();
    assert_eq!(default("FAILOVER_TIME"), format!("{:?}", ours.failover_time));
    assert_eq!(default("CHECKPOINT_INTERVAL"), format!("{:?}", ours.checkpoint_interval));
    assert_eq!(default("POLL_INTERVAL_MIN"), format!("{:?}", ours.poll_intervals.min));
    assert_eq!(default("POLL_INTERVAL_MAX"), format!("{:?}", ours.poll_intervals.max));
}

/// An item's bytes: its attributes' names and values. A number takes less than its digits.
fn bytes_of(item: &HashMap<String, AttributeValue>) -> f64 {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
        AttributeValue::Bool(_) => 1,
        other => panic!("{other:?} is new, say what it takes"),
    };
    item.iter().map(|(name, v)| name.len() + value(v)).sum::<usize>() as f64
}

#[tokio::test]
async fn items_are_as_large_as_the_page_says() {
    let config = sdk_config(dynoxide::shared()).await;
    NewTable::named("costs").create(&config).await;
    let store = TableProgress::new(
        &config,
        TableSettings {
            table: "costs".to_owned(),
            partition_key: "PK".to_owned(),
            sort_key: "SK".to_owned(),
            consumer: "streamgate".to_owned(),
            label: "2026-01-02T03:04:05.678".to_owned(),
        },
    );
    let worker = WorkerId::from("orders-streamgate-consumer-7d9f8b6c5d-x2x4z-0123456789abcdef");
    let shard = ShardId::from("shardId-00000001414562045508-2bac9cd2");
    let sign = Heartbeat {
        failover_ms: 10_000,
        shards: 100,
        load: 1 << 20,
        noted: 1000,
        ..Heartbeat::first(worker.clone())
    };
    store.heartbeat(&sign).await.unwrap();
    store.heartbeat(&Heartbeat { beat: 1_000_000, ..sign }).await.unwrap();
    store.announce(&worker).await.unwrap();
    let stream = store.take(&LeaseKey::Stream, None, &worker, None).await.unwrap();
    let begin = Position::AtTimestamp(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    store.seeded(&stream, 1, &begin).await.unwrap();
    let new = NewShard { parent: Some(shard.clone()), position: begin, closed: false, epoch: 0 };
    let key = LeaseKey::Shard(shard.clone());
    let lease = store.take(&key, None, &worker, Some(&new)).await.unwrap();
    let position = Position::After("1405400000000002063282832".parse().unwrap());
    let (step, gap, window) = (1_000_000, None, None::<OpenWindow>);
    let checkpoint = Checkpoint { shard, lease, step, position, gap, window };
    store.checkpoint(&[checkpoint]).await.remove(0).unwrap();
    let items = Client::new(&config).scan().table_name("costs").send().await.unwrap();
    let mut sizes: BTreeMap<String, f64> = BTreeMap::new();
    for item in items.items() {
        let sort = item["SK"].as_s().unwrap();
        sizes.insert(sort.split('#').next().unwrap().to_owned(), bytes_of(item));
    }
    for (kind, most) in [("worker", SIGN_BYTES), ("stream", STREAM_BYTES), ("shard", SHARD_BYTES)] {
        let bytes = sizes[kind];
        assert!(bytes <= most && bytes > 0.7 * most, "{kind}: {bytes} of {most} bytes");
        assert!(bytes <= 1024.0, "a write of it takes one unit");
    }
}

/// A number as people read it, to three digits where it is not whole.
fn shown(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn dollars(amount: f64) -> String {
    if amount < 0.1 { format!("{amount:.4}") } else { format!("{amount:.2}") }
}

fn formulas() -> String {
    let (one, two, busy) =
        (size(1, 1, false).hour(), size(2, 0, false).hour(), size(1, 1, true).hour());
    let rows = [
        (
            "signs of life",
            "W × 3600 s / (`FAILOVER_TIME` / 3)",
            format!("{} W", shown(one.heartbeats)),
        ),
        ("positions, idle", "0", "0".to_owned()),
        (
            "positions, busy",
            "S × 3600 s / `CHECKPOINT_INTERVAL`",
            format!("{} S", shown(busy.checkpoints)),
        ),
        ("looks, alone", "3600 s / (`FAILOVER_TIME` / 3), and one a listing", shown(one.looks)),
        (
            "looks, several",
            "W × 3600 s / 500 ms, and one a listing",
            format!("{} W + {}", shown((two.looks - two.loads) / 2.0), shown(two.loads)),
        ),
        ("listings", "3600 s / (60 s × 0.9)", shown(one.loads)),
        (
            "GetRecords, idle",
            "S × 3600 s / (`POLL_INTERVAL_MAX` × 0.975)",
            format!("{} S", shown(one.get_records)),
        ),
        (
            "GetRecords, busy",
            "S × 3600 s / (`POLL_INTERVAL_MIN` × 0.95)",
            format!("{} S", shown(busy.get_records)),
        ),
    ];
    let mut table = "| what | in an hour | by default |\n|---|---|---|\n".to_owned();
    for (what, formula, default) in rows {
        writeln!(table, "| {what} | {formula} | {default} |").unwrap();
    }
    table
}

fn table(busy: bool) -> String {
    let mut table =
        "| replicas | shards | write units | the KCL's | read units, at most | GetRecords | \
                     writes, $ | the KCL's, $ | reads, $ | GetRecords, $ |\n\
                     |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for shards in [10, 1000, 10_000] {
        for workers in [1, 10, 100] {
            let size = size(workers, shards, busy);
            let (ours, kcl, reads) =
                (size.write_units(), size.kcl_write_units(), size.read_units());
            let polls = size.hour().get_records;
            let counts = [workers as f64, shards as f64, ours, kcl, reads, polls].map(shown);
            let prices = [ours, kcl].map(|units| units * WRITE_UNIT_PRICE);
            let prices =
                prices.into_iter().chain([reads * READ_UNIT_PRICE, polls * GET_RECORDS_PRICE]);
            let prices: Vec<String> = prices.map(dollars).collect();
            writeln!(table, "| {} | {} |", counts.join(" | "), prices.join(" | ")).unwrap();
        }
    }
    table
}

#[test]
fn the_page_of_costs_is_made_of_the_formulas() {
    assert_generated(PAGE, "formulas", &formulas());
    assert_generated(PAGE, "idle", &table(false));
    assert_generated(PAGE, "busy", &table(true));
}
