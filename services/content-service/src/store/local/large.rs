//! Large blobs: each part is written by a thread that may block, while the next comes in. What is
//! written is brought to disk meanwhile, so that the end has little left to wait for.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{blocking, directories::Directories, draft::Draft, writers::write_all};
use crate::{
    domain::{Held, Share},
    store::{Plan, StoreError},
};

/// Bytes after which what is written is brought to disk: enough for the disk to work in long runs,
/// and little beside what the system would otherwise keep back.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// A large blob that is being written.
pub(crate) struct LocalDraft {
    directories: Arc<Directories>,
    target: PathBuf,
    draft: Arc<Draft>,
    part: u64,
    filling: Held,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Bytes written since the last sync began.
    unsynced: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
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
            unsynced: 0,
            syncing: None,
            _share: share,
        })
    }

    /// Takes the next bytes; waits while the part before the last is still being written.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.filling.push(chunk);
        if self.filling.bytes() >= self.part { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        done(self.writing.take()).await?;
        if self.unsynced >= SYNC_EVERY && self.syncing.as_ref().is_none_or(JoinHandle::is_finished)
        {
            // The system tells of a failed write once: to whoever syncs next.
            done(self.syncing.take()).await?;
            let draft = Arc::clone(&self.draft);
            self.syncing = Some(tokio::task::spawn_blocking(move || draft.file().sync_data()));
            self.unsynced = 0;
        }
        self.unsynced += self.filling.bytes();
        let (draft, chunks) = (Arc::clone(&self.draft), self.filling.take());
        self.writing = Some(tokio::task::spawn_blocking(move || write_all(draft.file(), &chunks)));
        Ok(())
    }

    /// Brings the blob to disk and gives it its name, unless that is taken.
    pub(crate) async fn finish(mut self) -> Result<(), StoreError> {
        self.flush().await?;
        done(self.writing.take()).await?;
        done(self.syncing.take()).await?;
        let Self { directories, target, draft, .. } = self;
        let outcome = blocking(move || {
            draft.file().sync_all()?;
            // No thread has it any more.
            let draft = Arc::into_inner(draft).ok_or(io::ErrorKind::ResourceBusy)?;
            draft.publish(&target)?;
            directories.sync_parents([target.as_path()].into_iter())
        });
        outcome.await.map_err(StoreError::of_a_write)
    }
}

/// Waits for work on a thread of its own, if there is any.
async fn done(work: Option<JoinHandle<io::Result<()>>>) -> Result<(), StoreError> {
    match work {
        None => Ok(()),
        Some(work) => match work.await {
            Ok(outcome) => outcome.map_err(StoreError::from_local_write),
            Err(cause) => Err(object_store::Error::from(cause).into()),
        },
    }
}
