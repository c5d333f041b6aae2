//! Calls that change a note and tell what it was.

use prost_types::FieldMask;
use synap_proto::gateway::{
    DeleteNoteRequest, GetNoteHistoryRequest, GetNoteRequest, ListNoteRevisionsRequest, Note,
    NoteEvent, UndeleteNoteRequest, UpdateNoteRequest,
};
use tonic::{Request, Status};

use super::{Client, SOON};

/// A note that names what is to be changed: of those who have seen this one.
pub fn seen(note: &Note) -> Note {
    Note { id: note.id.clone(), etag: note.etag.clone(), ..Note::default() }
}

impl Client {
    fn soon<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(SOON);
        request
    }

    pub async fn update(
        &self,
        note: Note,
        mask: &[&str],
        request_id: &str,
    ) -> Result<(Note, bool), Status> {
        let paths = mask.iter().map(ToString::to_string).collect();
        let request = self.soon(UpdateNoteRequest {
            note: Some(note),
            update_mask: Some(FieldMask { paths }),
            request_id: request_id.to_owned(),
        });
        let answer = self.stub.clone().update_note(request).await?.into_inner();
        Ok((answer.note.unwrap(), answer.event_pending))
    }

    /// A new body, whatever the note is by now.
    pub async fn rewrite(&self, id: &str, content: &str) -> Result<Note, Status> {
        let note = Note { id: id.to_owned(), content: content.to_owned(), ..Note::default() };
        Ok(self.update(note, &["content"], "").await?.0)
    }

    pub async fn delete(
        &self,
        id: &str,
        etag: &str,
        request_id: &str,
    ) -> Result<(Note, bool), Status> {
        let request = self.soon(DeleteNoteRequest {
            id: id.to_owned(),
            etag: etag.to_owned(),
            request_id: request_id.to_owned(),
        });
        let answer = self.stub.clone().delete_note(request).await?.into_inner();
        Ok((answer.note.unwrap(), answer.event_pending))
    }

    pub async fn undelete(
        &self,
        id: &str,
        etag: &str,
        request_id: &str,
    ) -> Result<(Note, bool), Status> {
        let request = self.soon(UndeleteNoteRequest {
            id: id.to_owned(),
            etag: etag.to_owned(),
            request_id: request_id.to_owned(),
        });
        let answer = self.stub.clone().undelete_note(request).await?.into_inner();
        Ok((answer.note.unwrap(), answer.event_pending))
    }

    /// The note as it was at a version, with its body.
    pub async fn get_at(&self, id: &str, revision: i32) -> Result<Note, Status> {
        let message = GetNoteRequest { id: id.to_owned(), include_content: true, revision };
        let answer = self.stub.clone().get_note(self.soon(message)).await?;
        Ok(answer.into_inner().note.unwrap())
    }

    /// All revisions, page by page.
    pub async fn revisions(&self, id: &str, page_size: i32) -> Result<Vec<Note>, Status> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let id = id.to_owned();
            let request = self.soon(ListNoteRevisionsRequest { id, page_size, page_token });
            let page = self.stub.clone().list_note_revisions(request).await?.into_inner();
            assert!(page_size == 0 || page.revisions.len() <= page_size.unsigned_abs() as usize);
            all.extend(page.revisions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// All events, page by page.
    pub async fn history(&self, id: &str, page_size: i32) -> Result<Vec<NoteEvent>, Status> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let id = id.to_owned();
            let request = self.soon(GetNoteHistoryRequest { id, page_size, page_token });
            let page = self.stub.clone().get_note_history(request).await?.into_inner();
            assert!(page_size == 0 || page.events.len() <= page_size.unsigned_abs() as usize);
            all.extend(page.events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }
}
