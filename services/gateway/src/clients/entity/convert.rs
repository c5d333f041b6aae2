//! Between entity-service's messages and the gateway's words.

use std::time::Duration;

use bytes::Bytes;
use synap_proto::entity as pb;
use synap_types::UserId;
use uuid::Uuid;

use super::{
    super::{EntityEvent, promised, promised_time, promised_uuid},
    SERVICE,
    types::{
        Attempt, Change, Committed, Intent, Kind, OperationId, Phase, Purgeable, Update, What,
    },
};
use crate::{
    domain::{Entity, StoredFile},
    error::Error,
};

pub(super) fn begin_request(
    intent: &Intent,
    attempt_id: Uuid,
    new_id: Option<Uuid>,
) -> pb::BeginOperationRequest {
    let mut request = pb::BeginOperationRequest {
        user_id: intent.operation.user.to_string(),
        request_id: intent.operation.request.to_string(),
        fingerprint: Bytes::copy_from_slice(intent.fingerprint.as_bytes()),
        entity_type: intent.entity_type.clone(),
        attempt_id: attempt_id.to_string(),
        new_id: new_id.map(|id| id.to_string()).unwrap_or_default(),
        lease: intent.lease.and_then(|lease| lease.try_into().ok()),
        draft: intent.draft.clone().unwrap_or_default(),
        words: intent.words.as_ref().map(|words| pb::Words {
            title: words.title.clone(),
            tags: words.tags.clone(),
            text: words.text.clone(),
        }),
        ..pb::BeginOperationRequest::default()
    };
    match intent.kind {
        Kind::Create { extension } => {
            request.set_kind(pb::OperationKind::Create);
            extension.clone_into(&mut request.extension);
        }
        Kind::Update { id, extension } => {
            request.set_kind(pb::OperationKind::Update);
            request.entity_id = id.to_string();
            extension.unwrap_or_default().clone_into(&mut request.extension);
        }
        Kind::Delete { id } => {
            request.set_kind(pb::OperationKind::Delete);
            request.entity_id = id.to_string();
        }
        Kind::Undelete { id } => {
            request.set_kind(pb::OperationKind::Undelete);
            request.entity_id = id.to_string();
        }
        Kind::Purge { id } => {
            request.set_kind(pb::OperationKind::Purge);
            request.entity_id = id.to_string();
        }
        Kind::Repair { id, extension } => {
            request.set_kind(pb::OperationKind::Repair);
            request.entity_id = id.to_string();
            extension.clone_into(&mut request.extension);
        }
    }
    request
}

pub(super) fn operation_ref(operation: &OperationId, epoch: i64) -> pb::OperationRef {
    pb::OperationRef {
        user_id: operation.user.to_string(),
        request_id: operation.request.to_string(),
        epoch,
    }
}

pub(super) fn commit_request(attempt: &Attempt, change: Change) -> pb::CommitOperationRequest {
    let mut request = pb::CommitOperationRequest {
        operation: Some(operation_ref(&attempt.operation, attempt.epoch)),
        phase: attempt.phase.0.into(),
        event: Some(pb::EventDraft {
            r#type: change.event_type.to_owned(),
            data: change.event_data,
        }),
        ..pb::CommitOperationRequest::default()
    };
    match change.what {
        What::Create(new) => {
            request.create = Some(pb::EntityDraft {
                title: new.title,
                preview: new.preview,
                tags: new.tags,
                file: new.file.map(Into::into),
                content_block: new.content_block,
                search_text: new.search_text,
            });
        }
        What::Delete { expected_version } => {
            let expected_version = expected_version.unwrap_or_default();
            request.delete = Some(pb::EntityDeletion { expected_version });
        }
        What::Update(update) => request.update = Some((*update).into()),
        What::Undelete { expected_version } => {
            let expected_version = expected_version.unwrap_or_default();
            request.undelete = Some(pb::EntityUndeletion { expected_version });
        }
        What::Purge => request.purge = Some(pb::EntityPurge {}),
        What::Repair { version, bad_key, url } => {
            request.repair = Some(pb::EntityRepair { version, bad_key, url });
            request.event = None;
        }
    }
    request
}

impl From<Update> for pb::EntityUpdate {
    fn from(update: Update) -> Self {
        Self {
            expected_version: update.expected_version.unwrap_or_default(),
            title: update.title,
            tags: update.tags.map(|tags| pb::EntityTags { tags }),
            body: update.body.map(|body| pb::EntityBody {
                preview: body.preview,
                file: body.file.map(Into::into),
                content_block: body.content_block,
                search_text: body.search_text,
            }),
        }
    }
}

impl From<StoredFile> for pb::File {
    fn from(file: StoredFile) -> Self {
        Self {
            url: file.url,
            path: file.path,
            size: file.size,
            r#type: file.kind,
            checksum: file.checksum,
            name: file.name,
        }
    }
}

pub(super) fn attempt(
    operation: &OperationId,
    started: pb::OperationStarted,
) -> Result<Attempt, Error> {
    let phase = started.phase();
    Ok(Attempt {
        operation: operation.clone(),
        epoch: promised(SERVICE, "operation", started.operation)?.epoch,
        entity_id: promised_uuid(SERVICE, "entity_id", &started.entity_id)?,
        key: started.key,
        event_id: promised_uuid(SERVICE, "event_id", &started.event_id)?,
        occurred_at: promised_time(SERVICE, "occur_time", started.occur_time)?,
        phase: Phase(phase),
        lease: lease(started.lease)?,
    })
}

pub(super) fn lease(lease: Option<prost_types::Duration>) -> Result<Duration, Error> {
    let lease = promised(SERVICE, "lease", lease)?;
    Duration::try_from(lease).map_err(|_| Error::contract(SERVICE, "lease"))
}

pub(super) fn committed(committed: pb::OperationCommitted) -> Result<Committed, Error> {
    let pending_event = committed.pending_event.map(pending_event).transpose()?;
    Ok(Committed {
        entity: entity(promised(SERVICE, "entity", committed.entity)?)?,
        pending_event: pending_event.map(|(_, event)| event),
    })
}

pub(super) fn pending_event(
    pending: pb::PendingEvent,
) -> Result<(OperationId, EntityEvent), Error> {
    let operation = promised(SERVICE, "operation", pending.operation)?;
    let event = promised(SERVICE, "event", pending.event)?;
    let id = OperationId {
        user: UserId::parse(operation.user_id.clone())
            .map_err(|_| Error::contract(SERVICE, "user_id"))?,
        request: promised_uuid(SERVICE, "request_id", &operation.request_id)?,
    };
    let event = EntityEvent {
        event_id: promised_uuid(SERVICE, "event_id", &pending.event_id)?,
        user_id: operation.user_id,
        entity_type: pending.entity_type,
        entity_id: promised_uuid(SERVICE, "entity_id", &pending.entity_id)?,
        version: pending.version,
        event_type: event.r#type,
        occurred_at: promised_time(SERVICE, "occur_time", pending.occur_time)?,
        data: event.data,
        adopts: pending.adopts,
    };
    Ok((id, event))
}

pub(super) fn entity(entity: pb::Entity) -> Result<Entity, Error> {
    Ok(Entity {
        id: promised_uuid(SERVICE, "id", &entity.id)?,
        user_id: entity.user_id,
        entity_type: entity.r#type,
        title: entity.title,
        preview: entity.preview,
        tags: entity.tags,
        file: entity.file.map(|file| StoredFile {
            url: file.url,
            path: file.path,
            size: file.size,
            kind: file.r#type,
            checksum: file.checksum,
            name: file.name,
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

pub(super) fn purgeable(entity: pb::PurgeableEntity) -> Result<Purgeable, Error> {
    Ok(Purgeable {
        user: UserId::parse(entity.user_id).map_err(|_| Error::contract(SERVICE, "user_id"))?,
        entity_type: entity.entity_type,
        id: promised_uuid(SERVICE, "entity_id", &entity.entity_id)?,
    })
}
