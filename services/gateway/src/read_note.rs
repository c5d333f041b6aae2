//! GetNote: the row, then the body it names, checked against the row.

use bytes::Bytes;
use synap_types::{Checksum, UserId};
use uuid::Uuid;

use crate::{
    clients::{ContentClient, EntityClient},
    domain::{Note, StoredFile},
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
        let found = self.entity.entity(user, "note", id, content).await?;
        // A body from content_blocks is the one that counts where there is one: the phase says so.
        let (entity, block) = found.ok_or(Error::NoteNotFound)?;
        let content = match &entity.file {
            Some(file) if content && block.is_none() => Some(self.body(id, file).await?),
            _ => block,
        };
        Ok(Note { entity, content })
    }

    async fn body(&self, id: Uuid, file: &StoredFile) -> Result<String, Error> {
        let corrupt = |what| Error::BodyCorrupt { id, what };
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
