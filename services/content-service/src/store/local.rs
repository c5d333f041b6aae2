//! The local file system: what object_store's implementation leaves to do.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use chrono::{DateTime, TimeDelta, Utc};
use object_store::local::LocalFileSystem;
use tokio_util::sync::CancellationToken;

use super::StoreError;

/// A staging file that nobody has written to for so long belongs to a process that died.
const LEFT_BEHIND: TimeDelta = TimeDelta::hours(1);

/// Makes the directory, and the store in it. Returns the directory's real path, too.
pub(super) fn open(directory: &Path) -> io::Result<(LocalFileSystem, PathBuf)> {
    let named = |cause: io::Error| {
        let text = format!("BLOB_DIR={}: {cause}", directory.display());
        io::Error::new(cause.kind(), text)
    };
    fs::create_dir_all(directory).map_err(named)?;
    let root = directory.canonicalize().map_err(named)?;
    let objects = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
    Ok((objects.with_fsync(true), root))
}

/// Brings the directories of a blob that somebody else wrote to disk, so that it may be
/// acknowledged. Its bytes are there: they are synced before the file gets its name.
pub(super) async fn settle(
    root: Arc<PathBuf>,
    blob: &object_store::path::Path,
) -> Result<(), StoreError> {
    let file = root.join(blob.as_ref());
    blocking(move || {
        let directories = file.ancestors().skip(1);
        for directory in directories.take_while(|directory| directory.starts_with(&*root)) {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    })
    .await
}

/// Whether the directory is there and takes a file. Nothing is left behind.
pub(super) async fn probe(root: Arc<PathBuf>) -> Result<(), StoreError> {
    // Beside `users`, where no key can be.
    let file = root.join(".probe");
    blocking(move || {
        File::create(&file)?.write_all(b"?")?;
        match fs::remove_file(&file) {
            // Another replica on the same directory was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    })
    .await
}

/// Removes staging files (`…#1`: object_store writes there first) that are [`LEFT_BEHIND`].
pub(super) fn sweep(root: &Path, now: DateTime<Utc>, stop: &CancellationToken) {
    let mut count = 0_u64;
    if let Err(cause) = sweep_below(root, (now - LEFT_BEHIND).into(), stop, &mut count) {
        let reason = cause.to_string();
        tracing::warn!(reason, "files of died processes were not all looked for");
    }
    if count > 0 {
        tracing::info!(count, "files of died processes removed");
    }
}

fn sweep_below(
    root: &Path,
    before: SystemTime,
    stop: &CancellationToken,
    count: &mut u64,
) -> io::Result<()> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            if stop.is_cancelled() {
                return Ok(());
            }
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if is_staging(&entry.file_name().to_string_lossy()) {
                // A file that is gone by now was not left behind.
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                if modified.is_ok_and(|modified| modified < before) {
                    fs::remove_file(entry.path())?;
                    *count += 1;
                }
            }
        }
    }
    Ok(())
}

/// No key has a `#`: what is named so was never a blob.
fn is_staging(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

async fn blocking(
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(cause) => Err(object_store::Error::from(cause).into()),
    }
}

#[cfg(test)]
mod tests {
    use synap_types::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let notes = root.path().join("users/u/notes");
        fs::create_dir_all(&notes).unwrap();
        let now = SystemClock.now();
        for (name, age) in [
            ("note.md", TimeDelta::days(400)),
            ("dead.md#1", LEFT_BEHIND + TimeDelta::seconds(1)),
            ("dead.md#27", TimeDelta::days(9)),
            ("being-written.md#1", LEFT_BEHIND - TimeDelta::minutes(1)),
            ("odd#name", TimeDelta::days(9)),
        ] {
            let file = File::create(notes.join(name)).unwrap();
            file.set_modified((now - age).into()).unwrap();
        }
        let left = || {
            let mut names: Vec<_> = fs::read_dir(&notes)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };

        let stopped = CancellationToken::new();
        stopped.cancel();
        sweep(root.path(), now, &stopped);
        assert_eq!(left().len(), 5);

        sweep(root.path(), now, &CancellationToken::new());
        assert_eq!(left(), ["being-written.md#1", "note.md", "odd#name"]);
    }

    #[tokio::test]
    async fn a_look_leaves_nothing_and_notices_a_lost_directory() {
        let parent = tempfile::tempdir().unwrap();
        let (_, root) = open(&parent.path().join("a/b")).unwrap();
        let root = Arc::new(root);
        probe(Arc::clone(&root)).await.unwrap();
        assert_eq!(fs::read_dir(&*root).unwrap().count(), 0);
        fs::remove_dir(&*root).unwrap();
        probe(root).await.unwrap_err();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(&file.path().join("blobs")).unwrap_err().to_string();
        assert!(error.starts_with("BLOB_DIR="), "{error}");
    }
}
