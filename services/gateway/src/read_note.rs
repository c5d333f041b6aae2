//! GetNote: the row, then the body it names. While bodies are written to both places
//! (`dual_write`), one that cannot be read in the store is read in content_blocks, and repaired by
//! and by; in later phases that is an error.

use synap_types::UserId;
use uuid::Uuid;

use crate::{
    clients::{ContentClient, EntityClient},
    domain::{Entity, Note, StoredFile},
    error::Error,
    read_body::{self, Unreadable, read_body},
    repairs::Repairs,
};

/// Reads notes.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) content: ContentClient,
    pub(crate) entity: EntityClient,
    pub(crate) repairs: Repairs,
}

impl Reader {
    /// Reads a note of the user at a revision, 0 for the newest; with its body if that is asked for.
    pub(crate) async fn note(
        &self,
        user: &UserId,
        id: Uuid,
        revision: i32,
        content: bool,
    ) -> Result<Note, Error> {
        let found = self.entity.entity(user, "note", id, revision, content).await?;
        // A body from content_blocks is the one that counts where there is one: the phase says so.
        let (entity, block) = found.ok_or(Error::NoteNotFound)?;
        let content = match &entity.file {
            Some(file) if content && block.is_none() => {
                match read_body(&self.content, file).await {
                    Ok(body) => Some(body),
                    Err(why) => {
                        let found = self.other_copy(user, &entity, file, why).await?;
                        if revision == 0 {
                            return Ok(found);
                        }
                        // content_blocks holds the newest body: it may be this revision's, too.
                        match &found.entity.file {
                            Some(newest) if newest.checksum == file.checksum => found.content,
                            _ => return Err(why.of(&entity)),
                        }
                    }
                }
            }
            None if content && block.is_none() && revision > 0 => {
                return Err(Error::RevisionBodyGone);
            }
            _ => block,
        };
        Ok(Note { entity, content })
    }

    /// The note with its body from content_blocks, which must be the one that the row describes.
    async fn other_copy(
        &self,
        user: &UserId,
        seen: &Entity,
        bad: &StoredFile,
        why: Unreadable,
    ) -> Result<Note, Error> {
        let found = self.entity.entity_beside_blob(user, "note", seen.id).await?;
        let (entity, block) = found.ok_or(Error::NoteNotFound)?;
        let content = match (&entity.file, block) {
            // Changed or repaired in the meantime: another blob counts now.
            (Some(file), _) if file.path != bad.path => {
                read_body(&self.content, file).await.map_err(|why| why.of(&entity))?
            }
            (Some(file), Some(block)) if read_body::check(file, block.as_bytes()).is_ok() => {
                self.repairs.fell_back(user, entity.id, why);
                block
            }
            (Some(_), _) => return Err(why.of(&entity)),
            (None, block) => return Ok(Note { entity, content: block }),
        };
        Ok(Note { entity, content: Some(content) })
    }
}
