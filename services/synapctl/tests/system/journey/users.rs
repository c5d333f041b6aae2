//! Users who write all the while, and keep to what they are told.
//!
//! A write that is not answered is repeated with its request id until it is: then it has happened
//! once. Or it is given up: it was for one version only, so that it cannot come true any more once a
//! later one did, and until then the note is either.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use synap_proto::{gateway::Note, reason};
use synap_rpc::{Channel, RpcError};
use synap_types::Checksum;
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use super::book::{Book, Entry, State};
use crate::support::{Client, Name, System, token, within};

/// How often one of them does something: people think in between.
const PACE: Duration = Duration::from_millis(150);
/// Nothing is away for longer.
const AWAY: Duration = Duration::from_mins(2);

pub struct Users {
    tasks: JoinSet<User>,
    stop: CancellationToken,
    acknowledged: Arc<AtomicUsize>,
    /// With what no user has.
    book: Book,
}

struct User {
    number: usize,
    gateway: Channel,
    rng: Rng,
    pace: Interval,
    mine: Vec<(Uuid, Entry)>,
    unanswered: HashSet<Checksum>,
    written: usize,
    acknowledged: Arc<AtomicUsize>,
}

#[derive(Debug, Clone)]
enum Change {
    Rewrite(String),
    Delete,
    Undelete,
}

impl Users {
    /// Takes the notes of V0.2 and begins.
    pub async fn start(system: &System, users: usize) -> Self {
        let (mut book, mut notes) = (Book::default(), vec![Vec::new(); users]);
        for (number, old) in system.old_entities().await.into_iter().enumerate() {
            if old.is_note {
                notes[number % users].push((old.id, old.entry()));
            } else {
                book.entries.insert(old.id, old.entry());
            }
        }
        let (stop, acknowledged, mut tasks) =
            (CancellationToken::new(), Arc::<AtomicUsize>::default(), JoinSet::new());
        for (number, mine) in notes.into_iter().enumerate() {
            let mut pace = interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut user = User {
                number,
                gateway: system.channel(Name::Gateway),
                rng: Rng::with_seed(number as u64),
                pace,
                mine,
                unanswered: HashSet::new(),
                written: 0,
                acknowledged: Arc::clone(&acknowledged),
            };
            let stop = stop.clone();
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    user.act().await;
                }
                user
            });
        }
        Self { tasks, stop, acknowledged, book }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until they have been told of some more writes.
    pub async fn go_on(&self) {
        let enough = self.acknowledged() + self.tasks.len();
        within(AWAY, "users go on", || async { self.acknowledged() >= enough }).await;
    }

    pub async fn end(mut self) -> Book {
        self.stop.cancel();
        while let Some(user) = self.tasks.join_next().await {
            let user = user.unwrap();
            self.book.entries.extend(user.mine);
            self.book.unanswered.extend(user.unanswered);
        }
        self.book
    }
}

/// Whether the write may have happened, and may not.
fn is_open(status: &Status) -> bool {
    let away = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
    away.contains(&status.code()) || is(status, reason::REQUEST_IN_PROGRESS)
}

fn is(status: &Status, reason: &str) -> bool {
    RpcError::from_status(status).reason == reason
}

fn body_of(text: &str) -> Option<Checksum> {
    (!text.is_empty()).then(|| Checksum::of(text.as_bytes()))
}

impl User {
    async fn act(&mut self) {
        let one = self.rng.usize(..self.mine.len());
        let Entry { now, maybe, .. } = &self.mine[one].1;
        let (deleted, open) = (now.deleted, !maybe.is_empty());
        let change = match self.rng.u8(..20) {
            0..5 => return self.create().await,
            5..7 => {
                self.read(one).await;
                return;
            }
            _ if deleted => Change::Undelete,
            7..10 => Change::Delete,
            _ => Change::Rewrite(self.text()),
        };
        // What is deleted cannot be read, so its version is not known.
        if open || !deleted && self.rng.u8(..3) == 0 {
            self.try_once(one, &change).await;
        } else {
            self.until_answered(one, &change).await;
        }
    }

    /// Nobody else ever writes it.
    fn text(&mut self) -> String {
        self.written += 1;
        let more = "Grüße, und was man sonst noch schreibt.\n".repeat(self.rng.usize(..100));
        format!("# Text {} of user {}\n\n{more}", self.written, self.number)
    }

    fn client(&self, user: &str) -> Client {
        Client::new(self.gateway.clone(), token(user))
    }

    fn told(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls again and again until there is an answer.
    async fn patiently<T, F>(&mut self, mut call: impl FnMut() -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        loop {
            self.pace.tick().await;
            match call().await {
                Err(status) if is_open(&status) => {
                    assert!(begun.elapsed() < AWAY, "no answer for {AWAY:?}: {status:?}");
                }
                answer => return answer,
            }
        }
    }

    async fn create(&mut self) {
        let text = self.text();
        let of = self.rng.usize(..self.mine.len());
        let user = self.mine[of].1.user.clone();
        let (client, request_id) = (self.client(&user), self.request_id());
        let call = || client.create(&text, &request_id);
        let answer = if self.rng.bool() {
            self.patiently(call).await.map(Some)
        } else {
            self.pace.tick().await;
            match call().await {
                Err(status) if is_open(&status) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let state = State { body: body_of(&text), deleted: false };
        match answer.unwrap() {
            Some((note, _)) => {
                self.mine.push((note.id.parse().unwrap(), Entry::new(&user, state)));
                self.told();
            }
            None => self.unanswered.extend(state.body),
        }
    }

    fn request_id(&mut self) -> String {
        Uuid::from_u128(self.rng.u128(..)).to_string()
    }

    /// Reads a note, which must be what it can be. `None` if it is deleted.
    async fn read(&mut self, one: usize) -> Option<Note> {
        let (id, entry) = &self.mine[one];
        let (client, id) = (self.client(&entry.user), id.to_string());
        let note = match self.patiently(|| client.get(&id)).await {
            Ok(note) => Some(note),
            Err(status) if is(&status, reason::NOT_FOUND) => None,
            Err(status) => panic!("{id}: {status:?}"),
        };
        let body = note.as_ref().map(|note| body_of(&note.content));
        let is = |state: State| match body {
            Some(body) => !state.deleted && state.body == body,
            None => state.deleted,
        };
        let entry = &mut self.mine[one].1;
        assert!(entry.seen(is), "{id} is {note:?}, and not what was acknowledged: {entry:?}");
        note
    }

    /// What a change makes of a note.
    fn after(&self, one: usize, change: &Change) -> State {
        let now = self.mine[one].1.now;
        match change {
            Change::Rewrite(text) => State { body: body_of(text), ..now },
            Change::Delete => State { deleted: true, ..now },
            Change::Undelete => State { deleted: false, ..now },
        }
    }

    async fn until_answered(&mut self, one: usize, change: &Change) {
        let (id, entry) = &self.mine[one];
        let (client, id) = (self.client(&entry.user), id.to_string());
        let request_id = self.request_id();
        let answer = self.patiently(|| send(&client, &id, change, "", &request_id)).await;
        answer.unwrap_or_else(|status| panic!("{change:?} of {id}: {status:?}"));
        let after = self.after(one, change);
        self.mine[one].1.acknowledged(after);
        self.told();
    }

    async fn try_once(&mut self, one: usize, change: &Change) {
        let Some(Note { id, etag, .. }) = self.read(one).await else { return };
        let (client, request_id) = (self.client(&self.mine[one].1.user), self.request_id());
        self.pace.tick().await;
        let answer = send(&client, &id, change, &etag, &request_id).await;
        let after = self.after(one, change);
        let entry = &mut self.mine[one].1;
        match answer {
            Ok(()) => {
                entry.acknowledged(after);
                self.told();
            }
            Err(status) if is_open(&status) => entry.maybe.push(after),
            Err(status) => {
                // One that was given up has come true after it was read.
                let late = is(&status, reason::ETAG_MISMATCH) && !entry.maybe.is_empty();
                assert!(late, "{change:?} of {id}: {status:?}");
                self.read(one).await;
                assert!(self.mine[one].1.maybe.is_empty(), "another version of {id}");
            }
        }
    }
}

async fn send(
    client: &Client,
    id: &str,
    change: &Change,
    etag: &str,
    request_id: &str,
) -> Result<(), Status> {
    match change {
        Change::Rewrite(text) => {
            let (id, etag) = (id.to_owned(), etag.to_owned());
            let note = Note { id, etag, content: text.clone(), ..Note::default() };
            client.update(note, &["content"], request_id).await?;
        }
        Change::Delete => {
            client.delete(id, etag, request_id).await?;
        }
        Change::Undelete => {
            client.undelete(id, etag, request_id).await?;
        }
    }
    Ok(())
}
