//! What becomes of an old row. Nothing here ends the migration: whatever V0.2 wrote has a verdict.

use synap_types::{EntityType, UserId};
use uuid::Uuid;

use super::{
    Heads,
    rows::{Origin, Row},
};
use crate::domain::{
    EventType, JsonObject, MAX_DATA_BYTES, MAX_METADATA_BYTES, NewEvent, Source, StreamId,
};

/// The outcome of an id that is another event's already.
pub(super) const DUPLICATE_ID: &str = "duplicate_id";
/// The reason of an event whose stream is another user's.
pub(super) const OTHER_USER: &str = "other_user";

/// An old event that can be stored.
#[derive(Debug)]
pub(super) struct HistoryEvent {
    pub(super) stream: StreamId,
    pub(super) user: UserId,
    pub(super) event: NewEvent,
    /// The version of the entity by now; other aggregates have none but their events'.
    pub(super) entity_version: Option<i64>,
}

#[derive(Debug)]
pub(super) enum Verdict {
    /// It is stored.
    Known,
    /// It is no event of this store; why.
    Odd(&'static str),
    /// It must be known what this entity is.
    Unknown(Uuid),
    Event(Box<HistoryEvent>),
}

/// Judges a row. `heads` is what is known of entities.
pub(super) fn of(row: &Row, origin: Origin, heads: &Heads) -> Verdict {
    match row.known_same {
        Some(true) => Verdict::Known,
        Some(false) => Verdict::Odd(DUPLICATE_ID),
        None => judge(row, origin, heads).unwrap_or_else(|verdict| verdict),
    }
}

fn judge(row: &Row, origin: Origin, heads: &Heads) -> Result<Verdict, Verdict> {
    let odd = Verdict::Odd;
    let id = row.id.ok_or(odd("no_id"))?;
    let occurred_at = row.occurred_at.ok_or(odd("time"))?;
    let user = row.user_id.clone().and_then(|user| UserId::parse(user).ok()).ok_or(odd("user"))?;
    let data = row.data.clone().ok_or(odd("data_too_long"))?;
    let data = JsonObject::parse(data, MAX_DATA_BYTES).map_err(|_| odd("data"))?;
    let event_type = row.event_type.clone().and_then(|text| EventType::parse(text).ok());
    let event_type = event_type.ok_or(odd("type"))?;
    let source = Source::parse(row.source.as_deref().unwrap_or_default());
    let source = source.map_err(|_| odd("source"))?;
    let metadata = metadata(row, origin).ok_or(odd("metadata"))?;

    let aggregate_id = row.entity.as_deref().ok_or(odd("no_entity"))?;
    // 36 characters: the one spelling that PostgreSQL reads as we do.
    let aggregate_id = Some(aggregate_id).filter(|text| text.len() == 36);
    let aggregate_id = aggregate_id.and_then(|text| Uuid::try_parse(text).ok());
    let aggregate_id = aggregate_id.ok_or(odd("not_a_uuid"))?;
    let kind = row.aggregate_type.as_deref().unwrap_or("entity");
    let (aggregate_type, entity_version) = if kind == "entity" {
        let head = heads.get(&aggregate_id).ok_or(Verdict::Unknown(aggregate_id))?;
        let head = head.as_ref().ok_or(odd("names_nothing"))?;
        if head.user != user.as_str() {
            return Err(odd(OTHER_USER));
        }
        (head.entity_type.as_str(), Some(head.version))
    } else {
        (kind, None)
    };
    let aggregate_type = EntityType::parse(aggregate_type).map_err(|_| odd("aggregate_type"))?;
    Ok(Verdict::Event(Box::new(HistoryEvent {
        stream: StreamId { aggregate_type, aggregate_id },
        user,
        event: NewEvent {
            id,
            event_type,
            occurred_at,
            data,
            metadata,
            causation_id: row.causation_id,
            correlation_id: row.correlation_id,
            source,
        },
        entity_version,
    })))
}

/// The row's own, with the table that it is from: who follows the feed can tell history from what
/// happens now.
fn metadata(row: &Row, origin: Origin) -> Option<JsonObject> {
    let mut metadata: serde_json::Map<_, _> =
        serde_json::from_str(row.metadata.as_deref()?).ok()?;
    metadata.insert("legacy".to_owned(), origin.name().into());
    let text = serde_json::Value::Object(metadata).to_string();
    JsonObject::parse(text, MAX_METADATA_BYTES).ok()
}
