//! The directories of blobs: made when they are needed, for the owner alone, and on disk before a
//! blob in them is acknowledged.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Directories that are remembered at most; at about 100 bytes each.
const REMEMBERED: usize = 100_000;

/// What is known of the directories below one root.
#[derive(Debug)]
pub(super) struct Directories {
    root: PathBuf,
    /// Directories below the root whose names, and those of all between, are on disk.
    settled: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    /// Makes the root where it is missing.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        make(root)?;
        Ok(Self { root: root.canonicalize()?, settled: Mutex::default() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory of a file, because it was found missing. The root, too: somebody may
    /// have removed it to begin anew.
    pub(super) fn make_parent(&self, file: &Path) -> io::Result<()> {
        let Some(directory) = file.parent() else { return Ok(()) };
        {
            // First forgotten, then made: whoever finds it made also finds it not settled.
            let mut settled = self.settled();
            for lost in directory.ancestors().take_while(|above| above.starts_with(&self.root)) {
                settled.remove(lost);
            }
        }
        if !self.root.exists() {
            make(&self.root)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(directory)
    }

    /// Brings the names of these files to disk. Each directory is synced once, however many of the files
    /// are below it; those above the files' own only where that was not yet seen to be done.
    pub(super) fn sync_parents<'a>(&self, files: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let mut level: BTreeSet<&Path> = files.filter_map(Path::parent).collect();
        let mut fresh = Vec::new();
        while !level.is_empty() {
            level.iter().try_for_each(|directory| sync(directory))?;
            let settled = self.settled();
            level.retain(|directory| *directory != self.root && !settled.contains(*directory));
            fresh.extend(level.iter().map(|directory| directory.to_path_buf()));
            level = level.into_iter().filter_map(Path::parent).collect();
        }
        if !fresh.is_empty() {
            let mut settled = self.settled();
            if settled.len() > REMEMBERED {
                settled.clear();
            }
            settled.extend(fresh);
        }
        Ok(())
    }

    /// As [`Directories::sync_parents`], but trusts nothing that was seen before.
    pub(super) fn settle_all(&self, file: &Path) -> io::Result<()> {
        let above = file.ancestors().skip(1);
        above.take_while(|directory| directory.starts_with(&self.root)).try_for_each(sync)
    }

    fn settled(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a directory and those above it, and brings their names to disk.
fn make(directory: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        directory.ancestors().take_while(|above| is_missing(above)).map(Path::to_owned).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for made in missing {
        match made.parent() {
            Some(parent) if parent != Path::new("") => sync(parent)?,
            _ => sync(Path::new("."))?,
        }
    }
    Ok(())
}

fn is_missing(path: &Path) -> bool {
    path != Path::new("") && path.symlink_metadata().is_err()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_made_anew_is_not_taken_for_settled() {
        let parent = tempfile::tempdir().unwrap();
        let directories = Directories::open(&parent.path().join("a/b")).unwrap();
        let file = directories.root().join("users/u/notes/x.md");
        directories.make_parent(&file).unwrap();
        let notes = file.parent().unwrap();
        assert_eq!(notes.metadata().unwrap().permissions().mode() & 0o777, 0o700);

        directories.sync_parents([file.as_path()].into_iter()).unwrap();
        assert_eq!(directories.settled().len(), 3);
        std::fs::remove_dir_all(parent.path().join("a")).unwrap();
        directories.sync_parents([file.as_path()].into_iter()).unwrap_err();
        directories.make_parent(&file).unwrap();
        assert!(directories.settled().is_empty());
        directories.sync_parents([file.as_path()].into_iter()).unwrap();
    }
}
