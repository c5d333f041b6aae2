//! Large blobs: each part is written by a thread that may block, while the next comes in.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{blocking, directories::Directories, draft::Draft, writers::write_all};
use crate::{
    domain::{Held, Share},
    store::{Plan, StoreError},
};

/// A large blob that is being written.
pub(crate) struct LocalDraft {
    directories: Arc<Directories>,
    target: PathBuf,
    draft: Arc<Draft>,
    part: u64,
    filling: Held,
    writing: Option<JoinHandle<std::io::Result<()>>>,
    _share: Share,
}

impl LocalDraft {
    pub(super) async fn begin(
        directories: Arc<Directories>,
        target: PathBuf,
        plan: Plan,
        share: Share,
    ) -> Result<Self, StoreError> {
        let (at, made) = (target.clone(), Arc::clone(&directories));
        let draft = blocking(move || Draft::new(&made, &at)).await;
        Ok(Self {
            directories,
            target,
            draft: Arc::new(draft.map_err(StoreError::of_a_write)?),
            part: plan.part,
            filling: Held::default(),
            writing: None,
            _share: share,
        })
    }

    /// Takes the next bytes; waits while the part before the last is still being written.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.filling.push(chunk);
        if self.filling.bytes() >= self.part { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.written().await?;
        let (draft, chunks) = (Arc::clone(&self.draft), self.filling.take());
        self.writing = Some(tokio::task::spawn_blocking(move || write_all(draft.file(), &chunks)));
        Ok(())
    }

    async fn written(&mut self) -> Result<(), StoreError> {
        match self.writing.take() {
            None => Ok(()),
            Some(writing) => match writing.await {
                Ok(outcome) => outcome.map_err(StoreError::from_local_write),
                Err(cause) => Err(object_store::Error::from(cause).into()),
            },
        }
    }

    /// Brings the blob to disk and gives it its name, unless that is taken.
    pub(crate) async fn finish(mut self) -> Result<(), StoreError> {
        self.flush().await?;
        self.written().await?;
        let Self { directories, target, draft, .. } = self;
        let outcome = blocking(move || {
            draft.file().sync_all()?;
            // No thread writes any more.
            let draft = Arc::into_inner(draft).ok_or(std::io::ErrorKind::ResourceBusy)?;
            draft.publish(&target)?;
            directories.sync_parents([target.as_path()].into_iter())
        });
        outcome.await.map_err(StoreError::of_a_write)
    }
}
