//! How figures are printed: a line for each process, and the ratios of a run's rounds.

use super::Plan;
use super::process::Usage;

/// What was read, over columns.
pub fn heading(plan: &Plan, handler: &str) {
    println!(
        "{} records of {} bytes in {} {} shards, pages of {}; {handler}",
        plan.total(),
        plan.bytes,
        plan.shards,
        if plan.open { "open" } else { "closed" },
        plan.records
    );
    println!(
        "{:<34} {:>7} {:>7} {:>14} {:>14} {:>10} {:>10}",
        "", "wall s", "CPU s", "records/CPU-s", "records/s", "MB/CPU-s", "peak MiB"
    );
}

impl Usage {
    pub fn print(&self, what: &str, plan: &Plan) {
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
pub struct Ratios(Vec<(&'static str, Vec<f64>)>);

impl Ratios {
    pub fn add(&mut self, what: &'static str, ratio: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, ratios)) => ratios.push(ratio),
            None => self.0.push((what, vec![ratio])),
        }
    }

    pub fn print(&mut self) {
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
