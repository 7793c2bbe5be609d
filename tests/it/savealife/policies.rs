//! The example's policies, on a server that evaluates them: what each role may do to the table, its
//! items, its index and its stream, and that nothing of the api's is there in vain.

use super::world::{World, policy};
use crate::support::roles::{self, calls, calls_on_index, let_in};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const INDEX: &str = "SK-PK-index";

fn set(calls: &[&str]) -> BTreeSet<String> {
    calls.iter().map(|call| (*call).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_what_its_policy_names_and_nothing_else() {
    let world = World::new("savealife-roles").await;
    let other = roles::table("savealife-other").await;
    // An iterator for the calls that need one: the stream has a shard when there is an item.
    let api = world.api().await;
    world.sign_up("c3po", "Haarlem").await;
    api.stop().await;
    let [consumer, api] = &world.keys;
    let own = format!("streamgate#streamgate#{}", world.stream.label());
    let stream = ["DescribeStream", "GetRecords", "GetShardIterator"];
    for (item, allowed) in [
        (own.as_str(), &["DescribeTable", "Scan", "Query", "UpdateItem", "DeleteItem"][..]),
        ("DONOR#0123456789ab", &["DescribeTable", "Scan", "Query", "PutItem"]),
        ("DONATION#0123456789ab", &["DescribeTable", "Scan", "Query", "PutItem"]),
        (
            "MAIL#0123456789ab",
            &["DescribeTable", "Scan", "Query", "PutItem", "UpdateItem", "DeleteItem"],
        ),
        ("streamgate#another#x", &["DescribeTable", "Scan"]),
        ("CITY#Haarlem", &["DescribeTable", "Scan"]),
        ("customer#1", &["DescribeTable", "Scan"]),
    ] {
        let all = calls(api, &world.stream, item).await;
        assert!(all.len() > 55, "every call of both services: {}", all.len());
        assert_eq!(let_in(&all), set(allowed), "the api on {item}");
        // Whatever is in the table, the consumer reads its stream, and that is all.
        assert_eq!(let_in(&calls(consumer, &world.stream, item).await), set(&stream), "{item}");
    }
    // Of the index the api may ask for the donors of a city.
    let on_index = async |keys, key| {
        let answers = calls_on_index(keys, &world.stream, INDEX, key).await;
        let of_index =
            answers.into_iter().filter(|(call, _)| ["Query", "Scan"].contains(&call.as_str()));
        let_in(&of_index.collect())
    };
    assert_eq!(on_index(api, "CITY#Haarlem").await, set(&["Query"]));
    for key in ["DONOR#0123456789ab", own.as_str(), "lease"] {
        assert_eq!(on_index(api, key).await, set(&[]), "{key}");
    }
    assert_eq!(on_index(consumer, "CITY#Haarlem").await, set(&[]));
    for keys in [consumer, api] {
        assert_eq!(let_in(&calls(keys, &other, "DONOR#0123456789ab").await), set(&[]), "elsewhere");
    }
}

/// A policy of which one statement lacks an action, or a key of its condition.
fn reduced(policy: &Value, sid: &str, lacks: &str) -> Value {
    let mut policy = policy.clone();
    let statements = policy["Statement"].as_array_mut().expect("a list");
    let statement = statements.iter_mut().find(|one| one["Sid"] == sid).expect(sid);
    let before = statement.clone();
    let keys = "/Condition/ForAllValues:StringLike/dynamodb:LeadingKeys";
    for list in ["/Action", keys] {
        if let Some(Value::Array(list)) = statement.pointer_mut(list) {
            list.retain(|one| one != lacks);
        }
    }
    assert_ne!(*statement, before, "{sid} has {lacks}");
    if statement["Action"] == json!([]) {
        statements.retain(|one| one["Sid"] != sid);
    }
    policy
}

/// Minimality: without any one action, on any one kind of item, some route does not work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_apis_own_is_there_in_vain() {
    let world = World::new("savealife-less").await;
    let whole = policy("api", &world.stream);
    let api = world.api().await;
    let donor = world.sign_up("c3po", "Haarlem").await;
    let donation = world.donate("Haarlem").await;
    let claim = format!("/mail/{donation}/{donor}");
    let sign_up = super::world::donor("obiwan", "Haarlem");
    let create = super::world::donation("Haarlem");
    let state = |state: &str| json!({"state": state});
    // Whatever stands there, each of these is answered with 200 where it is allowed.
    let routes = [
        ("POST", "/donor/signup", sign_up),
        ("POST", "/donation/create", create),
        ("PUT", claim.as_str(), state("sending")),
        ("DELETE", &claim, Value::Null),
        ("PUT", &claim, state("sending")),
        ("PUT", &claim, state("sent")),
        ("GET", &format!("/donor/{donor}"), Value::Null),
        ("GET", &format!("/donation/{donation}"), Value::Null),
        ("GET", &format!("/mail/{donation}"), Value::Null),
        ("GET", "/mail/donors?city=Haarlem", Value::Null),
        ("GET", "/donors", Value::Null),
        ("GET", "/donations", Value::Null),
    ];
    let answers = async || {
        let mut refused = Vec::new();
        for (method, route, body) in &routes {
            let (code, answer) = world.as_handler(method, route, body.clone()).await;
            match code {
                200 => {}
                503 => refused.push((*method, *route)),
                // It is there already, or is not: nothing that a role decides.
                409 => {}
                _ => panic!("{method} {route}: {code} {answer}"),
            }
        }
        refused
    };
    assert_eq!(answers().await, []);
    api.stop().await;
    let (of_donor, of_donation, of_mails) =
        (format!("/donor/{donor}"), format!("/donation/{donation}"), format!("/mail/{donation}"));
    let adds = [("POST", "/donor/signup"), ("POST", "/donation/create"), ("PUT", claim.as_str())];
    let finds = [("GET", of_donor.as_str()), ("GET", &of_donation), ("GET", &of_mails)];
    for (sid, lacks, missing) in [
        ("KeepItems", "dynamodb:PutItem", adds.to_vec()),
        ("KeepItems", "dynamodb:Query", finds.to_vec()),
        ("KeepItems", "DONOR#*", vec![adds[0], finds[0]]),
        ("KeepItems", "DONATION#*", vec![adds[1], finds[1]]),
        ("KeepItems", "MAIL#*", vec![adds[2], finds[2]]),
        ("NoteMails", "dynamodb:UpdateItem", vec![("PUT", &claim)]),
        ("NoteMails", "dynamodb:DeleteItem", vec![("DELETE", &claim)]),
        ("FindDonorsOfCity", "dynamodb:Query", vec![("GET", "/mail/donors?city=Haarlem")]),
        ("FindDonorsOfCity", "CITY#*", vec![("GET", "/mail/donors?city=Haarlem")]),
        ("ListItems", "dynamodb:Scan", vec![("GET", "/donors"), ("GET", "/donations")]),
    ] {
        let name = format!("savealife-less-{sid}-{}", lacks.replace([':', '#', '*'], "-"));
        let keys = roles::session(&name, &reduced(&whole, sid, lacks)).await;
        let api = world.api_as(&keys).await;
        let mut refused = answers().await;
        refused.dedup();
        assert_eq!(refused, missing, "without {lacks} in {sid}");
        api.stop().await;
    }
}
