//! What every entity must be: what V0.2 left, and what users were told since. Bodies by their hash.

use std::collections::{HashMap, HashSet};

use synap_types::Checksum;
use uuid::Uuid;

use crate::support::System;

/// What an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Of its body; `None` where it has no text.
    pub body: Option<Checksum>,
    pub deleted: bool,
}

/// An entity of the book.
#[derive(Debug, Clone)]
pub struct Entry {
    pub user: String,
    /// As the last acknowledged write left it.
    pub now: State,
    /// What writes that nobody answered would have made of it. Each was only for the version that
    /// [`now`](Self::now) is at: one of them came true at most, and none after the next acknowledged
    /// one.
    pub maybe: Vec<State>,
}

impl Entry {
    pub fn new(user: &str, now: State) -> Self {
        Self { user: user.to_owned(), now, maybe: Vec::new() }
    }

    pub fn acknowledged(&mut self, now: State) {
        (self.now, self.maybe) = (now, Vec::new());
    }

    /// What it can be by now.
    pub fn states(&self) -> impl Iterator<Item = State> {
        std::iter::once(self.now).chain(self.maybe.iter().copied())
    }

    /// It was seen to be this; whether that can be.
    pub fn seen(&mut self, is: impl Fn(State) -> bool) -> bool {
        if is(self.now) {
            return true;
        }
        let found = self.maybe.iter().copied().find(|state| is(*state));
        if let Some(found) = found {
            self.acknowledged(found);
        }
        found.is_some()
    }
}

/// Every entity.
#[derive(Default)]
pub struct Book {
    pub entries: HashMap<Uuid, Entry>,
    /// Bodies of notes of which nobody knows whether they are there.
    pub unanswered: HashSet<Checksum>,
}

/// An entity of V0.2.
pub struct Old {
    pub id: Uuid,
    pub user_id: String,
    pub is_note: bool,
    deleted: bool,
    hash: Option<Vec<u8>>,
}

synap_postgres::from_row!(Old { id, user_id, is_note, deleted, hash });

impl Old {
    pub fn entry(&self) -> Entry {
        let body = self.hash.as_deref().map(|hash| Checksum::from_bytes(hash).unwrap());
        Entry::new(&self.user_id, State { body, deleted: self.deleted })
    }
}

impl System {
    /// What V0.2 left.
    pub async fn old_entities(&self) -> Vec<Old> {
        let mut transaction = self.database.pool.begin().await.unwrap();
        // It reads gigabytes where there are many.
        sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await.unwrap();
        sqlx::query_as(
            "SELECT e.id, e.user_id, e.type = 'note' AS is_note, e.deleted_at IS NOT NULL AS deleted,
                    CASE WHEN b.content <> '' THEN sha256(convert_to(b.content, 'UTF8')) END AS hash
             FROM entities e LEFT JOIN content_blocks b ON b.entity_id = e.id ORDER BY e.id",
        )
        .fetch_all(&mut *transaction)
        .await
        .unwrap()
    }
}
