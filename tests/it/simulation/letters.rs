//! A worker's way to the dead letters, which is that to the table.

use super::link::{Answer, Link, done};
use async_trait::async_trait;
use bytes::Bytes;
use streamgate::progress::letters::Listed;
use streamgate::progress::{DeadLetter, DeadLetters, LetterId};

/// Nothing is given up here.
#[async_trait]
impl DeadLetters for Link {
    async fn write_letter(
        &self,
        letter: &DeadLetter,
        payload: Option<&Bytes>,
        whole: bool,
    ) -> Answer<()> {
        let (letter, payload) = (letter.clone(), payload.cloned());
        self.call("letter", None, move |store| {
            done(store.write_letter(&letter, payload.as_ref(), whole))
        })
        .await
    }

    async fn write_part(&self, id: &LetterId, part: u64, bytes: &Bytes) -> Answer<()> {
        let (id, bytes) = (id.clone(), bytes.clone());
        self.call("letter", None, move |store| done(store.write_part(&id, part, &bytes))).await
    }

    async fn list_letters(&self, after: Option<&LetterId>) -> Answer<Vec<Listed>> {
        let after = after.cloned();
        self.call("letter", None, move |store| done(store.list_letters(after.as_ref()))).await
    }

    async fn read_part(&self, id: &LetterId, part: u64) -> Answer<Option<Bytes>> {
        let id = id.clone();
        self.call("letter", None, move |store| done(store.read_part(&id, part))).await
    }

    async fn remove_part(&self, id: &LetterId, part: u64) -> Answer<()> {
        let id = id.clone();
        self.call("letter", None, move |store| done(store.remove_part(&id, part))).await
    }

    async fn break_letter(&self, id: &LetterId) -> Answer<()> {
        let id = id.clone();
        self.call("letter", None, move |store| done(store.break_letter(&id))).await
    }

    async fn remove_letter(&self, id: &LetterId) -> Answer<()> {
        let id = id.clone();
        self.call("letter", None, move |store| done(store.remove_letter(&id))).await
    }
}
