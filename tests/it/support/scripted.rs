//! A DynamoDB that does what a test says: answers itself, or hands on to a real one and
//! tampers with what comes back.

use super::sdk_config;
use aws_config::SdkConfig;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// What to do with one request.
pub enum Reaction {
    /// Answer with this status and body.
    Answer(u16, Value),
    /// Hand on this body, and answer with what comes back.
    Forward(Value),
    /// Hand on this body, and answer with a server fault: it happened, but who knows.
    LoseAnswer(Value),
    /// Hand on this body, and take the old item out of a refusal.
    WithoutOldItem(Value),
}

impl Reaction {
    /// The error `code` as DynamoDB writes it.
    pub fn error(status: u16, code: &str) -> Self {
        let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
        Self::Answer(status, json!({"__type": kind, "message": "the service's words"}))
    }
}

/// One request: its operation and its body.
pub type Request = (String, Value);

type Script = dyn Fn(&str, Value) -> Reaction + Send + Sync;

/// The server. Ends with the test's runtime.
pub struct Scripted {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

struct Server {
    behind: SocketAddr,
    client: reqwest::Client,
    script: Box<Script>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// Before the server at `behind`; `script` is asked for each request.
    pub async fn start(
        behind: SocketAddr,
        script: impl Fn(&str, Value) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let client = reqwest::Client::new();
        let server = Server { behind, client, script: Box::new(script), seen: Arc::clone(&seen) };
        let router = axum::Router::new().fallback(react).with_state(Arc::new(server));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An SDK configuration for it.
    pub async fn sdk_config(&self) -> SdkConfig {
        sdk_config(self.address).await
    }

    /// Every request so far; the SDK's own retries too.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn react(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    raw: Bytes,
) -> (StatusCode, String) {
    let target = headers["x-amz-target"].to_str().expect("ASCII");
    let operation = target.rsplit('.').next().expect("never empty");
    let body: Value = serde_json::from_slice(&raw).expect("the SDK sends JSON");
    server.seen.lock().unwrap().push((operation.to_owned(), body.clone()));
    match (server.script)(operation, body) {
        Reaction::Answer(status, body) => (StatusCode::from_u16(status).unwrap(), body.to_string()),
        Reaction::Forward(body) => forward(&server, &headers, &raw, &body).await,
        Reaction::LoseAnswer(body) => {
            forward(&server, &headers, &raw, &body).await;
            (StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned())
        }
        Reaction::WithoutOldItem(body) => {
            let (status, answer) = forward(&server, &headers, &raw, &body).await;
            let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
            if let Some(members) = answer.as_object_mut().filter(|_| !status.is_success()) {
                members.remove("Item");
            }
            (status, answer.to_string())
        }
    }
}

/// As it came, where the script left it as it is: a server that judges signatures takes it.
async fn forward(
    server: &Server,
    headers: &HeaderMap,
    raw: &Bytes,
    body: &Value,
) -> (StatusCode, String) {
    let is_same = serde_json::from_slice::<Value>(raw).is_ok_and(|raw| raw == *body);
    let body = if is_same { raw.clone() } else { body.to_string().into() };
    let mut headers = headers.clone();
    for of_the_connection in ["content-length", "transfer-encoding", "connection"] {
        headers.remove(of_the_connection);
    }
    let request = server.client.post(format!("http://{}/", server.behind)).headers(headers);
    let answer = request.body(body).send().await.expect("the server behind answers");
    let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status");
    (status, answer.text().await.expect("text"))
}
