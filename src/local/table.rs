//! The table of the embedded DynamoDB, in front of dynoxide.
//!
//! Owns the capture of changes: writes to the streamed table go one at a time, the
//! items they name are looked at before and after, and what differs goes to the stream
//! in that order. dynoxide's own streams are left off: each write to them would scan
//! their whole log, and they record writes that change nothing.

use super::changes::{Call, Streamed, change, describe_stream};
use super::{LocalError, LocalIndex, LocalSettings};
use crate::simulator::Simulator;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::post;
use dynoxide::Database;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// DynamoDB's own bound on a request.
const MAX_REQUEST_BYTES: usize = 16 << 20;
const TARGET: &str = "x-amz-target";

struct Front {
    settings: LocalSettings,
    simulator: Simulator,
    database: Database,
    inner: SocketAddr,
    client: reqwest::Client,
    /// One write at a time: the stream's order is the order of the writes.
    writing: Mutex<()>,
}

/// Creates the table and gives the future that serves it until `stop`.
pub(super) async fn start(
    settings: LocalSettings,
    simulator: Simulator,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, LocalError> {
    let failed = |error: &dyn std::fmt::Display| LocalError::new("the embedded table", error);
    let database = Database::memory().map_err(|error| failed(&error))?;
    create(&database, &settings).map_err(|error| failed(&error))?;
    let inner = serve_dynoxide(database.clone(), stop.clone()).map_err(|error| failed(&error))?;
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| failed(&error))?;
    let front = Front { settings, simulator, database, inner, client, writing: Mutex::default() };
    let router = Router::new()
        .route("/", post(answer))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(Arc::new(front));
    Ok(async move {
        if let Err(error) =
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
        {
            tracing::error!(%error, "the embedded table stopped");
        }
    })
}

fn create(database: &Database, settings: &LocalSettings) -> Result<(), String> {
    let key_schema = |[partition, sort]: [&str; 2]| {
        json!([
            {"AttributeName": partition, "KeyType": "HASH"},
            {"AttributeName": sort, "KeyType": "RANGE"},
        ])
    };
    let own = [settings.partition_key.as_str(), &settings.sort_key];
    let indexes = &settings.indexes;
    let of_indexes =
        indexes.iter().flat_map(|index| [index.partition_key.as_str(), &index.sort_key]);
    // Each is defined once, however many keys it is of.
    let defined: BTreeSet<&str> = own.into_iter().chain(of_indexes).collect();
    let define = |name| json!({"AttributeName": name, "AttributeType": "S"});
    let mut request = json!({
        "TableName": settings.table,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": defined.into_iter().map(define).collect::<Vec<_>>(),
        "KeySchema": key_schema(own),
    });
    if !indexes.is_empty() {
        let index = |LocalIndex { name, partition_key, sort_key }: &LocalIndex| {
            json!({
                "IndexName": name,
                "KeySchema": key_schema([partition_key, sort_key]),
                "Projection": {"ProjectionType": "ALL"},
            })
        };
        request["GlobalSecondaryIndexes"] = indexes.iter().map(index).collect();
    }
    let request = serde_json::from_value(request).map_err(|error| error.to_string())?;
    database.create_table(request).map(drop).map_err(|error| error.to_string())
}

/// dynoxide's SQLite works on the thread that calls it, so it gets a runtime of its own.
fn serve_dynoxide(database: Database, stop: CancellationToken) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("dynoxide".into()).spawn(move || {
        runtime.block_on(async {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the embedded table stopped"),
            };
            let stopped = stop.cancelled_owned();
            if let Err(error) =
                dynoxide::server::serve_with_shutdown(listener, database, stopped).await
            {
                tracing::error!(%error, "the embedded table stopped");
            }
        });
    })?;
    Ok(address)
}

async fn answer(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
    let Some(operation) = target.strip_prefix("DynamoDB_20120810.") else {
        return refuse(if target.starts_with("DynamoDBStreams_") {
            "this is the table's address; the stream has its own, printed at start"
        } else {
            "the header X-Amz-Target: DynamoDB_20120810.OPERATION is needed"
        });
    };
    let Ok(json) = serde_json::from_slice::<Value>(&body) else {
        return front.forward(headers, body).await;
    };
    let key_names = [front.settings.partition_key.as_str(), front.settings.sort_key.as_str()];
    let streamed = Streamed { table: &front.settings.table, key_names };
    match streamed.judge(operation, &json) {
        Call::PassesBy
            if operation == "DescribeTable" && json["TableName"] == front.settings.table =>
        {
            front.describe(headers, body).await
        }
        Call::PassesBy => front.forward(headers, body).await,
        Call::Refused(why) => refuse(&why),
        Call::Writes(keys) => {
            // A client that goes away must not stop a write between the table and the
            // stream.
            let write = tokio::spawn(async move { front.write(keys, headers, body).await });
            write.await.unwrap_or_else(|error| refuse(&error.to_string()))
        }
    }
}

impl Front {
    async fn write(&self, keys: Vec<Value>, headers: HeaderMap, body: Bytes) -> Response<Body> {
        let _one_at_a_time = self.writing.lock().await;
        let before = self.look(&keys).await;
        let response = self.forward(headers, body).await;
        let after = self.look(&keys).await;
        for ((keys, before), after) in keys.into_iter().zip(before).zip(after) {
            if let Some(change) = change(keys, before, after)
                && let Err(error) = self.simulator.try_put(&change)
            {
                tracing::warn!(%error, "a change did not reach the stream");
            }
        }
        response
    }

    /// The items with these keys. Keys that are not well-formed name nothing; the call
    /// will be refused by the table.
    async fn look(&self, keys: &[Value]) -> Vec<Option<Value>> {
        let requests: Vec<Value> = keys
            .iter()
            .map(
                |key| json!({"TableName": self.settings.table, "Key": key, "ConsistentRead": true}),
            )
            .collect();
        let database = self.database.clone();
        let count = requests.len();
        let look = move || requests.into_iter().map(|request| get(&database, request)).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| vec![None; count])
    }

    async fn describe(&self, headers: HeaderMap, body: Bytes) -> Response<Body> {
        let response = self.forward(headers, body).await;
        if response.status() != StatusCode::OK {
            return response;
        }
        let Ok(body) = axum::body::to_bytes(response.into_body(), MAX_REQUEST_BYTES).await else {
            return refuse("the embedded table broke off its answer");
        };
        let mut json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let stream = self.simulator.stream();
        describe_stream(&mut json, stream.as_str(), stream.label());
        reply(StatusCode::OK, json.to_string())
    }

    async fn forward(&self, headers: HeaderMap, body: Bytes) -> Response<Body> {
        let mut request = self.client.post(format!("http://{}/", self.inner)).body(body);
        for (name, value) in &headers {
            if ![header::HOST, header::CONTENT_LENGTH, header::CONNECTION].contains(name) {
                request = request.header(name, value);
            }
        }
        // Unsigned calls are let in: on loopback, a curl line should be enough.
        if !headers.contains_key(header::AUTHORIZATION) {
            request = request
                .header(header::AUTHORIZATION, "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0")
                .header("x-amz-date", "20260101T000000Z");
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return refuse(&format!("the embedded table does not answer: {error}")),
        };
        let mut response = Response::builder().status(answer.status());
        for name in ["content-type", "x-amzn-requestid", "x-amz-crc32"] {
            if let Some(value) = answer.headers().get(name) {
                response = response.header(name, value);
            }
        }
        match answer.bytes().await {
            Ok(body) => response.body(Body::from(body)).expect("copied headers are valid"),
            Err(error) => refuse(&format!("the embedded table broke off its answer: {error}")),
        }
    }
}

fn get(database: &Database, request: Value) -> Option<Value> {
    let request = serde_json::from_value(request).ok()?;
    let answer = serde_json::to_value(database.get_item(request).ok()?).ok()?;
    answer.get("Item").filter(|item| !item.is_null()).cloned()
}

fn refuse(why: &str) -> Response<Body> {
    let body = json!({"__type": "com.amazon.coral.validate#ValidationException", "message": why});
    reply(StatusCode::BAD_REQUEST, body.to_string())
}

fn reply(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
