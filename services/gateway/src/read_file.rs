//! DownloadFile, GetFile and CreateDownloadUrl: the row, then the body it names.

use std::time::Duration;

use synap_types::UserId;
use uuid::Uuid;

use crate::{
    clients::{BodyStream, ContentClient, EntityClient, SignedUrl},
    domain::{Entity, StoredFile},
    error::Error,
};

/// Reads files.
#[derive(Clone)]
pub(crate) struct FileReader {
    pub(crate) content: ContentClient,
    pub(crate) entity: EntityClient,
}

impl FileReader {
    /// Reads the row of a file of the user.
    pub(crate) async fn file(&self, user: &UserId, id: Uuid) -> Result<Entity, Error> {
        let found = self.entity.entity(user, "file", id, false).await?;
        let (entity, _) = found.ok_or(Error::FileNotFound)?;
        Ok(entity)
    }

    /// Reads a file of the user, or a range of it; `length` 0 reads to the end.
    pub(crate) async fn download(
        &self,
        user: &UserId,
        id: Uuid,
        offset: i64,
        length: i64,
    ) -> Result<(Entity, BodyStream), Error> {
        let entity = self.file(user, id).await?;
        let body = self.content.read_stream(body_of(&entity)?, offset, length).await?;
        let missing =
            Error::BodyCorrupt { id, revision: entity.version, what: "it is not in the store" };
        Ok((entity, body.ok_or(missing)?))
    }

    /// A URL with which somebody without a token can read the file.
    pub(crate) async fn download_url(
        &self,
        user: &UserId,
        id: Uuid,
        expires_in: Duration,
    ) -> Result<SignedUrl, Error> {
        let entity = self.file(user, id).await?;
        self.content.sign_get(body_of(&entity)?, expires_in).await
    }
}

fn body_of(entity: &Entity) -> Result<&StoredFile, Error> {
    let Entity { id, version: revision, .. } = *entity;
    let none = Error::BodyCorrupt { id, revision, what: "its row names none" };
    entity.file.as_ref().ok_or(none)
}
