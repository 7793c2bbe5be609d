//! The handler in Python, unchanged, in the two forms that a consumer calls it in: as a program,
//! and as a Lambda function behind its emulator. On the same wires as the handler in Rust.

use super::world::{HANDLERS_TOKEN, World, email};
use crate::support::lambda::Function;
use crate::support::ministack::python;
use crate::support::process::Process;
use crate::support::smtp::Conduct;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDER: &str = "examples/savealife/python";

/// What answers an event a line.
pub fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join("serve.py")
}

/// What the handler is told, wherever it runs.
pub fn settings<'a>(world: &'a World, mail: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("SAVEALIFE_API_URL", &world.url),
        ("SAVEALIFE_TOKEN", HANDLERS_TOKEN),
        ("SMTP_URL", mail),
        ("MAIL_FROM", "Save a life <events@savealife.example>"),
        ("SMTP_TIMEOUT", "1s"),
    ]
}

/// The workshop's steps, with a mail server that says no once and once nothing at all.
async fn assert_it_mails(world: &World, consumer: &Process) {
    for (name, city) in [("r2d2", "Amsterdam"), ("c3po", "Haarlem"), ("obiwan", "Haarlem")] {
        world.sign_up(name, city).await;
    }
    world.until_filtered(consumer, 3.0).await;
    assert_eq!(world.mail.connections(), 0, "a sign-up is nothing to mail about");

    world.mail.script([Conduct::RefuseText(452)]);
    let first = world.donate("Haarlem").await;
    let states = world.until_settled(&first, 2).await;
    assert!(states.len() == 2 && states.values().all(|state| state == "sent"), "{states:?}");
    let mails = world.mail.mails();
    let mut to: Vec<_> = mails.iter().map(|mail| mail.to.clone()).collect();
    to.sort();
    assert_eq!(to, [email("c3po"), email("obiwan")]);
    assert_eq!(world.mail.attempts().len(), 3, "who was refused was tried again");
    for mail in &mails {
        assert_eq!(mail.header("To"), Some(mail.to.as_str()));
        assert_eq!(mail.header("Subject"), Some("New blood donation event in Haarlem"));
        assert!(mail.taken.as_deref().is_some_and(|text| text.contains("Main street 1")));
    }

    // The server has it and does not say so.
    world.mail.script([Conduct::DropAfterText]);
    let second = world.donate("Haarlem").await;
    let states = world.until_settled(&second, 2).await;
    let mut ends: Vec<_> = states.into_values().collect();
    ends.sort();
    assert_eq!(ends, ["sent", "unknown"]);

    // A donation that is changed mails nobody; another city's does.
    let street = AttributeValue::S("Other street".to_owned());
    world.change(&format!("DONATION#{first}"), "CITY#Haarlem", "address", street).await;
    let third = world.donate("Amsterdam").await;
    world.until_settled(&third, 1).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for mail in world.mail.mails() {
        *counts.entry(mail.to).or_default() += 1;
    }
    let expected = [("c3po", 2), ("obiwan", 2), ("r2d2", 1)];
    assert_eq!(counts, expected.map(|(name, count)| (email(name), count)).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_as_a_program() {
    let world = World::new("savealife-exec").await;
    let api = world.api().await;
    let handler = format!("exec:{} {}", python().display(), program().display());
    let mail = world.mail.url();
    let mut variables = vec![("HANDLER", handler.as_str()), ("PYTHONDONTWRITEBYTECODE", "1")];
    variables.extend(settings(&world, &mail));
    let consumer = world.consumer_with(&variables).await;
    assert_it_mails(&world, &consumer).await;
    let said = consumer.stop().await.stderr.join("\n");
    // Its log is passed through.
    assert!(said.contains("a donation's mails"), "{said}");
    for typed in ["example.org", "Haarlem", "Main street", HANDLERS_TOKEN] {
        assert!(!said.contains(typed), "{said}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_as_a_lambda_function() {
    let world = World::new("savealife-lambda").await;
    let api = world.api().await;
    let mail = world.mail.url();
    let variables = settings(&world, &mail);
    let folder = Path::new(FOLDER);
    let function = Function::start(folder, "handler.handle_stream", "60", &variables).await;
    let variables = [("HANDLER", function.url.as_str()), ("HANDLER_TIMEOUT", "65s")];
    let consumer = world.consumer_with(&variables).await;
    assert_it_mails(&world, &consumer).await;
    consumer.stop().await;
    api.stop().await;
}
