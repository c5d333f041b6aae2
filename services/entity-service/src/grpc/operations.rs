//! synap.entity.v1.OperationService

use synap_proto::{
    entity::{
        self as pb, begin_operation_response::Outcome, operation_service_server::OperationService,
    },
    field,
};
use tonic::{Request, Response, Status};

use super::convert::{Commit, deleted_key, lease, nested, operation_id};
use crate::{
    domain::{Attempt, Begun, Committed, Edited, Intent, Started},
    error::Error,
    store::Store,
};

/// Most things that one call hands out or takes back.
const MAX_LIST: usize = 1000;

/// The write protocol's steps 1, 3 and 5, and what recovery needs.
pub(crate) struct Operations {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl OperationService for Operations {
    async fn begin_operation(
        &self,
        request: Request<pb::BeginOperationRequest>,
    ) -> Result<Response<pb::BeginOperationResponse>, Status> {
        synap_failpoint::hit("begin.before").await;
        let intent = Intent::try_from(request.into_inner()).map_err(Error::from)?;
        let begun = self.store.begin(intent).await?;
        synap_failpoint::hit("begin.effect").await;
        Ok(Response::new(pb::BeginOperationResponse { outcome: Some(begun.into()) }))
    }

    async fn commit_operation(
        &self,
        request: Request<pb::CommitOperationRequest>,
    ) -> Result<Response<pb::CommitOperationResponse>, Status> {
        synap_failpoint::hit("commit.before").await;
        let Edited { entity, adopts } =
            match Commit::try_from(request.into_inner()).map_err(Error::from)? {
                Commit::Create(change) => {
                    Edited { entity: self.store.commit(change).await?, adopts: false }
                }
                Commit::Edit(edit) => self.store.edit(edit).await?,
                Commit::Repair(repair) => {
                    Edited { entity: self.store.repair(repair).await?, adopts: false }
                }
            };
        synap_failpoint::hit("commit.effect").await;
        Ok(Response::new(pb::CommitOperationResponse { entity: Some(entity.into()), adopts }))
    }

    async fn finish_operations(
        &self,
        request: Request<pb::FinishOperationsRequest>,
    ) -> Result<Response<pb::FinishOperationsResponse>, Status> {
        synap_failpoint::hit("finish.before").await;
        let operations = request.into_inner().operations;
        field::length("operations", &operations, 0, MAX_LIST).map_err(Error::from)?;
        let mut finished = Vec::with_capacity(operations.len());
        for (index, operation) in operations.into_iter().enumerate() {
            let attempt = Attempt::try_from(operation).map_err(|violation| {
                Error::from(violation.within(format!("operations[{index}]")))
            })?;
            finished.push(attempt.operation);
        }
        self.store.finish(&finished).await?;
        synap_failpoint::hit("finish.effect").await;
        Ok(Response::new(pb::FinishOperationsResponse {}))
    }

    async fn get_operation(
        &self,
        request: Request<pb::GetOperationRequest>,
    ) -> Result<Response<pb::GetOperationResponse>, Status> {
        let pb::GetOperationRequest { user_id, request_id } = request.into_inner();
        let operation = operation_id(user_id, &request_id).map_err(Error::from)?;
        let found = self.store.operation(&operation).await?;
        let outcome = match found.begun {
            Begun::Started(started) => {
                Some(pb::get_operation_response::Outcome::Started(started.into()))
            }
            Begun::Committed(committed) => {
                Some(pb::get_operation_response::Outcome::Committed((*committed).into()))
            }
            // Only a begin is told so.
            Begun::InProgress { .. } => None,
        };
        let draft = found.draft.unwrap_or_default();
        Ok(Response::new(pb::GetOperationResponse { outcome, draft }))
    }

    async fn extend_operation(
        &self,
        request: Request<pb::ExtendOperationRequest>,
    ) -> Result<Response<pb::ExtendOperationResponse>, Status> {
        let request = request.into_inner();
        let attempt: Attempt = nested("operation", request.operation).map_err(Error::from)?;
        let asked = lease(request.lease).map_err(Error::from)?;
        let lease = self.store.extend(&attempt, asked).await?.try_into().ok();
        Ok(Response::new(pb::ExtendOperationResponse { lease }))
    }

    async fn abort_operation(
        &self,
        request: Request<pb::AbortOperationRequest>,
    ) -> Result<Response<pb::AbortOperationResponse>, Status> {
        let attempt: Attempt =
            nested("operation", request.into_inner().operation).map_err(Error::from)?;
        self.store.abort(&attempt).await?;
        Ok(Response::new(pb::AbortOperationResponse {}))
    }

    async fn claim_operations(
        &self,
        request: Request<pb::ClaimOperationsRequest>,
    ) -> Result<Response<pb::ClaimOperationsResponse>, Status> {
        let limit = claim_limit(request.into_inner().limit)?;
        let claimed = self.store.claim(limit).await?;
        Ok(Response::new(pb::ClaimOperationsResponse {
            pending_events: claimed.pending_events.into_iter().map(Into::into).collect(),
            aborted: i32::try_from(claimed.aborted).unwrap_or(i32::MAX),
        }))
    }

    async fn list_purgeable_entities(
        &self,
        request: Request<pb::ListPurgeableEntitiesRequest>,
    ) -> Result<Response<pb::ListPurgeableEntitiesResponse>, Status> {
        let limit = claim_limit(request.into_inner().limit)?;
        let entities = self.store.purgeable(limit).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListPurgeableEntitiesResponse { entities }))
    }

    async fn claim_blob_deletions(
        &self,
        request: Request<pb::ClaimBlobDeletionsRequest>,
    ) -> Result<Response<pb::ClaimBlobDeletionsResponse>, Status> {
        let limit = claim_limit(request.into_inner().limit)?;
        let keys = self.store.claim_deletions(limit).await?;
        Ok(Response::new(pb::ClaimBlobDeletionsResponse { keys }))
    }

    async fn complete_blob_deletions(
        &self,
        request: Request<pb::CompleteBlobDeletionsRequest>,
    ) -> Result<Response<pb::CompleteBlobDeletionsResponse>, Status> {
        let keys = request.into_inner().keys;
        field::length("keys", &keys, 0, MAX_LIST).map_err(Error::from)?;
        for (index, key) in keys.iter().enumerate() {
            deleted_key(&format!("keys[{index}]"), key).map_err(Error::from)?;
        }
        self.store.complete_deletions(&keys).await?;
        Ok(Response::new(pb::CompleteBlobDeletionsResponse {}))
    }
}

fn claim_limit(limit: i32) -> Result<i64, Error> {
    Ok(field::within("limit", limit, 1, 1000)?.into())
}

impl From<Begun> for Outcome {
    fn from(begun: Begun) -> Self {
        match begun {
            Begun::Started(started) => Self::Started(started.into()),
            Begun::Committed(committed) => Self::Committed((*committed).into()),
            Begun::InProgress { retry_after } => Self::InProgress(pb::OperationInProgress {
                retry_after: retry_after.try_into().ok(),
            }),
        }
    }
}

impl From<Started> for pb::OperationStarted {
    fn from(started: Started) -> Self {
        Self {
            operation: Some((&started.attempt).into()),
            entity_id: started.entity_id.to_string(),
            key: started.key.map(|key| key.to_string()).unwrap_or_default(),
            event_id: started.event_id.to_string(),
            occur_time: Some(field::timestamp(started.occurred_at)),
            phase: pb::StoragePhase::from(started.phase).into(),
            lease: started.lease.try_into().ok(),
        }
    }
}

impl From<Committed> for pb::OperationCommitted {
    fn from(committed: Committed) -> Self {
        Self {
            entity: Some(committed.entity.into()),
            done: committed.pending_event.is_none(),
            pending_event: committed.pending_event.map(Into::into),
        }
    }
}
