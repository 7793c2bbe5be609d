//! The api's two listeners: who is let in, what is refused and how, what is shown.

use crate::support::api::{LABEL, RunningApi, TOKEN};
use crate::support::process::{client, value_of};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use streamgate::api::{Api, ApiMetrics, ApiSettings, Stores};
use streamgate::progress::{
    ApiToken, ClientProgress, Heartbeat, LeaseKey, MemoryFault, MemoryProgress, Progress,
    ProgressError, WorkerId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const PROBLEM: &str = "application/problem+json";

/// An api over one store in memory, for whichever consumer.
async fn api() -> (RunningApi, MemoryProgress) {
    let store = MemoryProgress::new();
    let shared = Arc::new(store.view());
    let stores: Stores = Arc::new(move |_, _| Arc::clone(&shared) as Arc<dyn Progress>);
    (RunningApi::start("people", stores).await, store)
}

fn path(call: &str) -> String {
    format!("/v1/progress/people/streamgate@{LABEL}/{call}")
}

fn post(api: &RunningApi, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    client().post(format!("{}{path}", api.url())).bearer_auth(TOKEN).body(body)
}

/// The problem that a request is answered with.
async fn problem(request: RequestBuilder, status: u16, code: &str) -> Value {
    let answer: Response = request.send().await.expect("it answers");
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], PROBLEM);
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).expect("JSON");
    assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
    assert_eq!(body["type"], "about:blank");
    assert!(body["title"].is_string() && body["detail"].as_str().unwrap().len() > 10, "{body}");
    body
}

#[tokio::test]
async fn nobody_is_let_in_without_the_token() {
    let (api, _) = api().await;
    let anywhere = [path("heartbeat"), path("coordination"), "/v1/hello".into(), "/".into()];
    for path in anywhere {
        let plain = || client().post(format!("{}{path}", api.url())).body("{}");
        problem(plain(), 401, "unauthorized").await;
        for wrong in ["", "a-token-for-tests-onlY", "a-token-for-tests-only2", "a-token"] {
            problem(plain().bearer_auth(wrong), 401, "unauthorized").await;
        }
        let basic = plain().header("authorization", format!("Basic {TOKEN}"));
        problem(basic, 401, "unauthorized").await;
        problem(plain().header("authorization", TOKEN), 401, "unauthorized").await;
    }
    let answer = client().get(format!("{}/", api.url())).send().await.unwrap();
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    let mut settings = api.settings("streamgate", LABEL);
    settings.token = ApiToken::new("another-token-than-that").unwrap();
    match ClientProgress::new(settings).unwrap().describe().await {
        Err(ProgressError::Unsuitable(why)) => assert!(why.contains("API_TOKEN"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_sentence() {
    let (api, store) = api().await;
    for bad in ["", "{", "[]", "{\"worker\":\"w1\"}", "{\"worker\":\"\",\"beat\":1}", "\u{0}"] {
        problem(post(&api, &path("heartbeat"), bad), 400, "malformed").await;
    }
    let beat = || json!({"worker": "w1", "beat": 1}).to_string();
    let whose = |consumer, label| format!("/v1/progress/people/{consumer}@{label}/heartbeat");
    problem(post(&api, &whose("no name", "x"), beat()), 422, "wrong_consumer").await;
    problem(post(&api, &whose("streamgate", "b%23"), beat()), 400, "malformed").await;
    let large = "x".repeat((1 << 20) + 1);
    problem(post(&api, &path("heartbeat"), large), 413, "too_large").await;
    for unknown in ["/", "/v2/hello", "/v1/progress/people/heartbeat", &path("nothing")] {
        problem(post(&api, unknown, beat()), 404, "no_such_route").await;
    }
    problem(post(&api, &path("coordination"), ""), 405, "wrong_method").await;
    assert_eq!(store.coordination().await.unwrap().workers, [], "nothing was written");
    let fits = post(&api, &path("heartbeat"), beat()).send().await.unwrap();
    assert_eq!(fits.status(), 200);
}

#[tokio::test]
async fn another_table_consumer_or_version_is_refused_by_both_names() {
    let (api, store) = api().await;
    let worker = WorkerId::from("w1");
    for (name, ours, theirs) in
        [("TABLE_NAME", "people", "orders"), ("CONSUMER_NAME", "streamgate", "audit")]
    {
        let mut settings = api.settings("streamgate", LABEL);
        let other = if name == "TABLE_NAME" { &mut settings.table } else { &mut settings.consumer };
        *other = theirs.to_owned();
        let other = ClientProgress::new(settings).unwrap();
        for refused in
            [other.describe().await, other.heartbeat(&Heartbeat::first(worker.clone())).await]
        {
            let Err(ProgressError::Unsuitable(why)) = refused else { panic!("{refused:?}") };
            for word in [name, ours, theirs] {
                assert!(why.contains(word), "{why}");
            }
        }
    }
    assert_eq!(store.coordination().await.unwrap().workers, []);
    let hello = |versions: &[u64]| {
        let hello = json!({"table": "people", "consumer": "streamgate", "label": LABEL, "versions": versions});
        post(&api, "/v1/hello", hello.to_string())
    };
    for none_in_common in [&[][..], &[0], &[2, 3]] {
        problem(hello(none_in_common), 422, "wrong_version").await;
    }
    // An older or newer side that speaks this version too is spoken to in it.
    for with_ours in [&[1][..], &[0, 1, 2]] {
        let answer = hello(with_ours).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let welcome = json!({"table": "people", "consumer": "streamgate", "version": 1});
        assert_eq!(answer, welcome);
    }
    api.client("streamgate", LABEL).describe().await.unwrap();
}

#[tokio::test]
async fn a_lost_lease_is_a_conflict_that_names_the_owner() {
    let (api, _) = api().await;
    let progress = api.client("streamgate", LABEL);
    let lease = progress.take(&LeaseKey::Stream, None, &WorkerId::from("w1"), None).await.unwrap();
    let late = json!({"shard": null, "seen": null, "worker": "w2", "new": null}).to_string();
    let body = problem(post(&api, &path("take"), late), 409, "lease_lost").await;
    assert_eq!(body["owner"], "w1");
    progress.release(&LeaseKey::Stream, &lease).await.unwrap();
    let seeded = json!({ "lease": lease, "begin": "TRIM_HORIZON" }).to_string();
    let body = problem(post(&api, &path("seeded"), seeded), 409, "lease_lost").await;
    assert_eq!(body.get("owner"), None);
}

#[tokio::test]
async fn a_table_out_of_reach_is_unavailable_and_the_api_not_ready() {
    let store = Arc::new(MemoryProgress::new());
    let shared = Arc::clone(&store);
    let stores: Stores = Arc::new(move |_, _| Arc::clone(&shared) as Arc<dyn Progress>);
    store.set_fault(MemoryFault::Unreachable);
    let api = RunningApi::start("people", stores).await;
    let get = async |path: &str| {
        let answer = client().get(format!("http://{}{path}", api.public)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await.0, 200);
    let (code, body) = get("/readyz").await;
    assert!(code == 503 && body.contains("the table does not answer"), "{body}");
    let beat = json!({"worker": "w1", "beat": 1}).to_string();
    problem(post(&api, &path("heartbeat"), beat), 503, "unavailable").await;
    let progress = api.client("streamgate", LABEL);
    let refused = progress.coordination().await;
    assert!(matches!(refused, Err(ProgressError::Unavailable(_))), "{refused:?}");
    store.set_fault(MemoryFault::None);
    progress.describe().await.unwrap();

    let (code, text) = get("/metrics").await;
    let requests = |route: &str, outcome: &str| {
        let labels = format!("{{outcome=\"{outcome}\",route=\"{route}\"}}");
        value_of(&text, &format!("streamgate_progress_requests_total{labels}"))
    };
    assert_eq!((code, requests("hello", "ok"), requests("take", "lease_lost")), (200, 1.0, 0.0));
    assert_eq!(requests("heartbeat", "unavailable"), 1.0);
    // The private listener shows none of it, nor the public one anything private.
    assert_eq!(get(&path("coordination")).await.0, 404);
}

#[tokio::test]
async fn an_application_mounts_its_own_routes() {
    let (stores, asked): (Stores, _) = {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let open = move |_: &str, _: &str| {
            count.fetch_add(1, Ordering::Relaxed);
            Arc::new(MemoryProgress::new()) as Arc<dyn Progress>
        };
        (Arc::new(open), asked)
    };
    let routes = axum::Router::new().route("/people", axum::routing::get(async || "all of them"));
    let api = RunningApi::start_for(vec!["streamgate".to_owned()], "people", stores, |api| {
        api.routes(routes)
    })
    .await;
    let answer = client().get(format!("http://{}/people", api.public)).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "all of them");
    // However many streams are asked for, a bounded number of stores is kept.
    let client = client();
    for n in 0..600 {
        let url = format!("{}/v1/progress/people/streamgate@{n}/coordination", api.url());
        for _ in 0..2 {
            let answer = client.get(&url).bearer_auth(TOKEN).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
    assert!(asked.load(Ordering::Relaxed) < 610);
}

#[tokio::test]
async fn a_slow_route_of_the_application_is_finished_within_the_grace() {
    let begun = Arc::new(Notify::new());
    let (here, slow) = (Arc::clone(&begun), Duration::from_secs(4));
    let route = async move || {
        here.notify_one();
        tokio::time::sleep(slow).await;
        "at last"
    };
    let routes = axum::Router::new().route("/slow", axum::routing::get(route));
    let settings = ApiSettings {
        table: "people".to_owned(),
        consumers: vec!["streamgate".to_owned()],
        token: ApiToken::new(TOKEN).unwrap(),
    };
    let stores: Stores = Arc::new(|_, _| Arc::new(MemoryProgress::new()));
    let api = Api::new(settings, stores, Arc::new(ApiMetrics::new())).routes(routes);
    let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let private = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/slow", public.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(api.serve(public, private, stop.clone(), Duration::from_secs(60)));
    let asking = tokio::spawn(client().get(url).send());
    begun.notified().await;
    stop.cancel();
    let answer = asking.await.unwrap().expect("it is not cut off");
    assert_eq!(answer.text().await.unwrap(), "at last");
    assert!(serving.await.unwrap(), "all of it was finished");
}

#[tokio::test]
async fn an_api_that_is_not_there_is_waited_for() {
    let (api, _) = api().await;
    let mut settings = api.settings("streamgate", LABEL);
    settings.urls = vec!["http://127.0.0.1:9".parse().unwrap()];
    let refused = ClientProgress::new(settings).unwrap().coordination().await;
    assert!(matches!(refused, Err(ProgressError::Unavailable(_))), "{refused:?}");
    // Somebody else at that address: it may be a load balancer without a target.
    let mut settings = api.settings("streamgate", LABEL);
    settings.urls = vec![format!("http://{}", api.public).parse().unwrap()];
    match ClientProgress::new(settings).unwrap().describe().await {
        Err(ProgressError::Unavailable(why)) => assert!(why.contains("API_URL"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn half_a_request_holds_nobody_else_up() {
    let (api, _) = api().await;
    let mut slow = TcpStream::connect(api.private).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 100\r\n\r\n{{",
        path("heartbeat")
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    api.client("streamgate", LABEL).describe().await.unwrap();
    let mut answer = Vec::new();
    let reading = slow.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("it is cut off").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not done within"), "{answer}");
}
