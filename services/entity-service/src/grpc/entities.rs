//! synap.entity.v1.EntityService

use synap_proto::{
    entity::{GetEntityRequest, GetEntityResponse, entity_service_server::EntityService},
    field,
};
use tonic::{Request, Response, Status};

use crate::{error::Error, store::Store};

/// Reads entities.
pub(crate) struct Entities {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl EntityService for Entities {
    async fn get_entity(
        &self,
        request: Request<GetEntityRequest>,
    ) -> Result<Response<GetEntityResponse>, Status> {
        let request = request.into_inner();
        let user = field::user_id("user_id", request.user_id).map_err(Error::from)?;
        let id = field::uuid("id", &request.id).map_err(Error::from)?;
        let (block, unreadable) = (request.include_content_block, request.blob_unreadable);
        let found = self.store.entity(&user, id, block, unreadable).await?;
        let (entity, content_block) = found.ok_or(Error::EntityNotFound)?;
        Ok(Response::new(GetEntityResponse { entity: Some(entity.into()), content_block }))
    }
}
