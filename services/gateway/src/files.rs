//! What is done with a file: the request is checked, and passed on.

use std::time::Duration;

use synap_proto::{
    field::{self, Violation},
    gateway::{
        CreateDownloadUrlRequest, CreateUploadUrlRequest, DeleteFileRequest, DownloadFileRequest,
        FileMetadata,
    },
};
use synap_types::UserId;
use uuid::Uuid;

use crate::{
    clients::{BodyStream, SignedUrl},
    domain::{Entity, FileDraft, check_etag, etag},
    error::Error,
    read_file::FileReader,
    saga::{Saga, Target, UploadUrl, Written, carry_out},
};

/// Bytes that one PUT may bring: the limit of S3 and R2.
const MAX_DIRECT_BYTES: i64 = 5 * 1024 * 1024 * 1024;
/// How long a URL for reading is valid where nothing is said, and at most.
const DOWNLOAD_EXPIRY: Duration = Duration::from_hours(1);
const MAX_EXPIRY: Duration = Duration::from_hours(7 * 24);

/// The public API of files.
#[derive(Clone)]
pub(crate) struct FileApi {
    pub(crate) saga: Saga,
    pub(crate) reader: FileReader,
    pub(crate) max_file_bytes: i64,
    /// How long a URL for an upload is valid.
    pub(crate) upload_expiry: Duration,
}

impl FileApi {
    /// Stores a file whose body is about to come.
    pub(crate) async fn upload(
        &self,
        user: UserId,
        metadata: Option<FileMetadata>,
        body: BodyStream,
    ) -> Result<Written, Error> {
        let request = self.request_id(metadata.as_ref())?;
        let draft = FileDraft::check(metadata, self.max_file_bytes)?;
        let (saga, max_bytes) = (self.saga.clone(), self.max_file_bytes);
        carry_out(Duration::MAX, async move {
            saga.upload_file(user, request, draft, body, max_bytes).await
        })
        .await
    }

    /// Begins an upload that goes straight to the store.
    pub(crate) async fn create_upload_url(
        &self,
        user: UserId,
        request: CreateUploadUrlRequest,
    ) -> Result<UploadUrl, Error> {
        let id = self.request_id(request.metadata.as_ref())?;
        let max_bytes = self.max_file_bytes.min(MAX_DIRECT_BYTES);
        let draft = FileDraft::check_direct(request.metadata, max_bytes)?;
        self.saga.create_upload_url(user, id, &draft, self.upload_expiry).await
    }

    /// Makes what was uploaded a file.
    pub(crate) async fn complete_upload(&self, user: UserId, id: &str) -> Result<Written, Error> {
        let id = field::uuid("upload_id", id)?;
        let saga = self.saga.clone();
        carry_out(Duration::MAX, async move { saga.complete_upload(user, id).await }).await
    }

    /// Deletes a file.
    pub(crate) async fn delete(
        &self,
        user: UserId,
        request: &DeleteFileRequest,
    ) -> Result<Written, Error> {
        let id = field::uuid("id", &request.id)?;
        let expected_version = check_etag("etag", &request.etag, user.as_str(), id)?;
        let request = field::optional_uuid("request_id", &request.request_id)?;
        let request = request.unwrap_or_else(|| self.saga.ids.next_id());
        let (saga, entity_type) = (self.saga.clone(), "file".to_owned());
        let target = Target { user: user.clone(), entity_type, id, expected_version };
        carry_out(Duration::MAX, async move { saga.delete(target, request).await })
            .await
            .map_err(|why| why.about(Error::FileNotFound, |at| etag(user.as_str(), id, at)))
    }

    /// Describes a file.
    pub(crate) async fn get(&self, user: &UserId, id: &str) -> Result<Entity, Error> {
        self.reader.file(user, field::uuid("id", id)?).await
    }

    /// Reads a file, or a range of it.
    pub(crate) async fn download(
        &self,
        user: &UserId,
        request: &DownloadFileRequest,
    ) -> Result<(Entity, BodyStream), Error> {
        let id = field::uuid("id", &request.id)?;
        let offset = field::within("offset", request.offset, 0, i64::MAX)?;
        let length = field::within("length", request.length, 0, i64::MAX)?;
        self.reader.download(user, id, offset, length).await
    }

    /// A URL with which somebody without a token can read the file.
    pub(crate) async fn create_download_url(
        &self,
        user: &UserId,
        request: &CreateDownloadUrlRequest,
    ) -> Result<SignedUrl, Error> {
        let id = field::uuid("id", &request.id)?;
        let expires_in = match request.expires_in {
            None => DOWNLOAD_EXPIRY,
            Some(asked) => Duration::try_from(asked)
                .ok()
                .filter(|asked| (Duration::from_secs(1)..=MAX_EXPIRY).contains(asked))
                .ok_or_else(|| Violation::new("expires_in", "must be between 1 s and 7 days"))?,
        };
        self.reader.download_url(user, id, expires_in).await
    }

    fn request_id(&self, metadata: Option<&FileMetadata>) -> Result<Uuid, Error> {
        let text = metadata.map_or("", |metadata| &metadata.request_id);
        let id = field::optional_uuid("metadata.request_id", text)?;
        Ok(id.unwrap_or_else(|| self.saga.ids.next_id()))
    }
}
