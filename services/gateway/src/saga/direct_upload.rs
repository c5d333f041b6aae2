//! CreateUploadUrl and CompleteUpload: the body goes straight to the store, by a URL that is bound
//! to its size and checksum.
//!
//! CreateUploadUrl is step 1, under a lease that is longer than the URL is valid; the operation
//! keeps what was said of the file. The client is step 2. CompleteUpload looks at what is there,
//! and takes steps 3 to 5. What is never completed is given up by recovery when the lease has run
//! out, and its key is deleted like any other.

use std::time::Duration;

use synap_proto::reason;
use synap_types::UserId;
use uuid::Uuid;

use super::{Saga, Write, Written, upload_file::creation};
use crate::{
    clients::{Attempt, Begun, BodyAhead, Change, Found, Intent, Kind, OperationId, SignedUrl},
    domain::{ContentCheck, FileDraft, HEAD_BYTES, StoredFile},
    error::Error,
};

/// How much longer the operation waits than the URL is valid: for the call that completes it.
const MARGIN: Duration = Duration::from_mins(5);

/// Where a file is to be uploaded.
#[derive(Debug)]
pub(crate) struct UploadUrl {
    pub(crate) upload_id: Uuid,
    pub(crate) signed: SignedUrl,
}

struct CompleteUpload {
    draft: FileDraft,
}

impl Saga {
    /// Begins an upload that goes straight to the store. A repeat with the same `request` signs a
    /// fresh URL for the same key.
    pub(crate) async fn create_upload_url(
        &self,
        user: UserId,
        request: Uuid,
        draft: &FileDraft,
        expires_in: Duration,
    ) -> Result<UploadUrl, Error> {
        let wanted = expires_in + MARGIN;
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: draft.fingerprint("files.create_upload_url"),
            entity_type: "file".to_owned(),
            kind: Kind::Create { extension: draft.media.extension() },
            lease: Some(wanted),
            draft: Some(draft.to_json()),
            words: None,
        };
        loop {
            // All calls for one upload are one attempt: whoever repeats it gets the same key.
            let begun = self.entity.begin(&intent, request, None).await?;
            let attempt = match begun {
                Begun::Started(attempt) => attempt,
                Begun::Committed(_) => return Err(Error::UploadComplete { upload: request }),
                Begun::InProgress { retry_after } => return Err(Error::InProgress { retry_after }),
            };
            let lease = match self.entity.extend(&attempt, Some(wanted)).await {
                Ok(lease) => lease,
                Err(error) if error.is_fenced() => continue,
                Err(error) => return Err(error),
            };
            // entity-service may grant less: then the URL is valid for less.
            let valid = lease.saturating_sub(MARGIN).max(lease / 2).min(expires_in);
            let signed = self.content.sign_put(&attempt.key, draft, valid).await?;
            return Ok(UploadUrl { upload_id: request, signed });
        }
    }

    /// Makes what was uploaded a file. Any number of calls at once, or later, get the same answer.
    pub(crate) async fn complete_upload(&self, user: UserId, id: Uuid) -> Result<Written, Error> {
        let operation = OperationId { user, request: id };
        loop {
            let Some(Found { begun, draft }) = self.entity.operation(&operation).await? else {
                return Err(Error::UploadNotFound);
            };
            // Notes and other uploads have operations, too; those leave no draft.
            let draft = FileDraft::from_json(&draft).ok_or(Error::UploadNotFound)?;
            let attempt = match begun {
                Begun::Started(attempt) => attempt,
                Begun::Committed(committed) => {
                    return Ok(self.replay(&operation, *committed).await);
                }
                Begun::InProgress { retry_after } => return Err(Error::InProgress { retry_after }),
            };
            match self.attempt(&attempt, &mut CompleteUpload { draft }, None).await {
                // Another call has completed it, or recovery has given it up.
                Err(error) if error.is_fenced() => {}
                // It will never be what was promised: the key is written once.
                Err(error) if error.is_about_the_body() => {
                    if self.give_up(&attempt).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }
}

impl Write for CompleteUpload {
    async fn prepare(
        &mut self,
        saga: &Saga,
        attempt: &Attempt,
        _: Option<BodyAhead>,
    ) -> Result<Change, Error> {
        saga.hold(attempt, self.check(saga, attempt)).await
    }
}

impl CompleteUpload {
    /// Whether the promised body is there.
    async fn check(&self, saga: &Saga, attempt: &Attempt) -> Result<Change, Error> {
        let draft = &self.draft;
        let stored = saga.content.hash(&attempt.key).await?.ok_or(Error::UploadIncomplete)?;
        if draft.size.is_some_and(|size| size != stored.size) {
            return Err(Error::BodyMismatch { field: "metadata.size" });
        }
        if draft.checksum.is_some_and(|checksum| checksum != stored.checksum) {
            return Err(Error::BodyMismatch { field: "metadata.checksum" });
        }
        let file = StoredFile {
            url: stored.url,
            path: attempt.key.clone(),
            size: stored.size,
            kind: draft.media.kind().to_string(),
            checksum: stored.checksum.to_string(),
            name: draft.name.clone(),
        };
        self.check_type(saga, &file).await?;
        Ok(creation(draft, file))
    }

    /// Whether the body is of the type that was promised: Markdown is read as a whole, of anything
    /// else the beginning.
    async fn check_type(&self, saga: &Saga, file: &StoredFile) -> Result<(), Error> {
        use futures::StreamExt as _;
        let mut check = ContentCheck::of_type(&self.draft);
        let length = if check.needs_all() { 0 } else { HEAD_BYTES };
        let length = i64::try_from(length).unwrap_or_default();
        let body = saga.content.read_stream(file, 0, length).await?;
        let mut body = body.ok_or(Error::UploadIncomplete)?;
        while let Some(chunk) = body.next().await {
            check.push(&chunk?)?;
        }
        check.finish()?;
        Ok(())
    }
}

impl Error {
    /// Whether the uploaded bytes are not those that were promised.
    fn is_about_the_body(&self) -> bool {
        match self {
            Self::BodyMismatch { .. } | Self::Invalid(_) => true,
            Self::Service(error) => error.reason == reason::BODY_MISMATCH,
            _ => false,
        }
    }
}
