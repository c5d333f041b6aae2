//! entity-service.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use synap_proto::{
    entity::{
        self as pb, begin_operation_response::Outcome, entity_service_client::EntityServiceClient,
        operation_service_client::OperationServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError, retry};
use synap_types::{Checksum, UserId};
use tonic::Code;
use uuid::Uuid;

use super::{NoteEvent, promised, promised_time, promised_uuid};
use crate::{
    domain::{File, Note},
    error::Error,
};

const SERVICE: &str = "entity-service";

/// Room for a body in content_blocks and what surrounds it.
const MAX_MESSAGE_BYTES: usize = 40 * 1024 * 1024;

/// Names one write.
#[derive(Debug, Clone)]
pub(crate) struct OperationId {
    pub(crate) user: UserId,
    pub(crate) request: Uuid,
}

/// What a write is going to do.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) operation: OperationId,
    pub(crate) fingerprint: Checksum,
    /// The entity's type, and its body's file extension.
    pub(crate) entity_type: &'static str,
    pub(crate) extension: &'static str,
}

/// What became of an intent.
#[derive(Debug)]
pub(crate) enum Begun {
    Started(Attempt),
    Committed(Box<Committed>),
    InProgress { retry_after: Duration },
}

/// An attempt that this gateway owns.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) operation: OperationId,
    pub(crate) epoch: i64,
    pub(crate) entity_id: Uuid,
    pub(crate) key: String,
    pub(crate) event_id: Uuid,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) phase: Phase,
}

/// A write that has happened.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) note: Note,
    /// The event, while it is not known to be in the event store.
    pub(crate) pending_event: Option<NoteEvent>,
}

/// What the pivot writes.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) title: String,
    pub(crate) preview: String,
    pub(crate) tags: Vec<String>,
    pub(crate) file: Option<File>,
    pub(crate) content_block: Option<String>,
    pub(crate) event_type: String,
    pub(crate) event_data: String,
}

/// Where bodies are written (DESIGN section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase(pb::StoragePhase);

impl Phase {
    pub(crate) fn writes_blob(self) -> bool {
        self.0 != pb::StoragePhase::Legacy
    }

    pub(crate) fn writes_content_block(self) -> bool {
        use pb::StoragePhase::{DualWrite, Legacy, ObjectPrimary};
        matches!(self.0, Legacy | DualWrite | ObjectPrimary)
    }
}

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

    /// Reads a note of the user: `None` if there is none. Its content is there only if it was asked
    /// for and the note is still in the legacy tables.
    pub(crate) async fn note(
        &self,
        user: &UserId,
        id: Uuid,
        with_content_block: bool,
    ) -> Result<Option<Note>, Error> {
        let answer = retry(|| {
            let request = pb::GetEntityRequest {
                user_id: user.to_string(),
                id: id.to_string(),
                include_content_block: with_content_block,
            };
            let mut stub = self.entities.clone();
            async move { stub.get_entity(request).await.map_err(RpcError::from) }
        })
        .await;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let entity = promised(SERVICE, "entity", answer.entity)?;
        if entity.r#type != "note" {
            return Ok(None);
        }
        let mut note = note(entity)?;
        note.content = answer.content_block;
        Ok(Some(note))
    }

    /// Step 1. `attempt_id` is made once for this try: repeating it changes nothing.
    pub(crate) async fn begin(&self, intent: &Intent, attempt_id: Uuid) -> Result<Begun, Error> {
        let OperationId { user, request } = &intent.operation;
        let answer = retry(|| {
            let request = pb::BeginOperationRequest {
                user_id: user.to_string(),
                request_id: request.to_string(),
                kind: pb::OperationKind::Create.into(),
                fingerprint: Bytes::copy_from_slice(intent.fingerprint.as_bytes()),
                entity_type: intent.entity_type.to_owned(),
                extension: intent.extension.to_owned(),
                attempt_id: attempt_id.to_string(),
            };
            let mut stub = self.operations.clone();
            async move { stub.begin_operation(request).await.map_err(RpcError::from) }
        })
        .await?;
        match promised(SERVICE, "outcome", answer.into_inner().outcome)? {
            Outcome::Started(started) => Ok(Begun::Started(attempt(&intent.operation, started)?)),
            Outcome::Committed(committed) => Ok(Begun::Committed(Box::new(Committed {
                note: note(promised(SERVICE, "entity", committed.entity)?)?,
                pending_event: committed
                    .pending_event
                    .map(|pending| Ok::<_, Error>(pending_event(pending)?.1))
                    .transpose()?,
            }))),
            Outcome::InProgress(other) => {
                let left = other.retry_after.and_then(|left| Duration::try_from(left).ok());
                Ok(Begun::InProgress { retry_after: left.unwrap_or(Duration::from_secs(1)) })
            }
        }
    }

    /// Step 3, the pivot. Repeating it after a lost reply succeeds.
    pub(crate) async fn commit(&self, attempt: &Attempt, change: &Change) -> Result<Note, Error> {
        let answer = retry(|| {
            let request = commit_request(attempt, change.clone());
            let mut stub = self.operations.clone();
            async move { stub.commit_operation(request).await.map_err(RpcError::from) }
        })
        .await?;
        note(promised(SERVICE, "entity", answer.into_inner().entity)?)
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
    ) -> Result<(Vec<(OperationId, NoteEvent)>, i32), Error> {
        let request = pb::ClaimOperationsRequest { limit };
        let answer =
            self.operations.clone().claim_operations(request).await.map_err(RpcError::from)?;
        let answer = answer.into_inner();
        let events =
            answer.pending_events.into_iter().map(pending_event).collect::<Result<_, _>>()?;
        Ok((events, answer.aborted))
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

fn operation_ref(operation: &OperationId, epoch: i64) -> pb::OperationRef {
    pb::OperationRef {
        user_id: operation.user.to_string(),
        request_id: operation.request.to_string(),
        epoch,
    }
}

fn commit_request(attempt: &Attempt, change: Change) -> pb::CommitOperationRequest {
    pb::CommitOperationRequest {
        operation: Some(operation_ref(&attempt.operation, attempt.epoch)),
        phase: attempt.phase.0.into(),
        create: Some(pb::EntityDraft {
            title: change.title,
            preview: change.preview,
            tags: change.tags,
            file: change.file.map(|file| pb::File {
                url: file.url,
                path: file.path,
                size: file.size,
                r#type: file.kind,
                checksum: file.checksum,
            }),
            content_block: change.content_block,
        }),
        event: Some(pb::EventDraft { r#type: change.event_type, data: change.event_data }),
    }
}

fn attempt(operation: &OperationId, started: pb::OperationStarted) -> Result<Attempt, Error> {
    let phase = started.phase();
    Ok(Attempt {
        operation: operation.clone(),
        epoch: promised(SERVICE, "operation", started.operation)?.epoch,
        entity_id: promised_uuid(SERVICE, "entity_id", &started.entity_id)?,
        key: started.key,
        event_id: promised_uuid(SERVICE, "event_id", &started.event_id)?,
        occurred_at: promised_time(SERVICE, "occur_time", started.occur_time)?,
        phase: Phase(phase),
    })
}

fn pending_event(pending: pb::PendingEvent) -> Result<(OperationId, NoteEvent), Error> {
    let operation = promised(SERVICE, "operation", pending.operation)?;
    let event = promised(SERVICE, "event", pending.event)?;
    let id = OperationId {
        user: UserId::parse(operation.user_id.clone())
            .map_err(|_| Error::contract(SERVICE, "user_id"))?,
        request: promised_uuid(SERVICE, "request_id", &operation.request_id)?,
    };
    let event = NoteEvent {
        event_id: promised_uuid(SERVICE, "event_id", &pending.event_id)?,
        user_id: operation.user_id,
        entity_type: pending.entity_type,
        entity_id: promised_uuid(SERVICE, "entity_id", &pending.entity_id)?,
        version: pending.version,
        event_type: event.r#type,
        occurred_at: promised_time(SERVICE, "occur_time", pending.occur_time)?,
        data: event.data,
    };
    Ok((id, event))
}

fn note(entity: pb::Entity) -> Result<Note, Error> {
    Ok(Note {
        id: promised_uuid(SERVICE, "id", &entity.id)?,
        user_id: entity.user_id,
        title: entity.title,
        preview: entity.preview,
        content: None,
        tags: entity.tags,
        file: entity.file.map(|file| File {
            url: file.url,
            path: file.path,
            size: file.size,
            kind: file.r#type,
            checksum: file.checksum,
        }),
        version: entity.version,
        created_at: promised_time(SERVICE, "create_time", entity.create_time)?,
        updated_at: promised_time(SERVICE, "update_time", entity.update_time)?,
        deleted_at: entity
            .delete_time
            .map(|time| promised_time(SERVICE, "delete_time", Some(time)))
            .transpose()?,
    })
}
