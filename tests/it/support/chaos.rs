//! A proxy for TCP that loses requests and answers, and can be cut like a cable.
//!
//! What is lost is lost with its connection, as on a real network: before a request has
//! reached the other side, or after it did its work there and before the answer came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A proxy to one address. It ends with the runtime of the test.
#[derive(Clone)]
pub struct Chaos {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    random: Mutex<fastrand::Rng>,
    /// The chance that what is read from one side is lost with its connection.
    losing: Mutex<Losing>,
    is_cut: AtomicBool,
    cut: Notify,
    requests_lost: AtomicU64,
    answers_lost: AtomicU64,
}

/// Chances from 0 to 1.
#[derive(Clone, Copy, Default)]
pub struct Losing {
    pub requests: f64,
    pub answers: f64,
}

impl Chaos {
    /// Loses nothing yet.
    pub async fn before(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            target,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            losing: Mutex::default(),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
            requests_lost: AtomicU64::new(0),
            answers_lost: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).carry(client));
            }
        });
        Self { address, state }
    }

    pub fn lose(&self, losing: Losing) {
        *self.state.losing.lock().unwrap() = losing;
    }

    /// Breaks every connection, and every new one.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        self.state.cut.notify_waiters();
    }

    pub fn restore(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Requests that never arrived, and answers that never came back.
    pub fn lost(&self) -> (u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::SeqCst);
        (count(&self.state.requests_lost), count(&self.state.answers_lost))
    }
}

impl State {
    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let cut = self.cut.notified();
        tokio::pin!(cut);
        cut.as_mut().enable();
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut server) = TcpStream::connect(self.target).await else { return };
        let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            let carried = tokio::select! {
                () = &mut cut => return,
                read = client.read(&mut request) => match read {
                    Ok(count @ 1..) if !self.loses(|l| l.requests, &self.requests_lost) => {
                        server.write_all(&request[..count]).await
                    }
                    _ => return,
                },
                read = server.read(&mut answer) => match read {
                    Ok(count @ 1..) if !self.loses(|l| l.answers, &self.answers_lost) => {
                        client.write_all(&answer[..count]).await
                    }
                    _ => return,
                },
            };
            if carried.is_err() {
                return;
            }
        }
    }

    fn loses(&self, chance: impl Fn(&Losing) -> f64, count: &AtomicU64) -> bool {
        let chance = chance(&self.losing.lock().unwrap());
        let is_lost = self.random.lock().unwrap().f64() < chance;
        count.fetch_add(u64::from(is_lost), Ordering::SeqCst);
        is_lost
    }
}
