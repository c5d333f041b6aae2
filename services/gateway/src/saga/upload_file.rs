//! UploadFile: a body that passes by once. The steps are described in [`super`].

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde_json::json;
use synap_types::{Checksum, UserId};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Saga, Write, Written};
use crate::{
    clients::{Attempt, BodyAhead, BodyStream, Change, Creation, Intent, Kind, OperationId, What},
    domain::{ContentCheck, FileDraft, StoredFile},
    error::Error,
};

/// How long is waited for the next chunk of a body: a caller who stalls holds a place among the
/// calls, and the lease of its operation.
const PATIENCE: Duration = Duration::from_mins(1);

struct UploadFile {
    draft: FileDraft,
    body: CheckedBody,
}

/// A body that is checked as it is read. Every byte is read once, by whoever needs it.
enum CheckedBody {
    Open {
        body: BodyStream,
        check: Box<ContentCheck>,
    },
    /// Size and checksum of the whole, which is what was promised.
    Ended(i64, Checksum),
    /// It could not be read to its end, or was not what was promised.
    Failed,
}

impl Saga {
    /// Stores a file. A repeat with the same `request` gets the first answer, if it brings the same
    /// body.
    pub(crate) async fn upload_file(
        &self,
        user: UserId,
        request: Uuid,
        draft: FileDraft,
        body: BodyStream,
        max_bytes: i64,
    ) -> Result<Written, Error> {
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: draft.fingerprint("files.upload"),
            entity_type: "file".to_owned(),
            kind: Kind::Create { extension: draft.media.extension() },
            lease: None,
            draft: None,
            words: None,
        };
        let check = ContentCheck::new(&draft, max_bytes);
        let mut upload =
            UploadFile { draft, body: CheckedBody::Open { body, check: Box::new(check) } };
        let written = self.run(&intent, &mut upload).await?;
        if written.replayed {
            let (_, checksum) = upload.body.read_to_end().await?;
            if written.entity.file.as_ref().is_none_or(|file| file.checksum != checksum.to_string())
            {
                return Err(Error::RequestIdReused);
            }
        }
        Ok(written)
    }
}

impl Write for UploadFile {
    async fn prepare(
        &mut self,
        saga: &Saga,
        attempt: &Attempt,
        _: Option<BodyAhead>,
    ) -> Result<Change, Error> {
        if !self.body.is_fresh() {
            return Err(Error::BodyGone);
        }
        synap_failpoint::hit("gateway.put.before").await;
        let put = saga.content.put_stream(&attempt.key, &self.draft, self.body.chunks());
        let stored = saga.hold(attempt, put).await?;
        synap_failpoint::hit("gateway.put.after").await;
        let (size, checksum) = self.body.read_to_end().await?;
        if (stored.size, stored.checksum) != (size, checksum) {
            return Err(Error::contract("content-service", "the bytes it was given"));
        }
        let file = StoredFile {
            url: stored.url,
            path: attempt.key.clone(),
            size,
            kind: self.draft.media.kind().to_string(),
            checksum: checksum.to_string(),
            name: self.draft.name.clone(),
        };
        Ok(creation(&self.draft, file))
    }
}

impl CheckedBody {
    /// Whether nothing of it has been read.
    fn is_fresh(&self) -> bool {
        matches!(self, Self::Open { check, .. } if check.is_fresh())
    }

    /// The chunks that are still to come. It ends without an error only where the whole body is
    /// what was promised.
    fn chunks(&mut self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::try_unfold(
            self,
            |body| async move { Ok(body.next().await?.map(|chunk| (chunk, body))) },
        )
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Self::Open { body, check } = self else { return Ok(None) };
        let Ok(read) = timeout(PATIENCE, body.next()).await else {
            *self = Self::Failed;
            return Err(Error::BodyStalled { limit: PATIENCE });
        };
        let read = match read {
            Some(Ok(chunk)) => check.push(&chunk).map(|()| chunk),
            Some(Err(error)) => Err(error),
            None => {
                let Self::Open { check, .. } = std::mem::replace(self, Self::Failed) else {
                    return Ok(None);
                };
                let (size, checksum) = check.finish()?;
                *self = Self::Ended(size, checksum);
                return Ok(None);
            }
        };
        if read.is_err() {
            *self = Self::Failed;
        }
        read.map(Some)
    }

    /// Reads what is left, and tells the size and checksum of the whole.
    async fn read_to_end(&mut self) -> Result<(i64, Checksum), Error> {
        while self.next().await?.is_some() {}
        match self {
            Self::Ended(size, checksum) => Ok((*size, *checksum)),
            Self::Open { .. } | Self::Failed => Err(Error::BodyGone),
        }
    }
}

/// What the pivot writes for a new file.
pub(super) fn creation(draft: &FileDraft, file: StoredFile) -> Change {
    let data = json!({
        "entityType": "file",
        "title": draft.title,
        "tags": draft.tags,
        "file": {
            "path": file.path, "size": file.size, "checksum": file.checksum,
            "name": file.name, "contentType": draft.media.essence(),
        },
    });
    let creation = Creation {
        title: draft.title.clone(),
        preview: String::new(),
        tags: draft.tags.clone(),
        file: Some(file),
        content_block: None,
        search_text: None,
    };
    Change {
        what: What::Create(Box::new(creation)),
        event_type: "entity.created",
        event_data: data.to_string(),
    }
}
