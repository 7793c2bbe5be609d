//! The network between the parts, and which api replicas answer.
//!
//! Owns what becomes of one message: how long it takes, whether it arrives. Knows nothing
//! of what is in it. A message on a way that is cut waits, as TCP does, and arrives when
//! the way is whole again, or never: its sender has mostly given up by then.

use fastrand::Rng;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// Whoever sends and receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// By the number of its start.
    Worker(usize),
    Api(usize),
    Table,
    Stream,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(worker) => write!(f, "w{worker}"),
            Self::Api(api) => write!(f, "api{api}"),
            Self::Table => f.write_str("table"),
            Self::Stream => f.write_str("stream"),
        }
    }
}

/// How messages fare while no way is cut: the share of each fate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// The most milliseconds that a usual message takes.
    pub usual: u64,
    /// Takes up to three seconds.
    pub slow: f64,
    /// Takes from five to forty seconds: whoever waits for it has given up.
    pub late: f64,
    /// Does not arrive, and the connection breaks.
    pub lost: f64,
    /// Is a write of the table and arrives a second time, some time later.
    pub twice: f64,
    /// Is a write of the table and is throttled.
    pub throttled: f64,
}

pub struct Network {
    state: Mutex<State>,
    /// A way is whole again, or a replica answers again.
    better: Notify,
}

struct State {
    random: Rng,
    weather: Weather,
    /// One direction each.
    cuts: BTreeSet<(Node, Node)>,
    apis: Vec<Api>,
}

#[derive(Clone, Copy)]
struct Api {
    is_up: bool,
    hangs: bool,
    /// Grows with every start.
    life: u32,
}

impl Network {
    pub fn new(seed: u64, weather: Weather, apis: usize) -> Self {
        let api = Api { is_up: true, hangs: false, life: 0 };
        let (random, cuts) = (Rng::with_seed(seed), BTreeSet::new());
        let state = State { random, weather, cuts, apis: vec![api; apis] };
        Self { state: Mutex::new(state), better: Notify::new() }
    }

    /// Carries a message. False when it does not arrive.
    pub async fn carry(&self, from: Node, to: Node) -> bool {
        let (takes, arrives) = self.lock().fate();
        tokio::time::sleep(takes).await;
        if self.lock().cuts.contains(&(from, to)) {
            self.until(|state| !state.cuts.contains(&(from, to))).await;
            let (takes, is_sent_again) = {
                let mut state = self.lock();
                (state.usual(), state.random.bool())
            };
            tokio::time::sleep(takes).await;
            return arrives && is_sent_again;
        }
        arrives
    }

    /// The life of a replica that a message has reached, once it works on it. `None` when
    /// nobody listens.
    pub async fn reach(&self, api: usize) -> Option<u32> {
        self.until(|state| !state.apis[api].hangs).await;
        let Api { is_up, life, .. } = self.lock().apis[api];
        is_up.then_some(life)
    }

    /// A replica to be asked next, another than the one that has just failed.
    pub fn choose_api(&self, failed: Option<usize>) -> usize {
        let mut state = self.lock();
        let count = state.apis.len();
        match failed {
            Some(failed) => (failed + 1) % count,
            None => state.random.usize(..count),
        }
    }

    /// Whether the table throttles the write that has just arrived, and when, if at all, it
    /// arrives a second time.
    pub fn at_the_table(&self) -> (bool, Option<Duration>) {
        let mut state = self.lock();
        let Weather { twice, throttled, .. } = state.weather;
        let is_throttled = state.random.f64() < throttled;
        let again = state.random.f64() < twice;
        let after = Duration::from_millis(state.random.u64(1..30_000));
        (is_throttled, again.then_some(after))
    }

    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub fn cut(&self, ways: &[(Node, Node)]) {
        self.lock().cuts.extend(ways);
    }

    pub fn mend(&self, ways: &[(Node, Node)]) {
        self.lock().cuts.retain(|way| !ways.contains(way));
        self.better.notify_waiters();
    }

    /// Every way is whole, every replica answers.
    pub fn mend_all(&self) {
        {
            let mut state = self.lock();
            state.cuts.clear();
            for api in &mut state.apis {
                (api.is_up, api.hangs) = (true, false);
            }
        }
        self.better.notify_waiters();
    }

    /// What it was working on is forgotten.
    pub fn crash_api(&self, api: usize) {
        let mut state = self.lock();
        let api = &mut state.apis[api];
        (api.is_up, api.life) = (false, api.life + 1);
    }

    pub fn start_api(&self, api: usize) {
        self.lock().apis[api].is_up = true;
    }

    pub fn hang_api(&self, api: usize, hangs: bool) {
        self.lock().apis[api].hangs = hangs;
        self.better.notify_waiters();
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let better = self.better.notified();
            tokio::pin!(better);
            better.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            better.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl State {
    fn usual(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(0..=self.weather.usual))
    }

    /// How long a message takes, and whether it arrives then.
    fn fate(&mut self) -> (Duration, bool) {
        let Weather { slow, late, lost, .. } = self.weather;
        let takes = match self.random.f64() {
            share if share < late => Duration::from_millis(self.random.u64(5_000..40_000)),
            share if share < late + slow => Duration::from_millis(self.random.u64(100..3_000)),
            _ => self.usual(),
        };
        (takes, self.random.f64() >= lost)
    }
}
