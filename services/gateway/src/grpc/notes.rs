//! synap.gateway.v1.NoteService

use synap_proto::gateway::{
    CreateNoteRequest, CreateNoteResponse, GetNoteRequest, GetNoteResponse,
    note_service_server::NoteService,
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
}
