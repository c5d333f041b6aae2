//! synap.entity.v1.StorageService

use synap_proto::entity::{
    GetStorageStatusRequest, GetStorageStatusResponse, StoragePhase,
    storage_service_server::StorageService,
};
use tonic::{Request, Response, Status};

use crate::store::Store;

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
        }))
    }
}
