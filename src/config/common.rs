//! What settings of several commands are read as.

use super::values::Values;
use crate::arn::valid_table_name;
use crate::progress::{ApiToken, MAX_TOKEN_LENGTH, MIN_TOKEN_LENGTH, valid_consumer_name};
use crate::telemetry::logging::LogFormat;
use std::net::SocketAddr;

pub(super) fn table_name(text: &str) -> Result<String, String> {
    valid_table_name(text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("is {text:?}; the name of a table is 3 to 255 of a-z A-Z 0-9 _ . -"))
}

pub(super) fn consumer_name(text: &str) -> Result<String, String> {
    valid_consumer_name(text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("is {text:?}; 1 to 64 of a-z A-Z 0-9 _ . - are allowed"))
}

/// Names of consumers with commas, and white space, between.
pub(super) fn consumer_names(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|name| consumer_name(name.trim())).collect()
}

pub(super) fn attribute_name(text: &str) -> Result<String, String> {
    if text.len() <= 255 {
        Ok(text.to_owned())
    } else {
        Err("is too long; the name of a key has at most 255 bytes".to_owned())
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("is {text:?}; an address and port (0.0.0.0:9090, [::]:9090) is allowed")
    })
}

pub(super) fn log_format(values: &mut Values<'_>) -> Option<LogFormat> {
    match values.text("LOG_FORMAT").as_deref() {
        None => Some(LogFormat::fitting()),
        Some("json") => Some(LogFormat::Json),
        Some("text") => Some(LogFormat::Text),
        Some(other) => {
            values.fault("LOG_FORMAT", format!("is {other:?}; json and text are allowed"));
            None
        }
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| {
        format!("is {text:?}: {error}; a filter like info or streamgate=debug is allowed")
    })
}

/// The token, from `API_TOKEN` or the file `API_TOKEN_FILE`. No sentence repeats it.
pub(super) fn token(values: &mut Values<'_>, is_needed: bool) -> Option<ApiToken> {
    const TOKEN: &str = "API_TOKEN";
    const FILE: &str = "API_TOKEN_FILE";
    let parse = |text: &str| {
        ApiToken::new(text).ok_or_else(|| {
            format!(
                "has {} bytes or others than allowed; {MIN_TOKEN_LENGTH} to {MAX_TOKEN_LENGTH} visible ASCII characters are allowed (openssl rand -hex 32 makes some)",
                text.len()
            )
        })
    };
    match (values.get(TOKEN).is_some(), values.get(FILE).is_some()) {
        (true, true) => {
            values.fault(TOKEN, "and API_TOKEN_FILE are both set; one of them is allowed");
            None
        }
        (true, false) => values.read(TOKEN, parse),
        (false, true) => values.read(FILE, |path| {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("is {path:?}, which cannot be read: {error}"))?;
            parse(text.trim())
        }),
        (false, false) => {
            if is_needed {
                values.fault(TOKEN, "is not set, nor is API_TOKEN_FILE; one of them is needed");
            }
            None
        }
    }
}
