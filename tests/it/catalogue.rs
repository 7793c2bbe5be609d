//! What the pages say about metrics and settings, held against the program.
//!
//! Tables between `<!-- generated: NAME -->` and `<!-- end -->` are compared with what the
//! program has, and written anew when `STREAMGATE_BLESS` is set.

use crate::support::api::RunningApi;
use crate::support::process::{Process, client, value_of};
use crate::support::stage::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use streamgate::api::Stores;
use streamgate::aws::AttemptOutcome;
use streamgate::config::{self, SETTINGS};
use streamgate::progress::MemoryProgress;
use streamgate::telemetry::metrics::{
    AWS_OPERATIONS, InvocationOutcome, READ_RETRY_REASONS, ShardState,
};

const METRICS: &str = "docs/metrics.md";
const CONFIGURATION: &str = "docs/configuration.md";

fn path(page: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page)
}

fn read(page: &str) -> String {
    std::fs::read_to_string(path(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Compares the generated part `name` of a page.
pub fn assert_generated(page: &str, name: &str, expected: &str) {
    let text = read(page);
    let begin = format!("<!-- generated: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in {page}"));
    let (stands, after) = rest.split_once("<!-- end -->").expect("the part has an end");
    if stands == expected {
        return;
    }
    if std::env::var_os("STREAMGATE_BLESS").is_some() {
        let text = format!("{before}{begin}{expected}<!-- end -->{after}");
        std::fs::write(path(page), text).expect("the page can be written");
        return;
    }
    let (old, new): (BTreeSet<_>, BTreeSet<_>) =
        (stands.lines().collect(), expected.lines().collect());
    panic!(
        "{page} and the program differ; STREAMGATE_BLESS=1 writes the table anew.\nOnly in the page: {:#?}\nOnly in the program: {:#?}",
        old.difference(&new).collect::<Vec<_>>(),
        new.difference(&old).collect::<Vec<_>>(),
    );
}

/// One metric as the exposition shows it.
#[derive(Default)]
struct Shown {
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The `streamgate_*` metrics of an exposition, in its order.
fn shown(exposition: &str) -> BTreeMap<String, Shown> {
    let mut metrics: BTreeMap<String, Shown> = BTreeMap::new();
    for line in exposition.lines().filter(|line| line.contains("streamgate_")) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').expect("labels are closed").0;
            let metric = metrics.get_mut(name.trim_end_matches("_bucket")).expect("help is first");
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").expect("values are quoted");
                if label != "le" {
                    let values = metric.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    metrics
}

/// What a consumer shows that has just started.
async fn scrape(table: &str) -> String {
    let stage = Stage::new(table, 1).await;
    let process = stage.consumer(&[("HANDLER", "discard")]).await;
    let text = process.until("/metrics", |code, _| code == 200).await;
    process.stop().await;
    text
}

/// What an api shows that has just started.
async fn scrape_api() -> String {
    let stores: Stores = Arc::new(|_, _| Arc::new(MemoryProgress::new()));
    let api = RunningApi::start("people", stores).await;
    let answer = client().get(format!("http://{}/metrics", api.public)).send().await.unwrap();
    answer.text().await.unwrap()
}

/// The page's table of what an exposition shows.
fn table_of(metrics: &BTreeMap<String, Shown>) -> String {
    let mut table = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, Shown { kind, help, labels }) in metrics {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, values)| {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                // These two are of the build, not of a set.
                match name.as_str() {
                    "streamgate_build_info" => format!("`{label}`"),
                    _ => format!("`{label}`: {}", values.join(", ")),
                }
            })
            .collect();
        let labels = labels.join("; ");
        assert!(!help.is_empty() && !help.contains('|'), "{name}: {help:?}");
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_metrics_says_what_both_containers_show() {
    let exposition = scrape("metrics-page").await;
    let (consumer, api) = (shown(&exposition), shown(&scrape_api().await));
    assert_generated(METRICS, "metrics", &table_of(&consumer));
    assert_generated(METRICS, "api metrics", &table_of(&api));

    let page = read(METRICS);
    let names = page.match_indices("streamgate_").map(|(at, _)| {
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        page[at..].split(word).next().unwrap()
    });
    for name in names {
        let plain = name.trim_end_matches("_bucket");
        let is_there = consumer.contains_key(plain) || api.contains_key(plain);
        assert!(is_there, "{METRICS} names {name}, which there is not");
    }
    assert!(!exposition.contains("shardId-"), "shards are no labels");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_label_value_is_there_from_the_start() {
    let exposition = scrape("label-values").await;
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels.iter().map(|(l, v)| format!("{l}=\"{v}\"")).collect();
        value_of(&exposition, &format!("streamgate_{name}{{{}}}", labels.join(",")))
    };
    for outcome in InvocationOutcome::ALL {
        assert_eq!(value("invocations_total", &[("outcome", outcome.label())]), 0.0);
    }
    for outcome in ["ok", "lease_lost", "error"] {
        assert_eq!(value("checkpoints_total", &[("outcome", outcome)]), 0.0);
    }
    for reason in READ_RETRY_REASONS {
        assert_eq!(value("read_retries_total", &[("reason", reason)]), 0.0);
    }
    for state in ShardState::ALL {
        value("shards", &[("state", state.label())]);
    }
    for operation in AWS_OPERATIONS {
        for outcome in AttemptOutcome::ALL {
            let made = value(
                "aws_requests_total",
                &[("operation", operation), ("outcome", outcome.label())],
            );
            assert!(made == 0.0 || outcome == AttemptOutcome::Ok, "{operation} {outcome:?}");
        }
    }
}

/// Runs promtool on `input`; gives what it says when it does not agree.
fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    use std::io::Write as _;
    let ours = path("target/test-tools/prometheus/usr/bin/promtool");
    let tool = if ours.exists() { ours } else { PathBuf::from("promtool") };
    let spawned = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.unwrap_or_else(|error| {
        panic!("promtool cannot be run ({error}): run scripts/test once, which installs it, or put it on the PATH")
    });
    child.stdin.take().unwrap().write_all(input.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let exposition = scrape("promtool").await;
    for exposition in [exposition, scrape_api().await] {
        promtool(&["check", "metrics"], &exposition).unwrap_or_else(|said| panic!("{said}"));
    }
}

#[test]
fn prometheus_understands_every_query_of_the_page() {
    let page = read(METRICS);
    let blocks = page.split("```promql\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").expect("a block ends").0);
    let queries: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(queries.len() > 10, "{queries:?}");
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(index, query)| serde_json::json!({"record": format!("page:{index}"), "expr": query}))
        .collect();
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "page", "rules": rules}]}).to_string();
    promtool(&["check", "rules", "/dev/stdin"], &file).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn the_page_of_settings_says_what_there_is() {
    let mut table =
        "| variable | flag | for | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let commands: Vec<String> = setting
            .commands
            .iter()
            .map(|command| format!("`{}`", format!("{command:?}").to_lowercase()))
            .collect();
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let elsewhere = setting.elsewhere.iter().map(|(command, default)| {
            format!(", `{default}` in `{}`", format!("{command:?}").to_lowercase())
        });
        let default = default + &elsewhere.collect::<String>();
        assert!(!setting.help.contains('|'), "{}", setting.name);
        writeln!(
            table,
            "| `{}` | `--{}` | {} | {default} | {} |",
            setting.name,
            setting.flag(),
            commands.join(", "),
            setting.help
        )
        .unwrap();
    }
    assert_generated(CONFIGURATION, "settings", &table);
}

#[test]
fn the_page_of_operations_quotes_what_is_logged() {
    let page = read("docs/operations.md");
    let (_, table) = page.split_once("## A log line, and what to do").expect("the chapter");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let quoted: Vec<&str> = rows.map(|(message, _)| message).take(19).collect();
    let mut sources = vec![path("src")];
    let mut text = String::new();
    while let Some(at) = sources.pop() {
        if at.is_dir() {
            sources.extend(std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            text += &std::fs::read_to_string(at).unwrap();
        }
    }
    for message in &quoted {
        assert!(text.contains(message), "no log line says {message:?}");
    }
    assert!(
        quoted.len() == 19 && quoted.last() == Some(&"progress is written to the table directly"),
        "{quoted:?}"
    );
}

#[tokio::test]
async fn the_help_of_each_command_shows_its_settings_and_no_others() {
    for (name, command) in [
        ("consumer", config::Command::Consumer),
        ("local", config::Command::Local),
        ("api", config::Command::Api),
    ] {
        let ended = Process::start(&[name, "--help"], &[]).ended().await;
        assert_eq!((ended.code, ended.stderr.len()), (Some(0), 0));
        // Lines are broken where the terminal ends.
        let words: Vec<_> = ended.stdout.iter().flat_map(|line| line.split_whitespace()).collect();
        let help = words.join(" ");
        for setting in SETTINGS {
            let row = format!("--{} <{}>", setting.flag(), setting.value);
            let variable = format!("[env: {}]", setting.name);
            if setting.commands.contains(&command) {
                assert!(help.contains(&row) && help.contains(&variable), "{name}: {row}\n{help}");
                let default = setting.default_in(command);
                let is_empty = default.is_empty();
                let default = format!("{variable} [default: {default}]");
                assert!(is_empty || help.contains(&default), "{default}");
            } else {
                assert!(!help.contains(&variable), "{name} does not take {variable}");
            }
        }
    }
}
