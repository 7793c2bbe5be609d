//! Whom to mail and who has been mailed, asked of the api.
//!
//! Owns the calls. The handler has no right to the table and no token of the consumer's;
//! this is all that it can ask. A call is tried again for a while, which changes nothing
//! that was done already.

use crate::settings::HandlerConfig;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use streamgate::backoff::Backoff;
use tokio::time::Instant;

/// How long a call is tried. A claim that took longer is not used.
pub const PATIENCE: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The api, as the handler knows it.
pub struct Ledger {
    client: Client,
    api: Url,
    authorization: HeaderValue,
    patience: Duration,
}

/// A donor in a city. `email` may be missing in what an older program wrote.
#[derive(Clone, Debug, Deserialize)]
pub struct Recipient {
    pub id: String,
    pub email: Option<String>,
}

/// How far a mail is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Sending,
    Sent,
    /// The mail server will not have mails to this donor.
    Refused,
    Unknown,
}

/// A mail that somebody has claimed before.
#[derive(Clone, Debug, Deserialize)]
pub struct Known {
    pub state: State,
    /// How many milliseconds ago that was written.
    pub age: u64,
    /// Whose claim it is, or was.
    pub attempt: Option<String>,
}

/// A page of a list.
pub struct Page<T> {
    pub rows: Vec<T>,
    /// The address of the next.
    pub next: Option<String>,
}

/// The api did not do it, in a sentence.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Nor would it do anything else at the moment.
    #[error("{0}")]
    Down(String),
    /// This, and this only.
    #[error("{0}")]
    Refused(String),
}

/// What every route answers, as far as it is read here.
#[derive(Deserialize)]
struct Reply<T> {
    return_value: T,
    next: Option<String>,
}

/// The answer to a claim.
#[derive(Deserialize)]
struct Claimed {
    claimed: bool,
    #[serde(flatten)]
    known: Option<Known>,
}

#[derive(Deserialize)]
struct Row {
    donor: String,
    #[serde(flatten)]
    known: Known,
}

impl Ledger {
    /// # Errors
    /// When this machine has no TLS roots.
    pub fn new(config: &HandlerConfig) -> Result<Self, reqwest::Error> {
        let client = Client::builder().timeout(CALL_TIMEOUT).no_proxy().build()?;
        let (api, authorization) = (config.api.clone(), config.authorization.clone());
        Ok(Self { client, api, authorization, patience: PATIENCE })
    }

    /// Where the list of a city's donors begins.
    pub fn donors_of(&self, city: &str) -> String {
        let mut address = self.api.clone();
        address.set_path("/mail/donors");
        address.query_pairs_mut().append_pair("city", city);
        address.into()
    }

    /// A page of that list.
    pub async fn donors(&self, address: &str) -> Result<Page<Recipient>, LedgerError> {
        let Reply { return_value: rows, next } = self.ask(Method::GET, address, None).await?;
        Ok(Page { rows, next })
    }

    /// The mails about a donation, by donor.
    pub async fn mails(&self, donation: &str) -> Result<HashMap<String, Known>, LedgerError> {
        let (mut mails, mut next) = (HashMap::new(), Some(format!("/mail/{donation}")));
        while let Some(address) = next {
            let answer: Reply<Vec<Row>> = self.ask(Method::GET, &address, None).await?;
            mails.extend(answer.return_value.into_iter().map(|row| (row.donor, row.known)));
            next = answer.next;
        }
        Ok(mails)
    }

    /// Claims a mail for this attempt; gives what stands there if that is another's.
    pub async fn claim(&self, mail: &str, attempt: &str) -> Result<Option<Known>, LedgerError> {
        let body = json!({"state": "sending", "attempt": attempt});
        let begun = Instant::now();
        let answer: Reply<Claimed> = self.ask(Method::PUT, mail, Some(body)).await?;
        let Claimed { claimed, known } = answer.return_value;
        if claimed && begun.elapsed() > self.patience {
            // Others may soon take it for dead.
            self.give_back(mail, attempt).await?;
            return Err(LedgerError::Down("the api took too long for a claim".to_owned()));
        }
        match known {
            _ if claimed => Ok(None),
            Some(known) => Ok(Some(known)),
            None => {
                let why = "the api says neither yes nor no to a claim";
                Err(LedgerError::Refused(why.to_owned()))
            }
        }
    }

    /// The mail was sent.
    pub async fn sent(&self, mail: &str, attempt: &str) -> Result<(), LedgerError> {
        self.settle(mail, json!({"state": "sent", "attempt": attempt})).await
    }

    /// The mail was not sent and will not be.
    pub async fn refused(&self, mail: &str, attempt: &str) -> Result<(), LedgerError> {
        self.settle(mail, json!({"state": "refused", "attempt": attempt})).await
    }

    /// Nobody knows whether it was sent: the attempt that claimed it does not, or is dead.
    pub async fn unknown(&self, mail: &str, attempt: Option<&str>) -> Result<(), LedgerError> {
        self.settle(mail, json!({"state": "unknown", "attempt": attempt})).await
    }

    async fn settle(&self, mail: &str, body: Value) -> Result<(), LedgerError> {
        let _: Reply<Value> = self.ask(Method::PUT, mail, Some(body)).await?;
        Ok(())
    }

    /// The mail was certainly not sent.
    pub async fn give_back(&self, mail: &str, attempt: &str) -> Result<(), LedgerError> {
        let address = format!("{mail}?attempt={attempt}");
        let _: Reply<Value> = self.ask(Method::DELETE, &address, None).await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        address: &str,
        body: Option<Value>,
    ) -> Result<T, LedgerError> {
        let url = self.api.join(address);
        let url = url.map_err(|error| LedgerError::Refused(error.to_string()))?;
        if url.origin() != self.api.origin() {
            return Err(LedgerError::Refused("the api's answer leads elsewhere".to_owned()));
        }
        let until = Instant::now() + self.patience;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let why = match self.once(&method, &url, body.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error @ LedgerError::Refused(_)) => return Err(error),
                Err(LedgerError::Down(why)) => why,
            };
            let wait = backoff.next(fastrand::f64());
            if Instant::now() + wait > until {
                return Err(LedgerError::Down(why));
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn once<T: DeserializeOwned>(
        &self,
        method: &Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<T, LedgerError> {
        let passing = |error: reqwest::Error| {
            LedgerError::Down(format!("the api does not answer: {}", error.without_url()))
        };
        let mut request = self.client.request(method.clone(), url.clone());
        request = request.header(AUTHORIZATION, self.authorization.clone());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.map_err(passing)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(passing)?;
        if status == StatusCode::OK {
            let read = serde_json::from_slice(&body);
            let why = "the api's answer cannot be read";
            return read.map_err(|_| LedgerError::Refused(why.to_owned()));
        }
        let why = format!("the api answered {status} to {method} {}", url.path());
        let is_down = status.is_server_error();
        Err(if is_down { LedgerError::Down(why) } else { LedgerError::Refused(why) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;
    use axum::extract::RawQuery;
    use axum::{Json, Router, routing::put};
    use std::sync::{Arc, Mutex};
    use tokio::net::TcpListener;

    /// An api that gives every claim, so late; what was given back.
    async fn slow_api(delay: Duration) -> (Ledger, Arc<Mutex<Vec<String>>>) {
        let given_back = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&given_back);
        let claim = async move || {
            tokio::time::sleep(delay).await;
            Json(json!({"return_value": {"claimed": true}}))
        };
        let give_back = async move |RawQuery(query): RawQuery| {
            noted.lock().unwrap().extend(query);
            Json(json!({"return_value": {}}))
        };
        let router = Router::new().route("/mail/{donation}/{donor}", put(claim).delete(give_back));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = settings::handler(&|name| match name {
            "SAVEALIFE_API_URL" => Some(url.clone()),
            "SAVEALIFE_TOKEN" => Some("0123456789abcdef".to_owned()),
            "SMTP_URL" => Some("smtp://mail".to_owned()),
            "MAIL_FROM" => Some("events@example.org".to_owned()),
            _ => None,
        });
        (Ledger::new(&config.unwrap()).unwrap(), given_back)
    }

    #[tokio::test]
    async fn a_claim_that_took_too_long_is_given_back_and_not_used() {
        let delay = Duration::from_millis(50);
        let (mut ledger, given_back) = slow_api(delay).await;
        let claimed = ledger.claim("/mail/a/b", "the-first-attempt").await;
        assert!(matches!(claimed, Ok(None)), "{claimed:?}");
        ledger.patience = delay / 2;
        let claimed = ledger.claim("/mail/a/b", "the-second-attempt").await;
        assert!(matches!(claimed, Err(LedgerError::Down(_))), "{claimed:?}");
        assert_eq!(*given_back.lock().unwrap(), ["attempt=the-second-attempt"]);
    }
}
