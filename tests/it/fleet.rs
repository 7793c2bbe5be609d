//! Several consumers of a name and two apis as processes, with a network between all of them
//! that can be cut: they come, go, die and freeze under a steady flow, while shards split.

use crate::support::api::TOKEN;
use crate::support::chaos::{Chaos, Losing};
use crate::support::endpoint::Endpoint;
use crate::support::free_port;
use crate::support::process::{Process, within};
use crate::support::rig::{assert_in_order, distinct, put_rounds};
use crate::support::stage::Stage;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use streamgate::progress::{Position, Progress, Selection, ShardProgress, TableProgress};
use streamgate::simulator::Simulator;
use streamgate::source::ShardId;
use tokio::task::JoinHandle;

const ITEMS: usize = 12;
/// Between two rounds of changes, and between two looks at the table.
const PAUSE: Duration = Duration::from_millis(100);
const FAILOVER: &str = "3s";
const LOST: &str = "streamgate_leases_lost_total";

/// The apis, and what consumers are started with.
struct Fleet {
    stage: Stage,
    endpoint: Endpoint,
    apis: [SocketAddr; 2],
    streams: Chaos,
    tables: Chaos,
    store: TableProgress,
    /// How far each shard was when it was last looked at.
    seen: BTreeMap<ShardId, u128>,
}

/// A consumer, and its own ways to the apis.
struct Member {
    process: Process,
    ways: [Chaos; 2],
}

impl Member {
    /// The name of its life.
    fn name(&self) -> String {
        last_name(&self.process.stderr.all()).unwrap_or_default()
    }

    /// Waits until it has begun anew after `name`.
    async fn anew_after(&self, name: &str) {
        let next = |lines: &[String]| last_name(lines).filter(|last| last != name);
        self.process.stderr.find("another name of the worker", next).await;
    }

    fn cut(&self, is_cut: bool) {
        for way in &self.ways {
            if is_cut { way.cut() } else { way.restore() }
        }
    }
}

fn last_name(lines: &[String]) -> Option<String> {
    let said = lines.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut begun = said.filter(|line| line["message"] == "working on the stream");
    begun.next()?["worker"].as_str().map(str::to_owned)
}

impl Fleet {
    async fn new() -> Self {
        let stage = Stage::new("fleet", 6).await;
        let streams = Chaos::before(stage.streams, 1).await;
        let tables = Chaos::before(stage.tables, 2).await;
        let (endpoint, store) = (Endpoint::start().await, stage.store().await);
        let apis = [free_port(), free_port()];
        Self { stage, endpoint, apis, streams, tables, store, seen: BTreeMap::new() }
    }

    async fn api(&self, nth: usize) -> Process {
        let tables = format!("http://{}", self.tables.address);
        self.stage.api(self.apis[nth], &[("AWS_ENDPOINT_URL_DYNAMODB", &tables)]).await
    }

    async fn member(&self) -> Member {
        let ways = [Chaos::before(self.apis[0], 3).await, Chaos::before(self.apis[1], 4).await];
        let urls = format!("http://{},http://{}", ways[0].address, ways[1].address);
        let streams = format!("http://{}", self.streams.address);
        let variables = [
            ("HANDLER", self.endpoint.url.as_str()),
            ("API_URL", &urls),
            ("API_TOKEN", TOKEN),
            ("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", &streams),
            ("FAILOVER_TIME", FAILOVER),
            ("CHECKPOINT_INTERVAL", "50ms"),
        ];
        Member { process: self.stage.consumer(&variables).await, ways }
    }

    /// The items as the table has them now. No position has moved back.
    async fn items(&mut self) -> Vec<ShardProgress> {
        let items = self.store.load(Selection::All).await.expect("the table answers");
        for item in &items {
            let now = match &item.position {
                Position::TrimHorizon | Position::AtTimestamp(_) => 0,
                Position::After(number) => number.as_str().parse().expect("a number"),
                Position::ShardEnd => u128::MAX,
            };
            let before = self.seen.insert(item.shard.clone(), now).unwrap_or_default();
            assert!(before <= now, "{} moved back from {before} to {now}", item.shard);
        }
        items
    }

    /// Waits until these workers, and no others, show life, every open shard is one's of them,
    /// and each has some.
    async fn until_shared_by(&mut self, members: &[&Member]) {
        within("the shards to be spread over the living", async {
            loop {
                let names: BTreeSet<String> = members.iter().map(|member| member.name()).collect();
                let seen = self.store.coordination().await.expect("the table answers");
                let signs: BTreeSet<String> =
                    seen.workers.iter().map(|member| member.sign.worker.to_string()).collect();
                let open = self.stage.simulator.open_shards();
                let items = self.items().await;
                let reading = items.iter().filter(|item| item.position != Position::ShardEnd);
                let owners: Vec<String> = reading
                    .map(|item| {
                        item.lease.owner.as_ref().map_or(String::new(), ToString::to_string)
                    })
                    .collect();
                let has_item = |shard: &ShardId| items.iter().any(|item| item.shard == *shard);
                let has_some = owners.iter().cloned().collect::<BTreeSet<_>>() == names;
                if signs == names && has_some && open.iter().all(has_item) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }

    /// Waits until `name` shows no life any more and owns nothing that is read.
    async fn until_gone(&mut self, name: &str) {
        within("its shards to be others'", async {
            loop {
                let seen = self.store.coordination().await.expect("the table answers");
                let shows = seen.workers.iter().any(|m| m.sign.worker.as_str() == name);
                let owns = |item: &ShardProgress| {
                    let owner = item.lease.owner.as_ref();
                    item.position != Position::ShardEnd && owner.is_some_and(|o| o.as_str() == name)
                };
                if !shows && !self.items().await.iter().any(owns) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }

    /// Waits until something of what is put from now on was taken.
    async fn until_more(&self) {
        let before = distinct(&self.endpoint.got());
        self.endpoint.until_distinct(before + 5 * ITEMS).await;
    }

    fn repeats(&self) -> usize {
        let got = self.endpoint.got();
        got.len() - distinct(&got)
    }

    fn split_one(&self) {
        let open = self.stage.simulator.open_shards();
        self.stage.simulator.split(&open[0]);
    }

    fn lose(&self, chance: f64) {
        for way in [&self.streams, &self.tables] {
            way.lose(Losing { requests: chance, answers: chance });
        }
    }
}

/// Puts rounds of changes until it is told to stop; says how many.
fn flow(simulator: Simulator) -> (Arc<AtomicBool>, JoinHandle<u64>) {
    let ends = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ends);
    let putting = tokio::spawn(async move {
        let mut rounds = 0;
        while !end.load(Ordering::SeqCst) {
            put_rounds(&simulator, ITEMS, rounds..rounds + 1);
            rounds += 1;
            tokio::time::sleep(PAUSE).await;
        }
        rounds
    });
    (ends, putting)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_die_freeze_leave_and_come_lose_nothing_and_share_the_shards() {
    let mut fleet = Fleet::new().await;
    let apis = [fleet.api(0).await, fleet.api(1).await];
    let [one, two, three] = [fleet.member().await, fleet.member().await, fleet.member().await];
    fleet.until_shared_by(&[&one, &two, &three]).await;
    let (end, putting) = flow(fleet.stage.simulator.clone());
    fleet.until_more().await;

    // One is killed, and another started.
    fleet.lose(0.01);
    let name = one.name();
    one.process.kill().await;
    let four = fleet.member().await;
    fleet.split_one();
    fleet.until_gone(&name).await;
    fleet.until_shared_by(&[&two, &three, &four]).await;

    // One freezes, until others have what it had; it does not go on with that.
    let name = two.name();
    two.process.signal("STOP");
    fleet.split_one();
    fleet.until_gone(&name).await;
    two.process.signal("CONT");
    two.anew_after(&name).await;
    assert!(two.process.metric(LOST).await > 0.0, "it had shards when it froze");
    fleet.until_shared_by(&[&two, &three, &four]).await;

    // One is cut off from the apis.
    let name = three.name();
    three.cut(true);
    fleet.until_gone(&name).await;
    three.cut(false);
    three.anew_after(&name).await;
    fleet.until_shared_by(&[&two, &three, &four]).await;

    // An api dies: it costs nobody anything.
    let [first, second] = apis;
    let names = [two.name(), three.name(), four.name()];
    first.kill().await;
    fleet.until_more().await;
    fleet.until_shared_by(&[&two, &three, &four]).await;
    assert_eq!(names, [two.name(), three.name(), four.name()], "nobody lost its life");
    let first = fleet.api(0).await;

    // Two leave, and others go on where they were. Nothing comes twice for it.
    fleet.lose(0.0);
    fleet.until_more().await;
    let repeats = fleet.repeats();
    two.process.stop().await;
    three.process.stop().await;
    fleet.until_shared_by(&[&four]).await;
    fleet.split_one();
    let [five, six] = [fleet.member().await, fleet.member().await];
    fleet.until_shared_by(&[&four, &five, &six]).await;
    fleet.until_more().await;
    assert_eq!(fleet.repeats(), repeats, "a stop repeats nothing");

    end.store(true, Ordering::SeqCst);
    let rounds = putting.await.expect("it puts");
    fleet.endpoint.until_distinct(ITEMS * rounds as usize).await;
    fleet.until_shared_by(&[&four, &five, &six]).await;
    for member in [four, five, six] {
        member.process.stop().await;
    }
    // What was delivered is written down: whoever comes next begins behind it.
    let got = fleet.endpoint.got();
    assert_in_order(&got);
    for item in fleet.items().await {
        let of_it = got.iter().filter(|record| record.shard == item.shard.to_string());
        let last = of_it.map(|record| record.sequence_number.parse::<u128>().expect("a number"));
        if let Some(last) = last.max() {
            assert!(fleet.seen[&item.shard] >= last, "{} is not at its tip", item.shard);
        }
    }
    for api in [first, second] {
        api.stop().await;
    }
}
