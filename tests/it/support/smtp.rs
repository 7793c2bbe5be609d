//! A mail server in this process, which keeps what it gets and can be told to misbehave in
//! every way a server can.

use super::process::within;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What it does with a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    Take,
    /// Takes it this much later.
    TakeLater(Duration),
    /// Says no to the recipient.
    RefuseRecipient(u16),
    /// Answers the recipient with these words, code and all.
    AnswerRecipient(&'static str),
    /// Says no to the recipient, and nothing to anything after that.
    RefuseRecipientAndHang(u16),
    /// Repeats the recipient, without a code.
    GarbleRecipient,
    /// Says no to DATA.
    RefuseData(u16),
    /// Says no when it has the text.
    RefuseText(u16),
    /// Never answers DATA.
    HangBeforeText,
    /// Closes the connection at DATA.
    DropBeforeText,
    /// Closes the connection in the middle of the text.
    DropInText,
    /// Takes it, and never says so.
    HangAfterText,
    /// Takes it, and closes the connection without a word.
    DropAfterText,
}

/// A recipient that was named, and what came of it.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub to: String,
    pub conduct: Conduct,
    /// The whole mail, where it was taken.
    pub taken: Option<String>,
}

impl Attempt {
    pub fn header(&self, name: &str) -> Option<&str> {
        let (headers, _) = self.taken.as_deref()?.split_once("\r\n\r\n")?;
        let mut headers = headers.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| *header == name).map(|(_, value)| value)
    }
}

/// When it speaks TLS.
#[derive(Clone)]
pub enum Encryption {
    Never,
    /// From the first byte.
    Always(TlsAcceptor),
    /// After STARTTLS, and takes no mail before.
    Upgrade(TlsAcceptor),
}

/// Of a client's stream.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
type Line = BufReader<Box<dyn Stream>>;

/// The server. It ends with the runtime of the test.
pub struct MailServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    attempts: Mutex<Vec<Attempt>>,
    script: Mutex<VecDeque<Conduct>>,
    to: Mutex<HashMap<String, Conduct>>,
    usual: Mutex<Option<Conduct>>,
    /// What connections are greeted with; nobody is, where it is 0.
    greeting: Mutex<Option<u16>>,
    connections: Mutex<usize>,
    /// What clients showed with AUTH PLAIN.
    credentials: Mutex<Vec<String>>,
    more: Notify,
}

impl MailServer {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::start_with(Encryption::Never).await
    }

    pub async fn start_with(encryption: Encryption) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *state.connections.lock().unwrap() += 1;
                state.more.notify_waiters();
                stream.set_nodelay(true).expect("an open socket");
                let (state, encryption) = (Arc::clone(&state), encryption.clone());
                // A broken connection is the test's wish, or the other side's.
                tokio::spawn(async move {
                    let stream: Box<dyn Stream> = match &encryption {
                        Encryption::Always(tls) => Box::new(tls.accept(stream).await?),
                        _ => Box::new(stream),
                    };
                    state.converse(stream, encryption).await
                });
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// What it does from now on, once the script is played.
    pub fn usually(&self, conduct: Conduct) {
        *self.shared.usual.lock().unwrap() = Some(conduct);
    }

    /// What it does with the next mails, one each.
    pub fn script(&self, conducts: impl IntoIterator<Item = Conduct>) {
        self.shared.script.lock().unwrap().extend(conducts);
    }

    /// What it does with mails to somebody, whatever else it was told.
    pub fn to(&self, recipient: &str, conduct: Conduct) {
        self.shared.to.lock().unwrap().insert(recipient.to_owned(), conduct);
    }

    /// Greets connections with this code, with none where it is 0, as usual without one.
    pub fn greet(&self, code: Option<u16>) {
        *self.shared.greeting.lock().unwrap() = code;
    }

    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// What clients showed, in base64: a zero before the name and before the password.
    pub fn credentials(&self) -> Vec<String> {
        self.shared.credentials.lock().unwrap().clone()
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.lock().unwrap().clone()
    }

    /// The mails that it has.
    pub fn mails(&self) -> Vec<Attempt> {
        self.attempts().into_iter().filter(|attempt| attempt.taken.is_some()).collect()
    }

    /// How many mails it has.
    pub fn taken(&self) -> usize {
        let attempts = self.shared.attempts.lock().unwrap();
        attempts.iter().filter(|attempt| attempt.taken.is_some()).count()
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let more = self.shared.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if condition(self) {
                    return;
                }
                more.await;
            }
        };
        within(what, waiting).await;
    }
}

impl Shared {
    fn conduct(&self, to: &str) -> Conduct {
        let to = self.to.lock().unwrap().get(to).copied();
        let scripted = || self.script.lock().unwrap().pop_front();
        to.or_else(scripted).or(*self.usual.lock().unwrap()).unwrap_or(Conduct::Take)
    }

    fn note(&self, change: impl FnOnce(&mut Vec<Attempt>)) {
        change(&mut self.attempts.lock().unwrap());
        self.more.notify_waiters();
    }

    async fn converse(
        &self,
        stream: Box<dyn Stream>,
        mut encryption: Encryption,
    ) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let greeting = self.greeting.lock().unwrap().unwrap_or(220);
        if greeting == 0 {
            return hang(&mut stream).await;
        }
        say(&mut stream, greeting).await?;
        let (mut line, mut last) = (String::new(), 0);
        let mut conduct = Conduct::Take;
        loop {
            line.clear();
            if greeting != 220 || stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.split(' ').next().unwrap_or_default().trim_end().to_uppercase();
            let code = match command.as_str() {
                "EHLO" => {
                    stream.write_all(b"250-mail\r\n").await?;
                    if let Encryption::Upgrade(_) = encryption {
                        stream.write_all(b"250-STARTTLS\r\n").await?;
                    }
                    stream.write_all(b"250 AUTH PLAIN\r\n").await?;
                    continue;
                }
                "STARTTLS" => {
                    let Encryption::Upgrade(tls) = &encryption else { return Ok(()) };
                    say(&mut stream, 220).await?;
                    stream = BufReader::new(Box::new(tls.accept(stream.into_inner()).await?));
                    encryption = Encryption::Never;
                    continue;
                }
                "AUTH" => {
                    let shown = line.split_whitespace().nth(2).unwrap_or_default().to_owned();
                    self.credentials.lock().unwrap().push(shown);
                    235
                }
                "MAIL" if matches!(encryption, Encryption::Upgrade(_)) => 530,
                "RCPT" => {
                    let to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    conduct = self.conduct(&to);
                    let garbled = format!("garbage {to}");
                    self.note(|attempts| {
                        attempts.push(Attempt { to, conduct, taken: None });
                        last = attempts.len() - 1;
                    });
                    match conduct {
                        Conduct::GarbleRecipient => {
                            line_of(&mut stream, &garbled).await?;
                            continue;
                        }
                        Conduct::AnswerRecipient(answer) => {
                            line_of(&mut stream, answer).await?;
                            continue;
                        }
                        Conduct::RefuseRecipientAndHang(code) => {
                            say(&mut stream, code).await?;
                            return hang(&mut stream).await;
                        }
                        Conduct::RefuseRecipient(code) => code,
                        _ => 250,
                    }
                }
                "DATA" => match conduct {
                    Conduct::RefuseData(code) => code,
                    Conduct::HangBeforeText => return hang(&mut stream).await,
                    Conduct::DropBeforeText => return Ok(()),
                    _ => {
                        say(&mut stream, 354).await?;
                        if conduct == Conduct::DropInText {
                            stream.read_line(&mut line).await?;
                            return Ok(());
                        }
                        let text = text(&mut stream).await?;
                        if let Conduct::TakeLater(delay) = conduct {
                            tokio::time::sleep(delay).await;
                        }
                        if let Conduct::RefuseText(code) = conduct {
                            code
                        } else {
                            self.note(|attempts| attempts[last].taken = Some(text));
                            match conduct {
                                Conduct::HangAfterText => return hang(&mut stream).await,
                                Conduct::DropAfterText => return Ok(()),
                                _ => 250,
                            }
                        }
                    }
                },
                "QUIT" => 221,
                _ => 250,
            };
            say(&mut stream, code).await?;
        }
    }
}

async fn say(stream: &mut Line, code: u16) -> std::io::Result<()> {
    line_of(stream, &format!("{code} it is")).await
}

async fn line_of(stream: &mut Line, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await
}

/// Says nothing until the other side goes.
async fn hang(stream: &mut Line) -> std::io::Result<()> {
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {}
    Ok(())
}

/// A mail, to the dot that ends it.
async fn text(stream: &mut Line) -> std::io::Result<String> {
    let (mut text, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == ".\r\n" {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
