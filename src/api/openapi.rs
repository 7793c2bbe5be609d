//! The description of the private interface as an OpenAPI 3.1 document.
//!
//! Owns what is said about each call. The bodies' schemas come from the types that carry
//! them, the calls from their list, so that nothing is described that is not there.

use super::ApiSettings;
use crate::progress::orders::{Orders, Request};
use crate::progress::problem::{PROBLEM_JSON, Problem};
use crate::progress::wire::{
    AnnounceBody, Call, CheckpointAnswer, CheckpointBody, DrainBody, ForgetBody, HELLO,
    HandOverBody, Hello, LetterBody, LettersAnswer, LettersBody, PROGRESS, PartAnswer, PartBody,
    ReleaseBody, RetireBody, SeededBody, SeekBody, ShardsAnswer, ShardsBody, TakeBody, UnseedBody,
    Welcome, WriteLetterBody, WritePartBody,
};
use crate::progress::{Checkpoint, Coordination, Heartbeat, Lease};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// Where the document is served.
pub(super) const PATH: &str = "/v1/openapi.json";

/// What a call takes and gives.
struct Described {
    summary: &'static str,
    body: Option<Schema>,
    answer: Schema,
    /// Whether it can be answered with a lost lease.
    is_fenced: bool,
}

/// The document for an api on these settings: the table and the consumers it serves stand
/// in it as the only ones there are.
pub fn document(settings: &ApiSettings) -> Value {
    let schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = schemas.into_generator();
    let mut paths = Map::new();
    let hello = Described {
        summary: "First contact: are table, consumer and version the same on both sides, and can the table be used?",
        body: Some(schemas.subschema_for::<Hello>()),
        answer: schemas.subschema_for::<Welcome>(),
        is_fenced: false,
    };
    let problem = schemas.subschema_for::<Problem>();
    paths.insert(HELLO.to_owned(), json!({ "post": operation("hello", hello, &problem) }));
    for call in Call::ALL {
        let method = if call.reads() { "get" } else { "post" };
        let operation = operation(call.name(), described(call, &mut schemas), &problem);
        let path = format!("{PROGRESS}/{{table}}/{{consumer}}@{{label}}/{}", call.name());
        let item = json!({ method: operation, "parameters": parameters(settings) });
        paths.insert(path, item);
    }
    let itself = json!({
        "operationId": "openapi",
        "summary": "This document.",
        "responses": { "200": content("This document.", "application/json", &json!({"type": "object"})) },
    });
    paths.insert(PATH.to_owned(), json!({ "get": itself }));
    let schemas = schemas.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Streamgate, the private interface",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How a consumer that may not touch the table has its progress kept. Every call may be sent again after its answer was lost: writes are conditional, and one that has happened under the caller's own lease is a success.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "API_TOKEN"},
            },
            "schemas": schemas,
        },
    })
}

fn parameters(settings: &ApiSettings) -> Value {
    let parameter = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema});
    json!([
        parameter("table", "TABLE_NAME", json!({"type": "string", "enum": [settings.table]})),
        parameter(
            "consumer",
            "CONSUMER_NAME",
            json!({"type": "string", "enum": settings.consumers}),
        ),
        parameter(
            "label",
            "The end of the stream's ARN.",
            json!({"type": "string", "pattern": "^[0-9A-Za-z:.-]{1,64}$", "examples": ["2026-01-02T03:04:05.678"]}),
        ),
    ])
}

fn operation(id: &str, described: Described, problem: &Schema) -> Value {
    let Described { summary, body, answer, is_fenced } = described;
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "responses": { "200": content("It is done.", "application/json", answer.as_value()) },
    });
    let problems = [
        ("400", "The request cannot be read."),
        ("401", "The token is missing or another."),
        ("403", "AWS refused the api's role a call; `action` says which."),
        ("405", "This path has another method."),
        ("409", "The lease is another's; `owner` says whose."),
        ("413", "The body is larger than is read."),
        ("422", "Table, consumer or version are not the api's, or the table cannot hold progress."),
        ("502", "AWS did not accept the api's credentials."),
        ("503", "The table does not answer, or not in time: try again."),
    ];
    for (status, what) in problems {
        if (status == "409" && !is_fenced) || (status == "413" && body.is_none()) {
            continue;
        }
        operation["responses"][status] = content(what, PROBLEM_JSON, problem.as_value());
    }
    if let Some(body) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    operation
}

fn content(description: &str, kind: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {kind: {"schema": schema}}})
}

fn described(call: Call, schemas: &mut SchemaGenerator) -> Described {
    fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
        schemas.subschema_for::<T>()
    }
    let nothing = schema::<()>(schemas);
    let (summary, body, answer) = match call {
        Call::Coordination => (
            "The stream's lease, and the workers that beat: as they were at most 100 ms before they were asked for, and with all that was written through this api.",
            None,
            schema::<Coordination>(schemas),
        ),
        Call::Shards => (
            "Shards' items: all, a worker's, or some by their names.",
            Some(schema::<ShardsBody>(schemas)),
            schema::<ShardsAnswer>(schemas),
        ),
        Call::Heartbeat => (
            "Writes a worker's sign of life. The beat 1 begins a life; another is refused where the sign was removed.",
            Some(schema::<Heartbeat>(schemas)),
            nothing,
        ),
        Call::Announce => (
            "Lets a worker know that a lease is its now.",
            Some(schema::<AnnounceBody>(schemas)),
            nothing,
        ),
        Call::Drain => (
            "A worker is stopping and has positions still to write: an api that is stopping too waits for it.",
            Some(schema::<DrainBody>(schemas)),
            nothing,
        ),
        Call::Retire => (
            "Removes a worker's sign of life: where `seen` is said, only if that is still its last beat.",
            Some(schema::<RetireBody>(schemas)),
            nothing,
        ),
        Call::Take => (
            "Takes a lease as it was last seen; the answer is the lease.",
            Some(schema::<TakeBody>(schemas)),
            schema::<Lease>(schemas),
        ),
        Call::HandOver => (
            "Makes a shard's lease another worker's; the answer is its lease.",
            Some(schema::<HandOverBody>(schemas)),
            schema::<Lease>(schemas),
        ),
        Call::Release => ("Gives a lease back.", Some(schema::<ReleaseBody>(schemas)), nothing),
        Call::Seeded => (
            "Notes that the starting position has been carried out.",
            Some(schema::<SeededBody>(schemas)),
            nothing,
        ),
        Call::Unseed => (
            "Takes back that the starting position has been carried out.",
            Some(schema::<UnseedBody>(schemas)),
            nothing,
        ),
        Call::Order => (
            "An operator's request: pause, resume, seek or skip. The answer is what stands then.",
            Some(schema::<Request>(schemas)),
            schema::<Orders>(schemas),
        ),
        Call::Seek => (
            "Carries a move of a shard's position out.",
            Some(schema::<SeekBody>(schemas)),
            nothing,
        ),
        Call::Checkpoint => (
            "Writes positions; the answer has a result for each, in order: null, or its problem.",
            Some(schema::<CheckpointBody<Vec<Checkpoint>>>(schemas)),
            schema::<CheckpointAnswer>(schemas),
        ),
        Call::Forget => (
            "Removes the item of a shard that has left the stream.",
            Some(schema::<ForgetBody>(schemas)),
            nothing,
        ),
        Call::WriteLetter => (
            "Writes a dead letter: with its payload, or without where that is in parts. One that is whole stays as it is.",
            Some(schema::<WriteLetterBody>(schemas)),
            nothing,
        ),
        Call::WritePart => (
            "Writes a part of a dead letter's payload.",
            Some(schema::<WritePartBody>(schemas)),
            nothing,
        ),
        Call::Letters => (
            "Some dead letters, without their payloads; none at the end.",
            Some(schema::<LettersBody>(schemas)),
            schema::<LettersAnswer>(schemas),
        ),
        Call::ReadPart => (
            "A part of a dead letter's payload; the first is all of it where there are no parts.",
            Some(schema::<PartBody>(schemas)),
            schema::<PartAnswer>(schemas),
        ),
        Call::RemovePart => (
            "Removes a part of a dead letter's payload.",
            Some(schema::<PartBody>(schemas)),
            nothing,
        ),
        Call::BreakLetter => (
            "Says that a dead letter is not whole any more, before its parts are removed.",
            Some(schema::<LetterBody>(schemas)),
            nothing,
        ),
        Call::RemoveLetter => {
            ("Removes a dead letter.", Some(schema::<LetterBody>(schemas)), nothing)
        }
    };
    // The results of checkpoints are lost one by one.
    let is_fenced = matches!(
        call,
        Call::Heartbeat
            | Call::Retire
            | Call::Take
            | Call::HandOver
            | Call::Release
            | Call::Seeded
            | Call::Unseed
            | Call::Seek
            | Call::Forget
    );
    Described { summary, body, answer, is_fenced }
}
