//! What a mail server can do: whatever it is, everybody has one mail, and nobody two.

use super::between::Between;
use super::text;
use super::world::{World, email};
use crate::support::process::{value_of, within};
use crate::support::smtp::{Conduct, MailServer};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many mails each address has.
fn counts(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for mail in world.mail.mails() {
        *counts.entry(mail.to).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_hangs_or_drops_is_tried_again_and_mails_nobody_twice() {
    let world = World::new("savealife-mail").await;
    let containers = world.start().await;
    use Conduct::*;
    let mut donors = 0;
    let mut without = 0;
    for (number, (conduct, ends)) in [
        (RefuseRecipient(450), "sent"),
        (RefuseRecipient(421), "sent"),
        (GarbleRecipient, "sent"),
        (RefuseData(451), "sent"),
        (RefuseData(554), "sent"),
        (RefuseText(452), "sent"),
        (RefuseText(554), "sent"),
        (HangBeforeText, "sent"),
        (DropBeforeText, "sent"),
        // The relay will not have us, or our sender.
        (AnswerRecipient("550 5.7.1 relaying denied"), "sent"),
        (AnswerRecipient("554-5.7.1 you are\r\n554 5.7.1 on a list"), "sent"),
        (AnswerRecipient("550 5.1.8 the sender's domain is not there"), "sent"),
        (RefuseRecipient(554), "sent"),
        // This recipient's mailbox is not there, and will not be.
        (RefuseRecipient(550), "refused"),
        (AnswerRecipient("550-5.1.1 there is no\r\n550 5.1.1 such user"), "refused"),
        (AnswerRecipient("552 5.2.2 it is full"), "refused"),
        // It may have the text, and nobody here can know: never again.
        (DropInText, "unknown"),
        (HangAfterText, "unknown"),
        (DropAfterText, "unknown"),
    ]
    .into_iter()
    .enumerate()
    {
        let city = format!("City {number}");
        for name in ["first", "second", "third"] {
            world.sign_up(&format!("{name}-{number}"), &city).await;
        }
        donors += 3;
        without += usize::from(ends == "refused" || conduct == DropInText);
        world.mail.script([conduct]);
        let id = world.donate(&city).await;
        let states = world.until_settled(&id, 3).await;
        let count = |state: &str| states.values().filter(|is| *is == state).count();
        assert_eq!(count(ends), if ends == "sent" { 3 } else { 1 }, "{conduct:?}: {states:?}");
        assert_eq!(count("sent"), if ends == "sent" { 3 } else { 2 }, "{conduct:?}: {states:?}");
        let counts = counts(&world);
        assert_eq!(counts.len(), donors - without, "{conduct:?}: everybody else has one");
        assert!(counts.values().all(|count| *count == 1), "{conduct:?}: {counts:?}");
        let tried =
            world.mail.attempts().iter().filter(|attempt| attempt.conduct == conduct).count();
        assert_eq!(tried, 1, "{conduct:?}");
    }
    let handler = containers.handler.stop().await;
    let said = handler.stderr.join("\n");
    assert!(
        said.contains("a mail was refused")
            && said.contains("nobody knows whether a mail was sent")
    );
    assert!(!said.contains("example.org"), "no address in the log: {said}");
    containers.consumer.stop().await;
    containers.api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_be_mailed_nothing_is_claimed_and_all_comes_again() {
    let world = World::new("savealife-away").await;
    let containers = world.start().await;
    world.sign_up_many("Haarlem", 20).await;
    // A server that closes, one that is busy, and one that says nothing.
    let mut connections = 0;
    for greeting in [554, 421, 0] {
        world.mail.greet(Some(greeting));
        if connections == 0 {
            world.donate("Haarlem").await;
        }
        world.mail.until("a connection", |mail| mail.connections() > connections).await;
        connections = world.mail.connections();
    }
    let donations = world.all("/donations").await;
    let id = donations[0]["PK"].as_str().unwrap().strip_prefix("DONATION#").unwrap().to_owned();
    assert_eq!(world.states(&id).await, BTreeMap::new());
    world.mail.greet(None);
    world.until_settled(&id, 20).await;
    let counts = counts(&world);
    assert!(counts.len() == 20 && counts.values().all(|count| *count == 1), "{counts:?}");
    for process in [containers.consumer, containers.handler, containers.api] {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_refuses_everybody_costs_nobody_their_mail() {
    let world = World::new("savealife-relay").await;
    let containers = world.start().await;
    let donors = world.sign_up_many("Haarlem", 20).await;
    world.mail.usually(Conduct::AnswerRecipient("550 5.7.1 relaying denied"));
    let id = world.donate("Haarlem").await;
    let tries = |mail: &MailServer, to: &str| {
        mail.attempts().iter().filter(|attempt| attempt.to == to).count()
    };
    let again = |mail: &MailServer| donors.values().all(|to| tries(mail, to) > 1);
    world.mail.until("another try for everybody", again).await;
    let states = world.states(&id).await;
    assert!(states.values().all(|state| state == "sending"), "no end is noted: {states:?}");
    world.mail.usually(Conduct::Take);
    let states = world.until_settled(&id, 20).await;
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    let counts = counts(&world);
    assert!(counts.len() == 20 && counts.values().all(|count| *count == 1), "{counts:?}");
    let said = containers.handler.stop().await.stderr.join("\n");
    assert!(said.contains("the server answered 550 5.7.1") && !said.contains("relaying"), "{said}");
    containers.consumer.stop().await;
    containers.api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_donation_that_is_given_up_is_kept_and_redriven_to_those_who_have_no_mail() {
    let world = World::new("savealife-given-up").await;
    let (api, handler) = (world.api().await, world.handler(&[]).await);
    let bounded = [("MAXIMUM_RETRY_ATTEMPTS", "2"), ("ON_FAILURE", "api")];
    let consumer = world.consumer_with(&bounded).await;
    world.sign_up_many("Haarlem", 3).await;
    world.sign_up("r2d2", "Amsterdam").await;
    let refused = email("donor-1");
    world.mail.to(&refused, Conduct::AnswerRecipient("554 5.7.1 relay access denied"));
    let id = world.donate("Haarlem").await;
    let given_up = |_, text: &str| value_of(text, "streamgate_records_dead_lettered_total") == 1.0;
    consumer.until("/metrics", given_up).await;
    let tried = world.mail.attempts().iter().filter(|attempt| attempt.to == refused).count();
    assert_eq!(tried, 3);
    assert!(world.states(&id).await.values().eq(["sent"; 2]));
    // The next has its turn.
    let next = world.donate("Amsterdam").await;
    assert!(world.until_settled(&next, 1).await.values().eq(["sent"]));

    world.mail.to(&refused, Conduct::Take);
    let ended = world.command(&["dead-letters", "redrive", "--all"], &bounded).await;
    assert_eq!(ended.code, Some(0), "{:#?}", ended.stderr);
    assert!(world.states(&id).await.values().eq(["sent"; 3]));
    let counts = counts(&world);
    assert!(counts.len() == 4 && counts.values().all(|count| *count == 1), "{counts:?}");
    for process in [consumer, handler, api] {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_given_back_before_the_server_is_asked_for_anything_else() {
    let world = World::new("savealife-give-back").await;
    let api = world.api().await;
    // Longer than the test would wait.
    let handler = world.handler(&[("SMTP_TIMEOUT", "5m")]).await;
    world.sign_up("ada", "Haarlem").await;
    world.mail.script([Conduct::RefuseRecipientAndHang(450)]);
    let id = "00000000000a";
    let answer = world.invoke(&[(id, "Haarlem")]).await;
    assert_eq!(answer["batchItemFailures"], json!([{"itemIdentifier": "0"}]));
    assert_eq!(world.states(id).await, BTreeMap::new());
    handler.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_mail_somebody_else_has_claimed_is_kept_for_the_next() {
    let world = Arc::new(World::new("savealife-kept").await);
    let api = world.api().await;
    let donors = world.sign_up_many("Haarlem", 40).await;
    let others = Arc::clone(&world);
    // After the list of mails was read, and just before each claim.
    let between = Between::start(&world.url, move |call| {
        let world = Arc::clone(&others);
        async move {
            if call.body["state"] == "sending" {
                let claim = json!({"state": "sending", "attempt": "another-handler"});
                for body in [claim, json!({"state": "sent", "attempt": "another-handler"})] {
                    assert_eq!(world.as_handler("PUT", &call.path, body).await.0, 200);
                }
            }
        }
    });
    let between = between.await;
    let handler = world.handler(&[("SAVEALIFE_API_URL", &between.url)]).await;
    let id = "00000000000a";
    let answer = world.invoke(&[(id, "Haarlem")]).await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    assert_eq!(world.states(id).await.len(), donors.len());
    assert_eq!(world.mail.attempts().len(), 0);
    let at_a_time = 8;
    assert!(world.mail.connections() <= at_a_time, "{}", world.mail.connections());
    handler.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_donor_who_cannot_be_mailed_keeps_nobody_from_their_mail() {
    let world = World::new("savealife-refused").await;
    let containers = world.start().await;
    let donors = world.sign_up_many("Haarlem", 30).await;
    world.mail.to(&email("donor-7"), Conduct::RefuseRecipient(450));
    world.mail.to(&email("donor-8"), Conduct::RefuseRecipient(550));
    for (id, address) in
        [("00000000000e", AttributeValue::Null(true)), ("00000000000f", text("nobody"))]
    {
        let item = [
            ("PK", text(&format!("DONOR#{id}"))),
            ("SK", text("CITY#Haarlem")),
            ("email", address),
        ];
        world.put(&item).await;
    }
    let id = world.donate("Haarlem").await;
    let states = world.until_settled(&id, 29).await;
    assert_eq!(states.len(), 29, "{states:?}");
    let id_of = |name: &str| donors.iter().find(|(_, to)| **to == email(name)).unwrap().0;
    assert!(!states.contains_key(id_of("donor-7")), "what is refused for now is not claimed");
    assert_eq!(states[id_of("donor-8")], "refused");
    let tries = |mail: &MailServer, name: &str| {
        mail.attempts().iter().filter(|attempt| attempt.to == email(name)).count()
    };
    world.mail.until("another try", |mail| tries(mail, "donor-7") > 1).await;
    world.mail.to(&email("donor-7"), Conduct::Take);
    world.until_settled(&id, 30).await;
    // What is refused for good is done with: the next donation has its turn.
    let second = world.donate("Haarlem").await;
    world.until_settled(&second, 30).await;
    assert_eq!(tries(&world.mail, "donor-8"), 2, "once each");
    world.mail.until("all mails", |mail| mail.taken() >= 58).await;
    let of_both = counts(&world);
    assert!(of_both.len() == 29 && of_both.values().all(|count| *count == 2), "{of_both:?}");
    let rows = world.all(&format!("/mail/{id}")).await;
    assert!(rows.iter().all(|row| row["attempt"].is_string()), "{rows:?}");
    let said = containers.handler.stop().await.stderr.join("\n");
    assert!(
        said.contains("00000000000e") && said.contains("00000000000f"),
        "skipped by id: {said}"
    );
    containers.consumer.stop().await;
    containers.api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_stops_finishes_what_is_in_flight_and_the_next_goes_on() {
    let world = World::new("savealife-stop").await;
    let containers = world.start().await;
    world.sign_up_many("Haarlem", 60).await;
    world.mail.usually(Conduct::TakeLater(Duration::from_millis(50)));
    let id = world.donate("Haarlem").await;
    world.mail.until("some mails", |mail| mail.taken() >= 10).await;
    containers.handler.stop().await;
    let states = world.states(&id).await;
    assert_eq!(states.len(), world.mail.taken());
    assert!(states.len() < 60 && states.values().all(|state| state == "sent"), "{states:?}");
    let handler = world.handler(&[]).await;
    let states = within("all mails", world.until_settled(&id, 60)).await;
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    let counts = counts(&world);
    assert!(counts.len() == 60 && counts.values().all(|count| *count == 1), "{counts:?}");
    for process in [containers.consumer, handler, containers.api] {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_that_take_longer_than_the_consumer_waits_are_sent_once() {
    let world = World::new("savealife-patience").await;
    let (api, handler) = (world.api().await, world.handler(&[]).await);
    let consumer = world.consumer_with(&[("HANDLER_TIMEOUT", "200ms")]).await;
    world.sign_up_many("Haarlem", 100).await;
    world.mail.usually(Conduct::TakeLater(Duration::from_millis(50)));
    let id = world.donate("Haarlem").await;
    let states = world.until_settled(&id, 100).await;
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    let failed = "streamgate_records_failed_total";
    assert!(consumer.metric(failed).await > 0.0, "it did not wait");
    let counts = counts(&world);
    assert!(counts.len() == 100 && counts.values().all(|count| *count == 1), "{counts:?}");
    for process in [consumer, handler, api] {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_asked_once_a_batch_and_holds_no_stop_up() {
    let world = World::new("savealife-silent").await;
    let (api, handler) = (world.api().await, world.handler(&[]).await);
    world.sign_up_many("Haarlem", 100).await;
    world.mail.greet(Some(0));
    let batch = [("00000000000a", "Haarlem"), ("00000000000b", "Haarlem")];
    let failures = world.invoke(&batch).await["batchItemFailures"].clone();
    assert_eq!(failures, json!([{"itemIdentifier": "0"}, {"itemIdentifier": "1"}]));
    let at_a_time = 8;
    assert!(world.mail.connections() <= at_a_time, "{}", world.mail.connections());
    handler.stop().await;

    let connections = world.mail.connections();
    let patient = [("SMTP_TIMEOUT", "5m"), ("SHUTDOWN_GRACE", "20s")];
    let handler = world.handler(&patient).await;
    let invoked = async { world.invoke(&batch).await };
    let stopped = async {
        world.mail.until("all places taken", |mail| mail.connections() >= connections + 8).await;
        handler.stop().await
    };
    let (answer, ended) = tokio::join!(invoked, stopped);
    assert_eq!(answer["batchItemFailures"], failures, "it answers before it goes");
    let said = ended.stderr.join("\n");
    assert!(!said.contains("SHUTDOWN_GRACE"), "{said}");
    assert!(world.mail.connections() <= connections + at_a_time);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_donation_that_comes_again_while_it_is_announced_has_the_same_answer() {
    let world = World::new("savealife-again").await;
    let (api, handler) = (world.api().await, world.handler(&[]).await);
    world.sign_up_many("Haarlem", 30).await;
    world.mail.usually(Conduct::TakeLater(Duration::from_millis(50)));
    let batch = [("00000000000a", "Haarlem")];
    let again = async {
        world.mail.until("a mail", |mail| mail.taken() > 0).await;
        world.invoke(&batch).await
    };
    let (first, second) = tokio::join!(world.invoke(&batch), again);
    let done = json!({"batchItemFailures": []});
    assert_eq!((first, second), (done.clone(), done));
    assert_eq!(world.mail.taken(), 30);
    handler.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_is_asked_once_and_the_batch_comes_again() {
    let world = World::new("savealife-no-api").await;
    let (api, handler) = (world.api().await, world.handler(&[]).await);
    world.sign_up_many("Haarlem", 40).await;
    world.mail.usually(Conduct::TakeLater(Duration::from_millis(100)));
    let batch = [("00000000000a", "Haarlem"), ("00000000000b", "Haarlem")];
    let gone = async {
        world.mail.until("a mail", |mail| mail.taken() > 0).await;
        api.kill().await;
    };
    let (answer, ()) = tokio::join!(world.invoke(&batch), gone);
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 2, "{answer}");
    let said = handler.stop().await.stderr.join("\n");
    let asked = said.matches("the api could not be asked").count();
    assert!((1..=8).contains(&asked), "{said}");
}
