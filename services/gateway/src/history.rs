//! ListNoteRevisions and GetNoteHistory: what a note was, and what happened to it.

use synap_proto::{
    field::{self, Checked, Violation},
    gateway::{GetNoteHistoryRequest, ListNoteRevisionsRequest},
};
use synap_types::UserId;

use crate::{clients::EntityEvent, domain::Entity, error::Error, notes::NoteApi};

/// Items of a page where nothing is said, and at most (AIP-158).
const PAGE_SIZE: i32 = 50;
const MAX_PAGE_SIZE: i32 = 200;

/// A part of a list.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Asks for the next page; empty on the last one.
    pub(crate) next: String,
}

impl NoteApi {
    /// What a note was at each of its versions, newest first.
    pub(crate) async fn revisions(
        &self,
        user: &UserId,
        request: &ListNoteRevisionsRequest,
    ) -> Result<Page<Entity>, Error> {
        let id = field::uuid("id", &request.id)?;
        let size = page_size(request.page_size)?;
        let before = place(&request.page_token)?;
        let found = self.reader.entity.revisions(user, "note", id, before, size + 1).await?;
        Ok(page(found.ok_or(Error::NoteNotFound)?, size, |last| last.version))
    }

    /// The events of a note, oldest first. Those of a deleted note can be read, too.
    pub(crate) async fn history(
        &self,
        user: &UserId,
        request: &GetNoteHistoryRequest,
    ) -> Result<Page<EntityEvent>, Error> {
        let id = field::uuid("id", &request.id)?;
        let size = page_size(request.page_size)?;
        let after = place(&request.page_token)?;
        let from = i64::from(after) + 1;
        let events = self.saga.event.read_stream(user, "note", id, from, size + 1).await?;
        if events.is_empty() && after == 0 {
            // A note of V0.2 that nobody has changed since, or none.
            self.reader.note(user, id, 0, false).await?;
        }
        Ok(page(events, size, |last| i32::try_from(last.version).unwrap_or(i32::MAX)))
    }
}

fn page_size(asked: i32) -> Checked<i32> {
    match asked {
        0 => Ok(PAGE_SIZE),
        1.. => Ok(asked.min(MAX_PAGE_SIZE)),
        _ => Err(Violation::new("page_size", "must not be negative")),
    }
}

/// The version at which the last page ended; 0 for the first page.
fn place(token: &str) -> Checked<i32> {
    if token.is_empty() {
        return Ok(0);
    }
    let version = token.parse().ok().filter(|version| *version > 0);
    version.ok_or_else(|| Violation::new("page_token", "is none of ours"))
}

/// Cuts off the item that only told that there is another page.
fn page<T>(mut items: Vec<T>, size: i32, version: impl Fn(&T) -> i32) -> Page<T> {
    let size = usize::try_from(size).unwrap_or_default();
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.map(|last| version(last).to_string()).unwrap_or_default();
    Page { items, next }
}
