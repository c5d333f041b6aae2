//! The local file system: a blob is the file that its key names, below `BLOB_DIR`.
//!
//! - `directories`: made when they are needed, and brought to disk with what is in them.
//! - `draft`: a file without a name, that gets its name when it is whole and on disk.
//! - `writers`: small blobs, several to one trip to the disk.
//! - `large`: blobs that flow through.
//! - `reading`, `walk`: few system calls a blob, none on the threads that serve.

mod directories;
mod draft;
mod large;
mod reading;
mod sweep;
mod walk;
mod writers;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use synap_types::{BlobKey, Checksum};
use tokio_util::sync::CancellationToken;

use self::{directories::Directories, writers::Writers};
pub(super) use self::{draft::Draft, large::LocalDraft};
use super::{BlobMeta, Listing, OpenBlob, Pages, Plan, Range, StoreError};
use crate::domain::Share;

/// The store.
#[derive(Debug)]
pub(crate) struct Local {
    directories: Arc<Directories>,
    writers: Writers,
}

impl Local {
    /// Makes the directory, and the threads that write.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let named = |cause: io::Error| {
            let text = format!("BLOB_DIR={}: {cause}", directory.display());
            io::Error::new(cause.kind(), text)
        };
        let directories = Arc::new(Directories::open(directory).map_err(named)?);
        let writers = Writers::start(&directories)?;
        Ok(Self { directories, writers })
    }

    /// Where the blob is, or would be. A key has no segment that leads elsewhere.
    fn file(&self, key: &BlobKey) -> PathBuf {
        self.directories.root().join(key.as_str())
    }

    /// Writes a small blob.
    pub(super) async fn put(&self, key: &BlobKey, chunks: Vec<Bytes>) -> Result<(), StoreError> {
        self.writers.write(self.file(key), chunks).await.map_err(StoreError::from_local_write)
    }

    /// Brings a small blob's bytes to disk.
    pub(super) async fn stage(
        &self,
        key: &BlobKey,
        chunks: Vec<Bytes>,
    ) -> Result<Draft, StoreError> {
        self.writers.stage(self.file(key), chunks).await.map_err(StoreError::from_local_write)
    }

    /// Makes them the blob.
    pub(super) async fn publish(&self, key: &BlobKey, draft: Draft) -> Result<(), StoreError> {
        self.writers.publish(self.file(key), draft).await.map_err(StoreError::from_local_write)
    }

    /// Begins a large one.
    pub(super) async fn begin(
        &self,
        key: &BlobKey,
        plan: Plan,
        share: Share,
    ) -> Result<LocalDraft, StoreError> {
        LocalDraft::begin(Arc::clone(&self.directories), self.file(key), plan, share).await
    }

    /// Brings the directories of a blob that somebody else wrote to disk, so that it may be
    /// acknowledged. Its bytes are there: they are synced before the file gets its name.
    pub(super) async fn settle(&self, key: &BlobKey) -> Result<(), StoreError> {
        let (directories, file) = (Arc::clone(&self.directories), self.file(key));
        blocking(move || directories.settle_all(&file)).await
    }

    pub(super) async fn read(&self, key: &BlobKey, range: Range) -> Result<OpenBlob, StoreError> {
        self.unless_lost(reading::open(self.file(key), range).await).await
    }

    pub(super) async fn head(&self, key: &BlobKey) -> Result<BlobMeta, StoreError> {
        let file = self.file(key);
        let found = blocking(move || reading::meta(&fs::symlink_metadata(file)?));
        self.unless_lost(found.await).await
    }

    /// Reads small blobs and hashes them, in one trip to a thread that may block.
    pub(super) async fn digest_all(
        &self,
        keys: &[BlobKey],
    ) -> Result<Vec<Result<Checksum, StoreError>>, StoreError> {
        let files: Vec<_> = keys.iter().map(|key| self.file(key)).collect();
        let digest = |file| fs::read(file).map(|body| Checksum::of(&body));
        let found = blocking(move || Ok(files.into_iter().map(digest).collect::<Vec<_>>())).await?;
        let mut digests = Vec::with_capacity(found.len());
        for one in found {
            digests.push(self.unless_lost(one.map_err(StoreError::from)).await);
        }
        Ok(digests)
    }

    /// All are tried; the first failure is the answer.
    pub(super) async fn delete(&self, keys: &[BlobKey]) -> Result<(), StoreError> {
        let files: Vec<_> = keys.iter().map(|key| self.file(key)).collect();
        let directories = Arc::clone(&self.directories);
        let deleted = blocking(move || {
            let mut first = Ok(());
            let mut changed = Vec::new();
            // Where the store is not there, nothing is deleted.
            directories.root().metadata()?;
            for file in files {
                match fs::remove_file(&file) {
                    Ok(()) => changed.push(file),
                    Err(error) if is_no_blob(&error) => {}
                    Err(error) => first = first.and(Err(error)),
                }
            }
            // So that no crash of the machine brings them back.
            first.and(directories.sync_parents(changed.iter().map(PathBuf::as_path)))
        });
        deleted.await.map_err(StoreError::of_a_write)
    }

    /// A blob is only missing where its store is not.
    async fn unless_lost<T>(&self, found: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(found, Err(StoreError::NotFound)) {
            let root = self.directories.root().to_owned();
            blocking(move || root.metadata()).await.map_err(StoreError::of_a_write)?;
        }
        found
    }

    pub(super) fn list(&self, listing: Listing) -> Pages {
        walk::pages(self.directories.root(), listing)
    }

    /// Whether the directory is there and takes a file. Nothing is left behind.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        // Beside `users`, where no key can be.
        let file = self.directories.root().join(".probe");
        blocking(move || {
            File::create(&file)?.write_all(b"?")?;
            match fs::remove_file(&file) {
                // Another replica on the same directory was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            }
        })
        .await
        .map_err(StoreError::of_a_write)
    }

    /// Removes the staging files of processes that died.
    pub(super) fn sweep(&self, now: DateTime<Utc>, stop: CancellationToken) {
        let directories = Arc::clone(&self.directories);
        tokio::task::spawn_blocking(move || sweep::sweep(directories.root(), now, &stop));
    }
}

/// What this service keeps beside the blobs: what readiness writes, the secret of URLs, drafts.
fn is_ours(name: &str) -> bool {
    matches!(name, ".probe" | ".url-secret") || sweep::is_staging(name)
}

/// There is nothing, or a directory, which is no blob: keys go through it, none ends there.
fn is_no_blob(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory)
}

/// Runs what may block, off the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(cause) => Err(object_store::Error::from(cause).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_leaves_nothing_and_notices_a_lost_directory() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let store = Local::open(&directory).unwrap();
        store.probe().await.unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir(&directory).unwrap();
        store.probe().await.unwrap_err();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Local::open(&file.path().join("blobs")).unwrap_err().to_string();
        assert!(error.starts_with("BLOB_DIR="), "{error}");
    }
}
