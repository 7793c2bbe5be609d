//! Imports point one way along a record's way, and files stay small enough to read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up. A room may import from those on lower floors, not from
/// its own floor or above.
const FLOORS: &[&[&str]] = &[
    &["arn", "backoff", "causes", "clock", "panics", "polling"],
    &["budget"],
    &["record"],
    &["aws"],
    &["source"],
    &["progress"],
    &["policy", "telemetry"],
    &["api"],
    &["batch", "filter", "frontier", "lineage", "planner"],
    &["checkpoint", "deliver", "reader"],
    &["consumer"],
    &["config", "simulator"],
    &["check", "local"],
    &["program"],
];

/// Lines before a file's tests; a room that grows past this is split by idea.
const MOST_LINES: usize = 400;

fn sources(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn floor(room: &str) -> usize {
    let found = FLOORS.iter().position(|rooms| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("{room} has no floor; give it one in tests/it/architecture.rs"))
}

fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
}

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeSet::new();
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).expect("below src");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let room = first.trim_end_matches(".rs");
        if matches!(room, "main" | "lib" | "cli")
            || inside.components().any(|c| c.as_os_str() == "tests")
        {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        for line in before_tests(&text) {
            for import in line.split("crate::").skip(1) {
                if line.trim_start().starts_with("//") {
                    continue;
                }
                let end = import.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let other = &import[..end.unwrap_or(import.len())];
                if other != room && !other.is_empty() && floor(other) >= floor(room) {
                    wrong.insert(format!("{}: {room} imports {other}", inside.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_has_a_head_and_can_be_read_in_one_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in ["src", "examples"].into_iter().flat_map(|folder| sources(&root.join(folder))) {
        if path.components().any(|component| component.as_os_str() == "tests") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("//!"), "{}: no head", path.display());
        let lines = before_tests(&text).count();
        assert!(lines <= MOST_LINES, "{}: {lines} lines before its tests", path.display());
    }
}
