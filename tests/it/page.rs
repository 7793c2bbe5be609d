//! The api's page over the wire: who is let in, what is given to whom, what every answer says to
//! the browser. What a person sees and does is tested in a browser, in `tests/page`.

use crate::support::api::{LABEL, RunningApi, TOKEN};
use crate::support::process::{client, within};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::api::Stores;
use streamgate::progress::letters::{self, DeadLetter, LetterId, Reason};
use streamgate::progress::orders::Order;
use streamgate::progress::{
    Heartbeat, LeaseKey, MemoryProgress, NewShard, Position, Progress, WorkerId,
};
use streamgate::source::ShardId;

const PAYLOAD: &str = r#"{"Records":[{"dynamodb":{"Keys":{"PK":{"S":"a secret"}}}}]}"#;

/// An api with a page over a store in memory, in which there is some progress.
struct Scene {
    api: RunningApi,
    store: Arc<MemoryProgress>,
}

impl Scene {
    async fn with_shards(shards: usize) -> Self {
        let store = Arc::new(MemoryProgress::new());
        let worker = WorkerId::from("orders-1-0123456789abcdef");
        store
            .heartbeat(&Heartbeat { failover_ms: 60_000, ..Heartbeat::first(worker.clone()) })
            .await
            .unwrap();
        let id = |n: usize| ShardId::from(format!("shardId-{n:020}-{:08x}", n * 7919).as_str());
        for n in 0..shards {
            let new = NewShard {
                parent: (n >= 500).then(|| id(n - 500)),
                position: Position::After("140540000000000206328".parse().unwrap()),
                closed: false,
                epoch: 0,
            };
            let key = LeaseKey::Shard(id(n));
            store.take(&key, None, &worker, Some(&new)).await.unwrap();
        }
        let opened = Arc::clone(&store);
        let stores: Stores = Arc::new(move |_, label| match label {
            LABEL => Arc::clone(&opened) as Arc<dyn Progress>,
            _ => Arc::new(MemoryProgress::new()),
        });
        let consumers = vec!["streamgate".to_owned()];
        let api = RunningApi::start_for(consumers, "people", stores, |api| api.page(true)).await;
        Self { api, store }
    }

    async fn new() -> Self {
        Self::with_shards(2).await
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        client().request(method, format!("{}/page/{path}", self.api.url()))
    }

    fn of_stream(&self, path: &str) -> String {
        format!("{path}?consumer=streamgate&label={LABEL}")
    }

    /// A request as the page itself makes it.
    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        sending(self.ask(Method::POST, path), body).header("origin", self.api.url())
    }

    /// The cookie of somebody who has signed in.
    async fn cookie(&self) -> String {
        let answer = self.post("session", &json!({"name": "ann", "token": TOKEN})).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        cookie(answer.headers())
    }

    async fn keep_letter(&self) -> LetterId {
        self.keep_payload(PAYLOAD.into()).await
    }

    async fn keep_payload(&self, payload: Bytes) -> LetterId {
        let id: LetterId = "s-1:100-200:00c0ffee00c0ffee".parse().unwrap();
        let letter = DeadLetter {
            id: id.clone(),
            reason: Reason::Retries,
            records: 1,
            attempts: 3,
            first_error: None,
            last_error: Some("status 500".to_owned()),
            given_up_at: SystemTime::UNIX_EPOCH,
            bytes: 0,
        };
        letters::keep(&*self.store, letter, &payload, &mut 0).await.unwrap();
        id
    }
}

fn sending(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

async fn value(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).expect("JSON")
}

fn cookie(headers: &HeaderMap) -> String {
    let set = headers["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// The events of an answer, as far as `enough` says.
async fn events(answer: Response, enough: impl Fn(&str) -> bool) -> String {
    let (mut told, mut answer) = (String::new(), answer);
    while !enough(&told) {
        let chunk = within("an event", answer.chunk()).await.unwrap().expect("it goes on");
        told += std::str::from_utf8(&chunk).unwrap();
    }
    told
}

#[tokio::test]
async fn who_shows_the_token_is_signed_in_by_a_cookie_that_scripts_cannot_read() {
    let scene = Scene::new().await;
    let asked = scene.ask(Method::GET, "session").send().await.unwrap();
    assert_eq!(asked.status(), 401);
    assert!(!asked.headers().contains_key("www-authenticate"), "the browser asks for no password");
    let body = json!({"name": "ann", "token": TOKEN});
    let answer = scene.post("session", &body).send().await.unwrap();
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in
        ["streamgate=", "; HttpOnly", "; SameSite=Strict", "; Max-Age=1800", "; Path=/page;"]
    {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains(TOKEN) && !set.contains("Secure"), "{set}");
    let about = value(answer).await;
    assert_eq!((&about["by"], &about["table"]), (&json!("ann"), &json!("people")));

    let cookie = scene.cookie().await;
    let asked = scene.ask(Method::GET, "session").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(asked.status(), 200);
    // The token itself opens the calls and not the page, and the cookie not the calls.
    let asked = scene.ask(Method::GET, "session").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(asked.status(), 401);
    let calls = client().get(format!("{}/v1/openapi.json", scene.api.url()));
    assert_eq!(calls.header("cookie", &cookie).send().await.unwrap().status(), 401);

    let answer = scene.post("sign-out", &json!({})).header("cookie", &cookie).send().await.unwrap();
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    for (name, token, status) in [("ann", "another-token-altogether", 401), ("", TOKEN, 400)] {
        let body = json!({"name": name, "token": token});
        let answer = scene.post("session", &body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name:?}");
        assert!(!answer.headers().contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn the_token_is_in_no_address_and_nothing_is_done_by_one() {
    let scene = Scene::new().await;
    let cookie = scene.cookie().await;
    for path in ["session", "events", "letters"] {
        let path = format!("{path}?token={TOKEN}&consumer=streamgate&label={LABEL}");
        let answer = scene.ask(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
    for path in ["order", "letter", "delete", "renew", "sign-out"] {
        let get = scene.ask(Method::GET, path).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(get.status(), 405, "{path}");
        let stranger = scene.post(path, &json!({})).send().await.unwrap();
        assert_eq!(stranger.status(), 401, "{path}");
    }
    let answer = scene.ask(Method::GET, "nothing").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn another_site_changes_nothing_and_reads_nothing() {
    let scene = Scene::new().await;
    let cookie = scene.cookie().await;
    let body = json!({"consumer": "streamgate", "label": LABEL, "order": {"pause": null}});
    let ask = |headers: &[(&'static str, String)]| {
        let request = sending(scene.ask(Method::POST, "order"), &body).header("cookie", &cookie);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    };
    let (here, there) = (scene.api.url(), "http://evil.example".to_owned());
    for headers in [
        vec![],
        vec![("origin", there)],
        vec![("origin", "null".to_owned())],
        vec![("origin", here.clone()), ("sec-fetch-site", "cross-site".to_owned())],
        // Another port of this machine is the same site.
        vec![("sec-fetch-site", "same-site".to_owned())],
    ] {
        assert_eq!(ask(&headers).send().await.unwrap().status(), 403, "{headers:?}");
    }
    let read = scene.ask(Method::GET, &scene.of_stream("letters")).header("cookie", &cookie);
    let read = read.header("sec-fetch-site", "same-site").send().await.unwrap();
    assert_eq!(read.status(), 403);
    let body = json!({"name": "a", "token": TOKEN});
    let sign_in = sending(scene.ask(Method::POST, "session"), &body);
    let sign_in = sign_in.header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!(sign_in.status(), 403);
    let orders = scene.store.coordination().await.unwrap().orders;
    assert!(orders.pauses.is_empty(), "nothing has happened");
    assert_eq!(ask(&[("origin", here)]).send().await.unwrap().status(), 200);
    let orders = scene.store.coordination().await.unwrap().orders;
    assert_eq!(orders.pauses[0].asked.by, "ann", "who asked is who signed in");
}

#[tokio::test]
async fn every_answer_tells_the_browser_what_the_page_may_do() {
    let scene = Scene::new().await;
    let cookie = scene.cookie().await;
    for (path, status) in [
        ("", 200),
        ("js/page.js", 200),
        ("nothing", 404),
        ("session", 200),
        (&scene.of_stream("events"), 200),
    ] {
        let asked = scene.ask(Method::GET, path).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(asked.status(), status, "{path}");
        let said = |name: &str| asked.headers()[name].to_str().unwrap();
        let policy = said("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(said("x-content-type-options"), "nosniff");
        assert_eq!(said("referrer-policy"), "no-referrer");
        assert_eq!(said("cross-origin-opener-policy"), "same-origin");
        let is_file = matches!(path, "" | "js/page.js");
        assert_eq!(said("cache-control"), if is_file { "no-cache" } else { "no-store" }, "{path}");
    }
    let at = format!("{}/", scene.api.url());
    let plain = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let answer = plain.build().unwrap().get(at).send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/page/".parse().unwrap())
    );
}

#[tokio::test]
async fn an_open_page_is_told_what_changes() {
    let scene = Scene::new().await;
    let cookie = scene.cookie().await;
    let open = || scene.ask(Method::GET, &scene.of_stream("events")).header("cookie", &cookie);
    let answer = open().send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let told = tokio::spawn(events(answer, |told| told.contains("\"paused by ann\"")));
    let second = events(open().send().await.unwrap(), |told| told.contains("\n\n")).await;
    assert!(second.starts_with("event: view\ndata: {"), "{second}");
    let request = streamgate::progress::orders::Request {
        order: Order::Pause(None),
        by: "paused by ann".to_owned(),
        nonce: 7,
    };
    scene.store.order(&request).await.unwrap();
    let told = told.await.unwrap();
    let (first, rest) = told.split_once("\n\n").unwrap();
    let view: Value = serde_json::from_str(first.split_once("data: ").unwrap().1).unwrap();
    assert_eq!((&view["prefix"], view["rows"].as_array().unwrap().len()), (&json!("shardId-"), 2));
    assert_eq!(view["workers"][0]["worker"], "orders-1-0123456789abcdef");
    assert!(rest.contains("event: change\n"), "{rest}");
    let unknown = scene.ask(Method::GET, "events?consumer=other&label=x").header("cookie", &cookie);
    assert_eq!(unknown.send().await.unwrap().status(), 422, "no other consumer's");
}

#[tokio::test]
async fn contents_are_given_by_one_call_alone() {
    let scene = Scene::new().await;
    let (cookie, id) = (scene.cookie().await, scene.keep_letter().await);
    let get = scene.ask(Method::GET, &scene.of_stream("letters")).header("cookie", &cookie);
    let listed = get.send().await.unwrap().text().await.unwrap();
    assert!(listed.contains(&id.to_string()) && !listed.contains("secret"), "{listed}");
    let with = |more: Value| {
        let mut body = json!({"consumer": "streamgate", "label": LABEL});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let ask = |path: &str, body: Value| scene.post(path, &body).header("cookie", &cookie).send();
    let shown = ask("letter", with(json!({"id": id}))).await.unwrap();
    assert_eq!(shown.text().await.unwrap(), PAYLOAD, "as it was kept");
    let deleted = ask("delete", with(json!({"ids": [id]}))).await.unwrap();
    assert_eq!(value(deleted).await, json!({"deleted": 1}));
    // Who lost the answer asks again, and another may have been quicker with some of them.
    let other = scene.keep_letter().await;
    let ids = json!({"ids": ["s-1:1-2:00c0ffee00c0ffee", other]});
    let deleted = ask("delete", with(ids)).await.unwrap();
    assert_eq!(value(deleted).await, json!({"deleted": 1}));
    let gone = ask("letter", with(json!({"id": id}))).await.unwrap();
    assert_eq!(gone.status(), 422);
    assert!(gone.text().await.unwrap().contains("redriven or deleted"));
    for (order, status) in [
        (json!({"skip": ["shardId-none", 1]}), 422),
        (json!({"settle": [1]}), 400),
        (json!({"skip": ["s".repeat(20_000), 1]}), 400),
    ] {
        let answer = ask("order", with(json!({"order": order}))).await.unwrap();
        assert_eq!(answer.status(), status, "{order}");
    }
    // One that stands already is the same: whoever asks is told which it is.
    let redrive = async || {
        let answer = ask("order", with(json!({"order": {"redrive": null}}))).await;
        value(answer.unwrap()).await["redrive"].as_u64().expect("its number")
    };
    assert_eq!(redrive().await, redrive().await);
}

/// What a payload may hold and a reader of trees does not survive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_is_given_as_it_was_kept_however_large_and_odd() {
    let scene = Scene::new().await;
    let cookie = scene.cookie().await;
    let mut small = String::from(r#"{"Records":[{"dynamodb":{"NewImage":{"a":{"S":"x"}"#);
    for n in 0.. {
        if small.len() > 6_000_000 {
            break;
        }
        small += &format!(r#","a{n}":{{"N":"{n}"}}"#);
    }
    small += "}}}]}";
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let odd = r#"{"surrogate":"\ud800","number":1e999,"digits":1.10}"#;
    let show = async |payload: Bytes| {
        let id = scene.keep_payload(payload).await;
        let body = json!({"consumer": "streamgate", "label": LABEL, "id": id});
        scene.post("letter", &body).header("cookie", &cookie).send().await.unwrap()
    };
    for payload in [small, deep, odd.to_owned()] {
        let answer = show(payload.clone().into()).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap() == payload, "as it was kept");
        let id = json!(["s-1:100-200:00c0ffee00c0ffee"]);
        let body = json!({"consumer": "streamgate", "label": LABEL, "ids": id});
        let gone = scene.post("delete", &body).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(gone.status(), 200);
    }
    let answer = show(Bytes::from_static(b"\"\xff\"")).await;
    assert_eq!(answer.status(), 422);
    assert!(answer.text().await.unwrap().contains("not JSON"));
}

#[tokio::test]
async fn a_stream_is_listed_for_whom_workers_show_life_and_none_is_made_by_an_address() {
    let scene = Scene::new().await;
    let cookie = scene.cookie().await;
    let streams = async || {
        let about = scene.ask(Method::GET, "session").header("cookie", &cookie).send().await;
        value(about.unwrap()).await["streams"].clone()
    };
    for path in ["events", "letters"] {
        let path = format!("{path}?consumer=streamgate&label=2001-01-01T00:00:00.000");
        let asked = scene.ask(Method::GET, &path).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(asked.status(), 422);
        let why = asked.text().await.unwrap();
        assert!(why.contains("has ever read a stream with the label 2001"), "{why}");
    }
    // This one is in the table, and may be looked at; nobody has called this replica for it.
    let open = scene.ask(Method::GET, &scene.of_stream("events")).header("cookie", &cookie);
    assert_eq!(open.send().await.unwrap().status(), 200);
    assert_eq!(streams().await, json!([]));
    let beat = Heartbeat::first("orders-2-0123456789abcdef".into());
    let url = format!("{}/v1/progress/people/streamgate@{LABEL}/heartbeat", scene.api.url());
    let call = sending(client().post(url), &serde_json::to_value(&beat).unwrap());
    assert_eq!(call.bearer_auth(TOKEN).send().await.unwrap().status(), 200);
    assert_eq!(streams().await, json!([{"consumer": "streamgate", "label": LABEL}]));
}

/// All that a browser loads until it shows a thousand shards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_view_of_a_thousand_shards_is_small() {
    let scene = Scene::with_shards(1000).await;
    let cookie = scene.cookie().await;
    let mut paths = vec![String::new()];
    let (mut bytes, mut at) = (0, 0);
    while let Some(path) = paths.get(at).cloned() {
        at += 1;
        let get = scene.ask(Method::GET, &path).header("accept-encoding", "gzip, br");
        let answer = get.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        bytes += answer.bytes().await.unwrap().len();
        let plain = scene.ask(Method::GET, &path).send().await.unwrap().text().await.unwrap();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let links = ["src=\"", "href=\"", "from \"", "from\""];
        for link in links.iter().flat_map(|before| plain.split(before).skip(1)) {
            let link = link.split('"').next().unwrap();
            let base = reqwest::Url::parse(&format!("http://x/{folder}/")).unwrap();
            let linked = base.join(link).unwrap().path().trim_start_matches('/').to_owned();
            let is_file = [".js", ".css", ".svg"].iter().any(|end| linked.ends_with(end));
            if is_file && !paths.contains(&linked) {
                paths.push(linked);
            }
        }
    }
    assert!(paths.len() > 15, "{paths:?}");
    let open = scene.ask(Method::GET, &scene.of_stream("events")).header("cookie", &cookie);
    let view = events(open.send().await.unwrap(), |told| told.contains("\n\n")).await;
    assert!(view.matches("140540000000000206328").count() == 1000);
    // What a full history takes, which is tested where it is kept.
    let history = 32 << 10;
    let all = bytes + view.len() + history;
    assert!(all < 200_000, "files {bytes}, view {}, history {history}", view.len());
}

#[tokio::test]
async fn an_api_without_a_page_has_none() {
    let stores: Stores = Arc::new(|_, _| Arc::new(MemoryProgress::new()));
    let api = RunningApi::start("people", stores).await;
    for path in ["/", "/page", "/page/", "/page/session"] {
        let url = format!("{}{path}", api.url());
        assert_eq!(client().get(&url).send().await.unwrap().status(), 401, "{path}");
        let known = client().get(&url).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(known.status(), 404, "{path}");
    }
}
