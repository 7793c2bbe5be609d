//! The settings of `streamgate consumer`.

use super::common::{
    address, attribute_name, consumer_name, log_filter, log_format, table_name, token,
};
use super::handler::{
    HandlerConfig, cloud_events, handler, handler_secrets, retries, tumbling_window,
};
use super::settings::Command;
use super::traces::traces;
use super::values::{Faults, Values};
use crate::arn::StreamArn;
use crate::batch::BatchSettings;
use crate::budget::MIN_BUDGET_BYTES;
use crate::clock;
use crate::consumer::ConsumerSettings;
use crate::deliver::{Answers, Secrets};
use crate::filter::FilterCriteria;
use crate::lineage::StartingPosition;
use crate::polling::PollIntervals;
use crate::progress::{ApiToken, ClientSettings, TableSettings};
use crate::record::CloudEvents;
use crate::telemetry::logging::LogFormat;
use crate::telemetry::traces::TraceSettings;
use reqwest::{Certificate, Url};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// A call that finds none answering asks all of them.
const MAX_API_URLS: usize = 16;

/// Where the api is, and what lets this consumer in.
#[derive(Clone, Debug)]
pub struct ApiAddress {
    /// `API_URL`: one address or several, of its replicas or of what stands before them.
    pub urls: Vec<Url>,
    /// `API_CA_FILE`: who may vouch for it; empty for whom this machine trusts.
    pub ca: Vec<Certificate>,
    /// `API_TOKEN`, or what `API_TOKEN_FILE` holds.
    pub token: ApiToken,
}

/// Everything `streamgate consumer` needs to know.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How the consumer behaves.
    pub settings: ConsumerSettings,
    /// `TABLE_NAME`.
    pub table: String,
    /// The api that keeps the progress; `None`: it is written to the table directly.
    pub api: Option<ApiAddress>,
    /// `TABLE_PARTITION_KEY`.
    pub partition_key: String,
    /// `TABLE_SORT_KEY`.
    pub sort_key: String,
    /// `CONSUMER_NAME`.
    pub consumer: String,
    /// `HANDLER`.
    pub handler: HandlerConfig,
    /// `HANDLER_FORMAT=cloudevents`: what it is sent, in place of Lambda's event.
    pub cloud_events: Option<CloudEvents>,
    /// `HANDLER_SECRET`: signs requests to it.
    pub handler_secrets: Option<Secrets>,
    /// `FUNCTION_RESPONSE_TYPES` and `TUMBLING_WINDOW_IN_SECONDS`: what is read of answers.
    pub answers: Answers,
    /// `METRICS_EMF`: whether metrics are written to stdout for CloudWatch.
    pub emf: bool,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and what goes with it: where traces go, if anywhere.
    pub traces: Option<TraceSettings>,
    /// `LISTEN`.
    pub listen: SocketAddr,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RUST_LOG`.
    pub log_filter: String,
}

impl ConsumerConfig {
    /// Where in the table the progress is kept.
    pub fn table_settings(&self) -> TableSettings {
        TableSettings {
            table: self.table.clone(),
            partition_key: self.partition_key.clone(),
            sort_key: self.sort_key.clone(),
            consumer: self.consumer.clone(),
            label: self.settings.stream.label().to_owned(),
        }
    }

    /// Where the progress is kept if not in the table directly.
    pub fn client_settings(&self) -> Option<ClientSettings> {
        self.api.clone().map(|ApiAddress { urls, ca, token }| ClientSettings {
            urls,
            ca,
            token,
            table: self.table.clone(),
            consumer: self.consumer.clone(),
            label: self.settings.stream.label().to_owned(),
        })
    }
}

/// Reads the settings of `streamgate consumer`. Contacts nothing.
///
/// # Errors
/// Every fault there is, not just the first.
pub fn consumer(
    lookup: &dyn Fn(&str) -> Option<String>,
    now: SystemTime,
) -> Result<ConsumerConfig, Faults> {
    read(lookup, now, false)
}

/// `is_handler`: the program is its own handler.
pub(super) fn read(
    lookup: &dyn Fn(&str) -> Option<String>,
    now: SystemTime,
    is_handler: bool,
) -> Result<ConsumerConfig, Faults> {
    let mut values = Values::new(Command::Consumer, lookup);
    let stream = values.required("STREAM_ARN", |text| {
        text.parse::<StreamArn>().map_err(|error| error.to_string())
    });
    if let (Some(stream), Some(region)) = (&stream, values.get("AWS_REGION"))
        && stream.region() != region
    {
        let what = format!(
            "is in region {}, but AWS_REGION is {region:?}; make them the same, or leave AWS_REGION out",
            stream.region()
        );
        values.fault("STREAM_ARN", what);
    }
    let table = values.required("TABLE_NAME", table_name);
    let api = api_address(&mut values);
    let consumer = values.read("CONSUMER_NAME", consumer_name);
    let partition_key = values.read("TABLE_PARTITION_KEY", attribute_name);
    let sort_key = values.read("TABLE_SORT_KEY", attribute_name);
    let handler = values.read("HANDLER", handler);
    let handler_timeout = values.duration("HANDLER_TIMEOUT", MILLI, 15 * MINUTE);
    let cloud_events = cloud_events(&mut values, handler.as_ref(), stream.as_ref());
    let handler_secrets = handler_secrets(&mut values, handler.as_ref());
    let retries = retries(&mut values);
    let report_batch_item_failures = values.read("FUNCTION_RESPONSE_TYPES", |text| {
        (text == "ReportBatchItemFailures")
            .then_some(())
            .ok_or_else(|| format!("is {text:?}; ReportBatchItemFailures or nothing is allowed"))
    });
    let filter = values.read("FILTER_CRITERIA", FilterCriteria::parse);
    let starting_position = starting_position(&mut values, now);
    let batch_size = values.number("BATCH_SIZE", 1, 10_000);
    let parallelization = values.number("PARALLELIZATION_FACTOR", 1, 10);
    let tumbling_window =
        tumbling_window(&mut values, handler.as_ref().filter(|_| !is_handler), parallelization);
    let window = values.number("MAXIMUM_BATCHING_WINDOW_IN_SECONDS", 0, 300);
    let min = values.duration("POLL_INTERVAL_MIN", 10 * MILLI, MINUTE);
    let max = values.duration("POLL_INTERVAL_MAX", min.unwrap_or(10 * MILLI), 5 * MINUTE);
    let failover_time = values.duration("FAILOVER_TIME", SECOND, 10 * MINUTE);
    let checkpoint_interval = values.duration("CHECKPOINT_INTERVAL", 10 * MILLI, 5 * MINUTE);
    let max_buffered_bytes = values.size("MAX_BUFFERED_BYTES", MIN_BUDGET_BYTES, 64 << 30);
    let shutdown_grace = values.duration("SHUTDOWN_GRACE", SECOND, 60 * MINUTE);
    let emf = values.boolean("METRICS_EMF");
    let traces = traces(&mut values);
    let listen = values.read("LISTEN", address);
    let log_format = log_format(&mut values);
    let log_filter = values.read("RUST_LOG", log_filter);
    values.finish()?;

    // Nothing is missing where nothing was at fault.
    let all = || {
        let (stream, table, partition_key) = (stream?, table?, partition_key?);
        let (retries, on_failure) = retries?;
        let own_records_key = (stream.table() == table).then(|| partition_key.clone());
        Some(ConsumerConfig {
            settings: ConsumerSettings {
                stream,
                starting_position: starting_position?,
                filter: filter.unwrap_or_default(),
                batches: BatchSettings {
                    size: usize::try_from(batch_size?).ok()?,
                    window: Duration::from_secs(window?),
                },
                parallelization: usize::try_from(parallelization?).ok()?,
                tumbling_window: tumbling_window?,
                handler_timeout: handler_timeout?,
                retries,
                on_failure,
                poll_intervals: PollIntervals { min: min?, max: max? },
                failover_time: failover_time?,
                checkpoint_interval: checkpoint_interval?,
                shutdown_grace: shutdown_grace?,
                max_buffered_bytes: max_buffered_bytes?,
                own_records_key,
            },
            table,
            api,
            partition_key,
            sort_key: sort_key?,
            consumer: consumer?,
            handler: handler?,
            cloud_events: cloud_events?,
            handler_secrets,
            answers: Answers {
                failures: report_batch_item_failures.is_some(),
                state: tumbling_window?.is_some(),
            },
            emf: emf?,
            traces: traces?,
            listen: listen?,
            log_format: log_format?,
            log_filter: log_filter?,
        })
    };
    Ok(all().expect("every setting without a fault has a value"))
}

/// Both or neither of the api's URL and its token.
fn api_address(values: &mut Values<'_>) -> Option<ApiAddress> {
    let urls = values.read("API_URL", api_urls);
    let is_set = values.get("API_URL").is_some();
    let token = token(values, is_set);
    if token.is_some() && !is_set {
        values.fault(
            "API_URL",
            "is not set, but the token is; set both, or neither to write the table directly",
        );
    }
    let ca = values.read("API_CA_FILE", |path| {
        let pem = std::fs::read(path)
            .map_err(|error| format!("is {path:?}, which cannot be read: {error}"))?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(ca) if !ca.is_empty() => Ok(ca),
            _ => Err(format!("is {path:?}, which has no certificates in it, as PEM has them")),
        }
    });
    let is_plain = urls.as_ref().is_some_and(|urls| urls.iter().any(|url| url.scheme() != "https"));
    if ca.is_some() && (is_plain || !is_set) {
        values.fault("API_CA_FILE", "is set, but API_URL is no https://… that it could vouch for");
    }
    Some(ApiAddress { urls: urls?, ca: ca.unwrap_or_default(), token: token? })
}

/// One address or several. None is repeated in a sentence: it may hold a password.
fn api_urls(text: &str) -> Result<Vec<Url>, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > MAX_API_URLS {
        return Err(format!(
            "has {} addresses; up to {MAX_API_URLS} are allowed, and a name may lead to more",
            parts.len()
        ));
    }
    let mut urls = Vec::with_capacity(parts.len());
    for (n, part) in parts.iter().enumerate() {
        let which =
            if parts.len() > 1 { format!("has at place {} what", n + 1) } else { String::new() };
        let url = Url::parse(part).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && (url.query(), url.fragment()) == (None, None)
                && (url.username(), url.password()) == ("", None)
        });
        let Some(url) = url else {
            return Err(format!("{which} is not a URL like http://api:8081 or https://…, without user, query or fragment").trim_start().to_owned());
        };
        if urls.contains(&url) {
            return Err(format!("{which} is there before; each address is named once"));
        }
        urls.push(url);
    }
    if urls.iter().any(|url| url.scheme() != urls[0].scheme()) {
        return Err("has http://… and https://… in it: some would carry the token in the open; all have to be the same".to_owned());
    }
    Ok(urls)
}

fn starting_position(values: &mut Values<'_>, now: SystemTime) -> Option<StartingPosition> {
    const TIMESTAMP: &str = "STARTING_POSITION_TIMESTAMP";
    let kind = values.text("STARTING_POSITION")?;
    let is_set = values.text(TIMESTAMP).is_some();
    if is_set && kind != "AT_TIMESTAMP" {
        values.fault(
            TIMESTAMP,
            format!("is set, but STARTING_POSITION is {kind:?}; it goes with AT_TIMESTAMP only"),
        );
    }
    match kind.as_str() {
        "TRIM_HORIZON" => Some(StartingPosition::TrimHorizon),
        "LATEST" => Some(StartingPosition::Latest),
        "AT_TIMESTAMP" => values
            .required(TIMESTAMP, |text| timestamp(text, now))
            .map(StartingPosition::AtTimestamp),
        _ => {
            values.fault(
                "STARTING_POSITION",
                format!("is {kind:?}; TRIM_HORIZON, LATEST and AT_TIMESTAMP are allowed"),
            );
            None
        }
    }
}

fn timestamp(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let seconds = |seconds: u64| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let time = humantime::parse_rfc3339(text)
        .ok()
        .or_else(|| text.parse().ok().and_then(seconds))
        .ok_or_else(|| {
            format!("is {text:?}; RFC 3339 in UTC (2026-01-02T03:04:05Z) or seconds since the epoch are allowed")
        })?;
    if time > now {
        return Err(format!("is {text:?}, which is in the future; a past time is allowed"));
    }
    Ok(clock::whole_second(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str =
        "arn:aws:dynamodb:eu-central-1:123456789012:table/people/stream/2026-01-02T03:04:05.678";

    fn read(set: &[(&str, &str)]) -> Result<ConsumerConfig, Faults> {
        let lookup = |name: &str| {
            let (_, value) = set.iter().rev().find(|(n, _)| *n == name)?;
            Some((*value).to_owned())
        };
        consumer(&lookup, SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000))
    }

    fn with(name: &str, value: &str) -> Result<ConsumerConfig, Faults> {
        read(&[("STREAM_ARN", ARN), ("TABLE_NAME", "people"), (name, value)])
    }

    #[test]
    fn two_settings_are_enough() {
        let config = with("CONSUMER_NAME", "").unwrap();
        assert_eq!(config.settings.batches.size, 100);
        assert_eq!(config.settings.max_buffered_bytes, 64 << 20);
        assert_eq!(config.handler, HandlerConfig::Log);
        assert_eq!(config.settings.own_records_key.as_deref(), Some("PK"));
        assert_eq!(with("TABLE_NAME", "other").unwrap().settings.own_records_key, None);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let Faults(faults) =
            read(&[("BATCH_SIZE", "0"), ("LISTEN", "here"), ("API_URL", "http://x")]).unwrap_err();
        let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
        assert_eq!(names, ["STREAM_ARN", "TABLE_NAME", "API_TOKEN", "BATCH_SIZE", "LISTEN"]);
    }

    #[test]
    fn each_fault_says_what_is_allowed() {
        for (name, value, says) in [
            (
                "STREAM_ARN",
                "nonsense",
                "expected arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL",
            ),
            ("STREAM_ARN", "arn:aws:dynamodb:eu-central-1:1:table/people", "is the ARN of a table"),
            (
                "AWS_REGION",
                "us-east-1",
                "is in region eu-central-1, but AWS_REGION is \"us-east-1\"",
            ),
            ("TABLE_NAME", "no spaces", "3 to 255 of"),
            ("CONSUMER_NAME", "a#b", "1 to 64 of"),
            ("HANDLER", "ftp://x", "lambda+http://… and exec:program are allowed"),
            ("HANDLER", "http://", "log, discard"),
            ("HANDLER", "exec: ", "names no program"),
            ("HANDLER_TIMEOUT", "60", "a duration with a unit (500ms, 10s, 5m) from 1ms to 15m"),
            ("BATCH_SIZE", "0", "a whole number from 1 to 10000"),
            ("BATCH_SIZE", "10001", "a whole number from 1 to 10000"),
            ("MAXIMUM_BATCHING_WINDOW_IN_SECONDS", "301", "a whole number from 0 to 300"),
            ("POLL_INTERVAL_MAX", "100ms", "from 200ms to 5m"),
            ("STARTING_POSITION", "EARLIEST", "TRIM_HORIZON, LATEST and AT_TIMESTAMP are allowed"),
            ("STARTING_POSITION", "AT_TIMESTAMP", "is not set"),
            ("STARTING_POSITION_TIMESTAMP", "2026-01-02T03:04:05Z", "goes with AT_TIMESTAMP only"),
            ("MAX_BUFFERED_BYTES", "1MB", "a size in bytes"),
            ("LOG_FORMAT", "xml", "json and text are allowed"),
            ("RUST_LOG", "a=b=c", "a filter like info"),
            ("API_URL", "http://api:8081", "API_TOKEN"),
            ("API_URL", "api:8081", "is not a URL like"),
            ("API_URL", "http://a:b@api/", "is not a URL like"),
            ("API_URL", "http://a:8081,", "has at place 2 what is not a URL like"),
            ("API_URL", "http://a:8081,b:8081", "has at place 2 what is not a URL like"),
            ("API_URL", "http://a:8081, http://a:8081/", "at place 2 what is there before"),
            ("API_URL", "http://a:8081,https://b:8081", "all have to be the same"),
            ("API_URL", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "up to 16 are allowed"),
            ("API_TOKEN", "0123456789abcdef", "is not set, but the token is"),
            ("MAXIMUM_RETRY_ATTEMPTS", "10001", "from 0 to 10000"),
            ("MAXIMUM_RECORD_AGE_IN_SECONDS", "59", "from 60 to 604800"),
            ("ON_FAILURE", "drop", "api, table, http(s)://… and none are allowed"),
            ("BISECT_BATCH_ON_FUNCTION_ERROR", "1", "true and false are allowed"),
            ("FUNCTION_RESPONSE_TYPES", "all", "ReportBatchItemFailures or nothing"),
            ("ON_FAILURE", "api", "API_URL is not set; without an api it is table"),
            ("HANDLER_SECRET", "whsec_c2hvcnQ=", "24 to 64 bytes in base64"),
            (
                "HANDLER_SECRET",
                "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
                "whose requests could be signed",
            ),
            ("HANDLER_FORMAT", "json", "lambda and cloudevents are allowed"),
            ("HANDLER_FORMAT", "cloudevents", "HANDLER is no http://… or https://…"),
            ("HANDLER", "lambda+http://a:1,b", "several with commas between"),
            ("HANDLER", "lambda+http://a:1/?x", "without path or query"),
            ("HANDLER", "ftp://me:secret@a/", "is something else; log"),
            ("METRICS_EMF", "yes", "true and false are allowed"),
            ("API_TOKEN", "short", "16 to 1024 visible ASCII characters"),
            ("API_TOKEN_FILE", "/not/there", "cannot be read"),
            (
                "FILTER_CRITERIA",
                r#"{"Filters":[{"Pattern":"{}"}]}"#,
                "Filters[0].Pattern (character 1) is empty",
            ),
            ("TUMBLING_WINDOW_IN_SECONDS", "60", "HANDLER does not answer"),
            ("TUMBLING_WINDOW_IN_SECONDS", "901", "from 0 to 900"),
            ("PARALLELIZATION_FACTOR", "11", "from 1 to 10"),
            ("ON_FAILURE", "ftp://x", "api, table, http(s)://… and none are allowed"),
        ] {
            let Faults(faults) = with(name, value).unwrap_err();
            assert!(faults.iter().any(|f| f.what.contains(says)), "{name}={value}: {faults:?}");
        }
    }

    #[test]
    fn cloudevents_go_to_a_url_and_carry_no_window() {
        let of = |more: &[(&str, &str)]| {
            let set = [("STREAM_ARN", ARN), ("TABLE_NAME", "people"), ("HANDLER", "http://x/")];
            read(&[&set[..], more].concat())
        };
        let format = ("HANDLER_FORMAT", "cloudevents");
        assert!(of(&[format]).unwrap().cloud_events.is_some());
        assert!(of(&[format, ("TUMBLING_WINDOW_IN_SECONDS", "0")]).is_ok());
        for lambda in ["lambda", ""] {
            assert!(of(&[("HANDLER_FORMAT", lambda)]).unwrap().cloud_events.is_none());
        }
        for other in [
            ("HANDLER", "log"),
            ("HANDLER", "discard"),
            ("HANDLER", "exec:cat"),
            ("HANDLER", "lambda+http://x"),
            ("TUMBLING_WINDOW_IN_SECONDS", "60"),
        ] {
            let Faults(faults) = of(&[format, other]).unwrap_err();
            let [fault] = &faults[..] else { panic!("one fault: {faults:?}") };
            assert!(fault.name == "HANDLER_FORMAT" && fault.what.contains(other.0), "{fault}");
        }
    }

    #[test]
    fn the_api_has_one_address_or_several() {
        let of = |urls: &str| {
            let set = [("STREAM_ARN", ARN), ("TABLE_NAME", "people"), ("API_URL", urls)];
            let token = [("API_TOKEN", "0123456789abcdef")];
            let settings = read(&[&set[..], &token].concat()).unwrap().client_settings().unwrap();
            settings.urls.iter().map(Url::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("http://api:8081"), ["http://api:8081/"]);
        assert_eq!(of("https://a/x, https://b:1"), ["https://a/x", "https://b:1/"]);
    }

    #[test]
    fn a_time_to_start_at_is_read_in_both_forms_and_not_from_the_future() {
        let at = |time: &str| {
            read(&[
                ("STREAM_ARN", ARN),
                ("TABLE_NAME", "people"),
                ("STARTING_POSITION", "AT_TIMESTAMP"),
                ("STARTING_POSITION_TIMESTAMP", time),
            ])
            .map(|config| config.settings.starting_position)
        };
        let expected = StartingPosition::AtTimestamp(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        );
        assert_eq!(at("1700000000").unwrap(), expected);
        assert_eq!(at("2023-11-14T22:13:20Z").unwrap(), expected);
        assert_eq!(at("2023-11-14T22:13:20.700Z").unwrap(), expected, "as records' times are cut");
        for bad in ["2100-01-01T00:00:00Z", "yesterday", "18446744073709551615"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
