//! A mail server for this machine: takes every mail and shows it on the terminal.
//!
//! Owns as much of SMTP as one client needs. Nothing leaves it.

use std::io::Write as _;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // A client that breaks off has its mail not taken, and knows.
        tokio::spawn(async move {
            let _ = converse(stream).await;
        });
    }
}

async fn converse(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.write_all(b"220 savealife, shown and not sent\r\n").await?;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer: &[u8] = match line.split_whitespace().next().unwrap_or_default() {
            "DATA" => {
                stream.write_all(b"354 until a dot\r\n").await?;
                show(&text(&mut stream).await?);
                b"250 shown\r\n"
            }
            "QUIT" => return stream.write_all(b"221 until then\r\n").await,
            _ => b"250 yes\r\n",
        };
        stream.write_all(answer).await?;
    }
}

/// A mail's text, to the dot that ends it.
async fn text(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let (mut text, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "." => return Ok(text),
            line => {
                // A dot at a line's begin was doubled.
                text.push_str(line.strip_prefix('.').unwrap_or(line));
                text.push('\n');
            }
        }
    }
}

fn show(mail: &str) {
    let mut shown = String::from("--- a mail\n");
    shown.push_str(mail.trim_end());
    shown.push_str("\n---\n");
    // Where it cannot be printed there is nobody to tell.
    let _ = std::io::stdout().write_all(shown.as_bytes());
}
