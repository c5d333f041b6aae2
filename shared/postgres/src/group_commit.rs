//! Concurrent callers share one transaction.
//!
//! A commit costs a flush to disk however little it holds, and a statement costs a round trip
//! however few rows it brings. So callers queue, and a worker that is free takes what is queued
//! and does it as one batch. There is no timer: a caller who comes alone is a batch of one, at
//! once; batches grow by themselves while workers are busy.
//!
//! Two requests with the same key (the same row, the same stream) never run at the same time,
//! neither in one batch nor in two, and they run in the order in which they came. So a batch may
//! be one set-based statement, and no two batches wait for each other's row locks.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

/// How callers are grouped.
#[derive(Debug, Clone, Copy)]
pub struct GroupCommitOptions {
    /// Requests that wait at most; more are rejected.
    pub queue: usize,
    /// Batches that run at once; each takes one connection. At least 1.
    pub workers: usize,
    /// Requests in one batch at most: bounds the time that its row locks are held. At least 1.
    pub max_batch: usize,
}

impl Default for GroupCommitOptions {
    fn default() -> Self {
        Self { queue: 1024, workers: 2, max_batch: 128 }
    }
}

/// The request was not run, or its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Too many requests wait already. Nothing was done.
    #[error("too many requests wait for a commit")]
    QueueFull,
    /// The batch panicked or left the request out: its outcome is unknown.
    #[error("the batch ended without an answer for this request")]
    NoAnswer,
}

type Answers<Out, E> = Vec<Result<Out, E>>;
type Run<Req, Out, E> =
    Box<dyn Fn(Vec<Req>) -> Pin<Box<dyn Future<Output = Answers<Out, E>> + Send>> + Send + Sync>;

/// Runs requests of many callers in few batches; see the [module](self).
pub struct GroupCommit<K, Req, Out, E> {
    shared: Arc<Shared<K, Req, Out, E>>,
}

struct Shared<K, Req, Out, E> {
    options: GroupCommitOptions,
    key: Box<dyn Fn(&Req) -> K + Send + Sync>,
    run: Run<Req, Out, E>,
    state: Mutex<State<K, Req, Out, E>>,
}

struct State<K, Req, Out, E> {
    /// In the order of arrival.
    waiting: VecDeque<Waiting<K, Req, Out, E>>,
    /// The keys of all batches under way.
    busy: HashSet<K>,
    /// Workers under way. There are none while nothing is to be done.
    workers: usize,
}

struct Waiting<K, Req, Out, E> {
    key: K,
    request: Req,
    reply: oneshot::Sender<Result<Out, E>>,
    span: Span,
}

impl<K, Req, Out, E> GroupCommit<K, Req, Out, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    Req: Send + 'static,
    Out: Send + 'static,
    E: From<Rejected> + Send + 'static,
{
    /// Groups requests for `run`, which gets a batch and returns as many answers, in its order.
    /// `key` says which requests must not run together.
    pub fn new<F>(
        options: GroupCommitOptions,
        key: impl Fn(&Req) -> K + Send + Sync + 'static,
        run: impl Fn(Vec<Req>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Result<Out, E>>> + Send + 'static,
    {
        let shared = Shared {
            options,
            key: Box::new(key),
            run: Box::new(move |batch| Box::pin(run(batch))),
            state: Mutex::new(State { waiting: VecDeque::new(), busy: HashSet::new(), workers: 0 }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has `request` run in the next batch and waits for its answer.
    ///
    /// A caller who drops this future before its batch has begun has nothing done; once begun, a
    /// batch runs to its end. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// What `run` answered, or a [`Rejected`].
    pub async fn submit(&self, request: Req) -> Result<Out, E> {
        let (reply, answer) = oneshot::channel();
        let key = (self.shared.key)(&request);
        self.shared.enqueue(Waiting { key, request, reply, span: Span::current() })?;
        answer.await.unwrap_or_else(|_| Err(Rejected::NoAnswer.into()))
    }
}

impl<K, Req, Out, E> Shared<K, Req, Out, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    Req: Send + 'static,
    Out: Send + 'static,
    E: From<Rejected> + Send + 'static,
{
    fn enqueue(self: &Arc<Self>, item: Waiting<K, Req, Out, E>) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.waiting.len() >= self.options.queue {
            // Callers who left make room.
            state.waiting.retain(|item| !item.reply.is_closed());
            if state.waiting.len() >= self.options.queue {
                return Err(Rejected::QueueFull);
            }
        }
        state.waiting.push_back(item);
        self.start_worker(&mut state);
        Ok(())
    }

    fn start_worker(self: &Arc<Self>, state: &mut State<K, Req, Out, E>) {
        if state.workers < self.options.workers.max(1) {
            state.workers += 1;
            tokio::spawn(Worker { shared: Arc::clone(self), keys: Vec::new(), done: false }.work());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, Req, Out, E>> {
        // Nothing in here leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, Req, Out, E> State<K, Req, Out, E> {
    /// The oldest requests that may run together and beside what runs already.
    fn take(&mut self, max_batch: usize) -> Vec<Waiting<K, Req, Out, E>> {
        let mut batch = Vec::new();
        let mut deferred = Vec::new();
        while batch.len() < max_batch.max(1)
            && let Some(item) = self.waiting.pop_front()
        {
            if item.reply.is_closed() {
                continue;
            }
            if self.busy.insert(item.key.clone()) {
                batch.push(item);
            } else {
                deferred.push(item);
            }
        }
        for item in deferred.into_iter().rev() {
            self.waiting.push_front(item);
        }
        batch
    }
}

/// Takes one batch after the other until nothing is left to take.
struct Worker<K, Req, Out, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    Req: Send + 'static,
    Out: Send + 'static,
    E: From<Rejected> + Send + 'static,
{
    shared: Arc<Shared<K, Req, Out, E>>,
    /// The keys of the batch under way.
    keys: Vec<K>,
    done: bool,
}

impl<K, Req, Out, E> Worker<K, Req, Out, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    Req: Send + 'static,
    Out: Send + 'static,
    E: From<Rejected> + Send + 'static,
{
    async fn work(mut self) {
        while let Some(batch) = self.next_batch() {
            let mut requests = Vec::with_capacity(batch.len());
            let mut replies = Vec::with_capacity(batch.len());
            let mut spans = Vec::with_capacity(batch.len());
            for item in batch {
                requests.push(item.request);
                replies.push(item.reply);
                spans.push(item.span);
            }
            let span = batch_span(&spans);
            let answers = (self.shared.run)(requests).instrument(span).await;
            // A reply without an answer is dropped, which its caller hears as NoAnswer.
            for (reply, answer) in replies.into_iter().zip(answers) {
                // The caller may have left meanwhile.
                let _ = reply.send(answer);
            }
        }
    }

    fn next_batch(&mut self) -> Option<Vec<Waiting<K, Req, Out, E>>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        for key in self.keys.drain(..) {
            state.busy.remove(&key);
        }
        let batch = state.take(shared.options.max_batch);
        if batch.is_empty() {
            // What still waits has its key in another worker's batch; that worker comes back.
            state.workers -= 1;
            self.done = true;
            return None;
        }
        self.keys.extend(batch.iter().map(|item| item.key.clone()));
        if !state.waiting.is_empty() {
            shared.start_worker(&mut state);
        }
        Some(batch)
    }
}

impl<K, Req, Out, E> Drop for Worker<K, Req, Out, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    Req: Send + 'static,
    Out: Send + 'static,
    E: From<Rejected> + Send + 'static,
{
    /// After a panic somebody else must go on with the queue.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.shared.lock();
        for key in self.keys.drain(..) {
            state.busy.remove(&key);
        }
        state.workers -= 1;
        if !std::thread::panicking() {
            // The runtime is going away, and nothing can be started on it.
            state.waiting.clear();
        } else if !state.waiting.is_empty() {
            self.shared.start_worker(&mut state);
        }
    }
}

/// The batch belongs to the trace of its first caller and is linked to those of the others.
fn batch_span(callers: &[Span]) -> Span {
    let Some((first, others)) = callers.split_first() else {
        return Span::none();
    };
    let span = tracing::info_span!(parent: first, "db.group.commit", count = callers.len());
    for other in others {
        span.follows_from(other);
    }
    span
}

#[cfg(test)]
#[path = "group_commit_tests.rs"]
mod tests;
