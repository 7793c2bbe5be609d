//! Dead letters through the api.

use super::super::client::ClientProgress;
use super::super::wire::{
    Call, LetterBody, LettersAnswer, LettersBody, PartAnswer, PartBody, WriteLetterBody,
    WritePartBody,
};
use super::{DeadLetter, DeadLetters, LetterId, Listed};
use crate::progress::ProgressError;
use async_trait::async_trait;
use bytes::Bytes;

#[async_trait]
impl DeadLetters for ClientProgress {
    async fn write_letter(
        &self,
        letter: &DeadLetter,
        payload: Option<&Bytes>,
        whole: bool,
    ) -> Result<(), ProgressError> {
        let (letter, payload) = (letter.clone(), payload.cloned());
        self.write(Call::WriteLetter, &WriteLetterBody { letter, payload, whole }).await
    }

    async fn write_part(
        &self,
        id: &LetterId,
        part: u64,
        bytes: &Bytes,
    ) -> Result<(), ProgressError> {
        let body = WritePartBody { id: id.clone(), part, bytes: bytes.clone() };
        self.write(Call::WritePart, &body).await
    }

    async fn list_letters(&self, after: Option<&LetterId>) -> Result<Vec<Listed>, ProgressError> {
        let body = LettersBody { after: after.cloned() };
        self.write::<LettersAnswer>(Call::Letters, &body).await.map(|answer| answer.letters)
    }

    async fn read_part(&self, id: &LetterId, part: u64) -> Result<Option<Bytes>, ProgressError> {
        let body = PartBody { id: id.clone(), part };
        self.write::<PartAnswer>(Call::ReadPart, &body).await.map(|answer| answer.bytes)
    }

    async fn remove_part(&self, id: &LetterId, part: u64) -> Result<(), ProgressError> {
        self.write(Call::RemovePart, &PartBody { id: id.clone(), part }).await
    }

    async fn break_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        self.write(Call::BreakLetter, &LetterBody { id: id.clone() }).await
    }

    async fn remove_letter(&self, id: &LetterId) -> Result<(), ProgressError> {
        self.write(Call::RemoveLetter, &LetterBody { id: id.clone() }).await
    }
}
