//! `status --watch` and `dead-letters redrive` on a terminal, as people see them.

use crate::support::api::TOKEN;
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::free_port;
use crate::support::process::value_of;
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use crate::support::terminal::Terminal;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_draws_the_consumer_and_leaves_the_terminal_as_it_was() {
    let stage = Stage::new("watch", 2).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Status(500));
    let mut consumer = stage.consumer(&[("HANDLER", &endpoint.url)]).await;
    put_rounds(&stage.simulator, 20, 0..1);
    consumer.until("/status", |_, body| body.matches("failed_attempts").count() == 2).await;
    let listen = consumer.listening().await.to_string();
    let variables = [("LISTEN", listen.as_str())];
    let shard = stage.simulator.open_shards()[0].to_string();
    for (keys, signal) in [("q", None), ("\x03", None), ("", Some("TERM"))] {
        let mut terminal = stage.terminal(&["status", "--watch"], &variables).await;
        terminal.until("WORKER").await;
        terminal.until(&shard).await;
        terminal.until("retrying").await;
        terminal.until("q quit").await;
        match signal {
            None => terminal.press(keys).await,
            Some(signal) => terminal.signal(signal),
        }
        let left = terminal.left().await;
        assert_eq!(left.code, Some(0), "{keys:?} {signal:?}: {}", left.text);
        assert!(left.is_as_before && left.left_the_screen(), "{keys:?} {signal:?}");
        assert!(left.text.contains("\x1b[?25h"), "the cursor is there again");
    }
    let plain = [variables[0], ("NO_COLOR", "1")];
    for (variables, coloured) in [(&variables[..], true), (&plain[..], false)] {
        let mut terminal = stage.terminal(&["status", "--watch"], variables).await;
        terminal.until("retrying").await;
        // Only what stands in the filter's line is shown then.
        terminal.press("/nothing-like-it\r").await;
        terminal.until("(nothing-like-it)").await;
        terminal.press("q").await;
        let left = terminal.left().await;
        let red = left.text.contains("\x1b[31m") || left.text.contains("\x1b[38;5;1;");
        assert_eq!(red, coloured, "{:?}", left.text);
    }
    // Without settings for the progress, as beside `streamgate local`: this one's shards.
    let alone = ["status", "--watch", "--listen", &listen];
    let mut terminal = Terminal::start(&alone, &[]).await;
    terminal.until(&format!("consumer at {listen}")).await;
    terminal.until(&shard).await;
    terminal.press("q").await;
    assert_eq!(terminal.left().await.code, Some(0));
    endpoint.usually(Answer::Take);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_is_said_and_the_picture_is_marked_as_old() {
    let stage = Stage::new("watch-away", 1).await;
    let private = free_port();
    let url = format!("http://{private}");
    let listen = free_port().to_string();
    let variables = [("API_URL", url.as_str()), ("API_TOKEN", TOKEN), ("LISTEN", listen.as_str())];
    let watch = ["status", "--watch", "--interval", "100ms"];
    let mut terminal = stage.terminal(&watch, &variables).await;
    terminal.until("nothing is known yet: the api").await;
    let keeper = stage.api(private, &[]).await;
    terminal.until("WORKER").await;
    keeper.stop().await;
    terminal.until("what follows is from").await;
    terminal.press("q").await;
    assert_eq!(terminal.left().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_it_says_so_and_json_is_a_line_for_each_look() {
    let stage = Stage::new("watch-json", 1).await;
    let listen = free_port().to_string();
    let variables = [("LISTEN", listen.as_str())];
    let ended = stage.command(&["status", "--watch"], &variables).await.ended().await;
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr[0].contains("--watch draws on a terminal"), "{:?}", ended.stderr);
    let ended = stage.command(&["status", "--interval", "1s"], &variables).await.ended().await;
    assert_eq!(ended.code, Some(64), "an interval is of --watch");

    let consumer = stage.consumer(&[("HANDLER", "discard")]).await;
    put_rounds(&stage.simulator, 1, 0..1);
    let delivered = |text: &str| value_of(text, "streamgate_records_delivered_total") == 1.0;
    consumer.until("/metrics", |_, text| delivered(text)).await;
    let watch = ["status", "--watch", "--json", "--interval", "50ms"];
    let mut watching = stage.command(&watch, &variables).await;
    let look = |lines: &[String]| {
        let looks = lines.iter().map(|line| serde_json::from_str(line).expect("JSON"));
        let looks: Vec<Value> = looks.collect();
        looks.iter().filter(|look| look["workers"][0]["sign"]["shards"] == 1).nth(1).cloned()
    };
    let look = watching.stdout.find("a second look", look).await;
    assert_eq!(look["leader"], look["workers"][0]["sign"]["worker"]);
    assert_eq!(look["shards"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&look["here"], look["dead_letters"].as_array().map(Vec::len)),
        (&Value::Null, Some(0))
    );
    assert!(look["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{look}");
    watching.signal("TERM");
    assert_eq!(watching.ended().await.code, Some(0));
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_says_how_far_it_is_on_a_terminal_and_nowhere_else() {
    let stage = Stage::new("watch-redrive", 1).await;
    let endpoint = Endpoint::start().await;
    endpoint.usually(Answer::Status(500));
    let variables =
        [("HANDLER", endpoint.url.as_str()), ("BATCH_SIZE", "1"), ("MAXIMUM_RETRY_ATTEMPTS", "0")];
    put_rounds(&stage.simulator, 2, 0..1);
    let consumer = stage.consumer(&variables).await;
    let kept = |text: &str| value_of(text, "streamgate_records_dead_lettered_total") == 2.0;
    consumer.until("/metrics", |_, text| kept(text)).await;
    consumer.stop().await;
    let redrive = ["dead-letters", "redrive", "--all"];
    let ended = stage.command(&redrive, &variables).await.ended().await;
    assert_eq!(ended.code, Some(1));
    let said = ended.stderr.join("\n");
    assert!(said.contains("1 of 2  ") && said.contains("2 of 2  "), "{said}");
    assert!(!said.contains('\x1b') && !said.contains("[..."), "no bar in a log: {said}");

    endpoint.usually(Answer::Hang);
    let mut terminal = stage.terminal(&redrive, &variables).await;
    terminal.until("[....................] 0 of 2 done").await;
    endpoint.release();
    terminal.until("[##########..........] 1 of 2 done").await;
    let left = terminal.left().await;
    assert_eq!(left.code, Some(0), "{}", left.text);
    assert!(
        left.text.contains("2 of 2  ") && left.text.ends_with("records taken\r\n"),
        "{:?}",
        left.text
    );
    let ended = stage.command(&["dead-letters", "delete", "--all", "--json"], &variables).await;
    let ended = {
        let mut ended = ended;
        ended.ended().await
    };
    assert_eq!(ended.stdout, [r#"{"deleted":0}"#]);
}
