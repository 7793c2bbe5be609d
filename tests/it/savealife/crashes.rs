//! Containers that are killed in the middle: nobody gets two mails, and everybody whose mail
//! was not on its way at that moment gets one.

use super::between::Between;
use super::world::World;
use crate::support::smtp::Conduct;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DONORS: usize = 150;
/// As many mails as the handler has on their way at a time.
const IN_FLIGHT: usize = 8;

/// Donors, a slow server, and a donation of which some mails are out.
async fn half_way(world: &World) -> (BTreeMap<String, String>, String) {
    let donors = world.sign_up_many("Haarlem", DONORS).await;
    world.mail.usually(Conduct::TakeLater(Duration::from_millis(20)));
    let id = world.donate("Haarlem").await;
    world.mail.until("some mails", |mail| mail.taken() >= 20).await;
    (donors, id)
}

/// The addresses that have a mail; none has two.
fn mailed(world: &World) -> Vec<String> {
    let mut to: Vec<_> = world.mail.mails().into_iter().map(|mail| mail.to).collect();
    to.sort();
    let count = to.len();
    to.dedup();
    assert_eq!(to.len(), count, "nobody gets two");
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_killed_costs_nobody_their_mail() {
    let world = World::new("savealife-kill-api").await;
    let mut containers = world.start().await;
    let (_, id) = half_way(&world).await;
    for _ in 0..3 {
        containers.api.kill().await;
        containers.api = world.api().await;
    }
    let states = world.until_settled(&id, DONORS).await;
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    assert_eq!(mailed(&world).len(), DONORS);
    for process in [containers.consumer, containers.handler, containers.api] {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_killed_costs_nobody_their_mail() {
    let world = World::new("savealife-kill-consumer").await;
    let mut containers = world.start().await;
    let (_, id) = half_way(&world).await;
    containers.consumer.kill().await;
    containers.consumer = world.consumer().await;
    let states = world.until_settled(&id, DONORS).await;
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    assert_eq!(mailed(&world).len(), DONORS);
    // What comes next is not held up by what was in the middle.
    let second = world.donate("Haarlem").await;
    world.until_settled(&second, DONORS).await;
    assert_eq!(world.mail.taken(), 2 * DONORS);
    for process in [containers.consumer, containers.handler, containers.api] {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_killed_leaves_what_was_on_its_way_unknown_and_mails_all_others() {
    let world = World::new("savealife-kill-handler").await;
    let mut containers = world.start().await;
    let (donors, id) = half_way(&world).await;
    containers.handler.kill().await;
    containers.handler = world.handler(&[]).await;
    world.until_settled(&id, DONORS - IN_FLIGHT).await;
    world.mail.until("all others' mails", |mail| mail.taken() >= DONORS - IN_FLIGHT).await;
    let mut states = world.states(&id).await;
    assert_eq!(states.len(), DONORS, "everybody's mail is claimed");
    states.retain(|_, state| state == "sending");
    assert!((1..=IN_FLIGHT).contains(&states.len()), "{states:?}");
    let to = mailed(&world);
    for (donor, address) in &donors {
        assert!(to.contains(address) || states.contains_key(donor), "{donor} was not on its way");
    }
    // A claim that is older than any handler would take is nobody's: its end is unknown.
    for donor in states.keys() {
        let (pk, sk) = (format!("MAIL#{id}"), format!("DONOR#{donor}"));
        world.change(&pk, &sk, "at", AttributeValue::N("1".to_owned())).await;
    }
    let settled = world.until_settled(&id, DONORS).await;
    let unknown = settled.values().filter(|state| *state == "unknown").count();
    // The note of one that was sent may have been under way when the handler was killed.
    assert!(unknown <= states.len(), "{settled:?}");
    // And the stream goes on.
    let second = world.donate("Haarlem").await;
    let states = world.until_settled(&second, DONORS).await;
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    assert_eq!(world.mail.taken() - mailed_about(&world, &id), DONORS);
    for process in [containers.consumer, containers.handler, containers.api] {
        process.stop().await;
    }
}

/// A claim of a handler that died this long ago.
async fn die(world: &World, donation: &str, donor: &str, ago: Duration) {
    let claim = json!({"state": "sending", "attempt": "the-dead-one"});
    let (code, answer) = world.as_handler("PUT", &format!("/mail/{donation}/{donor}"), claim).await;
    assert_eq!((code, &answer["return_value"]["claimed"]), (200, &json!(true)), "{answer}");
    let at = (SystemTime::now() - ago).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let at = AttributeValue::N(at.as_millis().to_string());
    world.change(&format!("MAIL#{donation}"), &format!("DONOR#{donor}"), "at", at).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_dead_when_no_handler_can_be_at_it_any_more() {
    let world = World::new("savealife-age").await;
    let api = world.api().await;
    let handler = world.handler(&[("SMTP_TIMEOUT", "5m")]).await;
    let (alive, dead) = (world.sign_up("ada", "Delft").await, world.sign_up("bob", "Delft").await);
    let id = "00000000000a";
    // Half a minute is for the api, and what is before it for the mail server.
    let for_mail = Duration::from_secs(600);
    die(&world, id, &alive, for_mail).await;
    die(&world, id, &dead, for_mail + Duration::from_secs(31)).await;
    let answer = world.invoke(&[(id, "Delft")]).await;
    assert_eq!(answer["batchItemFailures"], json!([{"itemIdentifier": "0"}]));
    let expected = [(alive, "sending".to_owned()), (dead, "unknown".to_owned())];
    assert_eq!(world.states(id).await, expected.into());
    assert_eq!(world.mail.attempts().len(), 0);
    handler.stop().await;
    api.stop().await;
}

/// Its owner was alive after all, and another has claimed the mail by the time that it is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_dead_claim_that_is_settled_and_no_later_one() {
    let world = Arc::new(World::new("savealife-dead").await);
    let api = world.api().await;
    let donor = world.sign_up("ada", "Haarlem").await;
    // It is seen in the list of mails, or not before it stands in the way.
    for (id, is_listed) in [("00000000000a", true), ("00000000000b", false)] {
        let hour = Duration::from_secs(3600);
        if is_listed {
            die(&world, id, &donor, hour).await;
        }
        let (others, to) = (Arc::clone(&world), donor.clone());
        let between = Between::start(&world.url, move |call| {
            let (world, donor) = (Arc::clone(&others), to.clone());
            async move {
                match call.body["state"].as_str() {
                    Some("sending") => die(&world, id, &donor, hour).await,
                    Some("unknown") => {
                        let given_back = format!("{}?attempt=the-dead-one", call.path);
                        let gone = world.as_handler("DELETE", &given_back, Value::Null).await;
                        assert_eq!(gone.0, 200);
                        let claim = json!({"state": "sending", "attempt": "the-next-one"});
                        assert_eq!(world.as_handler("PUT", &call.path, claim).await.0, 200);
                    }
                    _ => {}
                }
            }
        });
        let between = between.await;
        let handler = world.handler(&[("SAVEALIFE_API_URL", &between.url)]).await;
        let answer = world.invoke(&[(id, "Haarlem")]).await;
        let failures = json!([{"itemIdentifier": "0"}]);
        assert_eq!(answer["batchItemFailures"], failures, "it is waited for");
        let rows = world.all(&format!("/mail/{id}")).await;
        assert_eq!(rows.len(), 1);
        let stands = (&rows[0]["state"], &rows[0]["attempt"]);
        assert_eq!(stands, (&json!("sending"), &json!("the-next-one")), "listed: {is_listed}");
        handler.stop().await;
    }
    assert_eq!(world.mail.attempts().len(), 0);
    api.stop().await;
}

/// How many mails are about a donation; nobody has two.
fn mailed_about(world: &World, donation: &str) -> usize {
    let prefix = format!("<{donation}.");
    let mails = world.mail.mails();
    let about = mails
        .iter()
        .filter(|mail| mail.header("Message-ID").is_some_and(|id| id.starts_with(&prefix)));
    let mut to: Vec<_> = about.map(|mail| &mail.to).collect();
    to.sort();
    let count = to.len();
    to.dedup();
    assert_eq!(to.len(), count, "nobody gets two");
    count
}
