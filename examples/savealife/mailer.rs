//! Mails over SMTP, and what is known of each afterwards.
//!
//! Owns the connections, which are kept and used again, and the steps of a mail. Invariant:
//! whatever goes wrong before the mail's text is on its way was certainly not sent, and so
//! was what the server refused in words; of everything else nobody can know.

use crate::settings::Smtp;
use lettre::message::Message;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Severity;
use percent_encoding::percent_decode_str;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use streamgate::causes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// Mails, and so connections, at a time.
pub const AT_A_TIME: usize = 8;
/// Servers close connections that are silent for minutes; none is used that may be one.
const FRESH: Duration = Duration::from_secs(20);

/// A way to one mail server.
pub struct Mailer {
    smtp: Smtp,
    idle: Mutex<Vec<(Instant, AsyncSmtpConnection)>>,
    places: Semaphore,
}

/// A connection that is ready for one mail.
pub struct Ready<'a> {
    mailer: &'a Mailer,
    connection: AsyncSmtpConnection,
    /// It was used before, and the server may have closed it meanwhile.
    is_used: bool,
    _place: SemaphorePermit<'a>,
}

/// What became of a mail.
#[derive(Debug)]
pub enum Sending {
    Accepted,
    /// Certainly not sent: the server said no to this one.
    Refused(String),
    /// Certainly not sent, as no other would be.
    Down(String),
    /// Its text was on its way, and no answer came: it may have been sent.
    Unknown(String),
}

impl Mailer {
    pub fn new(smtp: Smtp) -> Self {
        Self { smtp, idle: Mutex::default(), places: Semaphore::new(AT_A_TIME) }
    }

    /// Waits for a place and connects, where no connection is left over.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub async fn ready(&self) -> Result<Ready<'_>, String> {
        let place = self.places.acquire().await.map_err(|_| "nobody mails any more".to_owned())?;
        let kept = self.idle().pop().filter(|(since, _)| since.elapsed() < FRESH);
        let is_used = kept.is_some();
        let connection = match kept {
            Some((_, connection)) => connection,
            None => match timeout(self.smtp.timeout, self.connect()).await {
                Ok(connected) => connected.map_err(|error| in_a_line(&error))?,
                Err(_) => return Err("the server does not answer in time".to_owned()),
            },
        };
        Ok(Ready { mailer: self, connection, is_used, _place: place })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let Smtp { url, timeout, .. } = &self.smtp;
        let host = url.host_str().unwrap_or_default();
        let (wraps, upgrades) = (url.scheme() == "smtps", url.query().is_some());
        let usual = if wraps {
            465
        } else if upgrades {
            587
        } else {
            25
        };
        let tls = || TlsParameters::new(host.to_owned());
        let hello = ClientId::default();
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            (host.trim_matches(['[', ']']), url.port().unwrap_or(usual)),
            Some(*timeout),
            &hello,
            if wraps { Some(tls()?) } else { None },
            None,
        )
        .await?;
        if upgrades {
            connection.starttls(tls()?, &hello).await?;
        }
        if let Some(password) = url.password() {
            let plain = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let credentials = Credentials::new(plain(url.username()), plain(password));
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }

    /// It holds plain values, which a panic elsewhere leaves whole.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, AsyncSmtpConnection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready<'_> {
    /// Sends a mail, within twice `SMTP_TIMEOUT`.
    pub async fn send(mut self, mail: &Message) -> Sending {
        let limit = self.mailer.smtp.timeout;
        match timeout(limit, self.prepare(mail)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.status().is_some() => return self.refused(&error).await,
            Ok(Err(error)) => return Sending::Down(in_a_line(&error)),
            Err(_) => return Sending::Down("the server does not answer in time".to_owned()),
        }
        match timeout(limit, self.connection.message(&mail.formatted())).await {
            Ok(Ok(answer)) if answer.code().severity == Severity::PositiveCompletion => {
                self.keep();
                Sending::Accepted
            }
            Ok(Ok(answer)) => Sending::Unknown(format!("the server answered {}", answer.code())),
            Ok(Err(error)) if error.status().is_some() => self.refused(&error).await,
            Ok(Err(error)) => Sending::Unknown(in_a_line(&error)),
            Err(_) => Sending::Unknown("the server did not answer in time".to_owned()),
        }
    }

    /// All that comes before the text. A connection that was closed meanwhile shows at the
    /// first command.
    async fn prepare(&mut self, mail: &Message) -> Result<(), Error> {
        let envelope = mail.envelope();
        let from = || Mail::new(envelope.from().cloned(), Vec::new());
        match self.connection.command(from()).await {
            Ok(_) => {}
            Err(error) if self.is_used && error.status().is_none_or(is_closing) => {
                self.connection = self.mailer.connect().await?;
                self.connection.command(from()).await?;
            }
            Err(error) => return Err(error),
        }
        for to in envelope.to() {
            self.connection.command(Rcpt::new(to.clone(), Vec::new())).await?;
        }
        self.connection.command(Data).await?;
        Ok(())
    }

    async fn refused(mut self, error: &Error) -> Sending {
        let why = in_a_line(error);
        if error.status().is_some_and(is_closing) {
            return Sending::Down(why);
        }
        let reset = timeout(self.mailer.smtp.timeout, self.connection.command(Rset)).await;
        if matches!(reset, Ok(Ok(_))) {
            self.keep();
        }
        Sending::Refused(why)
    }

    fn keep(self) {
        self.mailer.idle().push((Instant::now(), self.connection));
    }
}

/// 421: the server closes the connection, whatever it was asked.
fn is_closing(code: lettre::transport::smtp::response::Code) -> bool {
    u16::from(code) == 421
}

/// Without the recipient, whom servers like to repeat.
fn in_a_line(error: &Error) -> String {
    if let Some(code) = error.status() {
        return format!("the server answered {code}");
    }
    causes::in_a_line(error)
}
