//! The example `savealife`, as people run it: its acceptance list end to end, with each
//! container under its role, and in one process.
//!
//! `input` holds what clients may send, `mail` and `tls` what a mail server can do, `crashes` what is
//! left when containers are killed, `policies` what the roles allow, `python` the other handler.

mod between;
mod compose;
mod crashes;
mod input;
mod local;
mod mail;
mod policies;
mod python;
mod tls;
mod world;

use crate::support::process::Process;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use world::{World, donation, donor, email};

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// F1 to F6: what is written can be read, one by one and in lists.
async fn assert_stored(world: &World, donors: &[(&str, &str, String)], donation_id: &str) {
    for (name, city, id) in donors {
        let (code, answer) = world.get(&format!("/donor/{id}")).await;
        assert_eq!(code, 200);
        let mut item = donor(name, city);
        item["PK"] = json!(format!("DONOR#{id}"));
        item["SK"] = json!(format!("CITY#{city}"));
        assert_eq!(answer["return_value"], item, "{answer}");
        assert_eq!(answer["success"], true);
        assert_eq!(answer["error_message"], "");
    }
    let (_, answer) = world.get("/donors").await;
    let listed: BTreeSet<_> = answer["return_value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["PK"].to_string())
        .collect();
    assert_eq!(listed.len(), donors.len(), "{answer}");
    let (code, answer) = world.get(&format!("/donation/{donation_id}")).await;
    assert_eq!(code, 200);
    let mut item = donation("Haarlem");
    item["PK"] = json!(format!("DONATION#{donation_id}"));
    item["SK"] = json!("CITY#Haarlem");
    assert_eq!(answer["return_value"], item);
    let (_, answer) = world.get("/donations").await;
    assert_eq!(answer["return_value"], json!([item]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_donation_mails_the_donors_of_its_city_and_nothing_else_does() {
    let world = World::new("savealife").await;
    let containers = world.start().await;
    let mut donors = Vec::new();
    for (name, city) in [("r2d2", "Amsterdam"), ("c3po", "Haarlem"), ("obiwan", "Haarlem")] {
        donors.push((name, city, world.sign_up(name, city).await));
    }
    // F9: a sign-up is nothing to mail about.
    world.until_filtered(&containers.consumer, 3.0).await;
    assert_eq!(world.mail.connections(), 0);

    // F8, F10, F11: a donation is; one mail each, and nobody sees another's address.
    let id = world.donate("Haarlem").await;
    let states = world.until_settled(&id, 2).await;
    assert_stored(&world, &donors, &id).await;
    let of_the_city: BTreeSet<_> =
        donors.iter().filter(|(_, city, _)| *city == "Haarlem").map(|(.., id)| id).collect();
    assert_eq!(states.keys().collect::<BTreeSet<_>>(), of_the_city, "F7");
    assert!(states.values().all(|state| state == "sent"), "{states:?}");
    let mails = world.mail.mails();
    let to: BTreeSet<_> = mails.iter().map(|mail| mail.to.clone()).collect();
    assert_eq!(to, BTreeSet::from([email("c3po"), email("obiwan")]));
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        assert_eq!(mail.header("To"), Some(mail.to.as_str()));
        assert_eq!(mail.header("Subject"), Some("New blood donation event in Haarlem"));
        assert_eq!(mail.header("Content-Type"), Some("text/html; charset=utf-8"));
        let text = mail.taken.as_deref().unwrap();
        let said =
            ["Dear donor", "Haarlem", "2026-04-06 12:00:00", "Main street 1", "Come and join us"];
        assert!(said.iter().all(|part| text.contains(part)), "{text}");
        let others = donors.iter().map(|(name, ..)| email(name)).filter(|other| *other != mail.to);
        assert!(others.into_iter().all(|other| !text.contains(&other)), "{text}");
    }

    // A donation that is changed mails nobody; another one does.
    let (pk, sk) = (format!("DONATION#{id}"), "CITY#Haarlem");
    world.change(&pk, sk, "address", text("Other street")).await;
    let second = world.donate("Amsterdam").await;
    world.until_settled(&second, 1).await;
    // Three donors, a change, and what was written about three mails: twice each.
    world.until_filtered(&containers.consumer, 10.0).await;
    assert_eq!(world.mail.taken(), 3);
    assert_eq!(world.mail.attempts().len(), 3);

    // F12: each did with its role what it has to.
    for operation in ["DescribeStream", "GetShardIterator", "GetRecords"] {
        let denied = format!(
            "streamgate_aws_requests_total{{operation=\"{operation}\",outcome=\"denied\"}}"
        );
        assert_eq!(containers.consumer.metric(&denied).await, 0.0, "{operation}");
    }
    // F13: every line of each is an object, and none holds what people typed.
    let world::Containers { api, consumer, handler } = containers;
    for process in [consumer, handler, api] {
        assert_structured(process).await;
    }
}

async fn assert_structured(process: Process) {
    let ended = process.stop().await;
    for line in &ended.stderr {
        let line: Value = serde_json::from_str(line).expect(line);
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        let line = line.to_string();
        for typed in ["example.org", "Haarlem", "Main street", "obiwan", "token"] {
            assert!(!line.contains(typed), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_donors_of_a_city_get_one_mail_each() {
    let world = World::new("savealife-thousand").await;
    let containers = world.start().await;
    let donors = world.sign_up_many("Haarlem", 1000).await;
    assert_eq!(donors.len(), 1000);
    world.sign_up("r2d2", "Amsterdam").await;
    let id = world.donate("Haarlem").await;
    world.mail.until("a thousand mails", |mail| mail.taken() >= 1000).await;
    let states = world.until_settled(&id, 1000).await;
    assert!(states.values().all(|state| state == "sent"));
    let mut to: Vec<_> = world.mail.mails().into_iter().map(|mail| mail.to).collect();
    to.sort();
    let mut expected: Vec<_> = donors.into_values().collect();
    expected.sort();
    assert_eq!(to, expected);
    // Connections are used again.
    assert!(world.mail.connections() <= 16, "{}", world.mail.connections());
    for process in [containers.consumer, containers.handler, containers.api] {
        process.stop().await;
    }
}
