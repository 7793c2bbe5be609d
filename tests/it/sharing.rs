//! Several workers of one name on a paused clock: shares, hand-offs, deaths, cut-offs.

use crate::support::rig::{
    Recorder, Running, arn, assert_in_order, held, put_rounds, settings, start, start_with, until,
    until_held,
};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use streamgate::progress::{Heartbeat, LeaseKey, MemoryFault, MemoryProgress, Progress, Selection};
use streamgate::simulator::{Fault, FaultRule, Operation, Simulator};
use streamgate::source::{
    IteratorPosition, Page, Shard, ShardId, ShardIterator, Source, SourceError, StreamDescription,
};

const SECOND: Duration = Duration::from_secs(1);

fn simulator(shards: usize) -> Simulator {
    Simulator::builder(arn()).shards(shards).seed(7).build()
}

#[tokio::test(start_paused = true)]
async fn workers_share_the_shards_and_what_moves_is_not_delivered_twice() {
    let simulator = simulator(6);
    let store = MemoryProgress::new();
    let handler: Arc<Recorder> = Arc::default();
    let begin = || start(settings(), &simulator, store.view(), Arc::clone(&handler));
    let first = begin();
    put_rounds(&simulator, 30, 0..2);
    handler.until_distinct(60).await;
    until_held(&[&first], &[6]).await;

    let second = begin();
    let joined = until_held(&[&first, &second], &[3, 3]).await;
    assert!(joined < 7 * SECOND, "its share within two heartbeats: {joined:?}");
    let third = begin();
    let joined = until_held(&[&first, &second, &third], &[2, 2, 2]).await;
    assert!(joined < 7 * SECOND, "its share within two heartbeats: {joined:?}");
    put_rounds(&simulator, 30, 2..4);
    handler.until_distinct(120).await;
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(held(&[&first, &second, &third]), [2, 2, 2], "and there they stay");
    let moved: u64 =
        [&first, &second, &third].map(|w| w.metrics.leases_handed_over.get()).iter().sum();
    assert!(moved <= 5, "{moved} moves");

    // Under load: a stop hands everything over, and the others go on within a second.
    put_rounds(&simulator, 30, 4..8);
    first.drain();
    let left = tokio::time::Instant::now();
    until_held(&[&second, &third], &[3, 3]).await;
    assert!(left.elapsed() < SECOND, "{:?}", left.elapsed());
    handler.until_distinct(240).await;
    first.ended().await.unwrap();
    second.stop().await;
    put_rounds(&simulator, 30, 8..9);
    handler.until_distinct(270).await;
    third.stop().await;
    let got = handler.got();
    assert_in_order(&got);
    assert_eq!(got.len(), 270, "nothing was delivered twice");
}

/// Answers as the stream does, but shows no more than one child of a shard.
struct OneChild(Simulator);

#[async_trait]
impl Source for OneChild {
    async fn describe(&self) -> Result<StreamDescription, SourceError> {
        self.0.describe().await
    }
    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, SourceError> {
        let mut children = self.0.children(parent).await?;
        children.truncate(1);
        Ok(children)
    }
    async fn iterator(
        &self,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, SourceError> {
        self.0.iterator(shard, position).await
    }
    async fn records(&self, iterator: &ShardIterator) -> Result<Page, SourceError> {
        self.0.records(iterator).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_sibling_that_was_not_seen_is_adopted_with_the_next_listing() {
    let simulator = simulator(2);
    let store = MemoryProgress::new();
    let handler: Arc<Recorder> = Arc::default();
    let begin = || {
        let source = Arc::new(OneChild(simulator.clone()));
        start_with(settings(), source, Arc::new(store.view()), Arc::clone(&handler))
    };
    let (first, second) = (begin(), begin());
    until_held(&[&first, &second], &[1, 1]).await;
    // Of both, so that one of them is not the leader's.
    for shard in simulator.open_shards() {
        simulator.split(&shard);
    }
    put_rounds(&simulator, 40, 0..2);
    let split = tokio::time::Instant::now();
    handler.until_distinct(80).await;
    assert!(split.elapsed() < 62 * SECOND, "a listing a minute: {:?}", split.elapsed());
    first.stop().await;
    second.stop().await;
    assert_in_order(&handler.got());
}

/// The service throttles who reads a shard that two others read. Here it is the second one
/// that it throttles, and a read takes its time.
#[tokio::test(start_paused = true)]
async fn a_shard_that_moves_has_one_reader_at_any_time() {
    let simulator = simulator(8);
    simulator.set(|settings| settings.readers_per_shard = Some(1));
    let slow = Fault::Slow(Duration::from_millis(150));
    simulator.faults().add(FaultRule::new(slow).on(Operation::GetRecords));
    let store = MemoryProgress::new();
    let handler: Arc<Recorder> = Arc::default();
    let begin = || start(settings(), &simulator, store.view(), Arc::clone(&handler));
    let mut workers = vec![begin()];
    let throttled =
        |worker: &Running| worker.metrics.read_retries.with_label_values(&["throttled"]).get();
    let mut rounds = 0;
    // Each joins, and at the end each leaves, under load all the time.
    for expected in [&[8][..], &[4, 4], &[2, 3, 3], &[2, 2, 2, 2]] {
        put_rounds(&simulator, 40, rounds..rounds + 3);
        rounds += 3;
        until_held(&workers.iter().collect::<Vec<_>>(), expected).await;
        handler.until_distinct(40 * rounds as usize).await;
        assert_eq!(workers.iter().map(throttled).sum::<u64>(), 0);
        if expected.len() < 4 {
            workers.push(begin());
        }
    }
    // A reshard while they move.
    let leaver = workers.remove(0);
    leaver.drain();
    for shard in simulator.open_shards().into_iter().take(3) {
        simulator.split(&shard);
    }
    put_rounds(&simulator, 40, rounds..rounds + 3);
    handler.until_distinct(40 * (rounds as usize + 3)).await;
    leaver.ended().await.unwrap();
    assert_eq!(workers.iter().map(throttled).sum::<u64>(), 0);
    // And a second reader is noticed: one of another name.
    let other = start(settings(), &simulator, MemoryProgress::new(), Arc::default());
    until("it is throttled", || throttled(&other) > 0).await;
    other.kill().await;
    for worker in workers {
        worker.stop().await;
    }
    assert_in_order(&handler.got());
    assert_eq!(handler.got().len(), 40 * (rounds as usize + 3), "nothing was delivered twice");
}

#[tokio::test(start_paused = true)]
async fn a_dead_workers_shards_go_on_after_the_failover_time() {
    let simulator = simulator(4);
    let store = MemoryProgress::new();
    let handler: Arc<Recorder> = Arc::default();
    let begin = || start(settings(), &simulator, store.view(), Arc::clone(&handler));
    // The first leads, and dies; then one that does not.
    let (first, second, third) = (begin(), begin(), begin());
    until_held(&[&first, &second, &third], &[1, 1, 2]).await;
    put_rounds(&simulator, 20, 0..2);
    handler.until_distinct(40).await;
    let mut alive = vec![first, second, third];
    let mut round = 2;
    for leads in [1, 0] {
        let at = alive.iter().position(|worker| worker.metrics.leads.get() == leads).unwrap();
        alive.remove(at).kill().await;
        let died = tokio::time::Instant::now();
        put_rounds(&simulator, 20, round..round + 2);
        round += 2;
        handler.until_distinct(20 * round as usize).await;
        // Of the failover time, the beat that was due, and the poll of a shard.
        let took = died.elapsed();
        assert!(took <= Duration::from_millis(10_000 + 3_334 + 1_000), "{took:?}");
        let expected: &[i64] = if alive.len() == 2 { &[2, 2] } else { &[4] };
        until_held(&alive.iter().collect::<Vec<_>>(), expected).await;
    }
    assert_in_order(&handler.got());
    for worker in alive {
        worker.stop().await;
    }
}

/// The store has it for the leader then, and it has to find that out.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_take_of_the_stream_was_not_answered_leads_all_the_same() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    let handler: Arc<Recorder> = Arc::default();
    let first = start(settings(), &simulator, store.view(), Arc::clone(&handler));
    put_rounds(&simulator, 1, 0..1);
    handler.until_distinct(1).await;
    let view = Arc::new(store.view());
    let second = start_with(
        settings(),
        Arc::new(simulator.clone()),
        Arc::clone(&view) as Arc<dyn Progress>,
        Arc::clone(&handler),
    );
    tokio::time::sleep(5 * SECOND).await;
    let leader = async || store.coordination().await.unwrap().stream.unwrap().owner;
    let before = leader().await;
    first.kill().await;
    tokio::time::sleep(6 * SECOND).await;
    view.set_fault(MemoryFault::AnswersLost);
    while leader().await == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    view.set_fault(MemoryFault::None);
    put_rounds(&simulator, 1, 1..2);
    tokio::time::timeout(60 * SECOND, handler.until_distinct(2)).await.expect("somebody leads");
    assert_eq!(second.metrics.leads.get(), 1);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_of_killed_workers_are_cleared_away() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    let active = start(settings(), &simulator, store.view(), Arc::default());
    put_rounds(&simulator, 1, 0..1);
    active.handler.until_distinct(1).await;
    for _ in 0..5 {
        let idle = start(settings(), &simulator, store.view(), Arc::default());
        tokio::time::sleep(SECOND).await;
        idle.kill().await;
    }
    let idle = start(settings(), &simulator, store.view(), Arc::default());
    tokio::time::sleep(SECOND).await;
    assert_eq!(store.view().coordination().await.unwrap().workers.len(), 7);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(store.view().coordination().await.unwrap().workers.len(), 2, "the living stay");
    idle.stop().await;
    active.stop().await;
    assert!(store.view().coordination().await.unwrap().workers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_cut_off_from_its_store_stops_before_another_may_start_and_comes_back() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    let view = Arc::new(store.view());
    let first = start_with(
        settings(),
        Arc::new(simulator.clone()),
        Arc::clone(&view) as Arc<dyn Progress>,
        Arc::default(),
    );
    put_rounds(&simulator, 2, 0..2);
    first.handler.until_distinct(4).await;
    tokio::time::sleep(2 * SECOND).await;
    view.set_fault(MemoryFault::Unreachable);
    tokio::time::sleep(12 * SECOND).await;
    put_rounds(&simulator, 2, 2..4);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(first.handler.got().len(), 4, "it reads no more");
    assert!(!first.board.troubles().is_empty(), "it is not ready");
    let second = start(settings(), &simulator, store.view(), Arc::default());
    second.handler.until_distinct(4).await;
    view.set_fault(MemoryFault::None);
    tokio::time::sleep(30 * SECOND).await;
    assert!(first.board.troubles().is_empty(), "{:?}", first.board.troubles());
    second.stop().await;
    put_rounds(&simulator, 2, 4..5);
    first.handler.until_distinct(6).await;
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_anything_to_write_learns_within_a_beat_that_it_was_buried() {
    let simulator = simulator(1);
    let store = MemoryProgress::new();
    let running = start(settings(), &simulator, store.view(), Arc::default());
    simulator.called(|calls| calls.get_records >= 5).await;
    let other = store.view();
    let worker = other.coordination().await.unwrap().workers.remove(0).sign;
    let lost = running.metrics.leases_lost.get();
    other.retire(&worker.worker, Some(worker.beat)).await.unwrap();
    let buried = tokio::time::Instant::now();
    while running.metrics.leases_lost.get() == lost {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(buried.elapsed() < 4 * SECOND, "{:?}", buried.elapsed());
    // It begins anew, under another name, and nobody else is there.
    simulator.put_item("a", 0);
    running.handler.until_distinct(1).await;
    assert_eq!(store.coordination().await.unwrap().workers.len(), 1);
    running.stop().await;
}

/// What the leader takes on behalf of another is that one's, whether the answer arrives or not:
/// it is told in any case, and not found out a minute later.
#[tokio::test(start_paused = true)]
async fn a_worker_is_told_of_its_shard_though_the_answer_to_the_take_was_lost() {
    let simulator = simulator(2);
    let store = MemoryProgress::new();
    let handler: Arc<Recorder> = Arc::default();
    let view = Arc::new(store.view());
    let leader = start_with(
        settings(),
        Arc::new(simulator.clone()),
        Arc::clone(&view) as Arc<dyn Progress>,
        Arc::clone(&handler),
    );
    put_rounds(&simulator, 8, 0..1);
    handler.until_distinct(8).await;
    assert_eq!(leader.metrics.leads.get(), 1);
    let other = start(settings(), &simulator, store.view(), Arc::clone(&handler));
    until_held(&[&leader, &other], &[1, 1]).await;
    // A third takes the other's shard, and takes its leave without giving it back.
    let third = Heartbeat::first("third".into());
    store.heartbeat(&third).await.unwrap();
    let stream = store.coordination().await.unwrap().stream.unwrap().owner;
    let items = store.load(Selection::All).await.unwrap();
    let item = items.into_iter().find(|item| item.lease.owner != stream).unwrap();
    let key = LeaseKey::Shard(item.shard.clone());
    store.take(&key, Some(&item.lease), &third.worker, None).await.unwrap();
    put_rounds(&simulator, 8, 1..2);
    until("the other has noticed", || other.metrics.leases_held.get() == 0).await;
    tokio::time::sleep(settings().failover_time / 3).await;
    view.set_fault(MemoryFault::AnswersLost);
    store.retire(&third.worker, None).await.unwrap();
    let owner =
        async || store.load(Selection::These(std::slice::from_ref(&item.shard))).await.unwrap();
    while owner().await[0].lease.owner != item.lease.owner {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let given = tokio::time::Instant::now();
    view.set_fault(MemoryFault::None);
    until("the other reads it", || other.metrics.leases_held.get() == 1).await;
    // The leader's second try, and the other's next look.
    assert!(given.elapsed() < 3 * SECOND, "{:?}", given.elapsed());
    handler.until_distinct(16).await;
    leader.stop().await;
    other.stop().await;
    assert_in_order(&handler.got());
}
