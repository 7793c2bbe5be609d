//! The examples, built as this binary was and run as people run them.

use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use tokio::sync::Mutex;

/// Where an example is. Cargo builds it by itself only where all targets are tested; there is
/// nothing left to do then.
pub async fn example(name: &'static str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<&str, PathBuf>>> = Mutex::const_new(None);
    let mut built = BUILT.lock().await;
    let built = built.get_or_insert_default();
    if !built.contains_key(name) {
        built.insert(name, build(name).await);
    }
    built[name].clone()
}

async fn build(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_streamgate")).parent().expect("a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--example", name])
        .args(["--message-format", "json", "--profile", profile, "--target-dir"])
        .arg(folder.parent().expect("a target directory"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("there is a cargo");
    assert!(built.status.success(), "the example can be built");
    let messages = String::from_utf8(built.stdout).expect("text");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let example = messages
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    example.expect("cargo says where it is")
}
