//! A ministack that evaluates IAM policies on the wire, and sessions of roles in it.
//!
//! Owns one server for the whole binary. Policies are the program's own: what
//! `streamgate policy` prints. Invariant: nobody here has more than its policy says, but
//! the root user who sets things up.

use super::ministack::{Ministack, python};
use super::process::{Process, within};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::OnceLock;
use streamgate::arn::StreamArn;
use tokio::io::AsyncWriteExt;

/// How long a session lives whose name begins with `short`.
pub const SHORT_SESSION_SECONDS: u64 = 13;

/// The server; it ends with this process.
pub fn server() -> SocketAddr {
    static SHARED: OnceLock<Ministack> = OnceLock::new();
    let short = SHORT_SESSION_SECONDS.to_string();
    let variables = [("AUTH", "true"), ("SHORT_SESSION_SECONDS", &short)];
    SHARED.get_or_init(|| Ministack::start(&variables)).address()
}

/// Has things done by the root user; gives the result of each.
pub async fn root(work: &[Value]) -> Vec<Value> {
    let work = json!({"endpoint": format!("http://{}", server()), "do": work}).to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/roles.py");
    let mut child = tokio::process::Command::new(python())
        .arg(script)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the venv's python runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(work.as_bytes()).await.expect("it reads its input");
    drop(stdin);
    let output = within("what the root user does", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list of results")
}

/// Makes a table with a stream.
pub async fn table(name: &str) -> StreamArn {
    let made = root(&[json!(["table", {"name": name}])]).await;
    made[0].as_str().expect("an ARN").parse().expect("of a stream")
}

/// Keys of a session.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
}

impl Keys {
    /// As a container has them in its environment.
    pub fn variables(&self) -> [(&str, &str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", &self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_access_key),
            ("AWS_SESSION_TOKEN", &self.session_token),
        ]
    }
}

/// What `streamgate policy` prints.
pub async fn policy(container: &str, variables: &[(&str, &str)]) -> Value {
    let ended = Process::start(&["policy", container], variables).ended().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    serde_json::from_str(&ended.stdout.join("\n")).expect("a policy is JSON")
}

/// The policies of both containers on a table that streams to itself.
pub async fn policies(stream: &StreamArn) -> [Value; 2] {
    let (arn, table) = (("STREAM_ARN", stream.as_str()), ("TABLE_NAME", stream.table()));
    let api = [table, ("AWS_REGION", stream.region()), ("AWS_ACCOUNT_ID", stream.account())];
    let consumer = [arn, table, ("API_URL", "http://api:8081")];
    [policy("consumer", &consumer).await, policy("api", &api).await]
}

/// The policy of a consumer without an api.
pub async fn policy_without_api(stream: &StreamArn) -> Value {
    policy("consumer", &[("STREAM_ARN", stream.as_str()), ("TABLE_NAME", stream.table())]).await
}

/// Every item of a stream's table.
pub async fn items(stream: &StreamArn) -> Value {
    root(&[json!(["items", {"table": stream.table()}])]).await.remove(0)
}

/// A role of a policy's; the ARN.
pub async fn role(name: &str, policy: &Value) -> String {
    let made = root(&[json!(["role", {"name": name, "policy": policy}])]).await;
    made[0].as_str().expect("an ARN").to_owned()
}

/// A session of a new role with a policy.
pub async fn session(name: &str, policy: &Value) -> Keys {
    let role = role(name, policy).await;
    let keys = root(&[json!(["assume", {"role": role, "session": "it"}])]).await.remove(0);
    serde_json::from_value(keys).expect("keys")
}
