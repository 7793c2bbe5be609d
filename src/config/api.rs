//! The settings of `streamgate api`.

use super::common::{
    address, attribute_name, consumer_names, log_filter, log_format, table_name, token,
};
use super::settings::Command;
use super::values::{Faults, Values};
use crate::api::{Tls, TlsError};
use crate::progress::{ApiToken, TableSettings};
use crate::telemetry::logging::LogFormat;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Everything `streamgate api` needs to know.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `TABLE_NAME`.
    pub table: String,
    /// `CONSUMER_NAME`: the consumers whose progress is kept.
    pub consumers: Vec<String>,
    /// `TABLE_PARTITION_KEY`.
    pub partition_key: String,
    /// `TABLE_SORT_KEY`.
    pub sort_key: String,
    /// `API_TOKEN`, or what `API_TOKEN_FILE` holds.
    pub token: ApiToken,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`, read; none for plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// `LISTEN`.
    pub listen: SocketAddr,
    /// `PRIVATE_LISTEN`.
    pub private_listen: SocketAddr,
    /// `PAGE`: whether the private listener serves the page for people.
    pub page: bool,
    /// `SHUTDOWN_GRACE`.
    pub shutdown_grace: Duration,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RUST_LOG`.
    pub log_filter: String,
}

impl ApiConfig {
    /// Where in the table a consumer's progress is kept.
    pub fn table_settings(&self, consumer: &str, label: &str) -> TableSettings {
        TableSettings {
            table: self.table.clone(),
            partition_key: self.partition_key.clone(),
            sort_key: self.sort_key.clone(),
            consumer: consumer.to_owned(),
            label: label.to_owned(),
        }
    }
}

/// Reads the settings of `streamgate api`. Contacts nothing.
///
/// # Errors
/// Every fault there is, not just the first.
pub fn api(lookup: &dyn Fn(&str) -> Option<String>) -> Result<ApiConfig, Faults> {
    let mut values = Values::new(Command::Api, lookup);
    let table = values.required("TABLE_NAME", table_name);
    let token = token(&mut values, true);
    let consumers = values.read("CONSUMER_NAME", consumer_names);
    let partition_key = values.read("TABLE_PARTITION_KEY", attribute_name);
    let sort_key = values.read("TABLE_SORT_KEY", attribute_name);
    let hour = Duration::from_secs(3600);
    let shutdown_grace = values.duration("SHUTDOWN_GRACE", Duration::from_secs(1), hour);
    let listen = values.read("LISTEN", address);
    let private_listen = values.read("PRIVATE_LISTEN", address);
    let tls = tls(&mut values);
    let page = values.boolean("PAGE");
    let log_format = log_format(&mut values);
    let log_filter = values.read("RUST_LOG", log_filter);
    values.finish()?;

    // Nothing is missing where nothing was at fault.
    let all = || {
        Some(ApiConfig {
            table: table?,
            consumers: consumers?,
            partition_key: partition_key?,
            sort_key: sort_key?,
            token: token?,
            tls,
            listen: listen?,
            private_listen: private_listen?,
            page: page?,
            shutdown_grace: shutdown_grace?,
            log_format: log_format?,
            log_filter: log_filter?,
        })
    };
    Ok(all().expect("every setting without a fault has a value"))
}

/// Both files or neither. They are read here, for a mistake in them is one in the
/// configuration.
fn tls(values: &mut Values<'_>) -> Option<Arc<Tls>> {
    const CERTIFICATE: &str = "TLS_CERT_FILE";
    const KEY: &str = "TLS_KEY_FILE";
    let (certificate, key) = match (values.get(CERTIFICATE), values.get(KEY)) {
        (None, None) => return None,
        (Some(certificate), Some(key)) => (certificate, key),
        (certificate, _) => {
            let (set, unset) =
                if certificate.is_some() { (CERTIFICATE, KEY) } else { (KEY, CERTIFICATE) };
            values.fault(unset, format!("is not set, but {set} is; set both, or neither"));
            return None;
        }
    };
    match Tls::load(Path::new(&certificate), Path::new(&key)) {
        Ok(tls) => return Some(Arc::new(tls)),
        Err(TlsError::Certificate(why)) => {
            values.fault(CERTIFICATE, format!("is {certificate:?}, which {why}"));
        }
        Err(TlsError::Key(why)) => values.fault(KEY, format!("is {key:?}, which {why}")),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_settings_are_enough_and_the_token_is_not_shown() {
        let lookup = |name: &str| match name {
            "TABLE_NAME" => Some("people".to_owned()),
            "API_TOKEN" => Some("0123456789abcdef".to_owned()),
            _ => None,
        };
        let config = api(&lookup).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config.private_listen.to_string(), "0.0.0.0:8081");
        assert!(!format!("{config:?}").contains("0123456789"));
        assert_eq!(config.consumers, ["streamgate"]);
        let named = |names: &'static str| {
            api(&move |name: &str| match name {
                "CONSUMER_NAME" => Some(names.to_owned()),
                _ => lookup(name),
            })
        };
        assert_eq!(named("orders, audit").unwrap().consumers, ["orders", "audit"]);
        for bad in ["orders,", "a b", ",", "a#b"] {
            let Faults(faults) = named(bad).unwrap_err();
            assert_eq!(faults[0].name, "CONSUMER_NAME", "{bad}");
        }
        let Faults(faults) = api(&|_| None).unwrap_err();
        let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
        assert_eq!(names, ["TABLE_NAME", "API_TOKEN"]);
    }
}
