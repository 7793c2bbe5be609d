//! Containers that are killed in the middle: nobody gets two mails, and everybody whose mail
//! was not on its way at that moment gets one.

use super::world::World;
use crate::support::smtp::Conduct;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::BTreeMap;
use std::time::Duration;

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
