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
use lettre::transport::smtp::response::{Code, Severity};
use percent_encoding::percent_decode_str;
use std::error::Error as _;
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
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

struct Connection {
    smtp: AsyncSmtpConnection,
    /// When the server last heard of it.
    since: Instant,
    /// The server may have closed it meanwhile.
    is_used: bool,
    /// A mail was begun on it and came to no end.
    is_in_a_mail: bool,
}

/// A connection that is ready for one mail.
pub struct Ready<'a> {
    mailer: &'a Mailer,
    connection: Connection,
    _place: SemaphorePermit<'a>,
}

/// What became of a mail.
#[derive(Debug)]
pub enum Sending {
    Accepted,
    /// Certainly not sent: the server has said for good that there is no such mailbox.
    Refused(String),
    /// Certainly not sent: the server said no to this one, which may pass.
    Deferred(String),
    /// Certainly not sent, as no other would be.
    Down(String),
    /// Its text was on its way, and no answer came: it may have been sent.
    Unknown(String),
}

/// Why the text could not be begun.
enum Stop {
    /// The server's no to the recipient.
    Recipient(Error),
    Other(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
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
        let kept = self.idle().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let smtp = match timeout(self.smtp.timeout, self.connect()).await {
                    Ok(connected) => connected.map_err(|error| in_a_line(&error))?,
                    Err(_) => return Err("the server does not answer in time".to_owned()),
                };
                Connection { smtp, since: Instant::now(), is_used: false, is_in_a_mail: false }
            }
        };
        Ok(Ready { mailer: self, connection, _place: place })
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

    /// Those that may be used again; the others are closed. It holds plain values, which a
    /// panic elsewhere leaves whole.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.since.elapsed() < FRESH);
        idle
    }
}

impl Ready<'_> {
    /// Sends a mail, within twice `SMTP_TIMEOUT`.
    pub async fn send(mut self, mail: &Message) -> Sending {
        let limit = self.mailer.smtp.timeout;
        match timeout(limit, self.prepare(mail)).await {
            Ok(Ok(())) => {}
            Ok(Err(Stop::Recipient(error))) if is_of_the_mailbox(&error) => {
                self.put_back();
                return Sending::Refused(in_a_line(&error));
            }
            Ok(Err(Stop::Recipient(error) | Stop::Other(error))) => return self.failed(&error),
            Err(_) => return Sending::Down("the server does not answer in time".to_owned()),
        }
        match timeout(limit, self.connection.smtp.message(&mail.formatted())).await {
            Ok(Ok(answer)) if answer.code().severity == Severity::PositiveCompletion => {
                self.connection.is_in_a_mail = false;
                self.put_back();
                Sending::Accepted
            }
            Ok(Ok(answer)) => Sending::Unknown(format!("the server answered {}", answer.code())),
            Ok(Err(error)) if error.status().is_some() => self.failed(&error),
            Ok(Err(error)) => Sending::Unknown(in_a_line(&error)),
            Err(_) => Sending::Unknown("the server did not answer in time".to_owned()),
        }
    }

    /// All that comes before the text. A connection that was closed meanwhile shows at the
    /// first command.
    async fn prepare(&mut self, mail: &Message) -> Result<(), Stop> {
        let envelope = mail.envelope();
        let begun = self.begin(mail).await;
        match begun {
            Err(error) if self.connection.is_used && error.status().is_none_or(is_closing) => {
                self.connection.smtp = self.mailer.connect().await?;
                self.connection.is_in_a_mail = false;
                self.begin(mail).await?;
            }
            begun => begun?,
        }
        for to in envelope.to() {
            let rcpt = Rcpt::new(to.clone(), Vec::new());
            self.connection.smtp.command(rcpt).await.map_err(Stop::Recipient)?;
        }
        self.connection.smtp.command(Data).await?;
        Ok(())
    }

    async fn begin(&mut self, mail: &Message) -> Result<(), Error> {
        let connection = &mut self.connection;
        if connection.is_in_a_mail {
            connection.smtp.command(Rset).await?;
        }
        connection.is_in_a_mail = true;
        let from = mail.envelope().from().cloned();
        connection.smtp.command(Mail::new(from, Vec::new())).await?;
        Ok(())
    }

    /// The server said no, or nothing.
    fn failed(self, error: &Error) -> Sending {
        let why = in_a_line(error);
        if error.status().is_none_or(is_closing) {
            return Sending::Down(why);
        }
        self.put_back();
        Sending::Deferred(why)
    }

    /// For the next mail, as it was: nothing was sent on it.
    pub fn keep(self) {
        let Self { mailer, connection, .. } = self;
        mailer.idle().push(connection);
    }

    /// For the next mail. What was begun on it is put off then, and not now, where the claim
    /// waits to be given back.
    fn put_back(mut self) {
        self.connection.since = Instant::now();
        self.connection.is_used = true;
        self.keep();
    }
}

/// 421: the server closes the connection, whatever it was asked.
fn is_closing(code: Code) -> bool {
    u16::from(code) == 421
}

/// Whether a no to the recipient is for good and for this one only.
fn is_of_the_mailbox(error: &Error) -> bool {
    let code = error.status().filter(|_| error.is_permanent());
    code.is_some_and(|code| means_the_mailbox(code.into(), enhanced(&words(error))))
}

/// A relay that will not have us, or our sender, says so at RCPT too, and to everybody. The
/// enhanced status code tells it apart: the address (5.1) and the mailbox (5.2) are the
/// recipient's, but for 5.1.7 and 5.1.8, which are the sender's address.
fn means_the_mailbox(code: u16, enhanced: Option<[u16; 3]>) -> bool {
    match enhanced {
        Some([5, 1, 7 | 8]) => false,
        Some(enhanced) => matches!(enhanced, [5, 1 | 2, _]),
        None => matches!(code, 550 | 551 | 553),
    }
}

/// The enhanced status code (RFC 3463) that an answer's words begin with; some servers put a
/// `#` before it.
fn enhanced(words: &str) -> Option<[u16; 3]> {
    let first = words.split_whitespace().next()?.trim_start_matches('#');
    let parts: Result<Vec<_>, _> = first.split('.').map(str::parse).collect();
    parts.ok()?.try_into().ok()
}

/// What the server said behind the code.
fn words(error: &Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// Without the recipient, whom servers like to repeat.
fn in_a_line(error: &Error) -> String {
    if let Some(code) = error.status() {
        return match enhanced(&words(error)) {
            Some([class, subject, detail]) => {
                format!("the server answered {code} {class}.{subject}.{detail}")
            }
            None => format!("the server answered {code}"),
        };
    }
    if error.is_response() {
        return "the server's answer cannot be read".to_owned();
    }
    causes::in_a_line(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    #[test]
    fn a_permanent_no_is_the_mailboxs_where_it_speaks_of_the_mailbox() {
        let is_of_it = |code, words| means_the_mailbox(code, enhanced(words));
        for (code, words) in [
            (550, "5.1.1 <ada@example.org>: no such user"),
            (550, "#5.1.0 Address rejected"),
            (554, "5.2.1 this mailbox is disabled"),
            (552, "5.2.2 it is full"),
            (550, "no such user"),
            (550, ""),
            (551, "not here"),
            (553, "no name of a mailbox"),
        ] {
            assert!(is_of_it(code, words), "{code} {words}");
        }
        for (code, words) in [
            (550, "5.7.1 relaying denied"),
            (554, "5.7.1 you are on a list"),
            (554, "5.7.64 TenantAttribution; Relay Access Denied"),
            (550, "5.1.8 the sender's domain is not found"),
            (553, "5.1.7 the sender's address"),
            (550, "5.4.1 access denied"),
            (550, "#5.7.1 no access"),
            (554, "relay access denied"),
            (530, "authenticate first"),
            (503, "MAIL first"),
        ] {
            assert!(!is_of_it(code, words), "{code} {words}");
        }
    }

    /// A server that says yes to everything, and tells of each connection that was closed.
    async fn server() -> (String, mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let (closed, closes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let closed = closed.clone();
                tokio::spawn(async move {
                    let (mut stream, mut line) = (BufReader::new(stream), String::new());
                    stream.write_all(b"220 it is\r\n").await.unwrap();
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                        stream.write_all(b"250 it is\r\n").await.unwrap();
                    }
                    closed.send(()).unwrap();
                });
            }
        });
        (url, closes)
    }

    #[tokio::test]
    async fn connections_that_were_silent_for_long_are_closed_and_not_used() {
        let (url, mut closes) = server().await;
        let mailer = Mailer::new(Smtp {
            url: url.parse().unwrap(),
            from: "events@example.org".parse().unwrap(),
            timeout: Duration::from_secs(10),
        });
        let connect = async || mailer.ready().await.unwrap();
        for ready in [connect().await, connect().await, connect().await] {
            ready.keep();
        }
        tokio::time::pause();
        tokio::time::advance(FRESH).await;
        tokio::time::resume();
        let ready = connect().await;
        let all_of_them = async {
            for _ in 0..3 {
                closes.recv().await.unwrap();
            }
        };
        timeout(Duration::from_secs(60), all_of_them).await.expect("none is left below another");
        ready.keep();
        assert_eq!(mailer.idle().len(), 1);
    }
}
