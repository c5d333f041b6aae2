//! ListNoteRevisions and GetNoteHistory: what a note was, and what happened to it.

use synap_proto::{
    field::{self, Checked},
    gateway::{GetNoteHistoryRequest, ListNoteRevisionsRequest},
};
use synap_types::{Checksum, UserId};
use uuid::Uuid;

use crate::{
    clients::EntityEvent,
    domain::{Entity, page_size},
    error::Error,
    list_notes::Page,
    notes::NoteApi,
};

impl NoteApi {
    /// What a note was at each of its versions, newest first.
    pub(crate) async fn revisions(
        &self,
        user: &UserId,
        request: &ListNoteRevisionsRequest,
    ) -> Result<Page<Entity>, Error> {
        let id = field::uuid("id", &request.id)?;
        let list = List { method: b"notes.revisions", id, size: page_size(request.page_size)? };
        let before = self.place(user, &list, &request.page_token)?.unwrap_or(0);
        let found = self.reader.entity.revisions(user, "note", id, before, list.ask()).await?;
        let found = found.ok_or(Error::NoteNotFound)?;
        Ok(self.page(user, &list, found, |last| last.version))
    }

    /// The events of a note, oldest first. Those of a deleted note can be read, too.
    pub(crate) async fn history(
        &self,
        user: &UserId,
        request: &GetNoteHistoryRequest,
    ) -> Result<Page<EntityEvent>, Error> {
        let id = field::uuid("id", &request.id)?;
        let list = List { method: b"notes.history", id, size: page_size(request.page_size)? };
        let after = self.place(user, &list, &request.page_token)?;
        // Events of V0.2 may have versions below 1, and event-service begins at the first if asked
        // for 0.
        let (from, seen) = match after {
            None => (0, 0),
            Some(-1) => (-1, 1),
            Some(after) => (i64::from(after) + 1, 0),
        };
        let limit = list.ask() + seen;
        let mut events = self.saga.event.read_stream(user, "note", id, from, limit).await?;
        if seen == 1 && !events.is_empty() {
            events.remove(0);
        }
        if events.is_empty() && after.is_none() {
            // A note of V0.2 that nobody has changed since, or none.
            self.reader.note(user, id, 0, false).await?;
        }
        let version = |last: &EntityEvent| i32::try_from(last.version).unwrap_or(i32::MAX);
        Ok(self.page(user, &list, events, version))
    }

    /// The version at which the page before ended.
    fn place(&self, user: &UserId, list: &List, token: &str) -> Checked<Option<i32>> {
        let place = self.finder.tokens.open(user, list.fingerprint(), token)?;
        Ok(place.map(i32::from_be_bytes))
    }

    /// Cuts off the item that only told that there is another page.
    fn page<T>(
        &self,
        user: &UserId,
        list: &List,
        mut items: Vec<T>,
        version: impl Fn(&T) -> i32,
    ) -> Page<T> {
        let more = items.len() > list.size;
        items.truncate(list.size);
        let end = items.last().filter(|_| more).map(version);
        let seal =
            |last: i32| self.finder.tokens.seal(user, list.fingerprint(), &last.to_be_bytes());
        Page { items, next_page_token: end.map(seal).unwrap_or_default() }
    }
}

/// A list about one note.
struct List {
    method: &'static [u8],
    id: Uuid,
    size: usize,
}

impl List {
    /// One more than the page holds: whether there is another page is known without asking again.
    fn ask(&self) -> i32 {
        i32::try_from(self.size).unwrap_or(i32::MAX).saturating_add(1)
    }

    fn fingerprint(&self) -> Checksum {
        Checksum::of(&[self.method, self.id.as_bytes()].concat())
    }
}
