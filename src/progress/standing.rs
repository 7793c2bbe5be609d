//! What operators have asked for, as an item of the table.
//!
//! Owns its reading and conditional writing; what is made of a request is [`Orders`]'.
//! Invariant: nothing that was asked for is overwritten unread.

use super::ProgressError;
use super::dynamodb::{Only, Refusal};
use super::expression::{AS_COUNTED, NOT_THERE, ORDER};
use super::item::{self, Reader, Value};
use super::orders::{Orders, Request};
use super::table::TableProgress;
use std::time::SystemTime;

/// Tries against others that ask at the same time.
const TRIES: usize = 10;

impl TableProgress {
    /// [`Progress::order`](super::Progress::order)
    pub(super) async fn change_orders(&self, request: &Request) -> Result<Orders, ProgressError> {
        let key = self.keys.orders();
        for _ in 0..TRIES {
            let found = self.table.query(&key.partition, Only::Sort(&key.sort)).await?;
            let now = match found.first() {
                Some((key, item)) => Reader::new(key, item)?.orders()?,
                None => Orders::default(),
            };
            let changed = now.with(request, item::kept(SystemTime::now()))?;
            let Some(orders) = changed else { return Ok(now) };
            let text = serde_json::to_string(&orders).expect("plain data");
            let mut values = vec![
                (":v", item::FORMAT.into()),
                (":next", orders.version.into()),
                (":orders", Value::Text(text)),
            ];
            let condition = if found.is_empty() {
                NOT_THERE
            } else {
                values.push((":counter", now.version.into()));
                AS_COUNTED
            };
            match self.table.update(&key, ORDER, condition, values).await {
                Ok(()) => return Ok(orders),
                // Another was faster; or this was, and its answer was lost.
                Err(Refusal::Condition(_)) => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(ProgressError::Unavailable("many ask for something at the same time".to_owned()))
    }
}
