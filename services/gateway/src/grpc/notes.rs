//! synap.gateway.v1.NoteService

use synap_proto::gateway::{
    CreateNoteRequest, CreateNoteResponse, GetNoteRequest, GetNoteResponse, ListNotesRequest,
    ListNotesResponse, SearchNotesRequest, SearchNotesResponse, note_service_server::NoteService,
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
