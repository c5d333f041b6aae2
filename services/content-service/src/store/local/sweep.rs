//! Staging files that processes left when they died. Only file systems that have no files without
//! a name have them, and stores that were written by earlier versions.

use std::{fs, io, path::Path, time::SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

/// A staging file that nobody has written to for so long belongs to a process that died.
const LEFT_BEHIND: TimeDelta = TimeDelta::hours(1);

/// Removes staging files (`…#1`) that are [`LEFT_BEHIND`].
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
pub(super) fn is_staging(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
            ("#4711", TimeDelta::days(9)),
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
        assert_eq!(left().len(), 6);

        sweep(root.path(), now, &CancellationToken::new());
        assert_eq!(left(), ["being-written.md#1", "note.md", "odd#name"]);
    }
}
