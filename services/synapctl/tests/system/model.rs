//! Random operations of several users at once, each checked against a plain model of what must come
//! of it. A run says its seed; `SYNAP_TEST_SEED` repeats one.

mod book;
mod change;

use fastrand::Rng;
use futures::future::join_all;
use synap_proto::{
    gateway::{CreateNoteRequest, ListNotesRequest, Note, SearchNotesRequest},
    reason,
};
use tonic::{Code, Status};
use uuid::Uuid;

use self::{
    book::{Book, Expected, KEPT, Refusal, Version},
    change::{Change, FOREIGN, WORDS, masked, tags},
};
use crate::support::{
    Client, System, eventually, full_size,
    refusal::{assert_etag, assert_field, assert_status},
};

/// Together 10,000 steps at full size.
const USERS: usize = 20;

/// One user, and what the system must know of them.
struct User {
    client: Client,
    rng: Rng,
    book: Book,
    /// Changes that were asked for, with their request ids.
    asked: Vec<(Change, String)>,
    step: usize,
    /// What the step does, for a failing test.
    doing: String,
}

impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("step {} disagrees: {}", self.step, self.doing);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_never_disagrees_with_a_plain_model() {
    let given = std::env::var("SYNAP_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SYNAP_TEST_SEED={seed}");
    let steps = full_size(80, 500);
    let mut rng = Rng::with_seed(seed);

    let mut system = System::new().await;
    system.environment.push(("REVISION_COUNT", KEPT.to_string()));
    system.start_all(None).await;
    let users = (0..USERS).map(|n| {
        let (client, rng) = (system.client(&format!("user {n}")), rng.fork());
        let (book, asked, doing) = (Book::default(), Vec::new(), String::new());
        tokio::spawn(async move {
            let mut user = User { client, rng, book, asked, step: 0, doing };
            for step in 1..=steps {
                user.step = step;
                user.act().await;
            }
            std::mem::take(&mut user.book)
        })
    });
    let books = join_all(users).await;

    system.settled().await;
    let mut kept = system.check_everything().await;
    for book in books {
        for Version { note, content, .. } in book.unwrap().all() {
            let found = kept.remove(&note.id).unwrap();
            assert_eq!((found.body, found.version), (content.clone().into_bytes(), note.version));
            assert_eq!(found.deleted, note.delete_time.is_some());
        }
    }
    assert!(kept.is_empty(), "notes that nobody wrote: {:?}", kept.keys());
}

impl User {
    async fn act(&mut self) {
        match self.rng.u8(..100) {
            0..9 => {
                let change = Change::create(&mut self.rng);
                self.ask(change).await;
            }
            9..19 => {
                let (id, seen) = self.some_note();
                let change = Change::update(&mut self.rng, id, seen);
                self.ask(change).await;
            }
            19..23 => {
                let (id, seen) = self.some_note();
                self.ask(Change::Delete { id, seen }).await;
            }
            23..27 => {
                let (id, seen) = self.some_note();
                self.ask(Change::Undelete { id, seen }).await;
            }
            27..31 => self.ask_again().await,
            31..33 => self.ask_something_else().await,
            33..87 => self.get(0).await,
            87..93 => {
                let revision = self.rng.usize(1..8);
                self.get(revision).await;
            }
            93 => self.look_back().await,
            94..97 => self.list().await,
            _ => self.search().await,
        }
    }

    /// A note of the user's or now and then none, and the version that somebody has seen of it.
    fn some_note(&mut self) -> (String, Option<usize>) {
        if self.book.is_empty() || self.rng.u8(..20) == 0 {
            return (Uuid::from_u128(self.rng.u128(..)).to_string(), None);
        }
        // Few notes get most of the changes: their old versions go.
        let few = if self.rng.bool() { self.book.len().min(10) } else { self.book.len() };
        let versions = self.book.at(self.rng.usize(..few));
        let seen = match self.rng.u8(..10) {
            0..5 => None,
            5..8 => Some(versions.len()),
            8 => Some(self.rng.usize(1..=versions.len())),
            _ => Some(FOREIGN),
        };
        (versions[0].note.id.clone(), seen)
    }

    /// A change under a request id of its own. All users have the same ids.
    async fn ask(&mut self, change: Change) {
        let request_id = Uuid::from_u128(self.asked.len() as u128 + 1).to_string();
        self.asked.push((change.clone(), request_id.clone()));
        self.carry_out(change, &request_id).await;
    }

    async fn ask_again(&mut self) {
        let Some((change, request_id)) = self.rng.choice(&self.asked).cloned() else { return };
        self.carry_out(change, &request_id).await;
    }

    /// Another change under a request id that stands for one already.
    async fn ask_something_else(&mut self) {
        let Some((_, request_id)) = self.rng.choice(&self.asked).cloned() else { return };
        let (id, seen) = self.some_note();
        let change = match self.rng.u8(..3) {
            0 => Change::create(&mut self.rng),
            1 => Change::update(&mut self.rng, id, seen),
            _ => Change::Delete { id, seen },
        };
        self.carry_out(change, &request_id).await;
    }

    async fn carry_out(&mut self, change: Change, request_id: &str) {
        let expected = self.book.expect(&change, request_id);
        self.doing = format!("{request_id} {change:?}, expected {expected:?}");
        let answer = self.send(&change, request_id).await;
        match expected {
            Expected::Refused(refusal) => {
                assert_refused(&answer.unwrap_err(), &refusal);
                self.book.refuse(&change, request_id);
            }
            Expected::Replayed(note) => assert_eq!(answer.unwrap(), note),
            Expected::Written(version) => {
                self.book.write(&change, request_id, version, &answer.unwrap());
            }
        }
    }

    async fn send(&mut self, change: &Change, request_id: &str) -> Result<Note, Status> {
        let etag = change.id().map(|id| self.book.etag(id, change.seen())).unwrap_or_default();
        let (client, request_id) = (&self.client, request_id.to_owned());
        let answer = match change.clone() {
            Change::Create { content, title, tags } => {
                let rest = CreateNoteRequest::default();
                let request = CreateNoteRequest { content, title, tags, request_id, ..rest };
                client.send(client.request(request)).await
            }
            Change::Update { id, content, title, tags, .. } => {
                let (note, mask) = masked(&mut self.rng, content, title, tags);
                client.update(Note { id, etag, ..note }, &mask, &request_id).await
            }
            Change::Delete { id, .. } => client.delete(&id, &etag, &request_id).await,
            Change::Undelete { id, .. } => client.undelete(&id, &etag, &request_id).await,
        };
        answer.map(|(note, _)| note)
    }

    async fn get(&mut self, revision: usize) {
        let (id, _) = self.some_note();
        self.doing = format!("get {id} at {revision}");
        let read = self.client.get_at(&id, i32::try_from(revision).unwrap()).await;
        agree(read, self.book.get(&id, revision));
    }

    /// What a note was, and what happened to it.
    async fn look_back(&mut self) {
        let (id, _) = self.some_note();
        let page_size = *self.rng.choice(&[0, 2]).unwrap();
        self.doing = format!("revisions and history of {id} by {page_size}");
        agree(self.client.revisions(&id, page_size).await, self.book.revisions(&id));
        match self.book.history(&id) {
            Ok(expected) => {
                // An event may come later than the answer to its write.
                eventually(&self.doing, || async {
                    let events = self.client.history(&id, page_size).await.unwrap();
                    let told = events.into_iter().map(|one| (one.r#type, one.version));
                    told.collect::<Vec<_>>() == expected
                })
                .await;
            }
            Err(refusal) => {
                let refused = self.client.history(&id, page_size).await.unwrap_err();
                assert_refused(&refused, &refusal);
            }
        }
    }

    async fn list(&mut self) {
        let mut request = ListNotesRequest {
            page_size: *self.rng.choice(&[0, 20, 200]).unwrap(),
            show_deleted: self.rng.bool(),
            ..ListNotesRequest::default()
        };
        if self.rng.bool() {
            request.tags = tags(&mut self.rng);
        }
        if !self.book.is_empty() {
            let mut bound = |field: fn(&Note) -> Option<prost_types::Timestamp>| {
                let note = self.book.at(self.rng.usize(..self.book.len())).last().unwrap();
                field(&note.note).filter(|_| self.rng.u8(..4) == 0)
            };
            request.created_from = bound(|note| note.create_time);
            request.created_until = bound(|note| note.create_time);
            request.updated_from = bound(|note| note.update_time);
            request.updated_until = bound(|note| note.update_time);
        }
        self.doing = format!("{request:?}");
        let expected = self.book.list(&request);
        assert_eq!(self.client.list_all(request).await.unwrap(), expected);
    }

    async fn search(&mut self) {
        let [one, other] = [(); 2].map(|()| *self.rng.choice(&WORDS).unwrap());
        let query = match self.rng.u8(..5) {
            0 => one.to_owned(),
            1 => format!("{one} {other}"),
            2 => format!("{one} -{other}"),
            3 => format!("{one} or {other}"),
            _ => format!("{}*", one.chars().take(3).collect::<String>()),
        };
        let page_size = *self.rng.choice(&[0, 7, 100]).unwrap();
        let request = SearchNotesRequest { query, page_size, ..SearchNotesRequest::default() };
        self.doing = format!("{request:?}");
        let mut expected = self.book.search(&request);
        let found = self.client.search_all(request).await.unwrap();
        assert!(found.is_sorted_by(|a, b| a.score >= b.score), "not the best first");
        let mut found: Vec<_> = found.into_iter().map(|one| one.note.unwrap()).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        expected.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(found, expected);
    }
}

#[track_caller]
fn agree<T: PartialEq + std::fmt::Debug>(answer: Result<T, Status>, expected: Result<T, Refusal>) {
    match expected {
        Ok(expected) => assert_eq!(answer.unwrap(), expected),
        Err(refusal) => assert_refused(&answer.unwrap_err(), &refusal),
    }
}

#[track_caller]
fn assert_refused(status: &Status, refusal: &Refusal) {
    match refusal {
        Refusal::NotFound => assert_status(status, Code::NotFound, reason::NOT_FOUND),
        Refusal::NotDeleted => assert_status(status, Code::AlreadyExists, reason::NOT_DELETED),
        Refusal::Etag(current) => assert_etag(status, current),
        Refusal::RequestIdReused => assert_field(status, reason::REQUEST_ID_REUSED, "request_id"),
    }
}
