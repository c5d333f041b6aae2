//! The search documents of creates, made while their bodies are put.
//!
//! A document is a third of what a pivot costs PostgreSQL, and nothing in it needs the pivot: it is
//! made of words that are known at the begin. Whoever has just begun leaves them here; a commit takes
//! the document, if it is of the same words, and makes its own otherwise. So nothing depends on this:
//! it is for the caller who is alone. Where many are at work there is nothing to be gained, and all but
//! a few find no room.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::database::Database;
use crate::domain::{Change, OperationId, Words};

/// The configuration is looked up as the pivot does it.
const MAKE: &str = "
    SELECT synap_search_document($1, $2, $3, $4, synap_search_language($5))::text";

/// Documents that are made or kept at once.
const ROOM: usize = 4;
/// How long one is kept for a commit that does not come.
const KEPT: Duration = Duration::from_secs(5);
/// How long a commit waits for one that is being made.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(super) struct Documents {
    database: Database,
    language: Arc<str>,
    made: Arc<Mutex<Vec<Made>>>,
}

struct Made {
    operation: OperationId,
    words: Arc<Words>,
    since: Instant,
    /// `None` if the database did not make it.
    document: JoinHandle<Option<String>>,
}

impl Documents {
    pub(super) fn new(database: Database, language: Arc<str>) -> Self {
        Self { database, language, made: Arc::default() }
    }

    /// Begins to make the document of an operation that has begun, if there is room.
    pub(super) fn make(&self, operation: &OperationId, words: Words) {
        let mut made = self.lock();
        made.retain(|other| other.since.elapsed() < KEPT && other.operation != *operation);
        if made.len() == ROOM {
            return;
        }
        let words = Arc::new(words);
        let (database, language) = (self.database.clone(), Arc::clone(&self.language));
        let document = tokio::spawn({
            let (user, words) = (operation.user.clone(), Arc::clone(&words));
            async move {
                let mut connection = database.across_users().await.ok()?;
                sqlx::query_scalar(MAKE)
                    .bind(user.as_str())
                    .bind(words.title.as_deref())
                    .bind(&words.text)
                    .bind(&words.tags)
                    .bind(&*language)
                    .fetch_one(&mut *connection)
                    .await
                    .inspect_err(|error| tracing::debug!(%error, "no document ahead"))
                    .ok()
            }
        });
        made.push(Made { operation: operation.clone(), words, since: Instant::now(), document });
    }

    /// The document of an operation that is about to commit, if it was made of what is committed.
    pub(super) async fn take(&self, change: &Change) -> Option<String> {
        let made = {
            let mut made = self.lock();
            let place = made.iter().position(|m| m.operation == change.attempt.operation)?;
            made.swap_remove(place)
        };
        let create = &change.create;
        let same = made.words.title == create.title
            && made.words.tags == create.tags
            && create.search_text.as_ref() == Some(&made.words.text);
        if !same {
            return None;
        }
        tokio::time::timeout(PATIENCE, made.document).await.ok()?.ok()?
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
