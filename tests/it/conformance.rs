//! What every store of progress must do, whichever it is.
//!
//! One list of scenarios, each in a namespace of its own, run against each store by
//! [`conformance!`]. Owns no store's peculiarities: those have files of their own.

use crate::support::api::RunningApi;
use crate::support::chaos::{Chaos, Losing};
use crate::support::persistent::Persistent;
use crate::support::{self, NewTable, sdk_config};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use streamgate::progress::letters::{self, DeadLetter, INLINE_BYTES, LetterId, PART_BYTES, Reason};
use streamgate::progress::orders::{Order, Request};
use streamgate::progress::report::{Redriving, Report, Retrying, Waiting};
use streamgate::progress::{
    Checkpoint, ClientProgress, Gap, Heartbeat, Lease, LeaseKey, MAX_KEPT_STATE_BYTES, Member,
    MemoryProgress, NewShard, OpenWindow, Position, Progress, ProgressError, Selection,
    ShardProgress, TableProgress, TableSettings, WorkerId,
};
use streamgate::source::ShardId;

/// Opens the progress of a consumer (first) and a stream's label (second); the same two
/// names give the same progress.
pub type Open = Box<dyn Fn(&str, &str) -> Arc<dyn Progress> + Send + Sync>;

const LABEL: &str = "2026-01-02T03:04:05.678";

/// One test for each scenario against the stores that `$open`, an `async fn() -> Open`,
/// opens.
macro_rules! conformance {
    ($store:ident, $open:path) => {
        conformance!($store, $open, [
            an_empty_store_is_empty,
            the_first_take_makes_the_item,
            a_take_of_what_was_seen_wins_and_counts_up,
            a_stale_take_loses_and_learns_the_owner,
            a_lease_that_has_passed_on_changes_nothing,
            nothing_is_written_under_a_lease_that_nobody_holds,
            nothing_is_written_to_an_item_that_is_not_there,
            a_repeated_write_succeeds,
            a_write_that_comes_late_moves_nothing_back,
            a_released_lease_can_be_taken_at_once,
            a_gap_is_kept_with_its_position_and_once,
            a_gap_that_is_kept_already_does_not_hold_up_a_later_position,
            every_position_is_read_as_it_was_written,
            the_stream_is_seeded_under_its_lease,
            heartbeats_grow_and_can_be_cleared_away,
            a_sign_of_life_that_was_removed_stays_removed,
            a_worker_hears_of_what_was_given_to_it,
            a_lease_is_handed_over_in_one_write,
            shards_are_loaded_by_owner_or_by_name,
            what_operators_ask_for_stands_until_it_is_done,
            a_move_counts_with_its_position,
            what_was_seeded_can_be_taken_back,
            an_item_that_is_made_anew_knows_no_lease_from_before,
            many_shards_are_all_loaded,
            consumers_and_labels_do_not_see_each_other,
            of_twenty_takers_one_wins,
            a_batch_answers_in_order,
            of_two_positions_in_a_batch_the_later_step_counts,
            a_window_is_kept_with_its_position_until_it_is_closed,
            dead_letters_are_kept_with_their_payload_until_they_are_removed,
            a_dead_letter_that_was_cut_off_is_not_whole_until_it_is_kept_again,
            a_dead_letter_that_is_whole_stays_as_it_is,
            a_dead_letter_that_was_removed_while_it_was_written_is_not_whole,
            dead_letters_are_listed_in_the_order_of_their_records,
        ]);
    };
    ($store:ident, $open:path, [$($scenario:ident),* $(,)?]) => {
        mod $store {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(&super::Space::new($open().await)).await;
            })*
        }
    };
}

conformance!(memory, super::open_memory);
conformance!(table_on_dynoxide, super::open_dynoxide);
conformance!(table_on_ministack, super::open_ministack);
conformance!(api_on_memory, super::open_api_on_memory);
conformance!(api_on_dynoxide, super::open_api_on_dynoxide);
conformance!(api_through_chaos, super::open_api_through_chaos);
conformance!(api_whose_first_address_is_dead, super::open_api_whose_first_address_is_dead);

async fn open_memory() -> Open {
    let stores: Mutex<HashMap<(String, String), MemoryProgress>> = Mutex::default();
    Box::new(move |consumer, label| {
        let mut stores = stores.lock().unwrap();
        Arc::new(stores.entry((consumer.to_owned(), label.to_owned())).or_default().view())
    })
}

async fn open_dynoxide() -> Open {
    static TABLE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    open_table(support::dynoxide::shared(), &TABLE).await
}

async fn open_ministack() -> Open {
    static TABLE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    open_table(support::ministack::shared(), &TABLE).await
}

async fn open_table(address: SocketAddr, table: &tokio::sync::OnceCell<()>) -> Open {
    const NAME: &str = "conformance";
    let config = sdk_config(address).await;
    table.get_or_init(async || drop(NewTable::named(NAME).create(&config).await)).await;
    Box::new(move |consumer, label| {
        let settings = TableSettings {
            table: NAME.to_owned(),
            partition_key: "PK".to_owned(),
            sort_key: "SK".to_owned(),
            consumer: consumer.to_owned(),
            label: label.to_owned(),
        };
        Arc::new(TableProgress::new(&config, settings))
    })
}

async fn open_api_on_memory() -> Open {
    open_api("memory", open_memory().await).await
}

async fn open_api_on_dynoxide() -> Open {
    open_api("conformance", open_dynoxide().await).await
}

async fn open_api(table: &str, stores: Open) -> Open {
    let api = RunningApi::start(table, stores.into()).await;
    Box::new(move |consumer, label| Arc::new(api.client(consumer, label)))
}

/// The api behind a network that loses a fifth of all requests and of all answers. What
/// was lost is asked again, as the consumer does; that must make no difference.
async fn open_api_through_chaos() -> Open {
    let api = RunningApi::start("conformance", open_dynoxide().await.into()).await;
    let chaos = Chaos::before(api.private, 11).await;
    chaos.lose(Losing { requests: 0.2, answers: 0.2 });
    Box::new(move |consumer, label| {
        let mut settings = api.settings(consumer, label);
        let url = format!("http://{}", chaos.address);
        settings.urls = vec![url.parse().expect("an address is a URL")];
        Arc::new(Persistent(ClientProgress::new(settings).expect("a client can be made")))
    })
}

async fn open_api_whose_first_address_is_dead() -> Open {
    let api = RunningApi::start("memory", open_memory().await.into()).await;
    let dead = format!("http://{}", support::free_port());
    Box::new(move |consumer, label| {
        let mut settings = api.settings(consumer, label);
        settings.urls.insert(0, dead.parse().expect("an address is a URL"));
        Arc::new(ClientProgress::new(settings).expect("a client can be made"))
    })
}

/// A namespace that no other scenario uses.
struct Space {
    open: Open,
    consumer: String,
}

impl Space {
    fn new(open: Open) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let consumer = format!("consumer-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { open, consumer }
    }

    fn store(&self) -> Arc<dyn Progress> {
        (self.open)(&self.consumer, LABEL)
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId::from(name)
}

fn shard(n: usize) -> ShardId {
    ShardId::from(format!("shardId-{:020}-{n:08x}", 1_414_562_045_508_u64 + n as u64).as_str())
}

fn key(n: usize) -> LeaseKey {
    LeaseKey::Shard(shard(n))
}

fn at_horizon() -> NewShard {
    NewShard { parent: None, position: Position::TrimHorizon, closed: false, epoch: 0 }
}

fn after(digits: &str) -> Position {
    Position::After(digits.parse().unwrap())
}

fn at_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn checkpoint(n: usize, lease: &Lease, position: Position) -> Checkpoint {
    static STEPS: AtomicU64 = AtomicU64::new(1);
    let step = STEPS.fetch_add(1, Ordering::Relaxed);
    Checkpoint { shard: shard(n), lease: lease.clone(), step, position, gap: None, window: None }
}

async fn take_new(store: &dyn Progress, n: usize, by: &str) -> Lease {
    store.take(&key(n), None, &worker(by), Some(&at_horizon())).await.expect("nobody has it")
}

async fn write(store: &dyn Progress, checkpoint: Checkpoint) -> Result<(), ProgressError> {
    let mut results = store.checkpoint(&[checkpoint]).await;
    assert_eq!(results.len(), 1, "one result for each");
    results.remove(0)
}

async fn only_shard(store: &dyn Progress) -> ShardProgress {
    let mut shards = store.load(Selection::All).await.unwrap();
    assert_eq!(shards.len(), 1);
    shards.remove(0)
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(result: Result<T, ProgressError>, to: Option<&str>) {
    match result {
        Err(ProgressError::LeaseLost { owner }) => {
            assert_eq!(owner.as_ref().map(WorkerId::as_str), to);
        }
        other => panic!("expected a lost lease, got {other:?}"),
    }
}

async fn an_empty_store_is_empty(space: &Space) {
    let store = space.store();
    store.describe().await.unwrap();
    assert_eq!(store.load(Selection::All).await.unwrap(), []);
    let nothing = store.coordination().await.unwrap();
    assert_eq!((nothing.stream, nothing.seeded, nothing.workers), (None, None, Vec::new()));
}

async fn the_first_take_makes_the_item(space: &Space) {
    let store = space.store();
    let new = NewShard {
        parent: Some(shard(0)),
        position: Position::AtTimestamp(at_millis(1_234)),
        closed: true,
        epoch: 0,
    };
    let before = SystemTime::now() - Duration::from_millis(1);
    let lease = store.take(&key(1), None, &worker("w1"), Some(&new)).await.unwrap();
    assert_eq!(lease, Lease { owner: Some(worker("w1")), counter: 1 });
    let item = only_shard(&*store).await;
    assert!((before..=SystemTime::now()).contains(&item.updated), "{:?}", item.updated);
    let expected = ShardProgress {
        shard: shard(1),
        parent: Some(shard(0)),
        lease: lease.clone(),
        since: item.since,
        position: new.position,
        order: 0,
        updated: item.updated,
        closed: true,
        gaps: Vec::new(),
        window: None,
    };
    assert_eq!(item, expected);
    let stream = store.take(&LeaseKey::Stream, None, &worker("w2"), None).await.unwrap();
    assert_eq!(stream, Lease { owner: Some(worker("w2")), counter: 1 });
    assert_eq!(store.coordination().await.unwrap().stream, Some(stream));
}

async fn a_take_of_what_was_seen_wins_and_counts_up(space: &Space) {
    let store = space.store();
    let mut seen = take_new(&*store, 1, "w0").await;
    write(&*store, checkpoint(1, &seen, after("77"))).await.unwrap();
    for n in 1..4 {
        let other = NewShard {
            parent: Some(shard(9)),
            position: Position::ShardEnd,
            closed: true,
            epoch: 0,
        };
        let taker = worker(&format!("w{n}"));
        seen = store.take(&key(1), Some(&seen), &taker, Some(&other)).await.unwrap();
        assert_eq!(seen, Lease { owner: Some(taker), counter: n + 1 });
    }
    let item = only_shard(&*store).await;
    assert_eq!((item.parent, item.position), (None, after("77")), "the beginning is past");
    let mut seen = store.take(&LeaseKey::Stream, None, &worker("w0"), None).await.unwrap();
    seen = store.take(&LeaseKey::Stream, Some(&seen), &worker("w1"), None).await.unwrap();
    assert_eq!(seen, Lease { owner: Some(worker("w1")), counter: 2 });
}

async fn a_stale_take_loses_and_learns_the_owner(space: &Space) {
    let store = space.store();
    let first = take_new(&*store, 1, "w1").await;
    let begin = at_horizon();
    assert_lost(store.take(&key(1), None, &worker("w2"), Some(&begin)).await, Some("w1"));
    let second = store.take(&key(1), Some(&first), &worker("w2"), None).await.unwrap();
    assert_lost(store.take(&key(1), Some(&first), &worker("w3"), None).await, Some("w2"));
    assert_lost(store.take(&key(1), None, &worker("w3"), Some(&begin)).await, Some("w2"));
    store.release(&key(1), &second).await.unwrap();
    assert_lost(store.take(&key(1), Some(&second), &worker("w3"), None).await, None);
    let gone = Lease { owner: None, counter: 4 };
    assert_lost(store.take(&key(2), Some(&gone), &worker("w3"), None).await, None);
    assert_eq!(only_shard(&*store).await.lease, Lease { owner: None, counter: 2 });
    let stream = store.take(&LeaseKey::Stream, None, &worker("w1"), None).await.unwrap();
    assert_lost(store.take(&LeaseKey::Stream, None, &worker("w2"), None).await, Some("w1"));
    assert_eq!(store.coordination().await.unwrap().stream, Some(stream));
}

async fn a_lease_that_has_passed_on_changes_nothing(space: &Space) {
    let store = space.store();
    let old = take_new(&*store, 1, "w1").await;
    let new = store.take(&key(1), Some(&old), &worker("w2"), None).await.unwrap();
    // Taken again by its first owner: the name fits, the counter does not.
    let last = store.take(&key(1), Some(&new), &worker("w1"), None).await.unwrap();
    let old_stream = store.take(&LeaseKey::Stream, None, &worker("w1"), None).await.unwrap();
    let stream = store.take(&LeaseKey::Stream, Some(&old_stream), &worker("w2"), None).await;
    let before = (store.load(Selection::All).await.unwrap(), store.coordination().await.unwrap());
    let gap = Gap { after: None, resumed_at: None, found_at: at_millis(1) };
    for stale in [&old, &new] {
        let moved = checkpoint(1, stale, after("5"));
        let with_gap = Checkpoint { gap: Some(gap.clone()), ..moved.clone() };
        assert_lost(write(&*store, moved).await, Some("w1"));
        assert_lost(write(&*store, with_gap).await, Some("w1"));
        assert_lost(store.release(&key(1), stale).await, Some("w1"));
        assert_lost(store.forget(&shard(1), stale).await, Some("w1"));
    }
    assert_lost(store.seeded(&old_stream, 1, &Position::TrimHorizon).await, Some("w2"));
    assert_lost(store.release(&LeaseKey::Stream, &old_stream).await, Some("w2"));
    assert_eq!(
        (store.load(Selection::All).await.unwrap(), store.coordination().await.unwrap()),
        before
    );
    write(&*store, checkpoint(1, &last, after("6"))).await.unwrap();
    store.seeded(&stream.unwrap(), 1, &Position::TrimHorizon).await.unwrap();
}

async fn nothing_is_written_under_a_lease_that_nobody_holds(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    store.release(&key(1), &lease).await.unwrap();
    let nobodys = only_shard(&*store).await.lease;
    assert_eq!(nobodys, Lease { owner: None, counter: 1 });
    let gap = Gap { after: None, resumed_at: None, found_at: at_millis(1) };
    let moved = checkpoint(1, &nobodys, after("5"));
    let with_gap = Checkpoint { gap: Some(gap), ..moved.clone() };
    let before = store.load(Selection::All).await.unwrap();
    assert_lost(write(&*store, moved).await, None);
    assert_lost(write(&*store, with_gap).await, None);
    assert_lost(write(&*store, checkpoint(1, &lease, after("5"))).await, None);
    assert_lost(store.forget(&shard(1), &nobodys).await, None);
    assert_eq!(store.load(Selection::All).await.unwrap(), before);
}

async fn nothing_is_written_to_an_item_that_is_not_there(space: &Space) {
    let store = space.store();
    let lease = Lease { owner: Some(worker("w1")), counter: 1 };
    assert_lost(write(&*store, checkpoint(1, &lease, after("5"))).await, None);
    assert_lost(store.release(&key(1), &lease).await, None);
    assert_lost(store.seeded(&lease, 1, &Position::TrimHorizon).await, None);
    assert_eq!(store.load(Selection::All).await.unwrap(), []);
    assert_eq!(store.coordination().await.unwrap().stream, None);
}

async fn a_write_that_comes_late_moves_nothing_back(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    let gap = Gap { after: None, resumed_at: None, found_at: at_millis(1) };
    let early = checkpoint(1, &lease, after("5"));
    let early_with_gap = Checkpoint { gap: Some(gap), ..early.clone() };
    write(&*store, checkpoint(1, &lease, after("6"))).await.unwrap();
    let before = store.load(Selection::All).await.unwrap();
    write(&*store, early).await.unwrap();
    write(&*store, early_with_gap).await.unwrap();
    assert_eq!(store.load(Selection::All).await.unwrap(), before);
    // Steps are those of one lease: the next owner counts as it likes.
    let next = store.take(&key(1), Some(&lease), &worker("w2"), None).await.unwrap();
    let first = Checkpoint { step: 0, ..checkpoint(1, &next, after("7")) };
    write(&*store, first).await.unwrap();
    assert_eq!(only_shard(&*store).await.position, after("7"));
}

async fn of_two_positions_in_a_batch_the_later_step_counts(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    let (early, late) = (checkpoint(1, &lease, after("5")), checkpoint(1, &lease, after("6")));
    for batch in [[early.clone(), late.clone()], [late, early]] {
        let results = store.checkpoint(&batch).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(only_shard(&*store).await.position, after("6"));
    }
}

async fn a_repeated_write_succeeds(space: &Space) {
    let store = space.store();
    for key in [LeaseKey::Stream, key(1)] {
        let new = at_horizon();
        let new = (key != LeaseKey::Stream).then_some(&new);
        let first = store.take(&key, None, &worker("w1"), new).await.unwrap();
        assert_eq!(store.take(&key, None, &worker("w1"), new).await.unwrap(), first);
        let second = store.take(&key, Some(&first), &worker("w2"), new).await.unwrap();
        let again = store.take(&key, Some(&first), &worker("w2"), new).await.unwrap();
        assert_eq!(again, second);
        store.release(&key, &second).await.unwrap();
        store.release(&key, &second).await.unwrap();
        let free = Lease { owner: None, counter: 2 };
        let third = store.take(&key, Some(&free), &worker("w3"), new).await.unwrap();
        assert_eq!(store.take(&key, Some(&free), &worker("w3"), new).await.unwrap(), third);
        if key == LeaseKey::Stream {
            store.seeded(&third, 1, &Position::TrimHorizon).await.unwrap();
            store.seeded(&third, 1, &Position::TrimHorizon).await.unwrap();
        } else {
            let done = checkpoint(1, &third, Position::ShardEnd);
            write(&*store, done.clone()).await.unwrap();
            write(&*store, done).await.unwrap();
            store.forget(&shard(1), &third).await.unwrap();
            store.forget(&shard(1), &third).await.unwrap();
        }
    }
    assert_eq!(store.load(Selection::All).await.unwrap(), []);
}

async fn a_released_lease_can_be_taken_at_once(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    write(&*store, checkpoint(1, &lease, after("41"))).await.unwrap();
    store.release(&key(1), &lease).await.unwrap();
    let item = only_shard(&*store).await;
    assert_eq!((item.lease.owner.as_ref(), item.position), (None, after("41")));
    let next = store.take(&key(1), Some(&item.lease), &worker("w2"), None).await.unwrap();
    assert_eq!(next, Lease { owner: Some(worker("w2")), counter: 2 });
    assert_lost(store.release(&key(1), &lease).await, Some("w2"));
    assert_eq!(only_shard(&*store).await.lease, next);
}

async fn a_gap_is_kept_with_its_position_and_once(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    let gaps = [
        Gap { after: None, resumed_at: None, found_at: at_millis(1_700_000_000_001) },
        Gap {
            after: Some("12".parse().unwrap()),
            resumed_at: Some("9".repeat(40).parse().unwrap()),
            found_at: at_millis(1_700_000_000_001),
        },
        Gap {
            after: Some("13".parse().unwrap()),
            resumed_at: None,
            found_at: at_millis(1_700_000_000_002),
        },
    ];
    for (n, gap) in gaps.iter().enumerate() {
        let position = after(&format!("{}", 100 + n));
        let gap = Some(gap.clone());
        let moved = Checkpoint { gap, ..checkpoint(1, &lease, position.clone()) };
        for _ in 0..3 {
            write(&*store, moved.clone()).await.unwrap();
        }
        let item = only_shard(&*store).await;
        assert_eq!((item.position, &item.gaps[..]), (position, &gaps[..=n]));
    }
    write(&*store, checkpoint(1, &lease, Position::ShardEnd)).await.unwrap();
    let taken = store.take(&key(1), Some(&lease), &worker("w2"), None).await.unwrap();
    store.release(&key(1), &taken).await.unwrap();
    assert_eq!(only_shard(&*store).await.gaps, gaps, "gaps outlive positions and owners");
}

async fn a_gap_that_is_kept_already_does_not_hold_up_a_later_position(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    let gap = Gap { after: None, resumed_at: None, found_at: at_millis(5) };
    for digits in ["10", "20"] {
        let gap = Some(gap.clone());
        let moved = Checkpoint { gap, ..checkpoint(1, &lease, after(digits)) };
        write(&*store, moved).await.unwrap();
    }
    let item = only_shard(&*store).await;
    assert_eq!((item.position, item.gaps), (after("20"), vec![gap]));
}

async fn every_position_is_read_as_it_was_written(space: &Space) {
    let store = space.store();
    let positions = [
        Position::TrimHorizon,
        Position::AtTimestamp(at_millis(0)),
        Position::AtTimestamp(at_millis(1_700_000_000_999)),
        after("820400000000000001192334"),
        after(&"9".repeat(40)),
        after(&format!("{}1", "0".repeat(39))),
        Position::ShardEnd,
    ];
    for (n, position) in positions.iter().enumerate() {
        let new = NewShard { parent: None, position: position.clone(), closed: false, epoch: 0 };
        store.take(&key(n), None, &worker("w1"), Some(&new)).await.unwrap();
    }
    let lease = take_new(&*store, 99, "w1").await;
    for (n, position) in positions.iter().enumerate() {
        write(&*store, checkpoint(99, &lease, position.clone())).await.unwrap();
        let items = store.load(Selection::All).await.unwrap();
        let of = |n| &items.iter().find(|item| item.shard == shard(n)).unwrap().position;
        assert_eq!((of(n), of(99)), (position, position));
        if let (Position::After(read), Position::After(written)) = (of(99), position) {
            assert_eq!(read.as_str(), written.as_str(), "digit for digit");
        }
    }
    // Every store keeps milliseconds, so that none promises more than the others.
    let finer = SystemTime::UNIX_EPOCH + Duration::from_micros(1_999);
    write(&*store, checkpoint(99, &lease, Position::AtTimestamp(finer))).await.unwrap();
    let items = store.load(Selection::All).await.unwrap();
    assert_eq!(items.last().unwrap().position, Position::AtTimestamp(at_millis(1)));
}

async fn the_stream_is_seeded_under_its_lease(space: &Space) {
    let store = space.store();
    let lease = store.take(&LeaseKey::Stream, None, &worker("w1"), None).await.unwrap();
    assert_eq!(store.coordination().await.unwrap().seeded, None);
    let begin = Position::AtTimestamp(at_millis(1_700_000_000_000));
    store.seeded(&lease, 1, &begin).await.unwrap();
    assert_eq!(store.coordination().await.unwrap().seeded, Some(begin.clone()));
    store.release(&LeaseKey::Stream, &lease).await.unwrap();
    let free = store.coordination().await.unwrap().stream.unwrap();
    assert_eq!(free, Lease { owner: None, counter: 1 });
    store.take(&LeaseKey::Stream, Some(&free), &worker("w2"), None).await.unwrap();
    let seeded = store.coordination().await.unwrap().seeded;
    assert_eq!(seeded, Some(begin), "it is the stream's, not its owner's");
}

/// A worker with everything to say.
fn report() -> Report {
    let mut report = Report { delivered: 1 << 52, given_up: 3, ..Report::default() };
    report.retries(vec![Retrying {
        shard: "shardId-1".into(),
        attempts: 4,
        error: "status 500: \"é\"".to_owned(),
        since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567),
    }]);
    report.waits([Waiting { shard: "shardId-3".into(), parent: "shardId-1".into() }].into_iter());
    report.redriving = Some(Redriving { id: 9, of: 10, tried: 2 });
    report
}

fn beat(worker: &WorkerId, beat: u64) -> Heartbeat {
    Heartbeat { beat, ..Heartbeat::first(worker.clone()) }
}

async fn heartbeats_grow_and_can_be_cleared_away(space: &Space) {
    let store = space.store();
    let beats = async || {
        let workers = store.coordination().await.unwrap().workers;
        workers.into_iter().map(|member| (member.sign.worker, member.sign.beat)).collect::<Vec<_>>()
    };
    let (w1, w2) = (worker("host-1/a"), worker("host-2/b"));
    store.heartbeat(&beat(&w2, 1)).await.unwrap();
    store.heartbeat(&beat(&w1, 1)).await.unwrap();
    store.heartbeat(&beat(&w1, 1)).await.unwrap();
    store.heartbeat(&beat(&w1, 10)).await.unwrap();
    assert_eq!(beats().await, [(w1.clone(), 10), (w2.clone(), 1)]);
    store.heartbeat(&beat(&w1, 10)).await.unwrap();
    store.heartbeat(&beat(&w1, 9)).await.expect("one that comes late is no failure");
    assert_eq!(beats().await, [(w1.clone(), 10), (w2.clone(), 1)]);
    let sign = Heartbeat {
        failover_ms: 10_000,
        shards: 3,
        load: 1 << 40,
        age_ms: 1_234,
        draining: true,
        noted: 7,
        report: report(),
        ..beat(&w1, 11)
    };
    store.heartbeat(&sign).await.unwrap();
    assert_eq!(store.coordination().await.unwrap().workers[0], Member { sign, announced: 0 });
    store.retire(&w1, None).await.unwrap();
    store.retire(&w1, None).await.unwrap();
    assert_eq!(beats().await, [(w2, 1)]);
    assert_eq!(store.load(Selection::All).await.unwrap(), []);
}

async fn a_sign_of_life_that_was_removed_stays_removed(space: &Space) {
    let store = space.store();
    let w1 = worker("w1");
    assert_lost(store.heartbeat(&beat(&w1, 2)).await, None);
    store.heartbeat(&beat(&w1, 1)).await.unwrap();
    store.heartbeat(&beat(&w1, 2)).await.unwrap();
    assert_lost(store.retire(&w1, Some(1)).await, Some("w1"));
    assert_eq!(store.coordination().await.unwrap().workers.len(), 1, "it has beaten since");
    store.retire(&w1, Some(2)).await.unwrap();
    store.retire(&w1, Some(2)).await.unwrap();
    assert_lost(store.heartbeat(&beat(&w1, 3)).await, None);
    assert_eq!(store.coordination().await.unwrap().workers, []);
}

async fn a_worker_hears_of_what_was_given_to_it(space: &Space) {
    let store = space.store();
    let (w1, w2) = (worker("w1"), worker("w2"));
    store.announce(&w2).await.expect("it has left, and others see to it");
    store.heartbeat(&beat(&w1, 1)).await.unwrap();
    store.announce(&w1).await.unwrap();
    store.heartbeat(&beat(&w1, 2)).await.unwrap();
    let workers = store.coordination().await.unwrap().workers;
    let [member] = &workers[..] else { panic!("{workers:?}") };
    assert_eq!((member.sign.beat, &member.sign.worker), (2, &w1));
    // At least: an announcement may be sent twice.
    assert!(member.announced >= 1);
}

async fn a_lease_is_handed_over_in_one_write(space: &Space) {
    let store = space.store();
    let first = take_new(&*store, 1, "w1").await;
    write(&*store, checkpoint(1, &first, after("77"))).await.unwrap();
    let handed = store.hand_over(&shard(1), &first, &worker("w2")).await.unwrap();
    assert_eq!(handed, Lease { owner: Some(worker("w2")), counter: 2 });
    let again = store.hand_over(&shard(1), &first, &worker("w2")).await.unwrap();
    assert_eq!(again, handed, "its answer was lost");
    assert_lost(store.hand_over(&shard(1), &first, &worker("w3")).await, Some("w2"));
    assert_lost(write(&*store, checkpoint(1, &first, after("78"))).await, Some("w2"));
    let item = only_shard(&*store).await;
    assert_eq!((&item.lease, item.position), (&handed, after("77")));
    // Steps are counted anew: another process counts its own.
    let low = Checkpoint { step: 1, ..checkpoint(1, &handed, after("79")) };
    write(&*store, low).await.unwrap();
    assert_eq!(only_shard(&*store).await.position, after("79"));
    store.release(&key(1), &handed).await.unwrap();
    assert_lost(store.hand_over(&shard(1), &handed, &worker("w3")).await, None);
    assert_lost(store.hand_over(&shard(2), &handed, &worker("w3")).await, None);
}

async fn shards_are_loaded_by_owner_or_by_name(space: &Space) {
    let store = space.store();
    for n in 0..40 {
        take_new(&*store, n, &format!("w{}", n % 4)).await;
    }
    let names = async |which: Selection<'_>| {
        let items = store.load(which).await.unwrap();
        items.into_iter().map(|item| item.shard).collect::<Vec<_>>()
    };
    let w3 = worker("w3");
    let expected: Vec<_> = (0..10).map(|n| shard(4 * n + 3)).collect();
    assert_eq!(names(Selection::Of(&w3)).await, expected);
    assert_eq!(names(Selection::Of(&worker("w9"))).await, []);
    let asked = [shard(30), shard(99), shard(2)];
    assert_eq!(names(Selection::These(&asked)).await, [shard(2), shard(30)]);
    assert_eq!(names(Selection::These(&[])).await, []);
    assert_eq!(names(Selection::All).await.len(), 40);
}

fn request(order: Order) -> Request {
    static NONCES: AtomicU64 = AtomicU64::new(1);
    Request { order, by: "somebody".to_owned(), nonce: NONCES.fetch_add(1, Ordering::Relaxed) }
}

async fn what_operators_ask_for_stands_until_it_is_done(space: &Space) {
    let store = space.store();
    let pause = request(Order::Pause(Some(shard(1))));
    let before = SystemTime::now() - Duration::from_millis(1);
    let orders = store.order(&pause).await.unwrap();
    assert_eq!(store.order(&pause).await.unwrap(), orders, "its answer was lost");
    assert!((before..=SystemTime::now()).contains(&orders.pauses[0].asked.at));
    let skip = request(Order::Skip(shard(2), 3));
    let orders = store.order(&skip).await.unwrap();
    assert_eq!(store.order(&skip).await.unwrap(), orders);
    assert_eq!(store.coordination().await.unwrap().orders, orders);
    assert_eq!((orders.pauses.len(), orders.moves.len(), orders.past.len()), (1, 1, 2));
    match store.order(&request(Order::Skip(shard(2), 0))).await {
        Err(ProgressError::Unsuitable(why)) => assert!(why.contains("at least one"), "{why}"),
        other => panic!("{other:?}"),
    }
    let asks = (0..10).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.order(&request(Order::Pause(Some(shard(10 + n))))).await })
    });
    let mut done = 0;
    for ask in asks.collect::<Vec<_>>() {
        done += usize::from(ask.await.unwrap().is_ok());
    }
    let stands = store.coordination().await.unwrap().orders;
    assert_eq!(stands.pauses.len(), 1 + done, "none is overwritten unread");
    assert!(done >= 1);
}

async fn a_move_counts_with_its_position(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    let moved = checkpoint(1, &lease, after("9"));
    write(&*store, moved.clone()).await.unwrap();
    let step = moved.step + 1;
    store.seek(&shard(1), &lease, step, &after("5"), 7).await.unwrap();
    store.seek(&shard(1), &lease, step, &after("5"), 7).await.unwrap();
    write(&*store, moved).await.expect("it comes late");
    let item = only_shard(&*store).await;
    assert_eq!((item.position, item.order), (after("5"), 7));
    let next = store.hand_over(&shard(1), &lease, &worker("w2")).await.unwrap();
    assert_lost(store.seek(&shard(1), &lease, step + 1, &after("6"), 8).await, Some("w2"));
    let item = only_shard(&*store).await;
    assert_eq!((item.position, item.order, item.lease), (after("5"), 7, next));
}

async fn what_was_seeded_can_be_taken_back(space: &Space) {
    let store = space.store();
    let lease = store.take(&LeaseKey::Stream, None, &worker("w1"), None).await.unwrap();
    store.seeded(&lease, 1, &Position::TrimHorizon).await.unwrap();
    store.unseed(&lease, 2).await.unwrap();
    store.unseed(&lease, 2).await.unwrap();
    assert_eq!(store.coordination().await.unwrap().seeded, None);
    // What comes late changes nothing, in either direction.
    store.seeded(&lease, 1, &Position::TrimHorizon).await.unwrap();
    assert_eq!(store.coordination().await.unwrap().seeded, None);
    let begin = Position::AtTimestamp(at_millis(1_000));
    store.seeded(&lease, 3, &begin).await.unwrap();
    store.unseed(&lease, 2).await.unwrap();
    assert_eq!(store.coordination().await.unwrap().seeded, Some(begin));
    store.release(&LeaseKey::Stream, &lease).await.unwrap();
    assert_lost(store.unseed(&lease, 4).await, None);
}

async fn an_item_that_is_made_anew_knows_no_lease_from_before(space: &Space) {
    let store = space.store();
    let old = take_new(&*store, 1, "w1").await;
    write(&*store, checkpoint(1, &old, after("9"))).await.unwrap();
    store.forget(&shard(1), &old).await.unwrap();
    let new = NewShard { epoch: 1, ..at_horizon() };
    let lease = store.take(&key(1), None, &worker("w1"), Some(&new)).await.unwrap();
    assert_eq!((old.epoch(), lease.epoch()), (0, 1));
    // The take is known as its own when its answer was lost, and what is late from before is
    // refused, though it was the same worker's.
    let again = store.take(&key(1), None, &worker("w1"), Some(&new)).await.unwrap();
    assert_eq!(again, lease);
    assert_lost(write(&*store, checkpoint(1, &old, after("9"))).await, Some("w1"));
    assert_lost(store.seek(&shard(1), &old, 1 << 40, &after("9"), 1).await, Some("w1"));
    assert_lost(store.release(&key(1), &old).await, Some("w1"));
    assert_eq!(only_shard(&*store).await.position, Position::TrimHorizon);
}

async fn many_shards_are_all_loaded(space: &Space) {
    let store = space.store();
    let mut expected = BTreeMap::new();
    for n in 0..300 {
        let parent = (n > 0).then(|| shard(n - 1));
        let new = NewShard {
            parent: parent.clone(),
            position: after(&n.to_string()),
            closed: n % 2 == 0,
            epoch: 0,
        };
        store.take(&key(n), None, &worker("w1"), Some(&new)).await.unwrap();
        expected.insert(shard(n), (parent, new.position));
    }
    let loaded = store.load(Selection::All).await.unwrap();
    assert_eq!(loaded.len(), 300);
    assert!(loaded.is_sorted_by(|a, b| a.shard < b.shard), "in the order of their names");
    let loaded: BTreeMap<_, _> =
        loaded.into_iter().map(|item| (item.shard, (item.parent, item.position))).collect();
    assert_eq!(loaded, expected);
}

async fn consumers_and_labels_do_not_see_each_other(space: &Space) {
    let other_consumer = format!("{}.b", space.consumer);
    let spaces = [
        space.store(),
        (space.open)(&other_consumer, LABEL),
        (space.open)(&space.consumer, "2026-01-02T03:04:05.679"),
    ];
    for (n, store) in spaces.iter().enumerate() {
        let name = format!("w{n}");
        let lease = take_new(&**store, 1, &name).await;
        write(&**store, checkpoint(1, &lease, after(&n.to_string()))).await.unwrap();
        let stream = store.take(&LeaseKey::Stream, None, &worker(&name), None).await.unwrap();
        store.heartbeat(&Heartbeat::first(worker(&name))).await.unwrap();
        if n == 0 {
            store.seeded(&stream, 1, &Position::TrimHorizon).await.unwrap();
        }
    }
    for (n, store) in spaces.iter().enumerate() {
        let owner = Some(worker(&format!("w{n}")));
        let item = only_shard(&**store).await;
        assert_eq!((&item.lease.owner, item.position), (&owner, after(&n.to_string())));
        let all = store.coordination().await.unwrap();
        assert_eq!((all.seeded.is_some(), all.workers.len()), (n == 0, 1));
        assert_eq!(all.stream.unwrap().owner, owner);
    }
}

async fn of_twenty_takers_one_wins(space: &Space) {
    let store = space.store();
    let mut seen = None;
    for round in 1..=3 {
        let takes = (0..20).map(|n| {
            let (store, seen, new) = (Arc::clone(&store), seen.clone(), at_horizon());
            tokio::spawn(async move {
                store.take(&key(1), seen.as_ref(), &worker(&format!("w{n}")), Some(&new)).await
            })
        });
        let mut won = Vec::new();
        let mut lost_to = Vec::new();
        for take in takes.collect::<Vec<_>>() {
            match take.await.unwrap() {
                Ok(lease) => won.push(lease),
                Err(ProgressError::LeaseLost { owner }) => lost_to.push(owner),
                Err(other) => panic!("{other}"),
            }
        }
        let [lease] = &won[..] else { panic!("{} won", won.len()) };
        assert_eq!(lease.counter, round);
        assert!(lost_to.iter().all(|owner| *owner == lease.owner), "{lost_to:?}");
        assert_eq!(only_shard(&*store).await.lease, *lease);
        seen = Some(lease.clone());
    }
}

async fn a_batch_answers_in_order(space: &Space) {
    let store = space.store();
    let mut batch = Vec::new();
    for n in 0..200 {
        let mut lease = take_new(&*store, n, "w1").await;
        if n % 7 == 0 {
            lease.counter += 1;
        }
        batch.push(checkpoint(n, &lease, after(&format!("{}", 1_000 + n))));
    }
    let results = store.checkpoint(&batch).await;
    assert_eq!(results.len(), 200);
    for (n, result) in results.into_iter().enumerate() {
        if n % 7 == 0 { assert_lost(result, Some("w1")) } else { result.unwrap() }
    }
    for (n, item) in store.load(Selection::All).await.unwrap().into_iter().enumerate() {
        let moved =
            if n % 7 == 0 { Position::TrimHorizon } else { after(&(1_000 + n).to_string()) };
        assert_eq!((item.shard, item.position), (shard(n), moved));
    }
    assert!(store.checkpoint(&[]).await.is_empty());
}

async fn a_window_is_kept_with_its_position_until_it_is_closed(space: &Space) {
    let store = space.store();
    let lease = take_new(&*store, 1, "w1").await;
    let window = |state: &str| OpenWindow {
        start: at_millis(1_700_000_040_000),
        end: at_millis(1_700_000_100_000),
        state: state.to_owned(),
    };
    let large = format!("\"{}\"", "\\\"é".repeat(MAX_KEPT_STATE_BYTES / 5));
    for (number, state) in [("5", "{\"n\": 1.50}"), ("6", large.as_str())] {
        let moved = checkpoint(1, &lease, after(number));
        let moved = Checkpoint { window: Some(window(state)), ..moved };
        write(&*store, moved.clone()).await.unwrap();
        let item = only_shard(&*store).await;
        assert_eq!((&item.position, &item.window), (&after(number), &moved.window));
    }
    let gap = Gap { after: None, resumed_at: None, found_at: at_millis(1) };
    let with_gap = Checkpoint {
        gap: Some(gap),
        window: Some(window("2")),
        ..checkpoint(1, &lease, after("7"))
    };
    write(&*store, with_gap).await.unwrap();
    let item = only_shard(&*store).await;
    assert_eq!((item.gaps.len(), item.window), (1, Some(window("2"))));
    // A take leaves it, and a position without one removes it.
    let next = store.take(&key(1), Some(&lease), &worker("w2"), None).await.unwrap();
    assert_eq!(only_shard(&*store).await.window, Some(window("2")));
    write(&*store, checkpoint(1, &next, after("8"))).await.unwrap();
    assert_eq!(only_shard(&*store).await.window, None);
}

fn letter(n: usize, first: u128, last: u128) -> DeadLetter {
    let number = |n: u128| n.to_string().parse().unwrap();
    DeadLetter {
        id: LetterId { shard: shard(n), first: number(first), last: number(last), digest: 7 },
        reason: Reason::Retries,
        records: 2,
        attempts: 3,
        first_error: None,
        last_error: Some("the handler answered 500 – \"no\"".to_owned()),
        given_up_at: at_millis(1_700_000_000_123),
        bytes: 0,
    }
}

/// Bytes that are no text and differ from place to place.
fn bytes(count: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(count as u64);
    std::iter::repeat_with(|| random.u8(..)).take(count).collect()
}

async fn dead_letters_are_kept_with_their_payload_until_they_are_removed(space: &Space) {
    let store = space.store();
    assert_eq!(letters::all(&*store).await.unwrap(), []);
    let sizes = [0, 1, INLINE_BYTES, INLINE_BYTES + 1, PART_BYTES, PART_BYTES * 3 + 7];
    for (n, size) in sizes.into_iter().enumerate() {
        let payload = bytes(size);
        letters::keep(&*store, letter(1, n as u128, 9), &payload, &mut 0).await.unwrap();
        let listed = letters::all(&*store).await.unwrap();
        let [.., last] = &listed[..] else { panic!("it was kept") };
        let expected = DeadLetter { bytes: size as u64, ..letter(1, n as u128, 9) };
        assert_eq!((listed.len(), &last.letter, last.whole), (n + 1, &expected, true));
        assert_eq!(letters::payload(&*store, &last.letter).await.unwrap(), payload, "{size}");
    }
    for listed in letters::all(&*store).await.unwrap() {
        letters::remove(&*store, &listed.letter).await.unwrap();
        letters::remove(&*store, &listed.letter).await.unwrap();
        assert!(letters::payload(&*store, &listed.letter).await.is_err(), "nothing of it is left");
    }
    assert_eq!(letters::all(&*store).await.unwrap(), []);
}

async fn a_dead_letter_that_was_cut_off_is_not_whole_until_it_is_kept_again(space: &Space) {
    let store = space.store();
    let payload = bytes(2 * PART_BYTES);
    let cut_off = DeadLetter { bytes: payload.len() as u64, ..letter(1, 5, 6) };
    store.write_letter(&cut_off, None, false).await.unwrap();
    store.write_part(&cut_off.id, 0, &payload.slice(..PART_BYTES)).await.unwrap();
    let [listed] = &letters::all(&*store).await.unwrap()[..] else { panic!("one") };
    assert!(!listed.whole);
    assert!(letters::payload(&*store, &listed.letter).await.is_err());
    letters::keep(&*store, letter(1, 5, 6), &payload, &mut 0).await.unwrap();
    let [listed] = &letters::all(&*store).await.unwrap()[..] else { panic!("one") };
    assert!(listed.whole);
    assert_eq!(letters::payload(&*store, &listed.letter).await.unwrap(), payload);
    // So it is while it is being removed.
    store.break_letter(&listed.letter.id).await.unwrap();
    assert!(!letters::all(&*store).await.unwrap()[0].whole);
    store.break_letter(&letter(2, 5, 6).id).await.unwrap();
    assert_eq!(letters::all(&*store).await.unwrap().len(), 1, "one that is not there stays so");
}

async fn a_dead_letter_that_is_whole_stays_as_it_is(space: &Space) {
    let store = space.store();
    let payload = bytes(10);
    letters::keep(&*store, letter(1, 5, 6), &payload, &mut 0).await.unwrap();
    let late = DeadLetter { attempts: 99, ..letter(1, 5, 6) };
    letters::keep(&*store, late.clone(), &payload, &mut 0).await.unwrap();
    store.write_letter(&late, None, false).await.unwrap();
    let [listed] = &letters::all(&*store).await.unwrap()[..] else { panic!("one") };
    assert_eq!((listed.letter.attempts, listed.whole), (3, true));
}

async fn a_dead_letter_that_was_removed_while_it_was_written_is_not_whole(space: &Space) {
    let store = space.store();
    let payload = bytes(2 * PART_BYTES);
    let letter = DeadLetter { bytes: payload.len() as u64, ..letter(1, 5, 6) };
    store.write_letter(&letter, None, false).await.unwrap();
    store.write_part(&letter.id, 0, &payload.slice(..PART_BYTES)).await.unwrap();
    letters::remove(&*store, &letter).await.unwrap();
    store.write_part(&letter.id, 1, &payload.slice(PART_BYTES..)).await.unwrap();
    let closed = store.write_letter(&letter, None, true).await;
    assert!(matches!(closed, Err(ProgressError::Unsuitable(_))), "{closed:?}");
    assert_eq!(letters::all(&*store).await.unwrap(), []);
    // Whoever was writing it begins again.
    let mut parts_done = 1;
    let again = letters::keep(&*store, letter.clone(), &payload, &mut parts_done).await;
    assert!(again.is_err() && parts_done == 0, "{again:?}");
    letters::keep(&*store, letter.clone(), &payload, &mut parts_done).await.unwrap();
    assert_eq!(letters::payload(&*store, &letter).await.unwrap(), payload);
}

async fn dead_letters_are_listed_in_the_order_of_their_records(space: &Space) {
    let store = space.store();
    // Of several shards and pages; as text, 10 would come before 9.
    let count = 2 * letters::LETTERS_PER_PAGE + 31;
    let mut numbers: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut numbers);
    for n in numbers {
        let first = n as u128 * 7;
        letters::keep(&*store, letter(n % 5, first, first + 6), &bytes(3), &mut 0).await.unwrap();
    }
    let listed = letters::all(&*store).await.unwrap();
    let firsts: Vec<_> =
        listed.iter().map(|listed| listed.letter.id.first.as_str().to_owned()).collect();
    assert_eq!(firsts, (0..count).map(|n| (n * 7).to_string()).collect::<Vec<_>>());
}
