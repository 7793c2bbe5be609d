//! What reading a stream costs: the consumer's CPU and memory beside floors, in one run.
//!
//! `cargo bench --bench corridor` starts the simulator's load mode, a table, and then in
//! turn each row's consumer and what it is compared with. Owns the rows and what of them is
//! divided by what. Rooms: `stage` has the simulator, the table and the consumer, `floor`,
//! `client` and `poller` the floors, `server` the HTTP handler, `idle` the rows of shards
//! without records, `failover` those of a worker that goes, `process` the measuring. Figures of one run belong together; compare
//! ratios, not runs. See bench/README.md.

mod client;
mod failover;
mod floor;
mod idle;
mod poller;
mod process;
mod server;
mod stage;

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
}

impl Plan {
    fn total(&self) -> usize {
        self.shards * self.pages * self.records
    }
}

/// Which rows are measured.
struct Rows {
    plain: bool,
    filter: bool,
    http: bool,
    parallel: bool,
    idle: bool,
    hot: bool,
    failover: bool,
}

impl Rows {
    const ALL: [&str; 7] = ["plain", "filter", "http", "parallel", "idle", "hot", "failover"];
    /// Without those of idle shards, which take their time.
    const DEFAULT: &str = "plain,filter,http,parallel";

    fn parse(text: &str) -> Self {
        let names: Vec<&str> = text.split(',').collect();
        for name in &names {
            assert!(Self::ALL.contains(name), "there is no row {name:?} among {:?}", Self::ALL);
        }
        let [plain, filter, http, parallel, idle, hot, failover] =
            Self::ALL.map(|name| names.contains(&name));
        Self { plain, filter, http, parallel, idle, hot, failover }
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
        return floor::read(&rest[0]);
    }
    if let Some(rest) = after("--client") {
        return client::post(&rest[0], &rest[1], &rest[2]);
    }
    if let Some(rest) = after("--server") {
        return server::serve(&rest[0]);
    }
    if let Some(rest) = after("--poller") {
        return poller::poll(&rest[0], &rest[1]);
    }
    let number = |name: &str, default: usize| {
        after(name).map_or(default, |rest| rest[0].parse().expect("a number"))
    };
    let plan = Plan {
        shards: number("--shards", 4),
        pages: number("--pages", 200),
        records: number("--records", 700),
        bytes: number("--bytes", 1400),
        rounds: number("--rounds", 3),
    };
    let parallel = Plan { shards: 1, pages: number("--parallel-pages", 120), ..plan.clone() };
    let idle = Idle {
        open: after("--open").map_or_else(
            || vec![10, 1_000, 10_000],
            |rest| rest[0].split(',').map(|open| open.parse().expect("a number")).collect(),
        ),
        window: Duration::from_secs(number("--window", 60) as u64),
        interval: Duration::from_millis(number("--interval", 1000) as u64),
        against: after("--against").map(|rest| rest[0].clone()),
    };
    let rows = after("--rows").map_or(Rows::DEFAULT, |rest| rest[0].as_str());
    let mut rows = Rows::parse(rows);
    let against = after("--against").map(|rest| rest[0].as_str());
    rows.plain |= against.is_some() && !rows.idle && !rows.hot && !rows.failover;
    if rows.plain || rows.filter || rows.http {
        measure_reading(&plan, &rows, against);
    }
    if rows.parallel {
        measure_lanes(&parallel, number("--millis", 5));
    }
    if rows.idle {
        idle.measure();
    }
    if rows.hot {
        idle.measure_hot();
    }
    if rows.failover {
        failover::measure(&idle.open, plan.rounds, idle.window);
    }
}

/// The rows that read the same pages: plain, against another binary, filter and http.
fn measure_reading(plan: &Plan, rows: &Rows, against: Option<&str>) {
    let stage = Stage::new(plan);
    let server = rows.http.then(|| Server::start(0));
    // Batches are pages here, so that the client's bodies are the consumer's.
    let page = plan.records.to_string();
    heading(plan, "handler counts, or is an HTTP server that answers at once");
    let mut ratios = Ratios::default();
    for round in 0..plan.rounds {
        let floor = floor::run(plan, stage.stream);
        floor.print("floor: sockets, dropped", plan);
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
        ratios.add("CPU, plain over the floor", ours.cpu / floor.cpu);
        if let Some(theirs) = first.or_else(theirs) {
            ratios.add("CPU, plain over the other binary's", ours.cpu / theirs.cpu);
        }
        if rows.filter {
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

fn heading(plan: &Plan, handler: &str) {
    println!(
        "{} records of {} bytes in {} shards, pages of {}; {handler}",
        plan.total(),
        plan.bytes,
        plan.shards,
        plan.records
    );
    println!(
        "{:<34} {:>7} {:>7} {:>14} {:>14} {:>10} {:>10}",
        "", "wall s", "CPU s", "records/CPU-s", "records/s", "MB/CPU-s", "peak MiB"
    );
}

impl Usage {
    fn print(&self, what: &str, plan: &Plan) {
        let records = plan.total() as f64;
        let megabytes = records * plan.bytes as f64 / 1e6;
        println!(
            "{what:<34} {:>7.2} {:>7.2} {:>14.0} {:>14.0} {:>10.0} {:>10.1}",
            self.wall,
            self.cpu,
            records / self.cpu,
            records / self.wall,
            megabytes / self.cpu,
            self.peak_mib
        );
    }
}

/// One ratio a round, by what it is of.
#[derive(Default)]
struct Ratios(Vec<(&'static str, Vec<f64>)>);

impl Ratios {
    fn add(&mut self, what: &'static str, ratio: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, ratios)) => ratios.push(ratio),
            None => self.0.push((what, vec![ratio])),
        }
    }

    fn print(&mut self) {
        for (what, ratios) in &mut self.0 {
            ratios.sort_by(f64::total_cmp);
            let count = ratios.len();
            let (least, most) = (ratios[0], ratios[count - 1]);
            // Of an even number of rounds, between the two in the middle.
            let median = (ratios[(count - 1) / 2] + ratios[count / 2]) / 2.0;
            println!("{what}: median {median:.3} of {count} rounds, {least:.3} to {most:.3}");
        }
        println!();
    }
}
