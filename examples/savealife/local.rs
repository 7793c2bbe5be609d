//! `savealife local`: everything in one process on 127.0.0.1, and the steps to try it.
//!
//! Owns the joining: an embedded DynamoDB with the index, the api with the application's
//! routes, a consumer with the filter, the handler, a mail server. What each does is the same
//! as in a container of its own.

use crate::items::{INDEX, random};
use crate::settings;
use crate::store::Store;
use crate::{handler, routes, sink};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;
use streamgate::config::{self, HandlerConfig};
use streamgate::deliver::HttpHandler;
use streamgate::local::{Local, LocalIndex, LocalSettings, stream_arn};
use streamgate::program::{PairListeners, ProgramError, drain_on_signal, pair, start_logging};
use streamgate::progress::ApiToken;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const TABLE: &str = "savealife";
/// New donations are all that the handler is for.
const FILTER: &str = r#"{"Filters":[{"Pattern":"{\"eventName\":[\"INSERT\"],\"dynamodb\":{\"NewImage\":{\"PK\":{\"S\":[{\"prefix\":\"DONATION#\"}]}}}}"}]}"#;

/// Where it listens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// As in the containers, and 1025 for mail.
    Usual,
    /// Whichever are free.
    Free,
}

pub async fn run(ports: Ports) -> Result<(), ProgramError> {
    let label = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace('Z', "");
    let open = async |port: u16| {
        let port = if ports == Ports::Free { 0 } else { port };
        let opened = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        opened.map_err(|error| {
            ProgramError::Failed(format!(
                "port {port} cannot be opened: {error}; with --free-ports any are taken"
            ))
        })
    };
    let (tables, streams) = (open(8000).await?, open(8001).await?);
    let (public, private, status) = (open(8080).await?, open(8081).await?, open(9090).await?);
    let (handler, mail) = (open(3000).await?, open(1025).await?);
    let (api, handler_url) =
        (format!("http://{}", of(&public)?), format!("http://{}/", of(&handler)?));

    let consumer = config::consumer(
        &|name| match name {
            "STREAM_ARN" => Some(stream_arn(TABLE, &label)),
            "TABLE_NAME" => Some(TABLE.to_owned()),
            "HANDLER" => Some(handler_url.clone()),
            "FUNCTION_RESPONSE_TYPES" => Some("ReportBatchItemFailures".to_owned()),
            "FILTER_CRITERIA" => Some(FILTER.to_owned()),
            "MAXIMUM_RECORD_AGE_IN_SECONDS" => Some("86400".to_owned()),
            "ON_FAILURE" => Some("table".to_owned()),
            "POLL_INTERVAL_MIN" => Some("50ms".to_owned()),
            "POLL_INTERVAL_MAX" => Some("200ms".to_owned()),
            "LOG_FORMAT" => settings::environment(name),
            // What people read here are the mails.
            "RUST_LOG" => settings::environment(name)
                .or_else(|| Some("warn,dynoxide=error,savealife=info".to_owned())),
            _ => None,
        },
        SystemTime::now(),
    )?;
    let token = random(32);
    let mailing = settings::handler(&|name| match name {
        "SAVEALIFE_API_URL" => Some(api.clone()),
        "SAVEALIFE_TOKEN" => Some(token.clone()),
        "SMTP_URL" => Some(format!("smtp://{}", mail.local_addr().ok()?)),
        "MAIL_FROM" => Some("Save a life <events@savealife.example>".to_owned()),
        _ => None,
    })?;
    start_logging(consumer.log_format, &consumer.log_filter)?;

    let drain = drain_on_signal()?;
    let stop = CancellationToken::new();
    let _stop_all = stop.clone().drop_guard();
    let settings = LocalSettings {
        table: TABLE.to_owned(),
        partition_key: consumer.partition_key.clone(),
        sort_key: consumer.sort_key.clone(),
        indexes: vec![LocalIndex {
            name: INDEX.to_owned(),
            partition_key: consumer.sort_key.clone(),
            sort_key: consumer.partition_key.clone(),
        }],
    };
    let local =
        Local::start(settings, consumer.settings.stream.clone(), tables, streams, stop.clone());
    let local = local.await.map_err(|error| ProgramError::Failed(error.to_string()))?;
    tokio::spawn(sink::serve(mail));
    let mailing = tokio::spawn(handler::serve(mailing, handler, drain.clone()));
    let HandlerConfig::Http(url) = &consumer.handler else {
        return Err(ProgramError::Failed(format!("{handler_url} is no address of a handler")));
    };
    let deliver = HttpHandler::new(url.clone(), &consumer.consumer, consumer.answers);
    let deliver = deliver.map_err(|error| ProgramError::Failed(error.to_string()))?;
    let token = ApiToken::new(&token).expect("64 visible characters");
    let routes = |aws: &_| routes::router(Arc::new(Store::new(aws, TABLE.to_owned())), token);
    let tables = format!("http://{}", local.table_address);
    eprint!("{}", steps(&api, &tables));
    let listeners = PairListeners { status, public, private, token: None };
    both(pair(consumer, Arc::new(deliver), routes, &local, listeners, drain), mailing).await
}

type Ended = Result<(), ProgramError>;

/// Until both were told to end and have; one that ends by itself ends the other.
async fn both(pair: impl Future<Output = Ended>, mailing: JoinHandle<Ended>) -> Ended {
    let mailing = async { mailing.await.map_err(|error| ProgramError::Failed(error.to_string()))? };
    tokio::try_join!(pair, mailing)?;
    Ok(())
}

fn of(listener: &TcpListener) -> Result<SocketAddr, ProgramError> {
    listener.local_addr().map_err(|error| ProgramError::Failed(error.to_string()))
}

/// What to do now, line by line.
fn steps(api: &str, tables: &str) -> String {
    let post = |route: &str, body: &str| {
        format!("  curl -s {api}{route} -H 'Content-Type: application/json' -d '{body}'\n")
    };
    let donor = |name: &str, city: &str, kind: &str| {
        let body = format!(
            r#"{{"first_name":"{name}","city":"{city}","type":"{kind}","email":"{name}@example.org"}}"#
        );
        post("/donor/signup", &body)
    };
    let donation =
        r#"{"city":"Haarlem","datetime":"2026-04-06T12:00:00","address":"Main street 1"}"#;
    format!(
        "Table {TABLE} at {tables}\n\
         Sign up three donors in two cities:\n{}{}{}\
         Create a donation event, and two mails appear here:\n{}\
         Look at what is there:\n  curl -s {api}/donors\n  curl -s {api}/donations\n\
         Ctrl-C stops.\n",
        donor("grace", "Amsterdam", "A+"),
        donor("ada", "Haarlem", "AB-"),
        donor("alan", "Haarlem", "0+"),
        post("/donation/create", donation),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_ends_early_ends_all_of_it() {
        let failed = || Err(ProgramError::Failed("no requests any more".to_owned()));
        for (what, handler) in [
            ("an error", tokio::spawn(ready(failed()))),
            ("a panic", tokio::spawn(async { panic!("in the handler") })),
        ] {
            let ended = timeout(Duration::from_secs(60), both(pending(), handler)).await;
            assert!(matches!(ended, Ok(Err(ProgramError::Failed(_)))), "{what}: {ended:?}");
        }
        let ended =
            timeout(Duration::from_secs(60), both(ready(failed()), tokio::spawn(pending())));
        assert!(matches!(ended.await, Ok(Err(_))), "nor does the handler stay alone");
        assert!(both(ready(Ok(())), tokio::spawn(ready(Ok(())))).await.is_ok());
    }
}
