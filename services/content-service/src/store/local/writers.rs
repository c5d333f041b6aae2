//! Small blobs: a few threads write what has come together, and share the trips to the disk.
//!
//! A blob costs one sync of its file and one of its directory. Blobs of one directory that wait at
//! the same time share the latter; and what several threads sync at the same time the file system
//! writes in one go. A thread of the runtime's pool for each blob would share nothing, and with 64
//! callers spend more on waking up than on writing.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{directories::Directories, draft::Draft};

/// Threads that write. More share less, fewer keep the disk waiting.
const THREADS: usize = 8;
/// Blobs that one thread takes at most: the first of them waits for the last.
const TOGETHER: usize = 16;

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Writers {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    some: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    file: PathBuf,
    chunks: Vec<Bytes>,
    done: oneshot::Sender<io::Result<()>>,
}

impl Writers {
    pub(super) fn start(directories: &Arc<Directories>) -> io::Result<Self> {
        let writers = Self { queue: Arc::default() };
        for _ in 0..THREADS {
            let (queue, directories) = (Arc::clone(&writers.queue), Arc::clone(directories));
            let thread = thread::Builder::new().name("blob-writer".to_owned());
            thread.spawn(move || {
                while let Some(jobs) = queue.next() {
                    write_together(&directories, jobs);
                }
            })?;
        }
        Ok(writers)
    }

    /// Writes a file, durably; an error of kind `AlreadyExists` if there is one.
    pub(super) async fn write(&self, file: PathBuf, chunks: Vec<Bytes>) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.queue.lock().waiting.push_back(Job { file, chunks, done });
        self.queue.some.notify_one();
        outcome.await.unwrap_or_else(|_| Err(io::Error::other("a thread that writes has died")))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.some.notify_all();
    }
}

impl Queue {
    /// What is this thread's to write; `None` when there will be no more.
    fn next(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            state = self.some.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // As much as there is for each thread.
        let count = state.waiting.len().div_ceil(THREADS).min(TOGETHER);
        Some(state.waiting.drain(..count).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_together(directories: &Directories, jobs: Vec<Job>) {
    let mut named = Vec::with_capacity(jobs.len());
    for Job { file, chunks, done } in jobs {
        // Nobody waits any more: nothing was written, and nothing will be.
        if done.is_closed() {
            continue;
        }
        match write(directories, &file, &chunks) {
            Ok(()) => named.push((file, done)),
            Err(error) => {
                let _ = done.send(Err(error));
            }
        }
    }
    match directories.sync_parents(named.iter().map(|(file, _)| file.as_path())) {
        Ok(()) => {
            for (_, done) in named {
                let _ = done.send(Ok(()));
            }
        }
        // One of several directories failed. Who is told so asks again, and alone.
        Err(error) => {
            for (_, done) in named {
                let _ = done.send(Err(io::Error::new(error.kind(), error.to_string())));
            }
        }
    }
}

fn write(directories: &Directories, file: &Path, chunks: &[Bytes]) -> io::Result<()> {
    let draft = Draft::new(directories, file)?;
    write_all(draft.file(), chunks)?;
    draft.file().sync_all()?;
    draft.publish(file)
}

/// Writes chunks one after the other, many to a system call.
pub(super) fn write_all(mut file: &File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut left = slices.as_mut_slice();
    // Skips what is empty.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_together_is_written_and_each_is_told_its_own_outcome() {
        let root = tempfile::tempdir().unwrap();
        let directories = Arc::new(Directories::open(root.path()).unwrap());
        let writers = Writers::start(&directories).unwrap();
        let file =
            |i: usize| directories.root().join(format!("users/{}/notes/{}.md", i % 3, i / 2));
        let body = |i: usize| vec![u8::try_from(i).unwrap(); i];
        let all = (0..200).map(|i| writers.write(file(i * 2), vec![body(i).into()]));
        for outcome in futures::future::join_all(all).await {
            outcome.unwrap();
        }
        for i in 0..200 {
            assert_eq!(std::fs::read(file(i * 2)).unwrap(), body(i));
        }
        let taken = writers.write(file(4), vec![Bytes::from_static(b"other")]);
        let free = writers.write(directories.root().join("users/new/notes/x.md"), vec![]);
        let (taken, free) = tokio::join!(taken, free);
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        free.unwrap();
    }
}
