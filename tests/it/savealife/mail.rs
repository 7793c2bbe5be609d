//! What a mail server can do: whatever it is, everybody has one mail, and nobody two.

use super::text;
use super::world::{World, email};
use crate::support::process::within;
use crate::support::smtp::Conduct;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::BTreeMap;
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
    for (number, (conduct, may_have)) in [
        (RefuseRecipient(450), false),
        (RefuseRecipient(550), false),
        (RefuseRecipient(421), false),
        (RefuseData(451), false),
        (RefuseText(452), false),
        (RefuseText(554), false),
        (HangBeforeText, false),
        (DropBeforeText, false),
        // It has the text, and nobody here can know: never again.
        (HangAfterText, true),
        (DropAfterText, true),
    ]
    .into_iter()
    .enumerate()
    {
        let city = format!("City {number}");
        for name in ["first", "second", "third"] {
            world.sign_up(&format!("{name}-{number}"), &city).await;
        }
        donors += 3;
        world.mail.script([conduct]);
        let id = world.donate(&city).await;
        let states = world.until_settled(&id, 3).await;
        let count = |state: &str| states.values().filter(|is| *is == state).count();
        let expected = if may_have { (2, 1) } else { (3, 0) };
        assert_eq!((count("sent"), count("unknown")), expected, "{conduct:?}");
        let counts = counts(&world);
        assert_eq!(counts.len(), donors, "{conduct:?}: everybody has one");
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
async fn a_donor_who_cannot_be_mailed_keeps_nobody_from_their_mail() {
    let world = World::new("savealife-refused").await;
    let containers = world.start().await;
    let donors = world.sign_up_many("Haarlem", 30).await;
    world.mail.to(&email("donor-7"), Conduct::RefuseRecipient(550));
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
    let refused = donors.iter().find(|(_, to)| **to == email("donor-7")).unwrap().0;
    assert!(!states.contains_key(refused), "what is refused is not claimed");
    let tries = |mail: &crate::support::smtp::MailServer| {
        mail.attempts().iter().filter(|attempt| attempt.to == email("donor-7")).count()
    };
    world.mail.until("another try", |mail| tries(mail) > 1).await;
    world.mail.to(&email("donor-7"), Conduct::Take);
    world.until_settled(&id, 30).await;
    let counts = counts(&world);
    assert!(counts.len() == 30 && counts.values().all(|count| *count == 1), "{counts:?}");
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
