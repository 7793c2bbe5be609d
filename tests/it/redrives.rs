//! Redrives that are asked for where there is no handler, on a paused clock: what holds them up,
//! and what they hold up.

use crate::support::around::store_around;
use crate::support::rig::{Recorder, Running, arn, put_rounds, settings, start, until};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use streamgate::batch::BatchSettings;
use streamgate::consumer::ConsumerSettings;
use streamgate::deliver::{OnFailure, RetrySettings};
use streamgate::progress::letters::{DeadLetter, Reason};
use streamgate::progress::orders::{Order, Orders, Request};
use streamgate::progress::{MemoryProgress, Progress, letters};
use streamgate::simulator::Simulator;

const SECOND: Duration = Duration::from_secs(1);

/// A store that can be told to take no requests: as an older replica of the api does, which does
/// not know what is asked.
#[derive(Clone)]
struct Older {
    inner: Arc<MemoryProgress>,
    refuses: Arc<AtomicBool>,
}

macro_rules! refusing {
    ($this:ident, "orders", $call:expr) => {{
        if $this.refuses.load(Ordering::SeqCst) {
            return Err(ProgressError::Unsuitable("there is no such order".to_owned()));
        }
        $call.await
    }};
    ($this:ident, $what:tt, $call:expr) => {
        $call.await
    };
}

store_around!(Older, inner, refusing, refusing);

/// A consumer that has given up the records 0 to 1 of its only shard, each by itself.
struct Scene {
    store: MemoryProgress,
    handler: Arc<Recorder>,
    running: Running,
    refuses: Arc<AtomicBool>,
}

impl Scene {
    async fn new() -> Self {
        let simulator = Simulator::builder(arn()).shards(1).seed(7).build();
        let (store, handler) = (MemoryProgress::new(), Arc::<Recorder>::default());
        let settings = ConsumerSettings {
            on_failure: OnFailure::Keep,
            retries: RetrySettings { max_retries: Some(0), ..RetrySettings::default() },
            batches: BatchSettings { size: 1, window: Duration::ZERO },
            ..settings()
        };
        let refuses: Arc<AtomicBool> = Arc::default();
        let older = Older { inner: Arc::new(store.view()), refuses: Arc::clone(&refuses) };
        let running = start(settings, &simulator, older, Arc::clone(&handler));
        handler.poison([0, 1], false);
        put_rounds(&simulator, 1, 0..3);
        handler.until_distinct(1).await;
        handler.poison([], false);
        let scene = Self { store, handler, running, refuses };
        assert_eq!(scene.letters().await.len(), 2);
        scene
    }

    async fn letters(&self) -> Vec<letters::LetterId> {
        let letters = letters::all(&self.store).await.expect("memory answers");
        letters.into_iter().map(|listed| listed.letter.id).collect()
    }

    async fn ask(&self, order: Order) {
        let nonce = fastrand::u64(..1 << 53);
        let request = Request { order, by: "operator".to_owned(), nonce };
        self.store.order(&request).await.expect("it can be met");
    }

    async fn orders(&self) -> Orders {
        self.store.coordination().await.unwrap().orders
    }

    async fn until_letters(&self, count: usize) {
        while self.letters().await.len() != count {
            tokio::time::sleep(SECOND / 50).await;
        }
    }

    async fn until_noted(&self) {
        while self.orders().await.redrives.iter().any(|redrive| redrive.ended.is_none()) {
            tokio::time::sleep(SECOND / 50).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redrive_waits_while_the_stream_is_paused() {
    let scene = Scene::new().await;
    scene.ask(Order::Pause(None)).await;
    scene.ask(Order::Redrive(None)).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(scene.letters().await.len(), 2, "nothing is handed to the handler");
    scene.ask(Order::Resume(None)).await;
    scene.until_letters(0).await;
    scene.until_noted().await;
    scene.running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn letters_of_a_paused_shard_wait_and_hold_up_no_other_shards() {
    let scene = Scene::new().await;
    let paused = scene.letters().await[0].shard.clone();
    let letter = DeadLetter {
        id: "shardId-99999999999999999999-0badcafe:5-5:00c0ffee00c0ffee".parse().unwrap(),
        reason: Reason::Retries,
        records: 1,
        attempts: 1,
        first_error: None,
        last_error: None,
        given_up_at: SystemTime::now(),
        bytes: 0,
    };
    let payload = Bytes::from_static(br#"{"Records":[{"dynamodb":{"SequenceNumber":"5"}}]}"#);
    letters::keep(&scene.store, letter, &payload, &mut 0).await.unwrap();
    scene.ask(Order::Pause(Some(paused.clone()))).await;
    scene.ask(Order::Redrive(None)).await;
    scene.until_letters(2).await;
    assert!(scene.letters().await.iter().all(|letter| letter.shard == paused));
    // Whoever looks sees that it has begun, and how far it is.
    let redriving = async || {
        let workers = scene.store.coordination().await.unwrap().workers;
        workers[0].sign.report.redriving.map(|it| (it.of, it.tried))
    };
    while redriving().await != Some((3, 1)) {
        tokio::time::sleep(SECOND / 50).await;
    }
    scene.ask(Order::Resume(Some(paused))).await;
    scene.until_letters(0).await;
    scene.until_noted().await;
    scene.running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_letter_that_is_with_the_handler_and_begins_no_other() {
    let scene = Scene::new().await;
    scene.handler.stick();
    scene.ask(Order::Redrive(None)).await;
    until("a letter is with the handler", || scene.handler.at_work() == 1).await;
    let Scene { store, handler, running, .. } = scene;
    running.drain();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(handler.at_work(), 1, "it is not cut off");
    handler.unstick();
    running.ended().await.expect("a clean stop");
    let left = letters::all(&store).await.unwrap();
    assert_eq!(left.len(), 1, "the other is the next leader's");
    assert_eq!(handler.got().iter().filter_map(|got| got.n).collect::<Vec<_>>(), [2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_whose_end_cannot_be_noted_holds_up_no_other_and_is_not_done_twice() {
    let scene = Scene::new().await;
    scene.refuses.store(true, Ordering::SeqCst);
    let [first, second] = &scene.letters().await[..] else { panic!("two letters") };
    scene.ask(Order::Redrive(Some(first.clone()))).await;
    scene.until_letters(1).await;
    scene.ask(Order::Redrive(Some(second.clone()))).await;
    scene.until_letters(0).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(scene.handler.got().len(), 3, "each was handed over once");
    assert!(scene.orders().await.redrives.iter().all(|redrive| redrive.ended.is_none()));
    scene.refuses.store(false, Ordering::SeqCst);
    scene.until_noted().await;
    let taken = scene
        .orders()
        .await
        .redrives
        .iter()
        .map(|it| it.ended.as_ref().unwrap().taken)
        .sum::<u64>();
    assert_eq!(taken, 2);
    scene.running.stop().await;
}
