//! What is given up is kept in the table with its payload, by the api or by a consumer
//! alone, and `streamgate dead-letters` gives it its second chance.

use crate::support::api::TOKEN;
use crate::support::endpoint::{Answer, Endpoint};
use crate::support::process::{Ended, Process, value_of};
use crate::support::rig::{assert_in_order, deliveries, put_rounds};
use crate::support::stage::Stage;
use crate::support::{Untouched, free_port};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use streamgate::simulator::{Change, ChangeKind};

const DEAD_LETTERED: &str = "streamgate_records_dead_lettered_total";

/// A pair, its handler, and the variables of the consumer, which may not touch the table.
struct Case {
    stage: Stage,
    endpoint: Endpoint,
    variables: Vec<(String, String)>,
    private: std::net::SocketAddr,
    _tables: Untouched,
}

impl Case {
    async fn new(name: &str, more: &[(&str, &str)]) -> Self {
        let (stage, endpoint) = (Stage::new(name, 2).await, Endpoint::start().await);
        let private = free_port();
        let (_tables, tables) = Untouched::new();
        let (api, tables) = (format!("http://{private}"), format!("http://{tables}"));
        let mut variables = vec![
            ("HANDLER", endpoint.url.as_str()),
            ("API_URL", &api),
            ("API_TOKEN", TOKEN),
            ("AWS_ENDPOINT_URL_DYNAMODB", &tables),
            ("MAXIMUM_RETRY_ATTEMPTS", "0"),
            ("CHECKPOINT_INTERVAL", "100ms"),
            ("FAILOVER_TIME", "2s"),
        ];
        variables.extend(more);
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let variables = variables.into_iter().map(owned).collect();
        Self { stage, endpoint, variables, private, _tables }
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    async fn api(&self) -> Process {
        self.stage.api(self.private, &[]).await
    }

    async fn consumer(&self) -> Process {
        self.stage.consumer(&self.variables()).await
    }

    async fn start(&self, arguments: &[&str]) -> Process {
        self.stage.command(&[&["dead-letters"], arguments].concat(), &self.variables()).await
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).await.ended().await
    }

    async fn list(&self) -> Vec<Value> {
        let ended = self.run(&["list", "--json"]).await;
        assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
        ended.stdout.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// The sequence numbers in an event.
fn numbers(event: &Value) -> Vec<String> {
    let records = event["Records"].as_array().expect("an event");
    let number = |record: &Value| record["dynamodb"]["SequenceNumber"].as_str().map(str::to_owned);
    records.iter().filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_given_up_is_kept_through_the_api_shown_redriven_and_gone() {
    let more = [("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"), ("ON_FAILURE", "api")];
    let case = Case::new("letters-pair", &more).await;
    for n in 0..4 {
        case.stage.simulator.put_item("cat", n);
    }
    case.endpoint.script([Answer::Status(500)]);
    let (keeper, consumer) = (case.api().await, case.consumer().await);
    consumer.until("/metrics", |_, text| value_of(text, DEAD_LETTERED) == 4.0).await;
    // The shard goes on.
    case.stage.simulator.put_item("cat", 4);
    case.endpoint.until_distinct(1).await;
    assert_eq!(
        value_of(
            &consumer.get("/metrics").await.1,
            "streamgate_records_dropped_total{reason=\"retries\"}"
        ),
        0.0
    );

    let [listed] = &case.list().await[..] else { panic!("one letter") };
    let letter = &listed["letter"];
    let given = |name: &str| letter[name].as_u64();
    assert_eq!((given("records"), given("attempts")), (Some(4), Some(1)), "{letter}");
    assert_eq!((&letter["reason"], &listed["whole"]), (&"retries".into(), &true.into()));
    assert!(letter["last_error"].as_str().unwrap().contains("500"), "{letter}");
    assert_eq!(letter["first_error"], letter["last_error"]);
    let id = letter["id"].as_str().unwrap().to_owned();
    let shown = case.run(&["list"]).await.stdout.join("\n");
    assert!(shown.starts_with(&id) && shown.contains("4 records given up"), "{shown}");

    // Its payload is the event as the handler had it.
    let first = case.endpoint.invocations().remove(0);
    let tried: Value = serde_json::from_slice(&first.body).unwrap();
    let shown = case.run(&["show", &id, "--json"]).await.stdout.join("");
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["payload"], tried);
    let shown = case.run(&["show", &id]).await.stdout;
    assert_eq!(shown.last().unwrap().as_bytes(), &first.body[..], "byte for byte");

    // It fails again: it stays. It is taken in part: the rest stays.
    case.endpoint.script([Answer::Status(502), Answer::FailFrom(1), Answer::Take]);
    let ended = case.run(&["redrive", &id]).await;
    assert_eq!(ended.code, Some(1), "{:#?}", ended.stderr);
    assert!(
        ended.stderr[0].contains("1 of 1") && ended.stderr[0].contains("not taken"),
        "{:#?}",
        ended.stderr
    );
    assert_eq!(case.list().await, std::slice::from_ref(listed));
    let ended = case.run(&["redrive", "--all"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr[0].contains("1 of 4 records partly taken"), "{:#?}", ended.stderr);
    let [rest] = &case.list().await[..] else { panic!("one letter") };
    assert_eq!((&rest["letter"]["records"], &rest["letter"]["attempts"]), (&3.into(), &2.into()));
    let ended = case.run(&["redrive", "--all"]).await;
    assert_eq!((ended.code, ended.stderr.len()), (Some(0), 1), "{:#?}", ended.stderr);
    assert_eq!(case.list().await, [] as [Value; 0]);
    let got = case.endpoint.got();
    assert!(deliveries(&got).values().all(|count| *count == 1), "each was taken once");
    assert_eq!(got.iter().filter_map(|got| got.n).collect::<Vec<_>>(), [4, 0, 1, 2, 3]);
    let redriven = case.endpoint.invocations();
    let last = redriven.last().unwrap();
    assert_eq!(
        (last.header("streamgate-attempt"), last.header("streamgate-shard-id")),
        ("3", first.header("streamgate-shard-id"))
    );
    let ended = case.run(&["redrive", &id]).await;
    assert!(
        ended.code == Some(1) && ended.stderr[0].contains("there is no dead letter"),
        "{:#?}",
        ended.stderr
    );
    let ended = case.run(&["show", "nonsense"]).await;
    assert!(
        ended.code == Some(64) && ended.stderr[0].contains("SHARD:FIRST-LAST:DIGEST"),
        "{:#?}",
        ended.stderr
    );

    // One that nobody wants any more.
    case.endpoint.script([Answer::Status(500)]);
    case.stage.simulator.put_item("cat", 5);
    consumer.until("/metrics", |_, text| value_of(text, DEAD_LETTERED) == 5.0).await;
    let ended = case.run(&["delete", "--all"]).await;
    assert_eq!(ended.stdout, ["1 dead letters deleted"]);
    assert_eq!(case.list().await, [] as [Value; 0]);
    consumer.stop().await;
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_given_up_is_lost_when_either_is_killed_and_a_redrive_goes_on_where_it_was_stopped()
 {
    let case = Case::new("letters-kills", &[("BATCH_SIZE", "3")]).await;
    case.endpoint.usually(Answer::Status(500));
    let (mut keeper, mut consumer) = (case.api().await, case.consumer().await);
    const ROUNDS: u64 = 10;
    for round in 0..ROUNDS {
        let before = case.endpoint.invocations().len();
        put_rounds(&case.stage.simulator, 10, round..round + 1);
        case.endpoint.until("some batches", |i| i.len() > before + 2).await;
        if round % 2 == 0 {
            consumer.kill().await;
            consumer = case.consumer().await;
        } else {
            keeper.kill().await;
            keeper = case.api().await;
        }
    }
    let kept = async || {
        let mut kept = BTreeSet::new();
        for listed in case.list().await {
            let id = listed["letter"]["id"].as_str().unwrap().to_owned();
            if listed["whole"] == true {
                let shown = case.run(&["show", &id, "--json"]).await.stdout.join("");
                let shown: Value = serde_json::from_str(&shown).unwrap();
                kept.extend(numbers(&shown["payload"]));
            }
        }
        kept
    };
    // Everything was seen, and what was seen last is given up as well.
    let all = ROUNDS as usize * 10;
    let seen = |invocations: &[crate::support::endpoint::Invocation]| {
        let records = invocations.iter().flat_map(|i| &i.records);
        records.map(|got| got.sequence_number.clone()).collect::<BTreeSet<_>>()
    };
    case.endpoint.until("everything", |i| seen(i).len() == all).await;
    consumer.stop().await;
    assert_eq!(kept().await, seen(&case.endpoint.invocations()), "every record is in a letter");

    // A redrive that is told to stop finishes its letter, and the next one does the others.
    case.endpoint.usually(Answer::TakeLater(Duration::from_millis(50)));
    let letters = case.list().await.len();
    let mut begun = case.start(&["redrive", "--all"]).await;
    case.endpoint.until("a letter is taken", |i| i.iter().any(|i| i.taken)).await;
    begun.signal("TERM");
    let ended = begun.ended().await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .iter()
            .any(|line| line.contains(&format!("of {letters} dead letters are left"))),
        "{:#?}",
        ended.stderr
    );
    let left = case.list().await.len();
    assert!(left > 0 && left < letters, "{left} of {letters}");
    case.endpoint.usually(Answer::Take);
    let ended = case.run(&["redrive", "--all", "--json"]).await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    let last: Value = serde_json::from_str(ended.stderr.last().unwrap()).unwrap();
    assert_eq!(
        (&last["index"], &last["of"], &last["outcome"]),
        (&left.into(), &left.into(), &"taken".into())
    );
    assert_eq!(case.list().await, [] as [Value; 0]);
    assert_in_order(&case.endpoint.got());
    let got: BTreeSet<_> = case.endpoint.got().into_iter().map(|got| got.sequence_number).collect();
    assert_eq!(got.len(), all);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_alone_keeps_what_no_item_can_hold_in_parts() {
    let (stage, endpoint) = (Stage::new("letters-alone", 1).await, Endpoint::start().await);
    let filler = "é\"x".repeat(60_000);
    for n in 0..6 {
        stage.simulator.put(&Change {
            kind: ChangeKind::Insert,
            keys: serde_json::json!({"PK": {"S": "cat"}, "SK": {"S": n.to_string()}}),
            new_image: Some(serde_json::json!({"n": {"N": n.to_string()}, "f": {"S": filler}})),
            old_image: None,
            user_identity: None,
        });
    }
    endpoint.script([Answer::Status(500), Answer::Status(400)]);
    let variables = [
        ("HANDLER", endpoint.url.as_str()),
        ("MAXIMUM_RETRY_ATTEMPTS", "1"),
        ("ON_FAILURE", "table"),
        ("MAXIMUM_BATCHING_WINDOW_IN_SECONDS", "1"),
    ];
    let consumer = stage.consumer(&variables).await;
    consumer.until("/metrics", |_, text| value_of(text, DEAD_LETTERED) == 6.0).await;
    let run = async |arguments: &[&str]| {
        let arguments = [&["dead-letters"], arguments].concat();
        stage.command(&arguments, &variables).await.ended().await
    };
    let listed = run(&["list", "--json"]).await.stdout;
    let [line] = &listed[..] else { panic!("one letter: {listed:#?}") };
    let listed: Value = serde_json::from_str(line).unwrap();
    let letter = &listed["letter"];
    assert!(letter["bytes"].as_u64().unwrap() > 1 << 20, "{letter}");
    assert!(letter["first_error"].as_str().unwrap().contains("500"), "{letter}");
    assert!(letter["last_error"].as_str().unwrap().contains("400"), "{letter}");
    let ended = run(&["redrive", letter["id"].as_str().unwrap()]).await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    let invocations = endpoint.invocations();
    let [first, _, last] = &invocations[..] else { panic!("three invocations") };
    assert_eq!(first.body, last.body, "the very bytes come again");
    assert_eq!(run(&["list"]).await.stdout, ["there are no dead letters"]);
    consumer.stop().await;
}
