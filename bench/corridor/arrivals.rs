//! A handler that notes how late each record comes, and the records that it can tell it of.
//!
//! Owns the time from before a record is put into the simulator until the HTTP handler has
//! read it, both by the same clock.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A change of the item of this name, that says when it was made.
pub fn change_of(item: &str) -> String {
    let now = since_epoch().as_micros();
    format!(
        r#"{{"kind":"MODIFY","keys":{{"PK":{{"S":"{item}"}},"SK":{{"S":"1"}}}},"new_image":{{"PK":{{"S":"{item}"}},"SK":{{"S":"1"}},"sent":{{"N":"{now}"}}}}}}"#
    )
}

/// The half, 99 of a hundred, and the most of some delays, in ms and columns.
pub fn percentiles(mut delays: Vec<Duration>) -> String {
    delays.sort();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!("{:>8.1} {:>8.1} {:>8.1}", at(50), at(99), at(100))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// A handler that notes how late each record comes.
pub struct Arrivals {
    pub address: SocketAddr,
    delays: Arc<Mutex<Vec<Duration>>>,
}

impl Arrivals {
    pub fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let delays = Arc::<Mutex<Vec<Duration>>>::default();
        let noted = Arc::clone(&delays);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, noted) = (stream.expect("a connection"), Arc::clone(&noted));
                // It ends with its connection.
                thread::spawn(move || note(stream, &noted));
            }
        });
        Self { address, delays }
    }

    /// Waits for so many records at least. Gives how many there are.
    pub fn until(&self, count: usize) -> usize {
        let started = Instant::now();
        loop {
            let there = self.delays.lock().expect("no panic while held").len();
            if there >= count {
                return there;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{there} of {count}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The delays of so many records, once all of them are there.
    pub fn all(&self, count: usize) -> Vec<Duration> {
        let started = Instant::now();
        loop {
            let delays = self.delays.lock().expect("no panic while held").clone();
            if delays.len() >= count {
                assert_eq!(delays.len(), count, "nothing twice");
                return delays;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{} of {count}", delays.len());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn note(mut stream: TcpStream, delays: &Mutex<Vec<Duration>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let now = since_epoch();
        let member = br#""sent":{"N":""#;
        for at in memchr::memmem::find_iter(&body, member) {
            let digits = body[at + member.len()..].split(|byte| *byte == b'"').next();
            let digits = std::str::from_utf8(digits.expect("a first part")).expect("digits");
            let sent = Duration::from_micros(digits.parse().expect("a number"));
            delays.lock().expect("no panic while held").push(now.saturating_sub(sent));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
