//! What both edges, gRPC and HTTP, do with a note: check the request, and pass it on.

use std::time::Duration;

use synap_proto::{
    field,
    gateway::{CreateNoteRequest, GetNoteRequest, ListNotesRequest, SearchNotesRequest},
};
use synap_rpc::deadline;
use synap_types::UserId;
use tracing::Instrument as _;

use crate::{
    domain::{Note, NoteDraft},
    error::Error,
    list_notes::{Finder, Page},
    read_note::Reader,
    saga::{Saga, Written},
    search_notes::Found,
};

/// A note's write ends after this, however patient its caller is: a note is small.
const WRITE_LIMIT: Duration = Duration::from_mins(5);

/// The public API, whatever it is spoken in.
#[derive(Clone)]
pub(crate) struct NoteApi {
    pub(crate) saga: Saga,
    pub(crate) reader: Reader,
    pub(crate) finder: Finder,
    pub(crate) max_note_bytes: usize,
}

impl NoteApi {
    /// Stores a note.
    pub(crate) async fn create(
        &self,
        user: UserId,
        request: CreateNoteRequest,
    ) -> Result<Written, Error> {
        let request_id = field::optional_uuid("request_id", &request.request_id)?;
        let request_id = request_id.unwrap_or_else(|| self.saga.ids.next_id());
        let draft = NoteDraft::check(request, self.max_note_bytes)?;

        // A write that has begun is carried to its end, even if its caller hangs up.
        let saga = self.saga.clone();
        let limit = deadline::remaining().unwrap_or_default().min(WRITE_LIMIT);
        let write =
            deadline::within(limit, async move { saga.create_note(user, request_id, draft).await });
        let write = tokio::spawn(write.in_current_span());
        write.await.map_err(|_| Error::contract("gateway", "the write ended early"))??
    }

    /// Reads a note.
    pub(crate) async fn get(&self, user: &UserId, request: &GetNoteRequest) -> Result<Note, Error> {
        let id = field::uuid("id", &request.id)?;
        self.reader.note(user, id, request.include_content).await
    }

    /// Lists notes.
    pub(crate) async fn list(
        &self,
        user: &UserId,
        request: ListNotesRequest,
    ) -> Result<Page<Note>, Error> {
        self.finder.list(user, request).await
    }

    /// Searches notes.
    pub(crate) async fn search(
        &self,
        user: &UserId,
        request: SearchNotesRequest,
    ) -> Result<Found, Error> {
        self.finder.search(user, request).await
    }
}
