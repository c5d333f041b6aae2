//! synap.gateway.v1.NoteService

use synap_proto::gateway::{
    CreateNoteRequest, CreateNoteResponse, DeleteNoteRequest, DeleteNoteResponse,
    GetNoteHistoryRequest, GetNoteHistoryResponse, GetNoteRequest, GetNoteResponse,
    ListNoteRevisionsRequest, ListNoteRevisionsResponse, ListNotesRequest, ListNotesResponse,
    SearchNotesRequest, SearchNotesResponse, UndeleteNoteRequest, UndeleteNoteResponse,
    UpdateNoteRequest, UpdateNoteResponse, note_service_server::NoteService,
};
use tonic::{Request, Response, Status};

use super::caller;
use crate::notes::NoteApi;

/// The public API over gRPC.
pub(crate) struct Notes {
    pub(crate) api: NoteApi,
}

#[tonic::async_trait]
impl NoteService for Notes {
    async fn create_note(
        &self,
        request: Request<CreateNoteRequest>,
    ) -> Result<Response<CreateNoteResponse>, Status> {
        let user = caller(&request)?;
        let created = self.api.create(user, request.into_inner()).await?;
        Ok(Response::new(created.into()))
    }

    async fn get_note(
        &self,
        request: Request<GetNoteRequest>,
    ) -> Result<Response<GetNoteResponse>, Status> {
        let user = caller(&request)?;
        let note = self.api.get(&user, &request.into_inner()).await?;
        Ok(Response::new(GetNoteResponse { note: Some(note.into()) }))
    }

    async fn update_note(
        &self,
        request: Request<UpdateNoteRequest>,
    ) -> Result<Response<UpdateNoteResponse>, Status> {
        let user = caller(&request)?;
        let updated = self.api.update(user, request.into_inner()).await?;
        Ok(Response::new(updated.into()))
    }

    async fn delete_note(
        &self,
        request: Request<DeleteNoteRequest>,
    ) -> Result<Response<DeleteNoteResponse>, Status> {
        let user = caller(&request)?;
        let deleted = self.api.delete(user, request.get_ref()).await?;
        Ok(Response::new(deleted.into()))
    }

    async fn undelete_note(
        &self,
        request: Request<UndeleteNoteRequest>,
    ) -> Result<Response<UndeleteNoteResponse>, Status> {
        let user = caller(&request)?;
        let restored = self.api.undelete(user, request.get_ref()).await?;
        Ok(Response::new(restored.into()))
    }

    async fn list_note_revisions(
        &self,
        request: Request<ListNoteRevisionsRequest>,
    ) -> Result<Response<ListNoteRevisionsResponse>, Status> {
        let user = caller(&request)?;
        let page = self.api.revisions(&user, request.get_ref()).await?;
        Ok(Response::new(ListNoteRevisionsResponse {
            revisions: page.items.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn get_note_history(
        &self,
        request: Request<GetNoteHistoryRequest>,
    ) -> Result<Response<GetNoteHistoryResponse>, Status> {
        let user = caller(&request)?;
        let page = self.api.history(&user, request.get_ref()).await?;
        Ok(Response::new(GetNoteHistoryResponse {
            events: page.items.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn list_notes(
        &self,
        request: Request<ListNotesRequest>,
    ) -> Result<Response<ListNotesResponse>, Status> {
        let user = caller(&request)?;
        let page = self.api.list(&user, request.into_inner()).await?;
        Ok(Response::new(page.into()))
    }
    async fn search_notes(
        &self,
        request: Request<SearchNotesRequest>,
    ) -> Result<Response<SearchNotesResponse>, Status> {
        let user = caller(&request)?;
        let found = self.api.search(&user, request.into_inner()).await?;
        Ok(Response::new(found.into()))
    }
}
