//! Large blobs on S3: parts of one size, a few of them on their way at a time.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{
    Attributes, MultipartId, PutMultipartOptions, PutPayload,
    multipart::{MultipartStore as _, PartId},
    path::Path,
};
use tokio::task::JoinSet;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::{Plan, S3, StoreError};
use crate::domain::{Held, Share};

type Sending = JoinSet<object_store::Result<(usize, PartId)>>;

/// A large blob that is being written.
pub(crate) struct MultipartUpload {
    upload: Unfinished,
    plan: Plan,
    filling: Held,
    /// By their place; those that are not there yet are `None`.
    parts: Vec<Option<PartId>>,
    _share: Share,
}

/// An upload that S3 keeps, and charges for, until somebody ends it. Dropped, it is aborted.
struct Unfinished {
    s3: Arc<S3>,
    path: Path,
    /// Taken when the upload is complete.
    id: Option<MultipartId>,
    sending: Sending,
    /// Whoever waits until all is clean waits for this one, too.
    _token: TaskTrackerToken,
}

/// Begins an upload.
pub(super) async fn begin(
    s3: &Arc<S3>,
    path: Path,
    attributes: Attributes,
    plan: Plan,
    share: Share,
) -> Result<MultipartUpload, StoreError> {
    let to = Arc::clone(s3);
    let begin = async move {
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let id = Some(to.objects.create_multipart_opts(&path, options).await?);
        let token = to.cleaning.token();
        Ok(Unfinished { s3: to, path, id, sending: JoinSet::new(), _token: token })
    };
    // In a task of its own: a caller who leaves now would leave an upload that nobody knows of.
    // The task ends, and what it returns to nobody is dropped.
    let upload = match s3.cleaning.spawn(begin.in_current_span()).await {
        Ok(outcome) => outcome.map_err(StoreError::of_write)?,
        Err(cause) => return Err(object_store::Error::from(cause).into()),
    };
    Ok(MultipartUpload { upload, plan, filling: Held::default(), parts: Vec::new(), _share: share })
}

impl MultipartUpload {
    /// Takes the next bytes; waits while as many parts are on their way as the plan allows.
    pub(crate) async fn write(&mut self, mut chunk: Bytes) -> Result<(), StoreError> {
        // A part that failed is noticed now, not when all have been sent.
        while let Some(sent) = self.upload.sending.try_join_next() {
            self.arrived(sent).map_err(StoreError::of_write)?;
        }
        while !chunk.is_empty() {
            let room = self.plan.part - self.filling.bytes();
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            self.filling.push(chunk.split_to(room.min(chunk.len())));
            if self.filling.bytes() == self.plan.part {
                self.send();
                // One of the parts that are held is the one that fills.
                self.wait(self.plan.parts - 1).await.map_err(StoreError::of_write)?;
            }
        }
        Ok(())
    }

    /// Makes the blob visible, unless its key is taken. An error may be the answer to a repeat
    /// whose first try succeeded.
    pub(crate) async fn finish(mut self) -> object_store::Result<()> {
        if self.filling.bytes() > 0 {
            self.send();
        }
        self.wait(0).await?;
        let Some(id) = &self.upload.id else { return Ok(()) };
        let parts = self.parts.into_iter().flatten().collect();
        let Unfinished { s3, path, .. } = &self.upload;
        s3.objects.complete_multipart(path, id, parts).await?;
        self.upload.id = None;
        Ok(())
    }

    fn send(&mut self) {
        let Some(id) = self.upload.id.clone() else { return };
        let (s3, path) = (Arc::clone(&self.upload.s3), self.upload.path.clone());
        let place = self.parts.len();
        self.parts.push(None);
        let payload: PutPayload = self.filling.take().into_iter().collect();
        let send =
            async move { Ok((place, s3.objects.put_part(&path, &id, place, payload).await?)) };
        self.upload.sending.spawn(send.in_current_span());
    }

    /// Waits until no more than so many parts are on their way.
    async fn wait(&mut self, most: u64) -> object_store::Result<()> {
        while self.upload.sending.len() as u64 > most {
            let Some(sent) = self.upload.sending.join_next().await else { break };
            self.arrived(sent)?;
        }
        Ok(())
    }

    fn arrived(
        &mut self,
        sent: Result<object_store::Result<(usize, PartId)>, tokio::task::JoinError>,
    ) -> object_store::Result<()> {
        let (place, part) = sent.map_err(object_store::Error::from)??;
        self.parts[place] = Some(part);
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (s3, path) = (Arc::clone(&self.s3), self.path.clone());
        let mut sending = std::mem::take(&mut self.sending);
        self.s3.cleaning.spawn(async move {
            // A part that arrives after the end of its upload may be kept all the same.
            sending.shutdown().await;
            if let Err(error) = s3.objects.abort_multipart(&path, &id).await {
                match StoreError::from(error) {
                    StoreError::NotFound => {}
                    error => tracing::warn!(
                        reason = error.cause(),
                        "an upload that was given up could not be aborted; it goes with its key, \
                         or after a day"
                    ),
                }
            }
        });
    }
}
