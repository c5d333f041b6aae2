//! What both edges, gRPC and HTTP, do with a note: check the request, and pass it on.

use std::time::Duration;

use synap_proto::{
    field,
    gateway::{
        CreateNoteRequest, DeleteNoteRequest, GetNoteRequest, ListNotesRequest, SearchNotesRequest,
        UndeleteNoteRequest, UpdateNoteRequest,
    },
};
use synap_types::UserId;
use uuid::Uuid;

use crate::{
    domain::{Note, NoteDraft, NoteUpdate, check_etag, etag},
    error::Error,
    list_notes::{Finder, Page},
    read_note::Reader,
    saga::{Saga, Target, Written, carry_out},
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
        let request_id = self.request_id(&request.request_id)?;
        let draft = NoteDraft::check(request, self.max_note_bytes)?;

        let saga = self.saga.clone();
        carry_out(WRITE_LIMIT, async move { saga.create_note(user, request_id, draft).await }).await
    }

    /// Changes a note.
    pub(crate) async fn update(
        &self,
        user: UserId,
        request: UpdateNoteRequest,
    ) -> Result<Written, Error> {
        let request_id = self.request_id(&request.request_id)?;
        let update = NoteUpdate::check(request, &user, self.max_note_bytes)?;
        let (saga, id, owner) = (self.saga.clone(), update.id, user.clone());
        carry_out(WRITE_LIMIT, async move { saga.update_note(owner, request_id, update).await })
            .await
            .map_err(|why| about_the_note(why, &user, id))
    }

    /// Deletes a note.
    pub(crate) async fn delete(
        &self,
        user: UserId,
        request: &DeleteNoteRequest,
    ) -> Result<Written, Error> {
        let request_id = self.request_id(&request.request_id)?;
        let target = target(&user, &request.id, &request.etag)?;
        let (saga, id) = (self.saga.clone(), target.id);
        carry_out(WRITE_LIMIT, async move { saga.delete(target, request_id).await })
            .await
            .map_err(|why| about_the_note(why, &user, id))
    }

    /// Takes the deletion of a note back.
    pub(crate) async fn undelete(
        &self,
        user: UserId,
        request: &UndeleteNoteRequest,
    ) -> Result<Written, Error> {
        let request_id = self.request_id(&request.request_id)?;
        let target = target(&user, &request.id, &request.etag)?;
        let (saga, id) = (self.saga.clone(), target.id);
        carry_out(WRITE_LIMIT, async move { saga.undelete(target, request_id).await })
            .await
            .map_err(|why| about_the_note(why, &user, id))
    }

    /// Reads a note.
    pub(crate) async fn get(&self, user: &UserId, request: &GetNoteRequest) -> Result<Note, Error> {
        let id = field::uuid("id", &request.id)?;
        let revision = field::within("revision", request.revision, 0, i32::MAX)?;
        self.reader.note(user, id, revision, request.include_content).await
    }

    fn request_id(&self, text: &str) -> Result<Uuid, Error> {
        let id = field::optional_uuid("request_id", text)?;
        Ok(id.unwrap_or_else(|| self.saga.ids.next_id()))
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

fn target(user: &UserId, id: &str, etag: &str) -> Result<Target, Error> {
    let id = field::uuid("id", id)?;
    let expected_version = check_etag("etag", etag, user.as_str(), id)?;
    Ok(Target { user: user.clone(), entity_type: "note".to_owned(), id, expected_version })
}

fn about_the_note(error: Error, user: &UserId, id: Uuid) -> Error {
    error.about(Error::NoteNotFound, |version| etag(user.as_str(), id, version))
}
