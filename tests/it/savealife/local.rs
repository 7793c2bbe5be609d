//! `savealife local`: the lines that it prints do what it says they do.

use crate::support::example::example;
use crate::support::process::{Process, client, within};
use serde_json::{Value, json};
use std::time::Duration;

/// The words of a line without variables: what a shell makes of it.
fn words(line: &str) -> Vec<String> {
    let pieces = line.trim().split('\'').enumerate();
    let words = pieces.flat_map(|(index, piece)| match index % 2 {
        0 => piece.split_whitespace().map(str::to_owned).collect(),
        _ => vec![piece.to_owned()],
    });
    words.collect()
}

/// Runs a `curl` line.
async fn run(line: &str) -> Value {
    let words = words(line);
    let mut request = match &words[..] {
        [curl, silent, url, rest @ ..] if curl == "curl" && silent == "-s" => match rest {
            [] => client().get(url),
            [h, header, d, body] if h == "-H" && d == "-d" => {
                let (name, value) = header.split_once(": ").unwrap();
                client().post(url).header(name, value).body(body.clone())
            }
            _ => panic!("another command: {line}"),
        },
        _ => panic!("another command: {line}"),
    };
    request = request.timeout(Duration::from_secs(60));
    let answer = request.send().await.expect("it answers");
    assert_eq!(answer.status().as_u16(), 200, "{line}");
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The mails on the terminal, once there are so many.
async fn mails(process: &Process, count: usize) -> Vec<String> {
    let find = |lines: &[String]| {
        let text = lines.join("\n");
        let mails: Vec<_> = text.split("--- a mail\n").skip(1).map(str::to_owned).collect();
        let whole = mails.iter().filter(|mail| mail.trim_end().ends_with("---")).count();
        (whole >= count).then_some(mails)
    };
    process.stdout.find("mails", find).await
}

/// The route and the body of each `post` line of the example's README.
fn posts_of_the_readme() -> Vec<[String; 2]> {
    let readme = include_str!("../../../examples/savealife/README.md");
    let posts = readme.lines().filter(|line| line.starts_with("post /"));
    posts
        .map(|line| match &words(line)[..] {
            [_, route, body] => [route.clone(), body.clone()],
            _ => panic!("another command: {line}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_that_it_prints_sign_up_three_donors_and_mail_two() {
    let savealife = example("savealife").await;
    let log = [("LOG_FORMAT", "json")];
    let process = Process::of(&savealife, &["local", "--free-ports"], &log);
    let greeting = |lines: &[String]| {
        let end = lines.iter().position(|line| line == "Ctrl-C stops.")?;
        Some(lines[..end].to_vec())
    };
    let greeting = process.stderr.find("the greeting", greeting).await;
    let steps: Vec<_> = greeting.iter().filter(|line| line.contains("curl -s http")).collect();
    let [grace, ada, alan, create, donors, donations] = &steps[..] else {
        panic!("six steps: {greeting:#?}")
    };
    let readme = posts_of_the_readme();
    assert_eq!(readme.len(), 5, "{readme:?}");
    for (line, [route, body]) in [grace, ada, alan, create].into_iter().zip(&readme) {
        let words = words(line);
        assert!(words[2].ends_with(route.as_str()) && words[6] == *body, "{line} {route} {body}");
    }
    let api = words(donors)[2].strip_suffix("/donors").unwrap().to_owned();
    let read = async |route: String| run(&format!("curl -s {api}{route}")).await;
    for donor in [grace, ada, alan] {
        let answer = run(donor).await;
        assert_eq!(answer["success"], true);
        let one = read(format!("/donor/{}", answer["resource_id"].as_str().unwrap())).await;
        let typed: Value = serde_json::from_str(&words(donor)[6]).unwrap();
        for (name, value) in typed.as_object().unwrap() {
            assert_eq!(one["return_value"][name], *value, "{one}");
        }
    }
    // Wrong input is told, and changes nothing.
    let wrong = client().post(&words(grace)[2]).header("content-type", "application/json");
    let answer = within("an answer", wrong.body(readme[4][1].clone()).send()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["success"], false);
    let donation = run(create).await["resource_id"].as_str().unwrap().to_owned();
    let shown = mails(&process, 2).await;
    let mut to: Vec<_> = shown
        .iter()
        .flat_map(|mail| mail.lines().filter(|line| line.starts_with("To: ")))
        .collect();
    to.sort_unstable();
    assert_eq!(to, ["To: ada@example.org", "To: alan@example.org"]);
    for mail in &shown {
        assert!(mail.contains("Subject: New blood donation event in Haarlem"), "{mail}");
    }
    assert_eq!(run(donors).await["return_value"].as_array().unwrap().len(), 3);
    let listed = run(donations).await["return_value"].clone();
    assert_eq!(listed, json!([read(format!("/donation/{donation}")).await["return_value"]]));

    // A donation that is changed mails nobody; that it was passed over shows at the next.
    let table = greeting.iter().find_map(|line| line.strip_prefix("Table savealife at ")).unwrap();
    let change = json!({
        "TableName": "savealife",
        "Key": {"PK": {"S": format!("DONATION#{donation}")}, "SK": {"S": "CITY#Haarlem"}},
        "UpdateExpression": "SET address = :address",
        "ExpressionAttributeValues": {":address": {"S": "Other street"}},
    });
    let request = client()
        .post(table)
        .header("X-Amz-Target", "DynamoDB_20120810.UpdateItem")
        .header("Content-Type", "application/x-amz-json-1.0");
    let answer = within("the table", request.body(change.to_string()).send()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap());
    run(&create.replace("Haarlem", "Amsterdam")).await;
    let shown = mails(&process, 3).await;
    assert_eq!(shown.len(), 3);
    assert!(shown[2].contains("To: grace@example.org"), "{}", shown[2]);
    let ended = process.stop_with("INT").await;
    assert_eq!(ended.stdout.iter().filter(|line| *line == "--- a mail").count(), 3);
    // Behind the steps comes the log: a line is an object, and none holds an address.
    let end = ended.stderr.iter().position(|line| line == "Ctrl-C stops.").unwrap();
    assert!(ended.stderr.len() > end + 1);
    for line in &ended.stderr[end + 1..] {
        let object: Value = serde_json::from_str(line).expect(line);
        assert!(object["level"].is_string() && !line.contains("example.org"), "{line}");
    }
}
