//! synap.entity.v1.StorageService

use synap_proto::{
    entity::{
        GetStorageStatusRequest, GetStorageStatusResponse, SetStoragePhaseRequest,
        SetStoragePhaseResponse, StoragePhase, storage_service_server::StorageService,
    },
    field,
};
use tonic::{Request, Response, Status};

use crate::{domain::PhaseChange, error::Error, store::Store};

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
}
