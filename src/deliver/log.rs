//! The handler `log`: one record a line, as JSON on stdout.
//!
//! Printing item contents is its job; nothing else of the program does. A batch is
//! taken when its lines have been written and flushed; lines of two shards never mix.

use super::{Batch, Handler, HandlerError, Response};
use async_trait::async_trait;
use tokio::io::{AsyncWrite, AsyncWriteExt, Stdout};
use tokio::sync::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// Writes records to an output, stdout usually.
pub struct Log<W = Stdout> {
    out: Mutex<W>,
}

impl Log {
    /// To stdout.
    pub fn to_stdout() -> Self {
        Self::new(tokio::io::stdout())
    }
}

impl<W> Log<W> {
    /// To `out`.
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out) }
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send + 'static> Handler for Log<W> {
    async fn handle(
        &self,
        batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        let mut lines = Vec::new();
        for event in batch.record_events() {
            for slice in event.slices() {
                // Line breaks may stand between JSON tokens, never inside strings.
                lines
                    .extend(slice.iter().map(|&b| if b == b'\n' || b == b'\r' { b' ' } else { b }));
            }
            lines.push(b'\n');
        }
        let mut out = self.out.lock().await;
        let written = async {
            out.write_all(&lines).await?;
            out.flush().await
        };
        match written.await {
            Ok(()) => Ok(Response::taken()),
            Err(error) => Err(HandlerError::failed(format!("stdout: {error}"))),
        }
    }
}
