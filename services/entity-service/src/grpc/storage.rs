//! synap.entity.v1.StorageService

use synap_proto::{
    entity::{
        BatchGetEntityHeadsRequest, BatchGetEntityHeadsResponse, EntityHead,
        GetStorageStatusRequest, GetStorageStatusResponse, ListAllEntitiesRequest,
        ListAllEntitiesResponse, SetStoragePhaseRequest, SetStoragePhaseResponse, StoragePhase,
        storage_service_server::StorageService,
    },
    field::{self, Checked},
};
use tonic::{Request, Response, Status};

use uuid::Uuid;

use crate::{
    domain::{Head, PhaseChange},
    error::Error,
    store::Store,
};

/// Entities of one question at most.
const MAX_HEADS: usize = 10_000;
/// Entities of one page at most.
const MAX_PAGE: i32 = 1_000;

/// What the installation stores where.
pub(crate) struct Storage {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl StorageService for Storage {
    async fn get_storage_status(
        &self,
        _: Request<GetStorageStatusRequest>,
    ) -> Result<Response<GetStorageStatusResponse>, Status> {
        let status = self.store.status().await?;
        Ok(Response::new(GetStorageStatusResponse {
            phase: StoragePhase::from(status.phase).into(),
            pending_operations: status.pending_operations,
            committed_operations: status.committed_operations,
            blob_deletions: status.blob_deletions,
            change_time: Some(field::timestamp(status.phase_since)),
        }))
    }

    async fn set_storage_phase(
        &self,
        request: Request<SetStoragePhaseRequest>,
    ) -> Result<Response<SetStoragePhaseResponse>, Status> {
        let change = PhaseChange::try_from(request.into_inner()).map_err(Error::from)?;
        let changed_at = self.store.change_phase(change).await?;
        Ok(Response::new(SetStoragePhaseResponse {
            change_time: Some(field::timestamp(changed_at)),
        }))
    }

    async fn batch_get_entity_heads(
        &self,
        request: Request<BatchGetEntityHeadsRequest>,
    ) -> Result<Response<BatchGetEntityHeadsResponse>, Status> {
        let ids = ids(&request.into_inner().ids).map_err(Error::from)?;
        let heads = self.store.heads(&ids).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(BatchGetEntityHeadsResponse { heads }))
    }

    async fn list_all_entities(
        &self,
        request: Request<ListAllEntitiesRequest>,
    ) -> Result<Response<ListAllEntitiesResponse>, Status> {
        let (after, limit) = page(&request.into_inner()).map_err(Error::from)?;
        let entities = self.store.list_all(after, limit).await?;
        let entities = entities.into_iter().map(Into::into).collect();
        Ok(Response::new(ListAllEntitiesResponse { entities }))
    }
}

fn ids(texts: &[String]) -> Checked<Vec<Uuid>> {
    field::length("ids", texts, 0, MAX_HEADS)?;
    texts.iter().enumerate().map(|(i, text)| field::uuid(&format!("ids[{i}]"), text)).collect()
}

fn page(request: &ListAllEntitiesRequest) -> Checked<(Uuid, i64)> {
    let after = field::optional_uuid("after_id", &request.after_id)?;
    let limit = field::within("limit", request.limit, 1, MAX_PAGE)?;
    Ok((after.unwrap_or_default(), limit.into()))
}

impl From<Head> for EntityHead {
    fn from(head: Head) -> Self {
        Self {
            id: head.id.to_string(),
            user_id: head.user_id,
            r#type: head.entity_type,
            version: head.version,
        }
    }
}
