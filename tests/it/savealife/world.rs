//! The three containers of the example, each a process with the role of its policy file, on a
//! table with index and stream in the ministack that judges policies, and a mail server.
//!
//! Owns starting them again where they were. The handler has no keys at all.

use crate::support::api::TOKEN;
use crate::support::example::example;
use crate::support::process::{Ended, Process, client, within};
use crate::support::roles::{self, Keys};
use crate::support::smtp::MailServer;
use crate::support::stage;
use crate::support::{REGION, Untouched, free_port, sdk_config_as};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ScalarAttributeType, StreamSpecification, StreamViewType,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use streamgate::arn::StreamArn;

pub const HANDLERS_TOKEN: &str = "the-token-of-the-handler";
const FILTER: &str = r#"{"Filters":[{"Pattern":"{\"eventName\":[\"INSERT\"],\"dynamodb\":{\"NewImage\":{\"PK\":{\"S\":[{\"prefix\":\"DONATION#\"}]}}}}"}]}"#;

pub struct World {
    pub stream: StreamArn,
    pub mail: MailServer,
    /// Where the api's public listener is.
    pub url: String,
    root: Client,
    client: reqwest::Client,
    /// Of the consumer and the api.
    pub keys: [Keys; 2],
    public: SocketAddr,
    private: SocketAddr,
    handler: SocketAddr,
    /// The consumer's endpoint for tables.
    untouched: (Untouched, SocketAddr),
}

/// The three, running.
pub struct Containers {
    pub api: Process,
    pub consumer: Process,
    pub handler: Process,
}

impl World {
    pub async fn new(table: &str) -> Self {
        let config = sdk_config_as(roles::ACCOUNT, REGION, roles::server()).await;
        let root = Client::new(&config);
        let stream = make_table(&root, table).await;
        let session = async |container: &str| {
            let policy = policy(container, &stream);
            roles::session(&format!("{table}-{container}"), &policy).await
        };
        let keys = [session("consumer").await, session("api").await];
        let [public, private, handler] = [(); 3].map(|()| free_port());
        Self {
            stream,
            mail: MailServer::start().await,
            url: format!("http://{public}"),
            root,
            client: client(),
            keys,
            public,
            private,
            handler,
            untouched: Untouched::new(),
        }
    }

    pub async fn start(&self) -> Containers {
        let api = self.api().await;
        let handler = self.handler(&[]).await;
        Containers { api, handler, consumer: self.consumer().await }
    }

    pub async fn api(&self) -> Process {
        self.api_as(&self.keys[1]).await
    }

    /// The api with other keys.
    pub async fn api_as(&self, keys: &Keys) -> Process {
        self.api_on(keys, roles::server()).await
    }

    /// The api with other keys, and the table behind another address.
    pub async fn api_on(&self, keys: &Keys, table: SocketAddr) -> Process {
        let endpoint = format!("http://{table}");
        let (public, private) = (self.public.to_string(), self.private.to_string());
        let mut variables = keys.variables().to_vec();
        variables.extend([
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint),
            ("TABLE_NAME", self.stream.table()),
            ("API_TOKEN", TOKEN),
            ("SAVEALIFE_TOKEN", HANDLERS_TOKEN),
            ("LISTEN", &public),
            ("PRIVATE_LISTEN", &private),
        ]);
        let mut process = Process::of(&example("savealife").await, &["api"], &variables);
        process.listening().await;
        process
    }

    pub async fn consumer(&self) -> Process {
        self.consumer_with(&[]).await
    }

    /// A consumer with settings besides, or with others.
    pub async fn consumer_with(&self, more: &[(&str, &str)]) -> Process {
        let mut process = self.as_consumer(&["consumer"], more);
        process.listening().await;
        process
    }

    /// Another command in the consumer's container, to its end.
    pub async fn command(&self, command: &[&str], more: &[(&str, &str)]) -> Ended {
        self.as_consumer(command, more).ended().await
    }

    fn as_consumer(&self, command: &[&str], more: &[(&str, &str)]) -> Process {
        let (handler, api) =
            (format!("http://{}/", self.handler), format!("http://{}", self.private));
        let mut variables = self.keys[0].variables().to_vec();
        variables.extend([
            ("HANDLER", handler.as_str()),
            ("API_URL", &api),
            ("API_TOKEN", TOKEN),
            ("FILTER_CRITERIA", FILTER),
            ("FUNCTION_RESPONSE_TYPES", "ReportBatchItemFailures"),
            ("FAILOVER_TIME", "2s"),
            ("CHECKPOINT_INTERVAL", "100ms"),
        ]);
        variables.extend(more);
        let (table, untouched) = (self.stream.table(), self.untouched.1);
        let start = |all: &[(&str, &str)]| Process::start(command, all);
        stage::with_variables(&self.stream, table, roles::server(), untouched, &variables, start)
    }

    pub async fn handler(&self, variables: &[(&str, &str)]) -> Process {
        let (listen, mail) = (self.handler.to_string(), self.mail.url());
        let mut all = vec![
            ("LISTEN", listen.as_str()),
            ("SAVEALIFE_API_URL", &self.url),
            ("SAVEALIFE_TOKEN", HANDLERS_TOKEN),
            ("SMTP_URL", &mail),
            ("MAIL_FROM", "Save a life <events@savealife.example>"),
            ("SMTP_TIMEOUT", "1s"),
        ];
        all.extend(variables);
        let mut process = Process::of(&example("savealife").await, &["handler"], &all);
        process.listening().await;
        process
    }

    /// Hands donations to the handler in one batch, as a consumer does; gives its answer.
    pub async fn invoke(&self, donations: &[(&str, &str)]) -> Value {
        let request = self.client.post(format!("http://{}/", self.handler));
        self.ask(request.body(event(donations).to_string())).await.1
    }

    /// Asks the api; gives the code and the answer.
    pub async fn ask(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = within("the api's answer", request.send()).await.expect("it answers");
        let code = answer.status().as_u16();
        let body = answer.bytes().await.expect("a whole answer");
        (code, serde_json::from_slice(&body).expect("answers are JSON"))
    }

    pub fn request(&self, method: &str, route: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.client.request(method, format!("{}{route}", self.url))
    }

    /// With a body.
    pub fn with_json(&self, method: &str, route: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.request(method, route).header("content-type", "application/json");
        request.body(body.to_string())
    }

    pub async fn get(&self, route: &str) -> (u16, Value) {
        self.ask(self.request("GET", route)).await
    }

    /// As the handler.
    pub async fn as_handler(&self, method: &str, route: &str, body: Value) -> (u16, Value) {
        let request = match &body {
            Value::Null => self.request(method, route),
            body => self.with_json(method, route, body),
        };
        self.ask(request.bearer_auth(HANDLERS_TOKEN)).await
    }

    /// Every row of a list, page by page.
    pub async fn all(&self, list: &str) -> Vec<Value> {
        let (mut rows, mut next) = (Vec::new(), Some(list.to_owned()));
        while let Some(address) = next {
            let (code, answer) = self.as_handler("GET", &address, Value::Null).await;
            assert_eq!(code, 200, "{answer}");
            rows.extend(answer["return_value"].as_array().expect("a list").iter().cloned());
            next = answer["next"].as_str().map(str::to_owned);
        }
        rows
    }

    /// Posts what has to be taken; gives the id.
    pub async fn post(&self, route: &str, body: &Value) -> String {
        let (code, answer) = self.ask(self.with_json("POST", route, body)).await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["success"], true);
        answer["resource_id"].as_str().expect("an id").to_owned()
    }

    pub async fn sign_up(&self, name: &str, city: &str) -> String {
        self.post("/donor/signup", &donor(name, city)).await
    }

    /// So many donors of a city; their addresses by id.
    pub async fn sign_up_many(&self, city: &str, count: usize) -> BTreeMap<String, String> {
        let donors = stream::iter((0..count).map(|n| format!("donor-{n}")));
        let ids = donors.map(|name| async move { (self.sign_up(&name, city).await, email(&name)) });
        ids.buffer_unordered(16).collect().await
    }

    pub async fn donate(&self, city: &str) -> String {
        self.post("/donation/create", &donation(city)).await
    }

    /// The states of a donation's mails, by donor.
    pub async fn states(&self, donation: &str) -> BTreeMap<String, String> {
        let rows = self.all(&format!("/mail/{donation}")).await;
        let text = |row: &Value, name: &str| row[name].as_str().expect("text").to_owned();
        rows.iter().map(|row| (text(row, "donor"), text(row, "state"))).collect()
    }

    /// Waits until so many donors have a mail that is noted as sent or given up.
    pub async fn until_settled(&self, donation: &str, count: usize) -> BTreeMap<String, String> {
        within("the mails of a donation", async {
            loop {
                let states = self.states(donation).await;
                if states.values().filter(|state| *state != "sending").count() >= count {
                    return states;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }

    /// Waits until the consumer has passed over so many records.
    pub async fn until_filtered(&self, consumer: &Process, count: f64) {
        within("records that the filter keeps away", async {
            while consumer.metric("streamgate_records_filtered_total").await < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Every item that is not Streamgate's, as the root user sees it.
    pub async fn items(&self) -> Vec<Value> {
        let items = roles::items(&self.stream).await;
        let items = items.as_array().expect("a list").iter();
        let own = |item: &&Value| {
            item["PK"]["S"].as_str().is_some_and(|pk| pk.starts_with("streamgate#"))
        };
        items.filter(|item| !own(item)).cloned().collect()
    }

    /// The root user changes an attribute.
    pub async fn change(&self, pk: &str, sk: &str, name: &str, value: AttributeValue) {
        self.root
            .update_item()
            .table_name(self.stream.table())
            .key("PK", AttributeValue::S(pk.to_owned()))
            .key("SK", AttributeValue::S(sk.to_owned()))
            .update_expression("SET #name = :value")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .expect("the root user may");
    }

    /// The root user writes an item, as an older program did.
    pub async fn put(&self, attributes: &[(&str, AttributeValue)]) {
        let mut call = self.root.put_item().table_name(self.stream.table());
        for (name, value) in attributes {
            call = call.item(*name, value.clone());
        }
        call.send().await.expect("the root user may");
    }
}

pub fn email(name: &str) -> String {
    format!("{name}@example.org")
}

pub fn donor(name: &str, city: &str) -> Value {
    json!({"first_name": name, "city": city, "type": "A+", "email": email(name)})
}

pub fn donation(city: &str) -> Value {
    json!({"city": city, "datetime": "2026-04-06T12:00:00", "address": "Main street 1"})
}

/// What a handler gets when these donations, each in a city, were created.
pub fn event(donations: &[(&str, &str)]) -> Value {
    let records = donations.iter().enumerate().map(|(number, (id, city))| {
        let mut image = json!({"PK": {"S": format!("DONATION#{id}")}});
        for (name, text) in donation(city).as_object().expect("an object") {
            image[name] = json!({"S": text});
        }
        let change = json!({"SequenceNumber": number.to_string(), "NewImage": image});
        json!({"eventName": "INSERT", "dynamodb": change})
    });
    json!({"Records": records.collect::<Vec<_>>()})
}

/// A policy of the example, for this stream and its table.
pub fn policy(container: &str, stream: &StreamArn) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/savealife/policies");
    let text = std::fs::read_to_string(folder.join(format!("{container}.json"))).expect(container);
    let text = text
        .replace("REGION", stream.region())
        .replace("ACCOUNT", stream.account())
        .replace("TABLE_NAME", stream.table())
        .replace("STREAM_LABEL", stream.label());
    serde_json::from_str(&text).expect("a policy is JSON")
}

/// The table as the workshop has it: two keys, the index that turns them round, a stream of
/// new images.
async fn make_table(root: &Client, name: &str) -> StreamArn {
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("complete")
    };
    let defined = |name: &str| {
        let attribute = AttributeDefinition::builder().attribute_name(name);
        attribute.attribute_type(ScalarAttributeType::S).build().expect("complete")
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name("SK-PK-index")
        .key_schema(key("SK", KeyType::Hash))
        .key_schema(key("PK", KeyType::Range))
        .projection(Projection::builder().projection_type(ProjectionType::All).build())
        .build()
        .expect("complete");
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewImage)
        .build()
        .expect("complete");
    let made = root
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key("PK", KeyType::Hash))
        .key_schema(key("SK", KeyType::Range))
        .attribute_definitions(defined("PK"))
        .attribute_definitions(defined("SK"))
        .global_secondary_indexes(index)
        .stream_specification(stream)
        .send()
        .await
        .expect("a table can be made");
    let stream = made.table_description.and_then(|table| table.latest_stream_arn);
    stream.expect("it has a stream").parse().expect("of a stream")
}
