//! A file that is not there yet: it has no name until it is whole and on disk, and leaves nothing
//! if that never comes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::directories::Directories;

/// The file. To be written to, synced, and published.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    /// Where the file system has no files without a name: a name that no key can have.
    staging: Option<PathBuf>,
}

impl Draft {
    /// Makes a file that can become `target`; makes the directory where it is missing.
    pub(super) fn new(directories: &Directories, target: &Path) -> io::Result<Self> {
        match Self::beside(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directories.make_parent(target)?;
                Self::beside(target)
            }
            outcome => outcome,
        }
    }

    fn beside(target: &Path) -> io::Result<Self> {
        let directory = target.parent().unwrap_or(target);
        match nameless(directory) {
            Some(outcome) => Ok(Self { file: outcome?, staging: None }),
            None => Self::staged(directory),
        }
    }

    /// In the target's directory, since a name cannot move between file systems. The sweep knows
    /// the name.
    fn staged(directory: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let id = u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("#{id}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(Self { file, staging: Some(path) }),
                // Of a process that died, or that has another process table than ours.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, unless that is taken. The bytes must be synced by now; the caller
    /// syncs the directory.
    pub(super) fn publish(self, target: &Path) -> io::Result<()> {
        match &self.staging {
            Some(staging) => fs::hard_link(staging, target),
            None => link(&self.file, target),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(staging) = &self.staging {
            // What fails here is swept later.
            let _ = fs::remove_file(staging);
        }
    }
}

/// A file without a name; `None` where the system cannot make one here.
#[cfg(target_os = "linux")]
fn nameless(directory: &Path) -> Option<io::Result<File>> {
    use rustix::{
        fs::{Mode, OFlags, open},
        io::Errno,
    };

    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Some(Ok(file.into())),
        // The latter is how kernels and file systems from before it answer.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => None,
        Err(error) => Some(Err(error.into())),
    }
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<io::Result<File>> {
    None
}

#[cfg(target_os = "linux")]
fn link(file: &File, target: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, CWD, linkat};

    // By way of /proc, since to link a bare descriptor takes a privilege.
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, open.as_str(), CWD, target, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    type Make = fn(&Path) -> io::Result<Draft>;

    #[test]
    fn a_draft_is_nothing_until_it_is_published() {
        let root = tempfile::tempdir().unwrap();
        for (name, make) in [
            ("nameless", Draft::beside as Make),
            ("staged", |target| Draft::staged(target.parent().unwrap())),
        ] {
            let target = root.path().join(name).join("x.md");
            fs::create_dir(target.parent().unwrap()).unwrap();
            let names = || fs::read_dir(target.parent().unwrap()).unwrap().count();

            let given_up = make(&target).unwrap();
            given_up.file().write_all(b"half").unwrap();
            assert!(!target.exists());
            drop(given_up);
            assert_eq!(names(), 0, "{name}");

            let first = make(&target).unwrap();
            let second = make(&target).unwrap();
            first.file().write_all(b"first").unwrap();
            second.file().write_all(b"second").unwrap();
            first.publish(&target).unwrap();
            let taken = second.publish(&target).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists, "{name}");
            assert_eq!(fs::read(&target).unwrap(), b"first");
            assert_eq!(names(), 1, "{name}");
        }
    }
}
