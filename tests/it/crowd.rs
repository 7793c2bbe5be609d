//! The api's listeners while far more connect than there are places.

use crate::support::api::{RunningApi, TOKEN};
use crate::support::free_port;
use crate::support::process::{Process, within};
use crate::support::stage::Stage;
use axum::body::{Body, Bytes};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use streamgate::api::Stores;
use streamgate::progress::{ClientProgress, Heartbeat, MemoryProgress, Progress, WorkerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As many as the api lets be connected to one listener.
const PLACES: usize = 1024;

async fn connect(to: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(to)).await.unwrap_or_else(|error| {
        panic!("a connection could not be opened: {error}; scripts/test raises the limit of open files, `ulimit -n`")
    })
}

/// The head and body of the next answer; empty when the connection was closed first.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let reading = async {
        let mut chunk = [0; 4096];
        while !is_whole(&text) {
            match stream.read(&mut chunk).await {
                Ok(count @ 1..) => text.extend_from_slice(&chunk[..count]),
                _ => break,
            }
        }
    };
    within("an answer", reading).await;
    String::from_utf8(text).expect("answers are text")
}

fn is_whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.parse().expect("a number"))
}

async fn start(stage: &Stage) -> (Process, SocketAddr, ClientProgress) {
    let private = free_port();
    let keeper = stage.api(private, &[]).await;
    (keeper, private, stage.client(private))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_strangers_keep_no_consumer_out() {
    let stage = Stage::new("crowd-strangers", 1).await;
    let (keeper, private, consumer) = start(&stage).await;
    let worker = WorkerId::from("w1");
    consumer.heartbeat(&Heartbeat::first(worker.clone())).await.unwrap();
    let mut crowd = Vec::new();
    for n in 0..10_000_u64 {
        let mut stranger = connect(private).await;
        // Some say nothing, some begin, some ask. Closed connections take no more.
        let _ = match n % 3 {
            0 => Ok(()),
            1 => stranger.write_all(b"POST /v1/hello HTTP/1.1\r\nhost: a\r\nx: ").await,
            _ => stranger.write_all(b"GET /v1/hello HTTP/1.1\r\nhost: a\r\n\r\n").await,
        };
        crowd.push(stranger);
        if n % 1_000 == 999 {
            // The same connection as before, and one that is new.
            consumer
                .heartbeat(&Heartbeat { beat: n, ..Heartbeat::first(worker.clone()) })
                .await
                .unwrap();
            let mut newcomer = connect(private).await;
            let ask = format!(
                "GET /v1/nothing HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
            );
            newcomer.write_all(ask.as_bytes()).await.unwrap();
            let answer = answer(&mut newcomer).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        }
    }
    // Who asked without the token was told so; who waited longest for nothing was let go.
    let mut told = 0;
    for stranger in crowd.iter_mut().take(3_000).skip(2).step_by(3) {
        told += usize::from(answer(stranger).await.starts_with("HTTP/1.1 401"));
    }
    assert!(told > 900, "{told} of a thousand");
    let first = within("the first to be let go", crowd[0].read(&mut [0])).await;
    assert!(!matches!(first, Ok(1..)), "{first:?}");
    assert_eq!(consumer.coordination().await.unwrap().workers.len(), 1);
    assert_eq!(keeper.get("/healthz").await.0, 200);
    let open = keeper.metric("process_open_fds").await;
    assert!(open < (PLACES + 100) as f64, "{open} files open");
    let memory = keeper.metric("process_resident_memory_bytes").await;
    assert!(memory < (96 << 20) as f64, "{} MiB", memory / f64::from(1 << 20));
    drop(crowd);
    consumer.retire(&worker, None).await.unwrap();
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_callers_with_the_token_than_places_are_told_so() {
    let stage = Stage::new("crowd-callers", 1).await;
    let (keeper, private, _) = start(&stage).await;
    let ask =
        format!("GET /v1/nothing HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let mut callers = Vec::new();
    for n in 0..PLACES + 30 {
        let mut caller = connect(private).await;
        caller.write_all(ask.as_bytes()).await.unwrap();
        let answer = answer(&mut caller).await;
        if n < PLACES {
            assert!(answer.starts_with("HTTP/1.1 404"), "{n}: {answer}");
        } else {
            let retry = answer.contains("retry-after: 1\r\n");
            assert!(answer.starts_with("HTTP/1.1 503") && retry, "{n}: {answer}");
            assert!(answer.contains("connections of this listener are taken"), "{answer}");
        }
        callers.push(caller);
    }
    // The public listener has places of its own.
    assert_eq!(keeper.get("/healthz").await.0, 200);
    drop(callers);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_goes_on_is_not_cut_off_for_newcomers() {
    let (more, chunks) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let chunks = Arc::new(Mutex::new(Some(chunks)));
    let endless = async move || {
        let mut chunks = chunks.lock().unwrap().take().expect("asked once");
        let stream = futures_util::stream::poll_fn(move |context| chunks.poll_recv(context));
        Body::from_stream(stream)
    };
    let routes = axum::Router::new().route("/export", axum::routing::get(endless));
    let stores: Stores = Arc::new(|_, _| Arc::new(MemoryProgress::new()));
    let consumers = vec!["streamgate".to_owned()];
    let api = RunningApi::start_for(consumers, "people", stores, |api| api.routes(routes)).await;
    let mut export = connect(api.public).await;
    export.write_all(b"GET /export HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut read_until = async |what: &str| {
        let mut text = String::new();
        let reading = async {
            while !text.contains(what) {
                let mut chunk = [0; 1024];
                let count = export.read(&mut chunk).await.expect("it is not cut off");
                assert!(count > 0, "it is not closed: {text}");
                text += std::str::from_utf8(&chunk[..count]).unwrap();
            }
        };
        within(what, reading).await;
    };
    more.send(Ok("first".into())).await.unwrap();
    read_until("first").await;
    let mut crowd = Vec::new();
    for _ in 0..PLACES + 10 {
        crowd.push(connect(api.public).await);
    }
    // Somebody had to leave: the first of those who say nothing.
    within("it to be let go", crowd[0].read(&mut [0])).await.ok();
    more.send(Ok("second".into())).await.unwrap();
    read_until("second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_clean_whoever_else_is_connected() {
    let stage = Stage::new("crowd-stop", 1).await;
    let (mut keeper, private, _) = start(&stage).await;
    let public = keeper.listening().await;
    let mut crowd = Vec::new();
    let mut come = async |to: SocketAddr| {
        let silent = connect(to).await;
        let mut half = connect(to).await;
        half.write_all(b"GET /healthz HTT").await.unwrap();
        crowd.extend([silent, half]);
    };
    come(private).await;
    come(public).await;
    keeper.signal("TERM");
    keeper.until("/readyz", |code, body| code == 503 && body.contains("stopping")).await;
    come(private).await;
    come(public).await;
    let began = Instant::now();
    let ended = keeper.ended().await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    assert!(began.elapsed() < Duration::from_secs(20), "nobody is waited for");
}
