//! The handler `discard`: takes every batch and does nothing. For measuring, and for
//! trying out permissions; the counting is done by the metrics as for any handler.

use super::{Batch, Handler, HandlerError, Response};
use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;

/// Takes every batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

#[async_trait]
impl Handler for Discard {
    async fn handle(
        &self,
        _batch: &Batch<'_>,
        _turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Response, HandlerError> {
        Ok(Response::taken())
    }
}
