//! The settings of the example's own.
//!
//! Owns their names and sentences. Invariant, as in the library: all faults are named at
//! once, before a port is opened or anything is contacted.

use lettre::message::Mailbox;
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use streamgate::config::{self, ApiConfig, Command, Faults, Values};
use streamgate::progress::ApiToken;
use streamgate::telemetry::logging::LogFormat;

const TOKEN: &str = "SAVEALIFE_TOKEN";
const TOKEN_FILE: &str = "SAVEALIFE_TOKEN_FILE";

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The api's: those of `streamgate api`, and what opens the handler's routes.
///
/// # Errors
/// Every fault there is.
pub fn api(lookup: Lookup<'_>) -> Result<(ApiConfig, ApiToken), Faults> {
    let mut values = Values::new(Command::Api, lookup);
    let token = token(&mut values);
    for (name, needed) in [("TABLE_PARTITION_KEY", "PK"), ("TABLE_SORT_KEY", "SK")] {
        if values.text(name).is_some_and(|set| set != needed) {
            values
                .fault(name, format!("is not {needed}, which the items of this application have"));
        }
    }
    let own = values.finish();
    match (config::api(lookup), own, token) {
        (Ok(config), Ok(()), Some(token)) => {
            Ok((config, ApiToken::new(&token).expect("it was read as one")))
        }
        (config, own, _) => {
            let faults = [config.err(), own.err()].into_iter().flatten();
            Err(Faults(faults.flat_map(|Faults(some)| some).collect()))
        }
    }
}

/// Everything the handler needs to know.
#[derive(Clone, Debug)]
pub struct HandlerConfig {
    pub listen: SocketAddr,
    /// `SAVEALIFE_API_URL`
    pub api: Url,
    /// What the handler shows at the api; not shown elsewhere.
    pub authorization: HeaderValue,
    pub smtp: Smtp,
    pub shutdown_grace: Duration,
    pub log_format: LogFormat,
    pub log_filter: String,
}

/// How mail is sent.
#[derive(Clone)]
pub struct Smtp {
    /// `SMTP_URL`: `smtp://` or `smtps://`; it may hold a password.
    pub url: Url,
    /// `MAIL_FROM`
    pub from: Mailbox,
    /// `SMTP_TIMEOUT`: for all that comes before a mail's text, and as long again for it.
    pub timeout: Duration,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.url.host_str(), self.url.port());
        let mut shown = f.debug_struct("Smtp");
        shown.field("host", &host).field("port", &port).field("from", &self.from);
        shown.field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// # Errors
/// Every fault there is.
pub fn handler(lookup: Lookup<'_>) -> Result<HandlerConfig, Faults> {
    let mut values = Values::new(Command::Consumer, lookup);
    let listen = read(&mut values, "LISTEN", Some("0.0.0.0:3000"), |text| {
        text.parse()
            .map_err(|_| format!("is {text:?}; an address and port (0.0.0.0:3000) is allowed"))
    });
    let api = read(&mut values, "SAVEALIFE_API_URL", None, api_url);
    let token = token(&mut values);
    let url = read(&mut values, "SMTP_URL", None, smtp_url);
    let from = read(&mut values, "MAIL_FROM", None, |text| {
        let from: Mailbox =
            text.parse().map_err(|_| format!("is {text:?}, which is no e-mail address"))?;
        Ok(from)
    });
    let timeout = read(&mut values, "SMTP_TIMEOUT", Some("10s"), |text| {
        let bounds = Duration::from_millis(10)..=Duration::from_secs(300);
        let timeout =
            humantime::parse_duration(text).ok().filter(|timeout| bounds.contains(timeout));
        timeout.ok_or_else(|| format!("is {text:?}; 10ms to 5m are allowed"))
    });
    let hour = Duration::from_secs(3600);
    let shutdown_grace = values.duration("SHUTDOWN_GRACE", Duration::from_secs(1), hour);
    let log_format = read(&mut values, "LOG_FORMAT", Some(""), |text| match text {
        "" => Ok(LogFormat::fitting()),
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err(format!("is {text:?}; json and text are allowed")),
    });
    let log_filter = values.text("RUST_LOG");
    values.finish()?;
    let all = || {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token?)).ok()?;
        authorization.set_sensitive(true);
        Some(HandlerConfig {
            listen: listen?,
            api: api?,
            authorization,
            smtp: Smtp { url: url?, from: from?, timeout: timeout? },
            shutdown_grace: shutdown_grace?,
            log_format: log_format?,
            log_filter: log_filter?,
        })
    };
    Ok(all().expect("every setting without a fault has a value"))
}

/// A setting that is not of the library's list.
fn read<T>(
    values: &mut Values<'_>,
    name: &'static str,
    default: Option<&str>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text = values.get(name).or_else(|| default.map(str::to_owned));
    let result = match &text {
        None => Err("is not set; it is needed".to_owned()),
        Some(text) => read(text),
    };
    result.map_err(|what| values.fault(name, what)).ok()
}

/// The text of the token, which [`ApiToken`] takes. No sentence repeats it.
fn token(values: &mut Values<'_>) -> Option<String> {
    let judge = |text: &str| {
        match ApiToken::new(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("is no token: 16 to 1024 visible ASCII characters are allowed (openssl rand -hex 32 makes some)".to_owned()),
    }
    };
    match (values.get(TOKEN), values.get(TOKEN_FILE)) {
        (Some(_), Some(_)) => {
            values.fault(TOKEN, "and SAVEALIFE_TOKEN_FILE are both set; one of them is allowed");
            None
        }
        (_, Some(path)) => read(values, TOKEN_FILE, None, |_| {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("is {path:?}, which cannot be read: {error}"))?;
            judge(text.trim())
        }),
        (Some(_), None) => read(values, TOKEN, None, judge),
        (None, None) => {
            values.fault(TOKEN, "is not set, nor is SAVEALIFE_TOKEN_FILE; one of them is needed");
            None
        }
    }
}

fn api_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/"
    });
    url.ok_or_else(|| format!("is {text:?}; an address like http://api:8080 is allowed"))
}

/// A password in it is not repeated.
fn smtp_url(text: &str) -> Result<Url, String> {
    const ALLOWED: &str = "is not an address like smtp://host:25, smtp://user:password@host:587?tls=required or smtps://user:password@host";
    let url = Url::parse(text).map_err(|_| ALLOWED)?;
    let tls = match (url.scheme(), url.query()) {
        ("smtp", None) => false,
        ("smtp", Some("tls=required")) | ("smtps", None) => true,
        _ => return Err(ALLOWED.to_owned()),
    };
    if !url.has_host() || !matches!(url.path(), "" | "/") {
        return Err(ALLOWED.to_owned());
    }
    if url.username().is_empty() != url.password().is_none() {
        return Err("has a user or a password without the other".to_owned());
    }
    if url.password().is_some() && !tls {
        return Err("has a password and no TLS, so that anybody on the way could read it; use smtps:// or ?tls=required".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamgate::config::Fault;

    fn names(faults: Faults) -> Vec<&'static str> {
        faults.0.iter().map(|Fault { name, .. }| *name).collect()
    }

    #[test]
    fn all_faults_are_named_at_once() {
        assert_eq!(
            names(api(&|_| None).unwrap_err()),
            ["TABLE_NAME", "API_TOKEN", "SAVEALIFE_TOKEN"]
        );
        let none = names(handler(&|_| None).unwrap_err());
        assert_eq!(none, ["SAVEALIFE_API_URL", "SAVEALIFE_TOKEN", "SMTP_URL", "MAIL_FROM"]);
        let good = |name: &str| {
            let value = match name {
                "SAVEALIFE_API_URL" => "http://api:8080",
                "SAVEALIFE_TOKEN" => "0123456789abcdef",
                "SMTP_URL" => "smtp://mail:25",
                "MAIL_FROM" => "Save a life <events@example.org>",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let config = handler(&good).unwrap();
        assert!(!format!("{config:?}").contains("0123456789"), "the token is not shown");
        let secret = |asked: &str| match asked {
            "SMTP_URL" => Some("smtps://user:secret@mail".to_owned()),
            _ => good(asked),
        };
        assert!(!format!("{:?}", handler(&secret).unwrap()).contains("secret"));
        for (name, value) in [
            ("SMTP_URL", "smtp://user:secret@mail"),
            ("SMTP_URL", "smtps://user@mail"),
            ("SMTP_URL", "smtps://:secret@mail"),
            ("SMTP_URL", "smtps://user:secr/et@mail"),
            ("SMTP_URL", "http://mail"),
            ("SMTP_URL", "smtp://mail?tls=maybe"),
            ("MAIL_FROM", "nobody"),
            ("SMTP_TIMEOUT", "1h"),
            ("SAVEALIFE_API_URL", "http://api/v1"),
            ("SAVEALIFE_TOKEN", "short"),
            ("LISTEN", "3000"),
        ] {
            let bad =
                |asked: &str| if asked == name { Some(value.to_owned()) } else { good(asked) };
            let faults = handler(&bad).unwrap_err();
            assert!(!faults.to_string().contains("secret"), "{faults}");
            assert_eq!(names(faults), [name], "{value}");
        }
    }
}
