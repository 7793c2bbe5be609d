//! One address of the api: the connections to it, and what is made of an answer.
//!
//! Owns the HTTP client. Several replicas may stand behind one name: all connections of a client
//! begin at one of them. Which address is asked is [`super::replicas`]' choice. Invariant: after
//! a failure no connection from before it is used again, and a name's next address comes first.

use super::problem::{PROBLEM_JSON, Problem, ProblemCode};
use super::replicas::{self, Outcome};
use crate::causes;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, StatusCode, Url, redirect};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Over all addresses of a name. One lost packet is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Less than the api keeps a silent connection, so that none is used that it is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Tens of thousands of shards, or several hundred with the largest states of windows; more
/// is not an api.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// An attempt that did not bring what was asked for.
pub(super) enum Failed {
    /// The api answered with a problem.
    Problem(Problem),
    /// The connection broke.
    Broken(String),
    /// There was no whole answer in time.
    Late(String),
    /// Something between here and the api answered, or something else altogether: it may
    /// pass, as when a load balancer has no target for a moment.
    Strange(String),
}

impl Failed {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Problem(problem) if problem.code == ProblemCode::Unavailable => {
                Outcome::Unavailable
            }
            Self::Problem(_) => Outcome::Final,
            Self::Broken(_) | Self::Strange(_) => Outcome::Broken,
            Self::Late(_) => Outcome::Late,
        }
    }
}

/// What was asked for.
pub(super) struct Answer {
    pub body: Bytes,
    /// Who sent it, or what stands before them.
    pub from: Option<SocketAddr>,
}

/// Finds the addresses of a name.
type Lookup = fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// An address and the connections to it.
pub(super) struct Endpoint {
    base: String,
    lookup: Lookup,
    /// For plain HTTP none, and none is looked for.
    authorities: Option<Vec<Certificate>>,
    now: Mutex<Connections>,
}

/// The connections that are used until one of them fails.
#[derive(Clone)]
pub(super) struct Connections {
    /// Which of a name's addresses they begin at.
    turn: usize,
    client: Client,
}

impl Endpoint {
    /// Nothing is contacted yet. `ca`: who may vouch for the api; none for whom this machine
    /// trusts.
    ///
    /// # Errors
    /// When TLS roots cannot be loaded.
    pub fn new(url: &Url, ca: &[Certificate]) -> Result<Self, reqwest::Error> {
        Self::with_lookup(url, ca, |name| {
            // The URL's port takes the place of this one.
            async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed()
        })
    }

    fn with_lookup(url: &Url, ca: &[Certificate], lookup: Lookup) -> Result<Self, reqwest::Error> {
        let authorities = (url.scheme() == "https").then(|| ca.to_vec());
        // Consumers begin at different replicas.
        let turn = fastrand::u16(..).into();
        let client = client(InTurn { turn, lookup }, authorities.as_deref())?;
        let now = Mutex::new(Connections { turn, client });
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { base, lookup, authorities, now })
    }

    /// As it is called in sentences.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The connections of now.
    pub fn connections(&self) -> Connections {
        self.lock().clone()
    }

    /// Lets `failed` go, if they are still the connections of now. What is under way on them is
    /// not disturbed.
    pub fn renew(&self, failed: &Connections) {
        let mut now = self.lock();
        if now.turn != failed.turn {
            return;
        }
        let (turn, lookup) = (now.turn.wrapping_add(1), self.lookup);
        // This machine's authorities were read before; where they cannot be now, better the
        // connections of before than none.
        if let Ok(client) = client(InTurn { turn, lookup }, self.authorities.as_deref()) {
            *now = Connections { turn, client };
        }
    }

    /// One attempt of a call; a GET without a `body`.
    pub async fn attempt(
        &self,
        connections: &Connections,
        path: &str,
        token: &HeaderValue,
        body: Option<Bytes>,
        patience: Duration,
    ) -> Result<Answer, Failed> {
        let (client, url) = (&connections.client, format!("{}{path}", self.base));
        let request = match body {
            None => client.get(url),
            Some(body) => client.post(url).header(CONTENT_TYPE, "application/json").body(body),
        };
        let request = request.header(AUTHORIZATION, token.clone()).timeout(patience);
        let mut answer = request.send().await.map_err(cut_off)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(cut_off)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failed::Strange("the answer is too large".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        if answer.status() == StatusCode::OK {
            return Ok(Answer { from: answer.remote_addr(), body: body.freeze() });
        }
        let is_problem =
            answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
        let problem = is_problem.then(|| serde_json::from_slice(&body).ok()).flatten();
        let strange = || Failed::Strange(format!("it answered {}", answer.status()));
        Err(problem.map_or_else(strange, Failed::Problem))
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.now.lock().expect("no panic while held")
    }
}

/// Proxies of the environment are not used: the api is a neighbour, and a proxy would see the
/// token.
fn client(names: InTurn, authorities: Option<&[Certificate]>) -> Result<Client, reqwest::Error> {
    let client = Client::builder()
        .user_agent(concat!("streamgate/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .dns_resolver(Arc::new(names))
        .no_proxy();
    match authorities {
        Some([]) => client,
        Some(ca) => client.tls_certs_only(ca.iter().cloned()),
        None => client.tls_certs_only([]),
    }
    .build()
}

fn cut_off(error: reqwest::Error) -> Failed {
    let is_late = error.is_timeout();
    let why = causes::in_a_line(&error.without_url());
    if is_late { Failed::Late(why) } else { Failed::Broken(why) }
}

/// Finds a name's addresses, and begins at another in each turn.
struct InTurn {
    turn: usize,
    lookup: Lookup,
}

impl Resolve for InTurn {
    fn resolve(&self, name: Name) -> Resolving {
        let (turn, found) = (self.turn, (self.lookup)(name.as_str().to_owned()));
        Box::pin(
            async move { Ok(Box::new(replicas::in_turn(turn, found.await?).into_iter()) as Addrs) },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Two addresses of this machine.
    const FOUND: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];

    /// A replica that says nothing while it hangs.
    #[derive(Default)]
    struct Replica {
        hangs: AtomicBool,
        connections: AtomicUsize,
    }

    impl Replica {
        async fn serve(self: Arc<Self>, listener: TcpListener) {
            while let Ok((mut stream, _)) = listener.accept().await {
                self.connections.fetch_add(1, Ordering::SeqCst);
                let replica = Arc::clone(&self);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                        if replica.hangs.load(Ordering::SeqCst) {
                            std::future::pending::<()>().await;
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        stream.write_all(answer).await.expect("the client reads");
                    }
                });
            }
        }
    }

    #[tokio::test]
    async fn after_a_failure_another_address_of_the_name_answers_on_new_connections() {
        let first = TcpListener::bind((FOUND[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let second = TcpListener::bind((FOUND[1], port)).await.unwrap();
        let replicas: [Arc<Replica>; 2] = Default::default();
        tokio::spawn(Arc::clone(&replicas[0]).serve(first));
        tokio::spawn(Arc::clone(&replicas[1]).serve(second));

        let url = Url::parse(&format!("http://api.test:{port}/")).unwrap();
        let endpoint = Endpoint::with_lookup(&url, &[], |name| {
            assert_eq!(name, "api.test");
            let found = FOUND.map(|ip| SocketAddr::from((ip, 0))).to_vec();
            std::future::ready(Ok(found)).boxed()
        });
        let endpoint = endpoint.unwrap();
        let token = HeaderValue::from_static("Bearer");
        let ask = async |patience| {
            let connections = endpoint.connections();
            let answer = endpoint.attempt(&connections, "/", &token, None, patience).await;
            answer.map(|answer| answer.from.unwrap()).map_err(|failed| {
                endpoint.renew(&connections);
                // Others that fail with it renew nothing more.
                endpoint.renew(&connections);
                failed.outcome()
            })
        };
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(100));
        let mut answered = BTreeSet::new();
        for _ in 0..2 {
            // Several connections to it are kept.
            let both = tokio::join!(ask(long), ask(long));
            let here = both.0.unwrap();
            assert_eq!(both.1.unwrap(), here);
            assert_eq!(ask(long).await.unwrap(), here, "it stays");
            answered.insert(here.ip());
            let [replica, other] = match FOUND.iter().position(|ip| here.ip() == *ip) {
                Some(0) => [&replicas[0], &replicas[1]],
                _ => [&replicas[1], &replicas[0]],
            };
            replica.hangs.store(true, Ordering::SeqCst);
            other.hangs.store(false, Ordering::SeqCst);
            let asked = replica.connections.load(Ordering::SeqCst);
            assert_eq!(ask(short).await.unwrap_err(), Outcome::Late);
            assert_ne!(ask(long).await.unwrap(), here);
            assert_eq!(replica.connections.load(Ordering::SeqCst), asked, "nobody is sent there");
        }
        assert_eq!(answered.len(), 2);
    }
}
