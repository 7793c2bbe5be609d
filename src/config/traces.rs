//! OpenTelemetry's own variables, for traces: the rows of the reference, and what they mean.
//!
//! Owns which of them are known and what each may say; their names, forms and defaults are
//! OpenTelemetry's. Invariant: what would send spans elsewhere or otherwise than is done here
//! (gRPC, compression) is a fault, where traces are on; where they are off nothing is looked at.

use super::settings::{BOTH, Setting, setting};
use super::values::Values;
use crate::telemetry::traces::{Encoding, Propagators, Queue, Sampler, TraceSettings};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Url};
use std::time::Duration;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TRACES_HEADERS: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const TRACES_TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const TRACES_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const PROPAGATORS: &str = "OTEL_PROPAGATORS";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const EXPORT: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// Variables of exporters that would be passed over here.
const UNSPOKEN: [([&str; 2], &str); 3] = [
    (
        ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
        "spans go uncompressed",
    ),
    (
        ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
        "the collector is shown no certificate",
    ),
    (
        ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"],
        "the collector is shown no certificate",
    ),
];

/// The rows of the reference.
pub(super) const ROWS: [Setting; 20] = [
    setting(
        ENDPOINT,
        "URL",
        "",
        BOTH,
        "Switches traces on: the OTLP collector, http(s)://…; spans are posted to v1/traces below it. docs/traces.md says what they are.",
    ),
    setting(
        TRACES_ENDPOINT,
        "URL",
        "",
        BOTH,
        "The same, for traces alone and with the whole path; it counts over the other.",
    ),
    setting(
        HEADERS,
        "PAIRS",
        "",
        BOTH,
        "What requests to the collector carry: name=value with commas between, values percent-encoded. They are not shown.",
    ),
    setting(
        TRACES_HEADERS,
        "PAIRS",
        "",
        BOTH,
        "The same, for traces alone; it counts over the other.",
    ),
    setting(
        PROTOCOL,
        "PROTOCOL",
        "http/protobuf",
        BOTH,
        "How spans are sent: http/protobuf or http/json. grpc is not spoken.",
    ),
    setting(
        TRACES_PROTOCOL,
        "PROTOCOL",
        "",
        BOTH,
        "The same, for traces alone; it counts over the other.",
    ),
    setting(
        TIMEOUT,
        "MILLISECONDS",
        "10000",
        BOTH,
        "How long an export may take with its further tries, 1 to 60000. No delivery waits for it.",
    ),
    setting(
        TRACES_TIMEOUT,
        "MILLISECONDS",
        "",
        BOTH,
        "The same, for traces alone; it counts over the other.",
    ),
    setting(
        CERTIFICATE,
        "PATH",
        "",
        BOTH,
        "A PEM file of authorities that may vouch for the collector, beside those this machine trusts.",
    ),
    setting(
        TRACES_CERTIFICATE,
        "PATH",
        "",
        BOTH,
        "The same, for traces alone; it counts over the other.",
    ),
    setting(SERVICE_NAME, "NAME", "", BOTH, "`service.name` of the spans. Not set: CONSUMER_NAME."),
    setting(
        RESOURCE_ATTRIBUTES,
        "PAIRS",
        "",
        BOTH,
        "Further attributes of this process: name=value with commas between, values percent-encoded.",
    ),
    setting(
        SAMPLER,
        "SAMPLER",
        "parentbased_always_on",
        BOTH,
        "Which batches are traced: always_on, always_off, traceidratio, or these with parentbased_ before them, which is the same here, for a batch has no parent.",
    ),
    setting(SAMPLER_ARG, "PART", "1", BOTH, "With traceidratio: the part of the batches, 0 to 1."),
    setting(
        PROPAGATORS,
        "LIST",
        "tracecontext,baggage",
        BOTH,
        "What handlers are sent of the trace: tracecontext (traceparent), xray (X-Amzn-Trace-Id), with commas between, or none; baggage is allowed and empty. A Lambda function gets the latter with either.",
    ),
    setting(EXPORTER, "EXPORTER", "otlp", BOTH, "otlp, or none to switch traces off."),
    setting(DISABLED, "BOOLEAN", "false", BOTH, "true switches traces off: true or false."),
    setting(
        DELAY,
        "MILLISECONDS",
        "5000",
        BOTH,
        "The longest that a finished span waits for others, 1 to 60000.",
    ),
    setting(
        QUEUE,
        "COUNT",
        "2048",
        BOTH,
        "Finished spans that may wait, 1 to 1000000; what comes on top is dropped and counted.",
    ),
    setting(
        EXPORT,
        "COUNT",
        "512",
        BOTH,
        "The most spans in one export, 1 to OTEL_BSP_MAX_QUEUE_SIZE.",
    ),
];

/// Where traces go, where they go anywhere. The outer `None` goes with a fault.
pub(super) fn traces(values: &mut Values<'_>) -> Option<Option<TraceSettings>> {
    let is_set = values.get(ENDPOINT).is_some() || values.get(TRACES_ENDPOINT).is_some();
    if !is_set {
        return Some(None);
    }
    // As OpenTelemetry has it: without regard to case, and what is not true is false.
    let is_off = values.get(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if is_off {
        return Some(None);
    }
    let is_otlp = values.read(EXPORTER, |text| match text {
        "otlp" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("is {text:?}; otlp and none are allowed")),
    })?;
    if !is_otlp {
        return Some(None);
    }
    for (names, instead) in UNSPOKEN {
        let name = first_of(values, names);
        if values.get(name).is_some_and(|text| text != "none") {
            values.fault(name, format!("is set, but not spoken here: {instead}; leave it out"));
        }
    }
    let endpoint = endpoint(values);
    let headers = first_of(values, [TRACES_HEADERS, HEADERS]);
    let headers = values.read(headers, self::headers);
    let encoding = first_of(values, [TRACES_PROTOCOL, PROTOCOL]);
    let encoding = values.read(encoding, |text| match text {
        "http/protobuf" => Ok(Encoding::Protobuf),
        "http/json" => Ok(Encoding::Json),
        "grpc" => Err("is \"grpc\", which is not spoken here; http/protobuf and http/json are, which collectors take at port 4318".to_owned()),
        _ => Err(format!("is {text:?}; http/protobuf and http/json are allowed")),
    });
    let timeout = first_of(values, [TRACES_TIMEOUT, TIMEOUT]);
    let timeout = values.number(timeout, 1, 60_000);
    let ca = first_of(values, [TRACES_CERTIFICATE, CERTIFICATE]);
    let ca = values.read(ca, certificates);
    let resource = resource(values);
    let sampler = sampler(values);
    let propagators = values.read(PROPAGATORS, propagators);
    let delay = values.number(DELAY, 1, 60_000);
    let most = values.number(QUEUE, 1, 1_000_000);
    let export = values.number(EXPORT, 1, most.unwrap_or(1_000_000));
    Some(Some(TraceSettings {
        endpoint: endpoint?,
        headers: headers.unwrap_or_default(),
        encoding: encoding?,
        timeout: Duration::from_millis(timeout?),
        ca: ca.unwrap_or_default(),
        resource: resource?,
        sampler: sampler?,
        propagators: propagators?,
        queue: Queue {
            most: usize::try_from(most?).ok()?,
            export: usize::try_from(export?).ok()?,
            delay: Duration::from_millis(delay?),
        },
    }))
}

/// The one for traces alone, where it is set.
fn first_of(values: &Values<'_>, [traces, all]: [&'static str; 2]) -> &'static str {
    if values.get(traces).is_some() { traces } else { all }
}

fn endpoint(values: &mut Values<'_>) -> Option<Url> {
    // It is not repeated: it may hold a password.
    let url = |text: &str| {
        let url = Url::parse(text).ok();
        let url = url
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| "is not a URL like http://collector:4318".to_owned())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user or a password in it, which is not sent: say them as a header, OTEL_EXPORTER_OTLP_HEADERS=authorization=…".to_owned());
        }
        Ok(url)
    };
    if values.get(TRACES_ENDPOINT).is_some() {
        return values.read(TRACES_ENDPOINT, url);
    }
    let mut endpoint = values.read(ENDPOINT, url)?;
    let path = format!("{}/v1/traces", endpoint.path().trim_end_matches('/'));
    endpoint.set_path(&path);
    Some(endpoint)
}

/// Pairs as W3C's baggage writes them. What is wrong is told by its place alone.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = |place| format!("has at place {place} what is not name=value, percent-encoded");
    let parts = text.split(',').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty());
    let pair = |(index, part): (usize, &str)| {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong(index + 1))?;
        let value = percent_decode_str(value.trim()).decode_utf8();
        let value = value.map_err(|_| wrong(index + 1))?;
        match name.trim() {
            "" => Err(wrong(index + 1)),
            name => Ok((name.to_owned(), value.into_owned())),
        }
    };
    parts.map(pair).collect()
}

fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (index, (name, value)) in pairs(text)?.into_iter().enumerate() {
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        let (Some(name), Ok(mut value)) = (name, HeaderValue::from_str(&value)) else {
            return Err(format!("has at place {} what cannot be a header", index + 1));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn certificates(path: &str) -> Result<Vec<Certificate>, String> {
    let pem = std::fs::read(path)
        .map_err(|error| format!("is {path:?}, which cannot be read: {error}"))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(ca) if !ca.is_empty() => Ok(ca),
        _ => Err(format!("is {path:?}, which has no certificates in it, as PEM has them")),
    }
}

fn resource(values: &mut Values<'_>) -> Option<Vec<(String, String)>> {
    let is_set = values.get(RESOURCE_ATTRIBUTES).is_some();
    let attributes = values.read(RESOURCE_ATTRIBUTES, pairs);
    let mut attributes = if is_set { attributes? } else { Vec::new() };
    // It counts over what the attributes say.
    if let Some(service) = values.get(SERVICE_NAME) {
        attributes.retain(|(name, _)| name != "service.name");
        attributes.push(("service.name".to_owned(), service));
    }
    Some(attributes)
}

fn sampler(values: &mut Values<'_>) -> Option<Sampler> {
    let part = values.read(SAMPLER_ARG, |text| {
        let part = text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
        part.ok_or_else(|| format!("is {text:?}; a number from 0 to 1 is allowed"))
    });
    values.read(SAMPLER, |text| match text.strip_prefix("parentbased_").unwrap_or(text) {
        "always_on" => Ok(Sampler::All),
        "always_off" => Ok(Sampler::None),
        "traceidratio" => Ok(Sampler::Ratio(part.unwrap_or(1.0))),
        _ => Err(format!("is {text:?}; always_on, always_off, traceidratio, and these with parentbased_ before them are allowed")),
    })
}

fn propagators(text: &str) -> Result<Propagators, String> {
    let mut propagators = Propagators { trace_context: false, xray: false };
    for name in text.split(',').map(str::trim) {
        match name {
            "tracecontext" => propagators.trace_context = true,
            "xray" => propagators.xray = true,
            // Nothing is carried beside the trace.
            "baggage" | "none" => {}
            _ => {
                return Err(format!(
                    "has {name:?} in it; tracecontext, xray, baggage and none are allowed"
                ));
            }
        }
    }
    Ok(propagators)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Command;
    use super::super::values::Faults;
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<TraceSettings>, Faults> {
        let lookup = |name: &str| {
            let (_, value) = set.iter().rev().find(|(n, _)| *n == name)?;
            Some((*value).to_owned())
        };
        let mut values = Values::new(Command::Consumer, &lookup);
        let traces = traces(&mut values);
        values.finish().map(|()| traces.expect("nothing is missing without a fault"))
    }

    const ON: (&str, &str) = (ENDPOINT, "http://collector:4318");

    #[test]
    fn an_endpoint_switches_them_on_and_two_settings_off() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[(PROTOCOL, "grpc"), (SAMPLER, "nonsense")]).unwrap().is_none(), "off");
        let settings = read(&[ON]).unwrap().unwrap();
        assert_eq!(settings.endpoint.as_str(), "http://collector:4318/v1/traces");
        assert_eq!((settings.sampler, settings.encoding), (Sampler::All, Encoding::Protobuf));
        assert_eq!(settings.propagators, Propagators { trace_context: true, xray: false });
        assert_eq!(settings.timeout, Duration::from_secs(10));
        for off in [(DISABLED, "true"), (DISABLED, "TRUE"), (EXPORTER, "none")] {
            assert!(read(&[ON, off]).unwrap().is_none());
        }
        let off = [ON, (DISABLED, "true"), (EXPORTER, "zipkin")];
        assert!(read(&off).unwrap().is_none(), "nothing is looked at");
        assert!(read(&[ON, (DISABLED, "no")]).unwrap().is_some(), "as OpenTelemetry has it");
    }

    #[test]
    fn what_is_for_traces_alone_counts_and_paths_are_as_opentelemetry_has_them() {
        let endpoint = |set: &[(&str, &str)]| read(set).unwrap().unwrap().endpoint.to_string();
        assert_eq!(endpoint(&[(ENDPOINT, "https://a/x/")]), "https://a/x/v1/traces");
        assert_eq!(endpoint(&[ON, (TRACES_ENDPOINT, "http://b/c")]), "http://b/c");
        assert_eq!(endpoint(&[(TRACES_ENDPOINT, "http://b")]), "http://b/");
        let settings = read(&[ON, (PROTOCOL, "grpc"), (TRACES_PROTOCOL, "http/json")]).unwrap();
        assert_eq!(settings.unwrap().encoding, Encoding::Json);
        let [[of_traces, of_all], ..] = UNSPOKEN.map(|(names, _)| names);
        assert!(read(&[ON, (of_all, "gzip"), (of_traces, "none")]).is_ok(), "others may have it");
        let settings = read(&[
            ON,
            (HEADERS, "a=1"),
            (TRACES_HEADERS, "Authorization = Basic%20c2VjcmV0,x=y=z"),
            (RESOURCE_ATTRIBUTES, "service.name=a,team=b%2Cc"),
            (SERVICE_NAME, "mail"),
            (SAMPLER, "parentbased_traceidratio"),
            (SAMPLER_ARG, "0.25"),
            (PROPAGATORS, "xray, baggage"),
        ]);
        let settings = settings.unwrap().unwrap();
        let header = |name| settings.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((header("authorization"), header("a")), (Some("Basic c2VjcmV0"), None));
        assert_eq!(header("x"), Some("y=z"));
        assert!(!format!("{settings:?}").contains("c2VjcmV0"), "a secret is not shown");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings.resource, [pair("team", "b,c"), pair("service.name", "mail")]);
        assert_eq!(settings.sampler, Sampler::Ratio(0.25));
        assert_eq!(settings.propagators, Propagators { trace_context: false, xray: true });
    }

    #[test]
    fn what_is_not_spoken_is_a_fault_and_none_is_passed_over() {
        for (name, value, says) in [
            (ENDPOINT, "collector:4318", "is not a URL like http://collector:4318"),
            (TRACES_ENDPOINT, "ftp://me:secret@a/", "is not a URL like"),
            (ENDPOINT, "http://me:secret@a:4318", "has a user or a password in it"),
            (PROTOCOL, "grpc", "which is not spoken here; http/protobuf and http/json are"),
            (TRACES_PROTOCOL, "thrift", "http/protobuf and http/json are allowed"),
            (HEADERS, "a=1,secret", "has at place 2 what is not name=value"),
            (HEADERS, "a b=secret", "has at place 1 what cannot be a header"),
            (TIMEOUT, "10s", "a whole number from 1 to 60000"),
            (CERTIFICATE, "/not/there", "cannot be read"),
            (RESOURCE_ATTRIBUTES, "=1", "has at place 1"),
            (SAMPLER, "jaeger_remote", "always_on, always_off, traceidratio"),
            (SAMPLER_ARG, "2", "a number from 0 to 1"),
            (PROPAGATORS, "b3", "tracecontext, xray, baggage and none are allowed"),
            (EXPORTER, "zipkin", "otlp and none are allowed"),
            (EXPORT, "4096", "from 1 to 2048"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "spans go uncompressed"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/a", "is shown no certificate"),
        ] {
            let Faults(faults) = read(&[ON, (name, value)]).unwrap_err();
            let [fault] = &faults[..] else { panic!("{name}={value}: {faults:?}") };
            assert!(fault.name == name && fault.what.contains(says), "{name}={value}: {fault}");
            assert!(!fault.what.contains("secret"), "{fault}");
        }
    }
}
