//! Listing a directory tree in the order of keys, in memory that does not grow with the tree.
//!
//! Keys ascend if in each directory a file sorts as its name, and a directory as its name and a
//! slash. Of a directory with very many names only some are held at a time; it is read again for
//! those after them.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use chrono::DateTime;
use futures::{StreamExt as _, stream};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat},
    io::Errno,
};
use synap_types::BlobKey;
use tokio::task::JoinHandle;

use super::{BlobMeta, Listing, Pages, StoreError, is_ours};
use crate::store::list::{Listed, PAGE, Page};

/// Names of one directory that are held at a time; while it is read, twice as many. A name takes
/// some 80 bytes.
const KEPT: usize = 128 * 1024;

/// Lists what is below `root`.
pub(super) fn pages(root: &Path, listing: Listing) -> Pages {
    let Some(prefix) = listing.narrowed().map(str::to_owned) else {
        return stream::empty().boxed();
    };
    let walk = Walk {
        root: root.to_owned(),
        prefix,
        after: listing.after,
        foreign: listing.with_foreign.then(Vec::new),
        kept: KEPT,
        below: None,
    };
    // Each page is read while the one before is sent.
    let first = walk.ahead();
    let pages = stream::try_unfold(first, |reading: Reading| async {
        let outcome = reading.await.map_err(object_store::Error::from)?;
        let (walk, page) = outcome.map_err(|error| StoreError::from(error).of_a_write())?;
        Ok((page.len() > 0).then(|| (page, walk.ahead())))
    });
    pages.boxed()
}

type Reading = JoinHandle<io::Result<(Walk, Page)>>;

struct Walk {
    root: PathBuf,
    prefix: String,
    after: String,
    /// Names that no key can have, since the last page; `None` if nobody asks.
    foreign: Option<Vec<String>>,
    kept: usize,
    /// The directories from where the walk began down to where it is; `None` before it began.
    below: Option<Vec<Directory>>,
}

struct Directory {
    /// What the keys in it begin with; ends with a slash.
    key: String,
    file: OwnedFd,
    /// Ascending; those of directories end with a slash.
    names: std::vec::IntoIter<Box<str>>,
    /// Names after this one are still to be read.
    more: Option<Box<str>>,
}

impl Walk {
    fn ahead(mut self) -> Reading {
        tokio::task::spawn_blocking(move || {
            let page = self.page()?;
            Ok((self, page))
        })
    }

    /// What comes next; nothing at the end.
    fn page(&mut self) -> io::Result<Page> {
        let mut below = match self.below.take() {
            Some(below) => below,
            None => self.begin()?,
        };
        let mut page = Page::default();
        while page.blobs.len() < PAGE {
            let Some(here) = below.last_mut() else { break };
            match here.names.next() {
                Some(name) if name.ends_with('/') => {
                    let inner =
                        openat(&here.file, &name[..name.len() - 1], DIRECTORY, Mode::empty());
                    let key = format!("{}{name}", here.key);
                    // It may have gone by now.
                    if let Some(file) = unless_gone(inner)? {
                        below.push(self.directory(key, file)?);
                    }
                }
                Some(name) => {
                    let key = format!("{}{name}", here.key);
                    let stat = unless_gone(statat(&here.file, &*name, AtFlags::SYMLINK_NOFOLLOW))?;
                    match (BlobKey::parse(&*key), stat.as_ref().and_then(meta)) {
                        (Ok(key), Some(meta)) => page.blobs.push(Listed { key, meta }),
                        (Err(_), Some(_)) => self.see_foreign(key),
                        (_, None) => {}
                    }
                }
                None => match here.more.take() {
                    Some(last) => self.read(here, Some(&last))?,
                    None => {
                        below.pop();
                    }
                },
            }
        }
        self.below = Some(below);
        page.foreign = self.foreign.as_mut().map(std::mem::take).unwrap_or_default();
        Ok(page)
    }

    fn see_foreign(&mut self, name: String) {
        if let Some(foreign) = &mut self.foreign
            && !is_ours(&name)
        {
            foreign.push(name);
        }
    }

    /// The directory that all keys are in.
    fn begin(&mut self) -> io::Result<Vec<Directory>> {
        // A store that is not there is no store without blobs.
        let root = open(&self.root, DIRECTORY, Mode::empty())?;
        let end = self.prefix.rfind('/').map_or(0, |slash| slash + 1);
        let key = self.prefix[..end].to_owned();
        if key.is_empty() {
            return Ok(vec![self.directory(key, root)?]);
        }
        if !key.trim_end_matches('/').split('/').all(is_segment) {
            return Ok(Vec::new());
        }
        match unless_gone(openat(&root, &*key, DIRECTORY, Mode::empty()))? {
            Some(file) => Ok(vec![self.directory(key, file)?]),
            None => Ok(Vec::new()),
        }
    }

    fn directory(&mut self, key: String, file: OwnedFd) -> io::Result<Directory> {
        let mut directory = Directory { key, file, names: Vec::new().into_iter(), more: None };
        self.read(&mut directory, None)?;
        Ok(directory)
    }

    /// Reads the names after `last`, as many as are kept.
    fn read(&mut self, directory: &mut Directory, last: Option<&str>) -> io::Result<()> {
        let mut names: Vec<Box<str>> = Vec::new();
        // Of those beyond, enough are found before.
        let mut beyond: Option<Box<str>> = None;
        for entry in Dir::read_from(&directory.file)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if !is_segment(&name) {
                // Read again for what comes after, a directory is not told of again.
                if last.is_none() && !matches!(&*name, "." | "..") {
                    self.see_foreign(format!("{}{name}", directory.key));
                }
                continue;
            }
            let name = &*name;
            let name = match Self::kind(&directory.file, name, entry.file_type())? {
                FileType::Directory => format!("{name}/"),
                FileType::RegularFile => name.to_owned(),
                _ => continue,
            };
            if last.is_some_and(|last| *name <= *last)
                || beyond.as_deref().is_some_and(|beyond| *name > *beyond)
                || !self.wants(&directory.key, &name)
            {
                continue;
            }
            names.push(name.into());
            if names.len() == 2 * self.kept {
                let (_, most, _) = names.select_nth_unstable(self.kept - 1);
                beyond = Some(most.clone());
                names.truncate(self.kept);
            }
        }
        names.sort_unstable();
        if beyond.is_some() {
            names.truncate(self.kept);
            directory.more = names.last().cloned();
        }
        directory.names = names.into_iter();
        Ok(())
    }

    fn kind(directory: &OwnedFd, name: &str, told: FileType) -> io::Result<FileType> {
        if told != FileType::Unknown {
            return Ok(told);
        }
        let stat = unless_gone(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Whether a name stands for a key that was asked for, or for a directory that may have some.
    fn wants(&self, key: &str, name: &str) -> bool {
        let key = format!("{key}{name}");
        if key.ends_with('/') {
            let has_some = key.starts_with(&self.prefix) || self.prefix.starts_with(&key);
            has_some && (key > self.after || self.after.starts_with(&key))
        } else {
            key.starts_with(&self.prefix) && key > self.after
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is neither of these is never asked of the file system.
fn is_segment(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_~.%".contains(&b);
    !matches!(name, "" | "." | "..") && name.bytes().all(allowed)
}

fn meta(stat: &rustix::fs::Stat) -> Option<BlobMeta> {
    let size = u64::try_from(stat.st_size).ok()?;
    let nanos = u32::try_from(stat.st_mtime_nsec).ok()?;
    Some(BlobMeta { size, updated: DateTime::from_timestamp(stat.st_mtime, nanos)? })
}

fn unless_gone<T>(outcome: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    fn all(root: &Path, prefix: &str, after: &str, kept: usize) -> Vec<String> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        let root = root.to_owned();
        let mut walk = Walk { root, prefix, after, foreign: None, kept, below: None };
        let mut keys = Vec::new();
        loop {
            let page = walk.page().unwrap().blobs;
            if page.is_empty() {
                return keys;
            }
            assert!(page.len() <= PAGE);
            keys.extend(page.into_iter().map(|blob| blob.key.as_str().to_owned()));
        }
    }

    #[test]
    fn keys_ascend_however_few_are_held() {
        let root = tempfile::tempdir().unwrap();
        let mut keys = BTreeSet::new();
        for i in 0..500 {
            // `-` and `.` sort before a slash, letters and digits after it.
            for name in ["a", "a-b", "a.md", "ab", "a/x"] {
                if i % 7 == 0 || name == "a.md" {
                    keys.insert(format!("users/u{}/{i}{name}", i % 3));
                }
            }
            keys.insert(format!("users/u{}/{i}{}", i % 3, "z/y/x"));
        }
        // A file and a directory of one name cannot be.
        keys.retain(|key| !key.ends_with('a'));
        for key in &keys {
            let file = root.path().join(key);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, key).unwrap();
        }
        for no_blob in ["users/u0/1.md#7", ".probe", "users/u0/not a key", "users/top"] {
            fs::write(root.path().join(no_blob), b"?").unwrap();
        }
        let keys: Vec<_> = keys.into_iter().collect();
        for kept in [1, 3, 100, KEPT] {
            assert_eq!(all(root.path(), "users/", "", kept), keys, "{kept} held");
        }
        for (prefix, after) in [
            ("users/u1", ""),
            ("users/u1/1", "users/u1/100a-b"),
            ("users/", &*keys[77]),
            ("users/", "users/u1/400a/x"),
            ("users/", "users/u1/400a/"),
            ("users/u2/7z/", "users/u0"),
            ("users/u2/7z/y/x", ""),
            ("users/", "zzz"),
            ("users/../users/", ""),
            ("users/u1\0", ""),
            ("users/nobody/", ""),
        ] {
            let expected: Vec<_> = keys
                .iter()
                .filter(|key| key.starts_with(prefix) && key.as_str() > after)
                .cloned()
                .collect();
            assert_eq!(all(root.path(), prefix, after, 50), expected, "{prefix} after {after}");
        }
    }
}
