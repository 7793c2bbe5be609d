//! What reading a stream costs: the consumer's CPU and memory beside floors, in one run.
//!
//! `cargo bench --bench corridor` starts the simulator's load mode, a table, and then in
//! turn each row's consumer and what it is compared with. Owns the rows and what of them is
//! divided by what. Rooms: `stage` has the simulator, the table and the consumer, `floor`, `walk`,
//! `client` and `poller` the floors, `server` the HTTP handler, `idle` the rows of shards
//! without records, `delay` and its handler `arrivals` those of single records, `failover` those of
//! a worker that goes, `process` the measuring, `figures` how it is printed. Figures of one run
//! belong together; compare ratios, not runs. See bench/README.md.

mod arrivals;
mod client;
mod delay;
mod failover;
mod figures;
mod floor;
mod idle;
mod poller;
mod process;
mod server;
mod stage;
mod walk;

use figures::{Ratios, heading};
use idle::Idle;
use process::Usage;
use server::Server;
use stage::{Consumer, Stage};
use std::time::Duration;

/// What is read, and how often it is measured.
#[derive(Clone)]
struct Plan {
    shards: usize,
    pages: usize,
    records: usize,
    bytes: usize,
    rounds: usize,
    /// Whether the shards stay open behind their last page.
    open: bool,
}

impl Plan {
    fn total(&self) -> usize {
        self.shards * self.pages * self.records
    }
}

/// Which rows are measured.
struct Rows(Vec<String>);

impl Rows {
    const ALL: [&str; 9] =
        ["plain", "filter", "http", "parallel", "catchup", "idle", "hot", "delay", "failover"];
    /// Without those that take their time.
    const DEFAULT: &str = "plain,filter,http,parallel";

    fn parse(text: &str) -> Self {
        let names: Vec<String> = text.split(',').map(str::to_owned).collect();
        for name in &names {
            let is_row = Self::ALL.contains(&name.as_str());
            assert!(is_row, "there is no row {name:?} among {:?}", Self::ALL);
        }
        Self(names)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|row| row == name)
    }
}

/// A tenth of the load's records, spread evenly: the zip code is the item's number.
const FILTER: &str = r#"{"Filters":[{"Pattern":"{\"dynamodb\":{\"NewImage\":{\"address\":{\"M\":{\"zip\":{\"S\":[{\"suffix\":\"7\"}]}}}}}}"}]}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(&arguments[at + 1..])
    };
    // The parts that run in processes of their own are this program, too.
    if let Some(rest) = after("--floor") {
        return floor::read(&rest[0], &rest[1]);
    }
    if let Some(rest) = after("--client") {
        return client::post(&rest[0], &rest[1], &rest[2]);
    }
    if let Some(rest) = after("--server") {
        return server::serve(&rest[0]);
    }
    if let Some(rest) = after("--walk") {
        return walk::walk(&rest[0], &rest[1]);
    }
    if let Some(rest) = after("--poller") {
        return poller::poll(&rest[0], &rest[1]);
    }
    let number = |name: &str, default: usize| {
        after(name).map_or(default, |rest| rest[0].parse().expect("a number"))
    };
    let list = |name: &str, default: &[usize]| {
        after(name).map_or(default.to_vec(), |rest| {
            rest[0].split(',').map(|number| number.parse().expect("a number")).collect()
        })
    };
    let of = |shards: usize, open: bool| Plan {
        shards,
        pages: number("--pages", 200),
        records: number("--records", 700),
        bytes: number("--bytes", 1400),
        rounds: number("--rounds", 3),
        open,
    };
    let kinds = after("--kinds").map_or("closed", |rest| rest[0].as_str());
    let plans: Vec<Plan> = list("--shards", &[4])
        .into_iter()
        .flat_map(|shards| kinds.split(',').map(move |kind| (shards, kind == "open")))
        .map(|(shards, open)| of(shards, open))
        .collect();
    let idle = Idle {
        open: list("--open", &[10, 1_000, 10_000]),
        window: Duration::from_secs(number("--window", 60) as u64),
        interval: Duration::from_millis(number("--interval", 1000) as u64),
        against: after("--against").map(|rest| rest[0].clone()),
    };
    let rows = Rows::parse(after("--rows").map_or(Rows::DEFAULT, |rest| rest[0].as_str()));
    let against = after("--against").map(|rest| rest[0].as_str());
    if ["plain", "filter", "http"].iter().any(|row| rows.has(row)) {
        plans.iter().for_each(|plan| measure_reading(plan, &rows, against));
    }
    if rows.has("parallel") {
        let pages = number("--parallel-pages", 120);
        measure_lanes(&Plan { pages, ..of(1, false) }, number("--millis", 5));
    }
    if rows.has("catchup") {
        plans.iter().for_each(measure_catching_up);
    }
    if rows.has("idle") {
        idle.measure();
    }
    if rows.has("hot") {
        idle.measure_hot();
    }
    if rows.has("delay") {
        delay::measure(idle.window);
    }
    if rows.has("failover") {
        failover::measure(&idle.open, number("--rounds", 3), idle.window);
    }
}

/// The rows that read the same pages: plain, against another binary, filter and http.
fn measure_reading(plan: &Plan, rows: &Rows, against: Option<&str>) {
    let stage = Stage::new(plan);
    let server = rows.has("http").then(|| Server::start(0));
    // Batches are pages here, so that the client's bodies are the consumer's.
    let page = plan.records.to_string();
    heading(plan, "handler counts, or is an HTTP server that answers at once");
    let mut ratios = Ratios::default();
    for round in 0..plan.rounds {
        let floor = floor::run(plan, stage.stream);
        floor.print("floor: sockets, dropped", plan);
        let walk = walk::run(plan, stage.stream);
        walk.print("floor: by the SDK, JSON walked", plan);
        let plain = Consumer::new("discard").set("BATCH_SIZE", "1000");
        let theirs = || {
            let theirs = stage.run(&plain.clone().of(against?), plan);
            theirs.print("plain, the other binary", plan);
            Some(theirs)
        };
        // Who comes second finds the machine in another state: they take turns.
        let first = (round % 2 == 1).then(theirs).flatten();
        let ours = stage.run(&plain, plan);
        ours.print("plain", plan);
        ratios.add("CPU, plain over sockets", ours.cpu / floor.cpu);
        ratios.add("CPU, plain over walk", ours.cpu / walk.cpu);
        if let Some(theirs) = first.or_else(theirs) {
            ratios.add("CPU, plain over the other binary's", ours.cpu / theirs.cpu);
        }
        if rows.has("filter") {
            let filter = plain.clone().set("FILTER_CRITERIA", FILTER);
            // An item's last digit is its serial's: there is a multiple of ten of them.
            let filter = stage.run(&filter.expecting((plan.total() + 2) / 10), plan);
            filter.print("filter, a tenth passes", plan);
            ratios.add("CPU, filter over plain", filter.cpu / ours.cpu);
        }
        if let Some(server) = &server {
            let client = client::run(plan, stage.stream, server);
            client.print("floor: client, bodies ready", plan);
            let http = stage.run(&Consumer::new(&server.url()).set("BATCH_SIZE", &page), plan);
            http.print("http", plan);
            ratios.add("CPU, http over the client", http.cpu / client.cpu);
            ratios.add("CPU, http over floor and client", http.cpu / (floor.cpu + client.cpu));
            ratios.add("CPU, http less plain over the client", (http.cpu - ours.cpu) / client.cpu);
        }
    }
    ratios.print();
}

/// The row whose handler takes its time: one lane and ten.
fn measure_lanes(plan: &Plan, millis: usize) {
    let stage = Stage::new(plan);
    let server = Server::start(millis);
    heading(plan, &format!("HTTP handler answers after {millis} ms; batches of 100"));
    let mut ratios = Ratios::default();
    for _ in 0..plan.rounds {
        let [one, ten] = ["1", "10"].map(|factor| {
            let consumer = Consumer::new(&server.url()).set("BATCH_SIZE", "100");
            let usage = stage.run(&consumer.set("PARALLELIZATION_FACTOR", factor), plan);
            // From the first request on: starting takes a part of a second.
            let (span, requests) = server.span();
            let usage = Usage { wall: span, ..usage };
            usage.print(&format!("parallel, factor {factor}, {requests} calls"), plan);
            usage
        });
        ratios.add("records per second, ten lanes over one", one.wall / ten.wall);
        ratios.add("CPU, ten lanes over one", ten.cpu / one.cpu);
    }
    ratios.print();
}

/// A backlog as fast as it goes, and whose time that takes: beside the consumer's, that of the
/// simulator, which stands for the service.
fn measure_catching_up(plan: &Plan) {
    let stage = Stage::new(plan);
    heading(plan, "a backlog; handler counts");
    for _ in 0..plan.rounds {
        let before = stage.simulator.cpu();
        let usage = stage.run(&Consumer::new("discard").set("BATCH_SIZE", "1000"), plan);
        let simulator = stage.simulator.cpu() - before;
        usage.print("catchup", plan);
        println!(
            "{:<34} {:.2} cores, and {:.2} of the simulator",
            "",
            usage.cpu / usage.wall,
            simulator / usage.wall
        );
    }
    println!();
}
