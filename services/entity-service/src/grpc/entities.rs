//! synap.entity.v1.EntityService

use synap_proto::{
    entity::{
        DeleteVectorsRequest, DeleteVectorsResponse, GetEntityRequest, GetEntityResponse,
        ListEntitiesRequest, ListEntitiesResponse, ListRevisionsRequest, ListRevisionsResponse,
        MakeSnippetsRequest, MakeSnippetsResponse, SearchEntitiesRequest, SearchEntitiesResponse,
        SearchVectorsRequest, SearchVectorsResponse, UpsertVectorsRequest, UpsertVectorsResponse,
        entity_service_server::EntityService,
    },
    field,
};
use tonic::{Request, Response, Status};

use super::{find::check_snippets, vectors};
use crate::{
    domain::{Listing, Search, VectorSearch, Vectors},
    error::Error,
    store::Store,
};

/// Reads and finds entities.
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

    async fn list_entities(
        &self,
        request: Request<ListEntitiesRequest>,
    ) -> Result<Response<ListEntitiesResponse>, Status> {
        let listing = Listing::try_from(request.into_inner()).map_err(Error::from)?;
        let entities = self.store.list(&listing).await?;
        let entities = entities.into_iter().map(Into::into).collect();
        Ok(Response::new(ListEntitiesResponse { entities }))
    }
    async fn search_entities(
        &self,
        request: Request<SearchEntitiesRequest>,
    ) -> Result<Response<SearchEntitiesResponse>, Status> {
        let search = Search::try_from(request.into_inner()).map_err(Error::from)?;
        let hits = self.store.search(&search).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(SearchEntitiesResponse { hits }))
    }

    async fn make_snippets(
        &self,
        request: Request<MakeSnippetsRequest>,
    ) -> Result<Response<MakeSnippetsResponse>, Status> {
        let request = request.into_inner();
        check_snippets(&request).map_err(Error::from)?;
        let user = field::user_id("user_id", request.user_id).map_err(Error::from)?;
        let snippets = self.store.snippets(&user, &request.query, &request.texts).await?;
        Ok(Response::new(MakeSnippetsResponse { snippets }))
    }
    async fn upsert_vectors(
        &self,
        request: Request<UpsertVectorsRequest>,
    ) -> Result<Response<UpsertVectorsResponse>, Status> {
        let vectors = Vectors::try_from(request.into_inner()).map_err(Error::from)?;
        self.store.upsert_vectors(vectors).await?;
        Ok(Response::new(UpsertVectorsResponse {}))
    }

    async fn delete_vectors(
        &self,
        request: Request<DeleteVectorsRequest>,
    ) -> Result<Response<DeleteVectorsResponse>, Status> {
        let request = request.into_inner();
        let user = field::user_id("user_id", request.user_id).map_err(Error::from)?;
        let id = field::uuid("entity_id", &request.entity_id).map_err(Error::from)?;
        let model = Some(request.embedding_model).filter(|model| !model.is_empty());
        let model = model.map(vectors::model).transpose().map_err(Error::from)?;
        let deleted = self.store.delete_vectors(&user, id, model.as_deref()).await?;
        Ok(Response::new(DeleteVectorsResponse { deleted: deleted.try_into().unwrap_or(i64::MAX) }))
    }

    async fn search_vectors(
        &self,
        request: Request<SearchVectorsRequest>,
    ) -> Result<Response<SearchVectorsResponse>, Status> {
        let search = VectorSearch::try_from(request.into_inner()).map_err(Error::from)?;
        let hits = self.store.search_vectors(search).await?;
        let hits = hits.into_iter().map(Into::into).collect();
        Ok(Response::new(SearchVectorsResponse { hits }))
    }
}
