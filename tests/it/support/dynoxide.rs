//! The embedded DynamoDB behind its own HTTP server.

use dynoxide::Database;
use std::net::SocketAddr;
use std::sync::OnceLock;

/// The address of the one instance of this binary.
pub fn shared() -> SocketAddr {
    static SHARED: OnceLock<SocketAddr> = OnceLock::new();
    *SHARED.get_or_init(start)
}

/// A runtime and thread of its own: SQLite works on the thread that calls it, and each
/// test's runtime ends with the test. The thread ends with the process.
fn start() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("a socket can be made non-blocking");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("in a runtime");
            let database = Database::memory().expect("SQLite opens in memory");
            dynoxide::server::serve_with_shutdown(listener, database, std::future::pending())
                .await
                .expect("the server goes on");
        });
    });
    address
}
