//! GetNote: the row, then the body it names, checked against the row.

use bytes::Bytes;
use synap_types::{Checksum, UserId};
use uuid::Uuid;

use crate::{
    clients::{ContentClient, EntityClient},
    domain::{File, Note},
    error::Error,
};

/// Reads notes.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) content: ContentClient,
    pub(crate) entity: EntityClient,
}

impl Reader {
    /// Reads a note of the user, with its body if that is asked for.
    pub(crate) async fn note(&self, user: &UserId, id: Uuid, content: bool) -> Result<Note, Error> {
        let note = self.entity.note(user, id, content).await?;
        let mut note = note.ok_or(Error::NoteNotFound)?;
        // A body from content_blocks is the one that counts where there is one: the phase says so.
        if content
            && note.content.is_none()
            && let Some(file) = &note.file
        {
            note.content = Some(self.body(id, file).await?);
        }
        Ok(note)
    }

    async fn body(&self, note: Uuid, file: &File) -> Result<String, Error> {
        let corrupt = |what| Error::BodyCorrupt { note, what };
        let body = self.content.get(&file.path, file.size).await?;
        let body = body.ok_or_else(|| corrupt("it is not in the store"))?;
        // Early V0.3 left rows without a checksum: those can only be believed.
        if let Ok(checksum) = file.checksum.parse::<Checksum>()
            && Checksum::of(&body) != checksum
        {
            return Err(corrupt("its bytes are not those of its checksum"));
        }
        into_text(body).ok_or_else(|| corrupt("it is not UTF-8"))
    }
}

/// The bytes as text, without a copy where nobody else holds them.
fn into_text(body: Bytes) -> Option<String> {
    String::from_utf8(Vec::from(body)).ok()
}
