//! synap.entity.v1.EntityService

use synap_proto::{
    entity::{
        GetEntityRequest, GetEntityResponse, ListRevisionsRequest, ListRevisionsResponse,
        entity_service_server::EntityService,
    },
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
        let version =
            field::within("version", request.version, 0, i32::MAX).map_err(Error::from)?;
        let (block, unreadable) = (request.include_content_block, request.blob_unreadable);
        let found = match version {
            0 => self.store.entity(&user, id, block, unreadable).await?,
            version => self.store.revision(&user, id, version, block).await?,
        };
        let (entity, content_block) = found.ok_or(Error::EntityNotFound)?;
        Ok(Response::new(GetEntityResponse { entity: Some(entity.into()), content_block }))
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Result<Response<ListRevisionsResponse>, Status> {
        let request = request.into_inner();
        let user = field::user_id("user_id", request.user_id).map_err(Error::from)?;
        let id = field::uuid("id", &request.id).map_err(Error::from)?;
        let before = field::within("before_version", request.before_version, 0, i32::MAX)
            .map_err(Error::from)?;
        let before = if before == 0 { i32::MAX } else { before };
        let limit = field::within("limit", request.limit, 1, 1000).map_err(Error::from)?;
        let found = self.store.revisions(&user, id, before, limit.into()).await?;
        let revisions = found.ok_or(Error::EntityNotFound)?.into_iter().map(Into::into).collect();
        Ok(Response::new(ListRevisionsResponse { revisions }))
    }
}
