//! Users who write all the while, and what they were told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, stream};
use synap_proto::reason;
use tokio::{sync::RwLock, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{Client, SOON, System, eventually, markdown, refusal::assert_status};

const WRITERS: usize = 4;

fn notes() -> usize {
    std::env::var("SYNAP_TEST_NOTES").map_or(40, |notes| notes.parse().unwrap())
}

/// What each note's last acknowledged write left, by user and id; `None` is deleted.
pub type Book = Arc<Mutex<BTreeMap<(usize, String), Option<String>>>>;

/// Users who create, change and delete their notes until they are told to stop.
pub struct Users {
    book: Book,
    stop: CancellationToken,
    /// Held by each write; whoever holds it alone has them all wait.
    gate: Arc<RwLock<()>>,
    tasks: JoinSet<()>,
}

impl Users {
    pub fn start(system: &System) -> Self {
        let (book, stop, mut tasks) = (Book::default(), CancellationToken::new(), JoinSet::new());
        let gate = Arc::<RwLock<()>>::default();
        let texts: Arc<[String]> = markdown::files().into();
        for user in 0..WRITERS {
            let client = system.client(&format!("user-{user}"));
            tasks.spawn(write_on(
                client,
                user,
                Arc::clone(&texts),
                book.clone(),
                (gate.clone(), stop.clone()),
            ));
        }
        Self { book, stop, gate, tasks }
    }

    pub fn written(&self) -> usize {
        self.book.lock().unwrap().len()
    }

    /// Waits until there are some more notes.
    pub async fn go_on(&self) {
        let enough = self.written() + WRITERS;
        eventually("users go on writing", || async { self.written() >= enough }).await;
    }

    /// Checks everything, between two writes of everybody, and lets them go on for a while.
    pub async fn check(&self, system: &System) {
        let quiet = self.gate.write().await;
        check(system, &self.book).await;
        drop(quiet);
        self.go_on().await;
    }

    pub async fn end(mut self) -> Book {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.book
    }
}

/// One note at a time, so that only the last call's outcome can be unknown: it is asked for until it
/// is known, with the request id that makes it one write.
async fn write_on(
    client: Client,
    user: usize,
    texts: Arc<[String]>,
    book: Book,
    (gate, stop): (Arc<RwLock<()>>, CancellationToken),
) {
    let mut mine: Vec<String> = Vec::new();
    for number in 0.. {
        let _turn = gate.read().await;
        if stop.is_cancelled() {
            break;
        }
        let text = &texts[(user * 31 + number) % texts.len()];
        let text = &text[..text.floor_char_boundary(text.len().min(24 * 1024))];
        let body = format!("note {number} of user {user}\n\n{text}");
        let some = mine.get(number * 7 % mine.len().max(1)).cloned();
        let (id, now) = match (number % 5, some) {
            (2 | 3, Some(id)) => {
                until_answered(|| client.rewrite(&id, &body)).await;
                (id, Some(body))
            }
            (4, Some(id)) if mine.len() > 3 => {
                let gone = until_answered(|| async {
                    match client.delete(&id, "", "").await {
                        // The answer to a deletion that went through was lost.
                        Err(status) if status.code() == Code::NotFound => Ok(None),
                        answer => answer.map(Some),
                    }
                });
                gone.await;
                mine.retain(|one| *one != id);
                (id, None)
            }
            _ => {
                let request = uuid::Uuid::from_u64_pair(user as u64 + 1, number as u64).to_string();
                let note = until_answered(|| client.create(&body, &request)).await.0;
                mine.push(note.id.clone());
                (note.id, Some(body))
            }
        };
        book.lock().unwrap().insert((user, id), now);
    }
}

async fn until_answered<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, tonic::Status>>,
{
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(status) => assert!(begun.elapsed() < SOON, "never answered: {status:?}"),
        }
    }
}

/// Every body is what its last writer wrote, and what is deleted stays so.
pub async fn check(system: &System, book: &Book) {
    let notes = book.lock().unwrap().clone();
    let reads = stream::iter(notes).map(|((user, id), text)| async move {
        let client = system.client(&format!("user-{user}"));
        if let Some(text) = text {
            assert_eq!(client.get(&id).await.unwrap().content, text, "{id}");
        } else {
            let gone = client.get(&id).await.unwrap_err();
            assert_status(&gone, Code::NotFound, reason::NOT_FOUND);
        }
    });
    reads.buffer_unordered(8).collect::<()>().await;
}

pub async fn some_notes(system: &System) -> Book {
    let users = Users::start(system);
    while users.written() < notes() {
        users.go_on().await;
    }
    let book = users.end().await;
    system.settled().await;
    book
}
