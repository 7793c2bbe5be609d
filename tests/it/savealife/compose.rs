//! compose.yaml without an engine: each of its containers is a process here, with the command and the
//! environment that stand there. Nothing but addresses is changed.

use crate::support::example::example;
use crate::support::free_port;
use crate::support::ministack::python;
use crate::support::process::{Process, client, within};
use crate::support::smtp::MailServer;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;

/// The file's services, as JSON.
fn services() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/savealife/compose.yaml");
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let read = std::process::Command::new(python()).args(["-c", script, file]).output();
    let read: Value = serde_json::from_slice(&read.expect("it runs").stdout).expect("JSON");
    read["services"].clone()
}

/// Where the containers' names lead here.
struct Network([(&'static str, SocketAddr); 6]);

impl Network {
    fn here(&self, text: &str) -> String {
        // What is not set stands for its default: `${NAME:-default}`.
        let text = match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(variable) => variable.split_once(":-").expect("a default").1,
            None => text,
        };
        self.0.iter().fold(text.to_owned(), |text, (name, address)| {
            text.replace(&format!("//{name}"), &format!("//{address}"))
        })
    }

    fn start(&self, program: &Path, service: &Value, own: &[(&str, String)]) -> Process {
        let words = |list: &Value| -> Vec<String> {
            let words = list.as_array().expect("a list").iter();
            words
                .map(|word| word.as_str().expect("a word").replace("0.0.0.0", "127.0.0.1"))
                .collect()
        };
        let mut command = words(&service["command"]);
        let mut environment = Vec::new();
        for (name, value) in service["environment"].as_object().expect("a map") {
            environment.push((name.as_str(), self.here(value.as_str().expect("a text"))));
        }
        for (name, value) in own {
            if name.starts_with("--") {
                command.extend([(*name).to_owned(), value.clone()]);
            } else {
                environment.push((name, value.clone()));
            }
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let environment: Vec<_> =
            environment.iter().map(|(name, of)| (*name, of.as_str())).collect();
        Process::of(program, &command, &environment)
    }
}

async fn until_open(address: SocketAddr) {
    within("a port that is listened on", async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_containers_of_compose_do_the_workshops_steps() {
    let mail = MailServer::start().await;
    let names = ["dynamodb:8000", "dynamodb:8001", "api:8080", "api:8081", "handler:3000"];
    let [tables, streams, public, private, handler] = names.map(|_| free_port());
    let network = Network([
        (names[0], tables),
        (names[1], streams),
        (names[2], public),
        (names[3], private),
        (names[4], handler),
        ("mail:1025", mail.address),
    ]);
    let services = services();
    let streamgate = PathBuf::from(env!("CARGO_BIN_EXE_streamgate"));
    let savealife = example("savealife").await;
    let of = |name: &str| match services[name]["image"].as_str() {
        Some("${SAVEALIFE_IMAGE:-savealife}") => &savealife,
        Some("${STREAMGATE_IMAGE:-streamgate}") => &streamgate,
        other => panic!("{name} is of {other:?}"),
    };
    let start = |name: &str, own: &[(&str, String)]| network.start(of(name), &services[name], own);
    let ports = [("--port", tables), ("--stream-port", streams)];
    let ports = ports.map(|(flag, address)| (flag, address.port().to_string()));
    let dynamodb = start("dynamodb", &ports);
    until_open(tables).await;
    let listen = |address: SocketAddr| ("LISTEN", address.to_string());
    let mut api = start("api", &[listen(public), ("PRIVATE_LISTEN", private.to_string())]);
    api.listening().await;
    let mut mails = start("handler", &[listen(handler)]);
    mails.listening().await;
    let mut consumer = start("consumer", &[("LISTEN", "127.0.0.1:0".to_owned())]);
    consumer.listening().await;

    let post = async |route: &str, body: Value| {
        let request =
            client().post(format!("http://{public}{route}")).body(body.to_string()).send();
        let answer = within("the api's answer", request).await.expect("it answers");
        assert_eq!(answer.status(), 200);
    };
    for (name, city) in [("r2d2", "Amsterdam"), ("c3po", "Haarlem"), ("obiwan", "Haarlem")] {
        let email = format!("{name}@example.org");
        post(
            "/donor/signup",
            json!({"first_name": name, "city": city, "type": "A+", "email": email}),
        )
        .await;
    }
    let donation = json!({"city": "Haarlem", "datetime": "2026-04-06T12:00:00", "address": "x 1"});
    post("/donation/create", donation).await;
    mail.until("two mails", |mail| mail.mails().len() == 2).await;
    let to: BTreeSet<_> = mail.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, ["c3po@example.org", "obiwan@example.org"].map(str::to_owned).into());

    // What the images' health checks ask.
    for address in [public, handler] {
        let variables = [("LISTEN", &*address.to_string())];
        let ended = Process::of(&streamgate, &["health"], &variables).ended().await;
        assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    }
    // As compose stops them.
    for process in [consumer, mails, api, dynamodb] {
        process.stop().await;
    }
}
