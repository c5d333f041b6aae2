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
    task: Task,
}

#[derive(Debug)]
enum Task {
    /// Both of the others.
    Write(Vec<Bytes>, Done<()>),
    /// The file's bytes, on disk, without a name.
    Stage(Vec<Bytes>, Done<Draft>),
    /// The file's name.
    Publish(Draft, Done<()>),
}

type Done<T> = oneshot::Sender<io::Result<T>>;

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
        self.run(file, |done| Task::Write(chunks, done)).await
    }

    /// Brings the bytes of a file to disk. It has no name, and is nothing if it never gets one.
    pub(super) async fn stage(&self, file: PathBuf, chunks: Vec<Bytes>) -> io::Result<Draft> {
        self.run(file, |done| Task::Stage(chunks, done)).await
    }

    /// Gives a staged file its name, durably; an error of kind `AlreadyExists` if that is taken.
    pub(super) async fn publish(&self, file: PathBuf, draft: Draft) -> io::Result<()> {
        self.run(file, |done| Task::Publish(draft, done)).await
    }

    async fn run<T>(&self, file: PathBuf, task: impl FnOnce(Done<T>) -> Task) -> io::Result<T> {
        let (done, outcome) = oneshot::channel();
        self.queue.lock().waiting.push_back(Job { file, task: task(done) });
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
    for Job { file, task } in jobs {
        // Where nobody waits any more nothing is written, and nothing gets a name.
        let (outcome, done) = match task {
            Task::Stage(_, done) if done.is_closed() => continue,
            Task::Stage(chunks, done) => {
                let _ = done.send(stage(directories, &file, &chunks));
                continue;
            }
            Task::Write(_, done) | Task::Publish(_, done) if done.is_closed() => continue,
            Task::Write(chunks, done) => {
                let staged = stage(directories, &file, &chunks);
                (staged.and_then(|draft| draft.publish(&file)), done)
            }
            Task::Publish(draft, done) => (draft.publish(&file), done),
        };
        match outcome {
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

fn stage(directories: &Directories, file: &Path, chunks: &[Bytes]) -> io::Result<Draft> {
    let draft = Draft::new(directories, file)?;
    write_all(draft.file(), chunks)?;
    draft.file().sync_all()?;
    Ok(draft)
}

/// Bytes of one system call. Linux takes the size of a call as a hint of how large the pieces of its
/// page cache are to be, and pieces of 2 MiB, on a virtual machine that lends its free memory to its
/// host, are written at a fourth of the speed.
const CALL: usize = 1024 * 1024;

/// Writes chunks one after the other, many to a system call.
pub(super) fn write_all(mut file: &File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut left = slices.as_mut_slice();
    // Skips what is empty.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let mut bytes = 0;
        let fit = |slice: &&IoSlice| {
            bytes += slice.len();
            bytes <= CALL
        };
        let count = left.iter().take_while(fit).count().max(1);
        match file.write_vectored(&left[..count]) {
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

    #[tokio::test]
    async fn what_is_staged_is_nothing_until_it_is_published() {
        let root = tempfile::tempdir().unwrap();
        let directories = Arc::new(Directories::open(root.path()).unwrap());
        let writers = Writers::start(&directories).unwrap();
        let file = directories.root().join("users/u/notes/x.md");
        let stage = |body| writers.stage(file.clone(), vec![Bytes::from_static(body)]);
        let (first, second) = (stage(b"first").await.unwrap(), stage(b"second").await.unwrap());
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 0);

        writers.publish(file.clone(), first).await.unwrap();
        let taken = writers.publish(file.clone(), second).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"first");
    }
}
