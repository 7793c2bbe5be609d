//! What clients may send, and what they may not: no wrong input changes anything.

use super::text;
use super::world::{HANDLERS_TOKEN, World, donation, donor};
use crate::support::api::TOKEN;
use crate::support::example::example;
use crate::support::process::{Process, client, within};
use crate::support::roles;
use crate::support::scripted::{Reaction, Scripted};
use crate::support::{REGION, free_port};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// `given` with a member changed.
fn with(given: Value, name: &str, value: Value) -> String {
    let mut given = given;
    given[name] = value;
    given.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_input_of_every_kind_gets_a_clear_4xx_and_changes_nothing() {
    let world = World::new("savealife-input").await;
    let api = world.api().await;
    world.sign_up("ada", "Haarlem").await;
    let id = world.donate("Haarlem").await;
    let before = world.items().await;

    let (ada, event) = (donor("ada", "Haarlem"), donation("Haarlem"));
    let long = "x".repeat(17 << 10);
    let (signup, create) = ("/donor/signup", "/donation/create");
    for (route, body, code, says) in [
        (signup, String::new(), 400, "The body is empty"),
        (signup, "{".to_owned(), 400, "The body is not JSON"),
        (signup, "[1]".to_owned(), 400, "no object"),
        (
            signup,
            "{}".to_owned(),
            400,
            "first_name is missing. city is missing. type is missing. email is missing.",
        ),
        (signup, with(ada.clone(), "first_name", json!(5)), 400, "first_name is not a text."),
        (signup, with(ada.clone(), "city", json!(" ")), 400, "city is empty."),
        (
            signup,
            with(ada.clone(), "city", json!("x".repeat(101))),
            400,
            "city has 101 characters; 100 are allowed.",
        ),
        (signup, with(ada.clone(), "city", json!("a\nb")), 400, "city holds control characters."),
        (signup, with(ada.clone(), "type", json!("Z")), 400, "type is none of A+"),
        (
            signup,
            with(ada.clone(), "email", json!("nobody")),
            400,
            "email is not an e-mail address.",
        ),
        (signup, with(ada, "email", json!(long)), 413, "The body has more than 16 KiB."),
        (create, "null".to_owned(), 400, "no object"),
        (create, "{}".to_owned(), 400, "city is missing. datetime is missing. address is missing."),
        (
            create,
            with(event.clone(), "datetime", json!("2026-02-30T12:00:00")),
            400,
            "datetime is not a time like",
        ),
        (create, with(event.clone(), "address", json!(null)), 400, "address is missing."),
        (
            create,
            with(event.clone(), "address", json!("x".repeat(201))),
            400,
            "address has 201 characters",
        ),
    ] {
        let request = world.request("POST", route).header("content-type", "application/json");
        let (answered, answer) = world.ask(request.body(body.clone())).await;
        let said = answer["error_message"].as_str().unwrap();
        assert_eq!(answered, code, "{route} {said}");
        assert!(said.contains(says), "{says}: {said}");
        assert_eq!((&answer["success"], &answer["resource_id"]), (&json!(false), &json!("")));
    }
    // As a form, and with a key that is none.
    let form =
        world.request("POST", signup).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(world.ask(form.body("city=Haarlem")).await.0, 415);
    let keyed = world.request("POST", create).header("idempotency-key", "a b").body("{}");
    let (code, answer) = world.ask(keyed).await;
    let said = answer["error_message"].as_str().unwrap();
    assert!(
        code == 400 && said.contains("Idempotency-Key") && said.contains("city is missing"),
        "{said}"
    );

    let unknown = "0123456789ab";
    for (method, route, code) in [
        ("GET", "/nothing".to_owned(), 404),
        ("GET", format!("/donor/{unknown}"), 404),
        ("GET", format!("/donor/{id}"), 404),
        ("GET", "/donor/DONOR%23x".to_owned(), 404),
        ("GET", format!("/donation/{unknown}"), 404),
        ("GET", format!("/donation/{}", "x".repeat(5000)), 404),
        ("GET", "/donor/%ff".to_owned(), 400),
        ("DELETE", format!("/donation/{id}"), 405),
        ("GET", "/donor/signup".to_owned(), 405),
        ("POST", "/donors".to_owned(), 405),
        ("GET", "/donors?limit=0".to_owned(), 400),
        ("GET", "/donors?limit=many".to_owned(), 400),
        ("GET", "/donations?next=elsewhere".to_owned(), 400),
    ] {
        let (answered, answer) = world.ask(world.request(method, &route)).await;
        assert_eq!(answered, code, "{method} {route}: {answer}");
        let said = answer["error_message"].as_str().unwrap();
        assert!(said.ends_with('.') && answer["success"] == false, "{answer}");
    }
    let other = within("an answer", world.request("DELETE", "/donors").send()).await.unwrap();
    assert_eq!(
        (other.status().as_u16(), &other.headers()["allow"]),
        (405, &"GET,HEAD".parse().unwrap())
    );
    assert_eq!(world.items().await, before);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_is_there_once_and_lists_come_in_pages() {
    let world = World::new("savealife-pages").await;
    let api = world.api().await;
    let first = world.sign_up("ada", "Haarlem").await;
    let mut again = donor("ada", "Haarlem");
    again["email"] = json!(" ada@EXAMPLE.org ");
    again["first_name"] = json!("Countess");
    assert_eq!(world.post("/donor/signup", &again).await, first, "the same donor");
    let (_, answer) = world.get(&format!("/donor/{first}")).await;
    assert_eq!(answer["return_value"]["first_name"], "ada", "what was said first stays");
    assert_ne!(world.sign_up("ada", "Amsterdam").await, first, "in another city another");

    let create = async |key: &str, city: &str| {
        let request = world.with_json("POST", "/donation/create", &donation(city));
        let (code, answer) = world.ask(request.header("idempotency-key", key)).await;
        assert_eq!(code, 200, "{answer}");
        answer["resource_id"].as_str().unwrap().to_owned()
    };
    let created = create("k1", "Haarlem").await;
    assert_eq!(create("k1", "Haarlem").await, created);
    assert_ne!(create("k2", "Haarlem").await, created);
    assert_ne!(create("k1", "Amsterdam").await, created, "with other data it is another");
    assert_ne!(world.donate("Haarlem").await, world.donate("Haarlem").await);

    world.sign_up_many("Den Haag & more", 130).await;
    // What an older program wrote: attributes that are NULL.
    world
        .put(&[
            ("PK", text("DONOR#00000000000f")),
            ("SK", text("CITY#Den Haag & more")),
            ("email", AttributeValue::Null(true)),
        ])
        .await;
    let ids = |rows: Vec<Value>, name: &str| -> BTreeSet<String> {
        let ids: BTreeSet<_> =
            rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), rows.len(), "nothing comes twice");
        ids
    };
    assert_eq!(ids(world.all("/donors").await, "PK").len(), 133);
    assert_eq!(ids(world.all("/donors?limit=7").await, "PK").len(), 133);
    assert_eq!(ids(world.all("/donations?limit=2").await, "PK").len(), 5);
    let (_, page) = world.get("/donors?limit=7").await;
    assert_eq!(page["return_value"].as_array().unwrap().len(), 7);
    let list = "/mail/donors?city=Den%20Haag%20%26%20more&limit=50";
    assert_eq!(ids(world.all(list).await, "id").len(), 131);
    // A place in one list is none in another.
    let next = page["next"].as_str().unwrap().split("next=").nth(1).unwrap();
    let (code, _) = world
        .as_handler("GET", &format!("/mail/donors?city=Haarlem&next={next}"), Value::Null)
        .await;
    assert_eq!(code, 400);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_list_reads_little_of_a_table_that_is_full_of_other_things() {
    let world = World::new("savealife-little").await;
    let table = Scripted::start(roles::server(), |_, body| Reaction::Forward(body)).await;
    let api = world.api_on(&world.keys[1], table.address()).await;
    world.sign_up_many("Haarlem", 3).await;
    for number in 0..150 {
        let mail = [("PK", format!("MAIL#{number:012x}")), ("SK", "DONOR#0123456789ab".to_owned())];
        world.put(&mail.map(|(name, value)| (name, text(&value)))).await;
    }
    let scans = || {
        let seen = table.seen().into_iter();
        seen.filter(|(operation, _)| operation == "Scan").map(|(_, body)| body).collect::<Vec<_>>()
    };
    let (mut found, mut next) = (BTreeSet::new(), Some("/donors?limit=1".to_owned()));
    while let Some(page) = next {
        let before = scans().len();
        let (code, answer) = world.get(&page).await;
        assert_eq!(code, 200, "{answer}");
        let scans = &scans()[before..];
        assert!((1..=10).contains(&scans.len()), "{} calls for a page", scans.len());
        assert!(scans.iter().all(|scan| scan["Limit"] == 10), "{scans:?}");
        let rows = answer["return_value"].as_array().unwrap();
        assert!(rows.len() <= 1, "{answer}");
        found.extend(rows.iter().map(|row| row["PK"].to_string()));
        next = answer["next"].as_str().map(str::to_owned);
    }
    assert_eq!(found.len(), 3, "however far apart they are");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_has_one_claim_and_only_the_handler_may_ask() {
    let world = World::new("savealife-claims").await;
    let api = world.api().await;
    let (donation, donor) = ("aa493a26bc8f", "0123456789ab");
    let mail = format!("/mail/{donation}/{donor}");
    let sending = json!({"state": "sending", "attempt": "first-attempt"});
    // Neither without a token nor with the consumer's.
    for (method, route) in [
        ("GET", "/mail/donors?city=Haarlem"),
        ("GET", &format!("/mail/{donation}")),
        ("PUT", &mail),
        ("DELETE", &mail),
    ] {
        let request = || world.with_json(method, route, &sending);
        for request in [
            request(),
            request().bearer_auth(TOKEN),
            request().bearer_auth(&HANDLERS_TOKEN[1..]),
            request().header("authorization", HANDLERS_TOKEN),
        ] {
            let (code, answer) = world.ask(request).await;
            assert_eq!(code, 401, "{method} {route}");
            assert!(!answer.to_string().contains(HANDLERS_TOKEN));
        }
    }
    assert_eq!(world.items().await, Vec::<Value>::new());
    let route = format!("/mail/{donation}");
    let answer = within("an answer", world.request("GET", &route).send()).await.unwrap();
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");

    // A city is asked for as it stands in the items, whatever an older program wrote.
    let older = [("PK", "DONOR#00000000000c"), ("SK", "CITY# Delft "), ("email", "c@example.org")];
    world.put(&older.map(|(name, value)| (name, text(value)))).await;
    let rows = world.all("/mail/donors?city=%20Delft%20").await;
    assert_eq!(rows, [json!({"id": "00000000000c", "email": "c@example.org"})]);
    assert_eq!(world.all("/mail/donors?city=Delft").await, Vec::<Value>::new());

    let put = async |body: Value| world.as_handler("PUT", &mail, body).await;
    let delete = async |attempt: &str| {
        world.as_handler("DELETE", &format!("{mail}?attempt={attempt}"), Value::Null).await.0
    };
    assert_eq!(put(sending.clone()).await.1["return_value"], json!({"claimed": true}));
    assert_eq!(
        put(sending.clone()).await.1["return_value"],
        json!({"claimed": true}),
        "its answer was lost"
    );
    let (code, answer) = put(json!({"state": "sending", "attempt": "second-attempt"})).await;
    assert_eq!(code, 200);
    assert_eq!(answer["return_value"]["claimed"], false);
    assert_eq!(answer["return_value"]["state"], "sending");
    // Nobody else ends it.
    assert_eq!(put(json!({"state": "sent", "attempt": "second-attempt"})).await.0, 409);
    assert_eq!(delete("second-attempt").await, 409);
    assert_eq!(delete("first-attempt").await, 200);
    assert_eq!(delete("first-attempt").await, 200, "its answer was lost");
    assert_eq!(put(json!({"state": "sent"})).await.0, 409, "nothing is claimed");
    // Without a name it is a claim like any other.
    assert_eq!(put(json!({"state": "sending"})).await.1["return_value"]["claimed"], true);
    assert_eq!(put(json!({"state": "sending"})).await.1["return_value"]["claimed"], false);
    for _ in 0..2 {
        assert_eq!(put(json!({"state": "sent"})).await.0, 200);
    }
    // An end is one.
    assert_eq!(put(json!({"state": "unknown"})).await.0, 409);
    assert_eq!(delete("first-attempt").await, 409);
    assert_eq!(put(sending).await.1["return_value"]["state"], "sent");
    let rows = world.all(&format!("/mail/{donation}")).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["donor"], &rows[0]["state"]), (&json!(donor), &json!("sent")));
    assert!(rows[0]["at"].is_u64() && rows[0]["age"].is_u64(), "{rows:?}");
    assert!(rows[0]["attempt"].is_string(), "{rows:?}");

    // What the server will not have for good is an end, too, of the try that claimed it.
    let other = format!("/mail/{donation}/fedcba987654");
    let put_other = async |body: Value| world.as_handler("PUT", &other, body).await;
    let claim = json!({"state": "sending", "attempt": "first-attempt"});
    assert_eq!(put_other(claim).await.1["return_value"]["claimed"], true);
    let refused = |attempt: &str| json!({"state": "refused", "attempt": attempt});
    assert_eq!(put_other(refused("second-attempt")).await.0, 409);
    assert_eq!(put_other(refused("first-attempt")).await.0, 200);
    let (_, answer) = put_other(json!({"state": "sending"})).await;
    let stands = &answer["return_value"];
    assert_eq!((&stands["claimed"], &stands["state"]), (&json!(false), &json!("refused")));
    assert_eq!(stands["attempt"], "first-attempt");
    assert_eq!(put_other(json!({"state": "sent"})).await.0, 409);

    let before = world.items().await;
    for (route, body) in [
        (&*mail, json!({"state": "lost"})),
        (&mail, json!({})),
        (&mail, json!({"state": "sending", "attempt": "short"})),
        ("/mail/x/0123456789ab", json!({"state": "sending"})),
        ("/mail/aa493a26bc8f/DONOR%23", json!({"state": "sending"})),
    ] {
        let (code, answer) = world.as_handler("PUT", route, body).await;
        assert_eq!(code, 400, "{route}: {answer}");
    }
    assert_eq!(world.as_handler("GET", "/mail/donors", Value::Null).await.0, 400);
    assert_eq!(world.as_handler("GET", "/mail/nothing", Value::Null).await.0, 404);
    assert_eq!(world.items().await, before);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_does_not_answer_is_said_without_its_words() {
    let nobody = format!("http://{}", free_port());
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", REGION),
        ("AWS_ENDPOINT_URL_DYNAMODB", &nobody),
        ("TABLE_NAME", "savealife-away"),
        ("API_TOKEN", TOKEN),
        ("SAVEALIFE_TOKEN", HANDLERS_TOKEN),
        ("LISTEN", "127.0.0.1:0"),
        ("PRIVATE_LISTEN", "127.0.0.1:0"),
    ];
    let mut api = Process::of(&example("savealife").await, &["api"], &variables);
    let address = api.listening().await;
    for (method, route, body) in [
        ("GET", "/donors", Value::Null),
        ("GET", "/donor/0123456789ab", Value::Null),
        ("POST", "/donor/signup", donor("ada", "Haarlem")),
        ("POST", "/donation/create", donation("Haarlem")),
    ] {
        let request = client().request(method.parse().unwrap(), format!("http://{address}{route}"));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = within("an answer", request.send()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 503, "{route}");
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(answer["error_message"], "The table does not answer at the moment; try again.");
        assert_eq!(answer["success"], false);
    }
    let said = api.stop().await.stderr.join("\n");
    assert!(said.contains("the table did not do what it was asked"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_settings_are_wrong_says_all_that_is() {
    let savealife = example("savealife").await;
    for (arguments, variables, names) in [
        (&["api"][..], &[][..], &["TABLE_NAME", "API_TOKEN", "SAVEALIFE_TOKEN"][..]),
        (&["handler"], &[], &["SAVEALIFE_API_URL", "SAVEALIFE_TOKEN", "SMTP_URL", "MAIL_FROM"]),
        (
            &["handler"],
            &[
                ("SAVEALIFE_TOKEN", "short"),
                ("SMTP_URL", "ftp://x"),
                ("MAIL_FROM", "x"),
                ("SAVEALIFE_API_URL", "api"),
            ],
            &["SAVEALIFE_API_URL", "SAVEALIFE_TOKEN", "SMTP_URL", "MAIL_FROM"],
        ),
        (&["nothing"], &[], &["savealife COMMAND"]),
    ] {
        let ended = Process::of(&savealife, arguments, variables).ended().await;
        assert_eq!(ended.code, Some(64), "{:#?}", ended.stderr);
        let lines = &ended.stderr[..names.len()];
        for (line, name) in lines.iter().zip(names) {
            assert!(line.starts_with(&format!("savealife: {name}")), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_donation_whose_first_answer_is_lost_is_one_donation() {
    let world = World::new("savealife-lost").await;
    let is_lost = AtomicBool::new(false);
    let table = Scripted::start(roles::server(), move |operation, body| {
        let is_donation = body["Item"]["PK"]["S"].as_str().is_some_and(|pk| pk.starts_with("DON"));
        match operation {
            "PutItem" if is_donation && !is_lost.swap(true, Ordering::Relaxed) => {
                Reaction::LoseAnswer(body)
            }
            _ => Reaction::Forward(body),
        }
    });
    let table = table.await;
    let api = world.api_on(&world.keys[1], table.address()).await;
    let id = world.donate("Haarlem").await;
    let writes = table.seen().iter().filter(|(operation, _)| operation == "PutItem").count();
    assert_eq!(writes, 2, "the SDK tried again");
    let donations = world.all("/donations").await;
    assert_eq!(donations.len(), 1, "{donations:?}");
    assert_eq!(donations[0]["PK"], format!("DONATION#{id}"));
    api.stop().await;
}
