//! entity-service.

mod convert;
mod find;
mod types;

use std::time::Duration;

use synap_proto::{
    entity::{
        self as pb, begin_operation_response::Outcome, entity_service_client::EntityServiceClient,
        get_operation_response, operation_service_client::OperationServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError, retry};
use synap_types::UserId;
use tonic::Code;
use uuid::Uuid;

pub(crate) use types::{
    Attempt, Begun, Change, Committed, Creation, Found, Intent, Kind, NewBody, OperationId,
    Purgeable, Update, What, Words,
};

use self::convert::{
    attempt, begin_request, commit_request, committed, entity, lease, operation_ref, pending_event,
    purgeable,
};
use super::{EntityEvent, promised};
use crate::{domain::Entity, error::Error};

const SERVICE: &str = "entity-service";

/// Room for a body in content_blocks and what surrounds it.
const MAX_MESSAGE_BYTES: usize = 40 * 1024 * 1024;

/// Entities, and the log of operations.
#[derive(Clone)]
pub(crate) struct EntityClient {
    entities: EntityServiceClient<Channel>,
    operations: OperationServiceClient<Channel>,
}

impl EntityClient {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            entities: EntityServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            operations: OperationServiceClient::new(channel),
        }
    }

    /// Reads an entity of the user and type at a version, 0 for the newest: `None` if there is none.
    /// With it comes its body, only if it was asked for and is still in the legacy tables.
    pub(crate) async fn entity(
        &self,
        user: &UserId,
        entity_type: &str,
        id: Uuid,
        version: i32,
        with_content_block: bool,
    ) -> Result<Option<(Entity, Option<String>)>, Error> {
        let request = pb::GetEntityRequest {
            user_id: user.to_string(),
            id: id.to_string(),
            include_content_block: with_content_block,
            version,
            ..pb::GetEntityRequest::default()
        };
        self.get(request, entity_type).await
    }

    /// As [`entity`](Self::entity), when its blob cannot be read: with it comes its body from the
    /// legacy tables, in the phase in which it is there for that.
    pub(crate) async fn entity_beside_blob(
        &self,
        user: &UserId,
        entity_type: &str,
        id: Uuid,
    ) -> Result<Option<(Entity, Option<String>)>, Error> {
        let request = pb::GetEntityRequest {
            user_id: user.to_string(),
            id: id.to_string(),
            include_content_block: true,
            blob_unreadable: true,
            version: 0,
        };
        self.get(request, entity_type).await
    }

    async fn get(
        &self,
        request: pb::GetEntityRequest,
        entity_type: &str,
    ) -> Result<Option<(Entity, Option<String>)>, Error> {
        let answer = retry(|| {
            let request = request.clone();
            let mut stub = self.entities.clone();
            async move { stub.get_entity(request).await.map_err(RpcError::from) }
        })
        .await;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = entity(promised(SERVICE, "entity", answer.entity)?)?;
        Ok((found.entity_type == entity_type).then_some((found, answer.content_block)))
    }

    /// The revisions of an entity of the user and type below a version, newest first; 0 begins with
    /// the newest. `None` if there is no such entity.
    pub(crate) async fn revisions(
        &self,
        user: &UserId,
        entity_type: &str,
        id: Uuid,
        before_version: i32,
        limit: i32,
    ) -> Result<Option<Vec<Entity>>, Error> {
        let answer = retry(|| {
            let request = pb::ListRevisionsRequest {
                user_id: user.to_string(),
                id: id.to_string(),
                before_version,
                limit,
            };
            let mut stub = self.entities.clone();
            async move { stub.list_revisions(request).await.map_err(RpcError::from) }
        })
        .await;
        let revisions = match answer {
            Ok(answer) => answer.into_inner().revisions,
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let revisions = revisions.into_iter().map(entity).collect::<Result<Vec<_>, _>>()?;
        Ok(revisions.iter().all(|one| one.entity_type == entity_type).then_some(revisions))
    }

    /// Step 1. `attempt_id` is made once for this try: repeating it changes nothing. `new_id` is made
    /// for this call alone; a first attempt's key is then [`Intent::key`].
    pub(crate) async fn begin(
        &self,
        intent: &Intent,
        attempt_id: Uuid,
        new_id: Option<Uuid>,
    ) -> Result<Begun, Error> {
        let answer = retry(|| {
            let request = begin_request(intent, attempt_id, new_id);
            let mut stub = self.operations.clone();
            async move { stub.begin_operation(request).await.map_err(RpcError::from) }
        })
        .await?;
        match promised(SERVICE, "outcome", answer.into_inner().outcome)? {
            Outcome::Started(started) => Ok(Begun::Started(attempt(&intent.operation, started)?)),
            Outcome::Committed(done) => Ok(Begun::Committed(Box::new(committed(done)?))),
            Outcome::InProgress(other) => {
                let left = other.retry_after.and_then(|left| Duration::try_from(left).ok());
                Ok(Begun::InProgress { retry_after: left.unwrap_or(Duration::from_secs(1)) })
            }
        }
    }

    /// An operation that somebody has begun: `None` if it was given up, or nobody knows it.
    pub(crate) async fn operation(&self, operation: &OperationId) -> Result<Option<Found>, Error> {
        let answer = retry(|| {
            let request = pb::GetOperationRequest {
                user_id: operation.user.to_string(),
                request_id: operation.request.to_string(),
            };
            let mut stub = self.operations.clone();
            async move { stub.get_operation(request).await.map_err(RpcError::from) }
        })
        .await;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let begun = match promised(SERVICE, "outcome", answer.outcome)? {
            get_operation_response::Outcome::Started(started) => {
                Begun::Started(attempt(operation, started)?)
            }
            get_operation_response::Outcome::Committed(done) => {
                Begun::Committed(Box::new(committed(done)?))
            }
        };
        Ok(Some(Found { begun, draft: answer.draft }))
    }

    /// Moves the end of an attempt's lease away; `None` asks for entity-service's default. Returns
    /// how long it has.
    pub(crate) async fn extend(
        &self,
        attempt: &Attempt,
        asked: Option<Duration>,
    ) -> Result<Duration, Error> {
        let request = pb::ExtendOperationRequest {
            operation: Some(operation_ref(&attempt.operation, attempt.epoch)),
            lease: asked.and_then(|lease| lease.try_into().ok()),
        };
        let answer = retry(|| {
            let (request, mut stub) = (request.clone(), self.operations.clone());
            async move { stub.extend_operation(request).await.map_err(RpcError::from) }
        })
        .await?;
        lease(answer.into_inner().lease)
    }

    /// Step 3, the pivot. Repeating it after a lost reply succeeds. With the entity comes whether it
    /// had its versions before it had events.
    pub(crate) async fn commit(
        &self,
        attempt: &Attempt,
        change: &Change,
    ) -> Result<(Entity, bool), Error> {
        let answer = retry(|| {
            let request = commit_request(attempt, change.clone());
            let mut stub = self.operations.clone();
            async move { stub.commit_operation(request).await.map_err(RpcError::from) }
        })
        .await?
        .into_inner();
        Ok((entity(promised(SERVICE, "entity", answer.entity)?)?, answer.adopts))
    }

    /// Step 5 for many operations.
    pub(crate) async fn finish(&self, operations: &[OperationId]) -> Result<(), Error> {
        let operations: Vec<_> = operations.iter().map(|id| operation_ref(id, 1)).collect();
        retry(|| {
            let request = pb::FinishOperationsRequest { operations: operations.clone() };
            let mut stub = self.operations.clone();
            async move { stub.finish_operations(request).await.map_err(RpcError::from) }
        })
        .await?;
        Ok(())
    }

    /// Gives up an attempt before its pivot. `false` if it has been committed after all.
    pub(crate) async fn abort(&self, attempt: &Attempt) -> Result<bool, Error> {
        let operation = operation_ref(&attempt.operation, attempt.epoch);
        let answer = retry(|| {
            let request = pb::AbortOperationRequest { operation: Some(operation.clone()) };
            let mut stub = self.operations.clone();
            async move { stub.abort_operation(request).await.map_err(RpcError::from) }
        })
        .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.reason == reason::OPERATION_COMMITTED => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Recovery: events whose writer is gone. Expired attempts are given up on the way; their
    /// number comes second.
    pub(crate) async fn claim(
        &self,
        limit: i32,
    ) -> Result<(Vec<(OperationId, EntityEvent)>, i32), Error> {
        let request = pb::ClaimOperationsRequest { limit };
        let answer =
            self.operations.clone().claim_operations(request).await.map_err(RpcError::from)?;
        let answer = answer.into_inner();
        let events =
            answer.pending_events.into_iter().map(pending_event).collect::<Result<_, _>>()?;
        Ok((events, answer.aborted))
    }

    /// Recovery: entities that were deleted longer ago than the retention.
    pub(crate) async fn purgeable(&self, limit: i32) -> Result<Vec<Purgeable>, Error> {
        let request = pb::ListPurgeableEntitiesRequest { limit };
        let answer = self.operations.clone().list_purgeable_entities(request).await;
        let entities = answer.map_err(RpcError::from)?.into_inner().entities;
        entities.into_iter().map(purgeable).collect()
    }

    /// Recovery: keys of blobs to delete.
    pub(crate) async fn claim_deletions(&self, limit: i32) -> Result<Vec<String>, Error> {
        let request = pb::ClaimBlobDeletionsRequest { limit };
        let answer =
            self.operations.clone().claim_blob_deletions(request).await.map_err(RpcError::from)?;
        Ok(answer.into_inner().keys)
    }

    /// Recovery: the blobs are deleted.
    pub(crate) async fn complete_deletions(&self, keys: Vec<String>) -> Result<(), Error> {
        let request = pb::CompleteBlobDeletionsRequest { keys };
        self.operations.clone().complete_blob_deletions(request).await.map_err(RpcError::from)?;
        Ok(())
    }
}
