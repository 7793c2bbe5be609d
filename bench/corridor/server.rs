//! The HTTP handler: reads a request's body, waits as long as it is told, answers 200.
//!
//! A thread per connection over plain sockets, so that it takes little from the cores it
//! shares with what is measured. It also knows when it was at work: `GET` asks for that.

use super::process::{Part, tell_and_wait};
use std::io::{BufRead, BufReader, Read, Write, copy, sink};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// A handler in a process of its own.
pub struct Server {
    address: SocketAddr,
    _part: Part,
}

impl Server {
    /// Starts one that answers after so many milliseconds.
    pub fn start(delay: usize) -> Self {
        let mut part = Part::start(&["--server", &delay.to_string()]);
        let address = part.hear().parse().expect("an address");
        Self { address, _part: part }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Seconds from the first request to the last answer since this was asked last, and how
    /// many requests there were.
    pub fn span(&self) -> (f64, usize) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("answered");
        let (seconds, requests) = line.trim().split_once(' ').expect("two numbers");
        (seconds.parse().expect("seconds"), requests.parse().expect("a count"))
    }
}

/// From when to when it was at work, and for how many requests.
static WORK: Mutex<Option<(Instant, Instant, usize)>> = Mutex::new(None);

/// Serves until it is killed.
pub fn serve(delay: &str) {
    let delay = Duration::from_millis(delay.parse().expect("milliseconds"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            thread::spawn(move || answer(stream, delay));
        }
    });
    tell_and_wait(&address.to_string());
}

/// Until the other side closes, or breaks off.
fn answer(mut stream: TcpStream, delay: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    while let Some(head) = read_head(&mut reader)? {
        if head.starts_with("get ") {
            let work = WORK.lock().expect("no panic while held").take();
            let (seconds, requests) = work.map_or((0.0, 0), |(from, to, requests)| {
                (to.duration_since(from).as_secs_f64(), requests)
            });
            return writeln!(stream, "{seconds} {requests}");
        }
        let began = Instant::now();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: u64 = length.and_then(|l| l.trim().parse().ok()).expect("a length");
        copy(&mut reader.by_ref().take(length), &mut sink())?;
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        {
            let mut work = WORK.lock().expect("no panic while held");
            let (_, ended, requests) = work.get_or_insert((began, began, 0));
            (*ended, *requests) = (Instant::now(), *requests + 1);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// A request's head in small letters; `None` at the connection's end.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head.to_ascii_lowercase()))
}
