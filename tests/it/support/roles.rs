//! A ministack that evaluates IAM policies on the wire, and sessions of roles in it.
//!
//! Owns one server for the whole binary. Policies are the program's own: what
//! `streamgate policy` prints. Invariant: nobody here has more than its policy says, but
//! the root user who sets things up.

use super::ministack::{Ministack, python};
use super::process::{Process, within};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use streamgate::arn::StreamArn;
use tokio::sync::oneshot;

/// The account of all that names no other.
pub const ACCOUNT: &str = "000000000000";

/// How long a session lives whose name begins with `short`.
pub const SHORT_SESSION_SECONDS: u64 = 13;

/// Whether tests that have a `Stage` shall run under the roles, too.
pub fn are_asked_for() -> bool {
    std::env::var("STREAMGATE_TEST_ROLES").is_ok_and(|asked| asked == "1")
}

/// The tests with a `Stage` that do not run under the roles, and why.
pub fn exceptions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../not-under-roles.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').expect("a test and a reason"))
}

/// The server; it ends with this process.
pub fn server() -> SocketAddr {
    static SHARED: OnceLock<Ministack> = OnceLock::new();
    let short = SHORT_SESSION_SECONDS.to_string();
    let variables = [("AUTH", "true"), ("SHORT_SESSION_SECONDS", &short)];
    SHARED.get_or_init(|| Ministack::start(&variables)).address()
}

/// Has things done by the root user; gives the result of each.
pub async fn root(work: &[Value]) -> Vec<Value> {
    root_of(ACCOUNT, work).await
}

async fn root_of(account: &str, work: &[Value]) -> Vec<Value> {
    let asked = Root::shared().ask(account, work);
    let answer = within("what the root user does", asked).await.expect("it answers");
    let results = answer["results"].as_array();
    results.unwrap_or_else(|| panic!("{}", answer["error"].as_str().unwrap_or_default())).clone()
}

/// The process that does the root user's work, for the whole binary: most of what a call
/// takes is the start of such a process. It ends when its standard input closes.
struct Root {
    stdin: Mutex<ChildStdin>,
    /// Who waits for which answer.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    next: AtomicU64,
}

impl Root {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<&Root> = OnceLock::new();
        SHARED.get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/roles.py");
            let mut child = Command::new(python())
                .arg(script)
                .env("NO_PROXY", "127.0.0.1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the venv's python runs");
            let stdin = Mutex::new(child.stdin.take().expect("piped"));
            let stdout = child.stdout.take().expect("piped");
            let root = Self { stdin, waiting: Mutex::default(), next: AtomicU64::new(0) };
            let root: &Self = Box::leak(Box::new(root));
            // Of no runtime: each test's ends with the test.
            std::thread::spawn(move || {
                root.read(stdout);
                child.wait()
            });
            root
        })
    }

    fn read(&self, stdout: ChildStdout) {
        for line in BufReader::new(stdout).lines() {
            let answer: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            let id = answer["id"].as_u64().expect("an ID of ours");
            let waits = self.waiting.lock().unwrap().remove(&id).expect("somebody waits for it");
            // A test that failed meanwhile waits no more.
            let _ = waits.send(answer);
        }
        // Whoever waits still is told.
        self.waiting.lock().unwrap().clear();
    }

    fn ask(&self, account: &str, work: &[Value]) -> oneshot::Receiver<Value> {
        let (answer, answered) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let endpoint = format!("http://{}", server());
        let line = json!({"id": id, "endpoint": endpoint, "account": account, "do": work});
        self.waiting.lock().unwrap().insert(id, answer);
        let told = writeln!(self.stdin.lock().unwrap(), "{line}");
        told.expect("it lives as long as this process");
        answered
    }
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
    session_in(ACCOUNT, name, policy).await
}

/// The same in another account.
pub async fn session_in(account: &str, name: &str, policy: &Value) -> Keys {
    let session = json!(["session", {"name": name, "policy": policy}]);
    let keys = root_of(account, &[session]).await.remove(0);
    serde_json::from_value(keys).expect("keys")
}

/// The actions of a policy, without their service.
pub fn allowed(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().unwrap().iter();
    let actions = statements.flat_map(|statement| statement["Action"].as_array().unwrap());
    actions.map(|action| action.as_str().unwrap().replace("dynamodb:", "")).collect()
}

/// A policy without one action.
pub fn without(policy: &Value, action: &str) -> Value {
    let mut policy = policy.clone();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Action"].as_array_mut().unwrap().retain(|allowed| *allowed != action);
    }
    let is_something = |statement: &Value| statement["Action"] != json!([]);
    policy["Statement"].as_array_mut().unwrap().retain(is_something);
    policy
}

/// How every call of both services is answered to `keys`: about a table, and its stream.
pub async fn calls(keys: &Keys, stream: &StreamArn, item: &str) -> BTreeMap<String, String> {
    let item = json!({"PK": {"S": item}, "SK": {"S": "check"}});
    let of_table = json!({
        "TableName": stream.table(), "Key": item, "Item": item,
        "KeyConditionExpression": "PK = :pk", "ExpressionAttributeValues": {":pk": item["PK"]},
    });
    every_call(keys, stream, of_table).await
}

/// The same, where calls that can name an index name this one, and a key of it.
pub async fn calls_on_index(
    keys: &Keys,
    stream: &StreamArn,
    index: &str,
    key: &str,
) -> BTreeMap<String, String> {
    let of_index = json!({
        "TableName": stream.table(), "IndexName": index,
        "KeyConditionExpression": "SK = :sk", "ExpressionAttributeValues": {":sk": {"S": key}},
    });
    every_call(keys, stream, of_index).await
}

async fn every_call(keys: &Keys, stream: &StreamArn, of_table: Value) -> BTreeMap<String, String> {
    let iterator = root(&[json!(["iterator", {"stream": stream.as_str()}])]).await.remove(0);
    let keys = json!({
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "SessionToken": keys.session_token,
    });
    let of_stream = json!({
        "StreamArn": stream.as_str(), "ShardIterator": iterator,
        "ShardId": "shardId-00000000000000000000-00000000", "ShardIteratorType": "TRIM_HORIZON",
    });
    let ask = |service, own| json!(["calls", {"keys": keys, "service": service, "own": own}]);
    let work = [ask("dynamodb", of_table), ask("dynamodbstreams", of_stream)];
    let answers = root(&work).await;
    answers
        .into_iter()
        .flat_map(|some| -> BTreeMap<String, String> {
            serde_json::from_value(some).expect("an answer for each call")
        })
        .collect()
}

/// Those that were not refused.
pub fn let_in(answers: &BTreeMap<String, String>) -> BTreeSet<String> {
    let passed = answers.iter().filter(|(_, answer)| *answer != "AccessDeniedException");
    passed.map(|(call, _)| call.clone()).collect()
}
