//! Between protobuf and the domain. Checks happen on receipt only, and name the field.

mod edit;

use std::time::Duration;

use synap_proto::{
    entity as pb,
    field::{self, Checked, Violation},
};

use serde_json::Value;
use synap_types::{BlobKey, Checksum, MAX_KEY_BYTES};

pub(super) use edit::Commit;

use crate::domain::{
    Attempt, Change, Entity, EntityDraft, EventDraft, File, Intent, Kind, OperationId,
    PendingEvent, Phase, PhaseChange, Repair, Words,
};

/// Bytes of a field at most. The gateway's limits are tighter and meant for people; these keep what
/// a faulty caller can make us store within reason.
const MAX_TITLE_BYTES: usize = 4096;
const MAX_PREVIEW_BYTES: usize = 4096;
const MAX_TAGS: usize = 100;
const MAX_TAG_BYTES: usize = 1024;
const MAX_URL_BYTES: usize = 4096;
/// As event-service's: an event that it refused would leave its operation committed for ever.
const MAX_EVENT_TYPE_BYTES: usize = 100;
const MAX_EVENT_BYTES: usize = 64 * 1024;
/// A document of any text of this length fits into a tsvector (migrations/entity/0011_search.sql).
const MAX_SEARCH_BYTES: usize = 64 * 1024;
/// What is searched of a body whose document is made ahead: few bytes, since they come twice.
const MAX_AHEAD_BYTES: usize = 16 * 1024;
const MAX_DRAFT_BYTES: usize = 64 * 1024;
const MAX_FILE_NAME_BYTES: usize = 1024;

impl TryFrom<pb::OperationRef> for Attempt {
    type Error = Violation;

    fn try_from(message: pb::OperationRef) -> Checked<Self> {
        let operation = operation_id(message.user_id, &message.request_id)?;
        let epoch = field::within("epoch", message.epoch, 1, i64::MAX)?;
        Ok(Self { operation, epoch })
    }
}

impl From<&Attempt> for pb::OperationRef {
    fn from(attempt: &Attempt) -> Self {
        Self {
            user_id: attempt.operation.user.to_string(),
            request_id: attempt.operation.request.to_string(),
            epoch: attempt.epoch,
        }
    }
}

pub(super) fn operation_id(user_id: String, request_id: &str) -> Checked<OperationId> {
    Ok(OperationId {
        user: field::user_id("user_id", user_id)?,
        request: field::uuid("request_id", request_id)?,
    })
}

/// A message that must be there, with its own checks.
pub(super) fn nested<M, T: TryFrom<M, Error = Violation>>(
    name: &str,
    value: Option<M>,
) -> Checked<T> {
    T::try_from(field::required(name, value)?).map_err(|violation| violation.within(name))
}

impl TryFrom<pb::BeginOperationRequest> for Intent {
    type Error = Violation;

    fn try_from(message: pb::BeginOperationRequest) -> Checked<Self> {
        let kind = message.kind();
        let operation = operation_id(message.user_id, &message.request_id)?;
        let entity_type = field::entity_type("entity_type", message.entity_type)?;
        // Whether a key can be made of it is known before anything is queued.
        let check = |extension: &str| {
            BlobKey::build(&operation.user, &entity_type, "id", extension)
                .map(drop)
                .map_err(|why| Violation::new("extension", why))
        };
        let entity_id = || field::uuid("entity_id", &message.entity_id);
        let kind = match kind {
            pb::OperationKind::Create => {
                check(&message.extension)?;
                Kind::Create { extension: message.extension }
            }
            pb::OperationKind::Update => {
                let extension = Some(message.extension).filter(|text| !text.is_empty());
                extension.as_deref().map(check).transpose()?;
                Kind::Update { entity_id: entity_id()?, extension }
            }
            pb::OperationKind::Delete => Kind::Delete { entity_id: entity_id()? },
            pb::OperationKind::Undelete => Kind::Undelete { entity_id: entity_id()? },
            pb::OperationKind::Purge => Kind::Purge { entity_id: entity_id()? },
            pb::OperationKind::Repair => {
                let entity_id = entity_id()?;
                check(&message.extension)?;
                Kind::Repair { entity_id, extension: message.extension }
            }
            pb::OperationKind::Unspecified => return Err(Violation::new("kind", "is required")),
        };
        Ok(Self {
            operation,
            attempt_id: field::uuid("attempt_id", &message.attempt_id)?,
            new_id: Some(message.new_id.as_str())
                .filter(|id| !id.is_empty())
                .map(|id| field::uuid("new_id", id))
                .transpose()?,
            fingerprint: field::sha256("fingerprint", &message.fingerprint)?,
            entity_type,
            kind,
            lease: lease(message.lease)?,
            draft: draft(message.draft)?,
            words: message
                .words
                .map(|words| Words::try_from(words).map_err(|why| why.within("words")))
                .transpose()?,
        })
    }
}

impl TryFrom<pb::Words> for Words {
    type Error = Violation;

    fn try_from(message: pb::Words) -> Checked<Self> {
        text("title", &message.title, MAX_TITLE_BYTES)?;
        check_tags("tags", &message.tags)?;
        text("text", &message.text, MAX_AHEAD_BYTES)?;
        Ok(Self {
            title: Some(message.title).filter(|title| !title.is_empty()),
            tags: message.tags,
            text: message.text,
        })
    }
}

/// How long an attempt may take; the service's own where nothing is said.
pub(super) fn lease(message: Option<prost_types::Duration>) -> Checked<Option<Duration>> {
    let read = |message: prost_types::Duration| {
        let lease = Duration::try_from(message).ok().filter(|lease| !lease.is_zero());
        lease.ok_or_else(|| Violation::new("lease", "must be longer than nothing"))
    };
    message.map(read).transpose()
}

fn draft(text: String) -> Checked<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    json_object("draft", &text, MAX_DRAFT_BYTES)?;
    Ok(Some(text))
}

impl TryFrom<pb::CommitOperationRequest> for Change {
    type Error = Violation;

    fn try_from(message: pb::CommitOperationRequest) -> Checked<Self> {
        let phase = phase("phase", message.phase())?;
        let create: EntityDraft = nested("create", message.create)?;
        check_place(phase, create.file.as_ref(), create.content_block.as_deref())
            .map_err(|why| why.within("create"))?;
        Ok(Self {
            attempt: nested("operation", message.operation)?,
            phase,
            create,
            event: nested("event", message.event)?,
            document: None,
        })
    }
}

/// A body is where the phase wants it.
fn check_place(phase: Phase, file: Option<&File>, block: Option<&str>) -> Checked<()> {
    if file.is_some() != phase.writes_blob() {
        return Err(Violation::new("file", "must be there in every phase but legacy"));
    }
    if block.is_some() != phase.writes_content_block() {
        let name = phase.name();
        let what = format!("must be there exactly in the phases that write it; this is {name}");
        return Err(Violation::new("content_block", what));
    }
    Ok(())
}

impl TryFrom<pb::CommitOperationRequest> for Repair {
    type Error = Violation;

    fn try_from(message: pb::CommitOperationRequest) -> Checked<Self> {
        let phase = phase("phase", message.phase())?;
        if message.event.is_some() {
            return Err(Violation::new("repair", "cannot be beside an event"));
        }
        let repair = field::required("repair", message.repair)?;
        text("repair.bad_key", &repair.bad_key, MAX_KEY_BYTES)?;
        text("repair.url", &repair.url, MAX_URL_BYTES)?;
        Ok(Self {
            attempt: nested("operation", message.operation)?,
            phase,
            version: field::within("repair.version", repair.version, 1, i32::MAX)?,
            bad_key: repair.bad_key,
            url: Some(repair.url).filter(|url| !url.is_empty()),
        })
    }
}

impl TryFrom<pb::EntityDraft> for EntityDraft {
    type Error = Violation;

    fn try_from(message: pb::EntityDraft) -> Checked<Self> {
        text("title", &message.title, MAX_TITLE_BYTES)?;
        text("preview", &message.preview, MAX_PREVIEW_BYTES)?;
        check_tags("tags", &message.tags)?;
        if let Some(body) = &message.content_block {
            // How large it may be is the limit of the message.
            text("content_block", body, usize::MAX)?;
        }
        if let Some(body) = &message.search_text {
            text("search_text", body, MAX_SEARCH_BYTES)?;
        }
        Ok(Self {
            title: Some(message.title).filter(|title| !title.is_empty()),
            preview: message.preview,
            tags: message.tags,
            file: message.file.map(File::try_from).transpose().map_err(|v| v.within("file"))?,
            content_block: message.content_block,
            search_text: message.search_text,
        })
    }
}

impl TryFrom<pb::File> for File {
    type Error = Violation;

    fn try_from(message: pb::File) -> Checked<Self> {
        let types = ["markdown", "pdf", "audio", "video", "image"];
        if !types.contains(&message.r#type.as_str()) {
            return Err(Violation::new("type", format!("must be one of {}", types.join(", "))));
        }
        let checksum: Checksum =
            message.checksum.parse().map_err(|why| Violation::new("checksum", why))?;
        text("url", &message.url, MAX_URL_BYTES)?;
        text("name", &message.name, MAX_FILE_NAME_BYTES)?;
        Ok(Self {
            url: Some(message.url).filter(|url| !url.is_empty()),
            path: field::key("path", message.path)?.to_string(),
            size: field::within("size", message.size, 0, i64::MAX)?,
            file_type: message.r#type,
            // One spelling for all rows, whichever was sent.
            checksum: checksum.to_string(),
            name: Some(message.name).filter(|name| !name.is_empty()),
        })
    }
}

impl TryFrom<pb::EventDraft> for EventDraft {
    type Error = Violation;

    fn try_from(message: pb::EventDraft) -> Checked<Self> {
        if !is_event_type(&message.r#type) {
            return Err(Violation::new(
                "type",
                "must be lower-case words with dots between them, like entity.created",
            ));
        }
        json_object("data", &message.data, MAX_EVENT_BYTES)?;
        Ok(Self { event_type: message.r#type, data: message.data })
    }
}

/// A JSON object that a column can hold.
fn json_object(name: &str, json: &str, max_bytes: usize) -> Checked<()> {
    field::within(name, json.len(), 2, max_bytes)
        .map_err(|why| Violation::new(name, format!("{} bytes", why.description)))?;
    let object: serde_json::Map<String, Value> = serde_json::from_str(json)
        .map_err(|why| Violation::new(name, format!("must be a JSON object: {why}")))?;
    if has_nul(&Value::Object(object)) {
        return Err(Violation::new(name, NO_NUL));
    }
    Ok(())
}

const NO_NUL: &str = "must not contain NUL: PostgreSQL cannot store it";

pub(super) fn check_tags(name: &str, tags: &[String]) -> Checked<()> {
    field::length(name, tags, 0, MAX_TAGS)?;
    for (index, tag) in tags.iter().enumerate() {
        text(&format!("{name}[{index}]"), tag, MAX_TAG_BYTES)?;
    }
    Ok(())
}

/// A text that a column can hold.
pub(super) fn text(name: &str, value: &str, max_bytes: usize) -> Checked<()> {
    if value.contains('\0') {
        return Err(Violation::new(name, NO_NUL));
    }
    if value.len() > max_bytes {
        return Err(Violation::new(name, format!("must be {max_bytes} bytes at most")));
    }
    Ok(())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// event-service's rule: a type that it refused would leave its operation committed for ever.
fn is_event_type(text: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.len() <= MAX_EVENT_TYPE_BYTES && text.contains('.') && text.split('.').all(is_word)
}

/// A key as it was handed out.
pub(super) fn deleted_key(name: &str, key: &str) -> Checked<()> {
    if key.is_empty() {
        return Err(Violation::new(name, "is required"));
    }
    text(name, key, MAX_KEY_BYTES)
}

impl From<Entity> for pb::Entity {
    fn from(entity: Entity) -> Self {
        Self {
            id: entity.id.to_string(),
            user_id: entity.user_id,
            r#type: entity.entity_type,
            title: entity.title.unwrap_or_default(),
            preview: entity.preview.unwrap_or_default(),
            tags: entity.tags,
            file: entity.file.map(|file| pb::File {
                url: file.url.unwrap_or_default(),
                path: file.path,
                size: file.size,
                r#type: file.file_type,
                checksum: file.checksum,
                name: file.name.unwrap_or_default(),
            }),
            version: entity.version,
            create_time: Some(field::timestamp(entity.created_at)),
            update_time: Some(field::timestamp(entity.updated_at)),
            delete_time: entity.deleted_at.map(field::timestamp),
        }
    }
}

impl From<PendingEvent> for pb::PendingEvent {
    fn from(pending: PendingEvent) -> Self {
        Self {
            operation: Some((&pending.attempt).into()),
            event_id: pending.event_id.to_string(),
            entity_type: pending.entity_type,
            entity_id: pending.entity_id.to_string(),
            version: pending.version.into(),
            occur_time: Some(field::timestamp(pending.occurred_at)),
            event: Some(pb::EventDraft {
                r#type: pending.event.event_type,
                data: pending.event.data,
            }),
            adopts: pending.adopts,
        }
    }
}

pub(super) fn phase(name: &str, message: pb::StoragePhase) -> Checked<Phase> {
    Ok(match message {
        pb::StoragePhase::Unspecified => return Err(Violation::new(name, "is required")),
        pb::StoragePhase::Legacy => Phase::Legacy,
        pb::StoragePhase::DualWrite => Phase::DualWrite,
        pb::StoragePhase::ObjectPrimary => Phase::ObjectPrimary,
        pb::StoragePhase::ObjectOnly => Phase::ObjectOnly,
        pb::StoragePhase::LegacyDropped => Phase::LegacyDropped,
    })
}

impl TryFrom<pb::SetStoragePhaseRequest> for PhaseChange {
    type Error = Violation;

    fn try_from(message: pb::SetStoragePhaseRequest) -> Checked<Self> {
        let expected = phase("expected", message.expected())?;
        let next = phase("next", message.next())?;
        if !expected.is_next_to(next) {
            let what = format!("must be the phase before or after {}", expected.name());
            return Err(Violation::new("next", what));
        }
        Ok(Self { expected, next })
    }
}

impl From<Phase> for pb::StoragePhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Legacy => Self::Legacy,
            Phase::DualWrite => Self::DualWrite,
            Phase::ObjectPrimary => Self::ObjectPrimary,
            Phase::ObjectOnly => Self::ObjectOnly,
            Phase::LegacyDropped => Self::LegacyDropped,
        }
    }
}
