//! Messages to checked types, with the path of the field that is wrong, and back.

mod append;
mod feed;
mod read;

use synap_proto::{
    event::{Event, Position},
    field::{self, Checked, Violation},
};

use crate::domain::{EventType, MAX_TYPES, StoredEvent, StreamId};

pub(super) use append::{appends, to_prepare};
pub(super) use feed::{by_type, checkpoint, consumer, message, progress, subscribing};
pub(super) use read::{correlated, counting, stream, timeline};

pub(super) fn stream_id(aggregate_type: String, aggregate_id: &str) -> Checked<StreamId> {
    Ok(StreamId {
        aggregate_type: field::entity_type("aggregate_type", aggregate_type)?,
        aggregate_id: field::uuid("aggregate_id", aggregate_id)?,
    })
}

/// Types of events; none where there may be none.
fn types(field: &str, types: Vec<String>, low: usize) -> Checked<Vec<EventType>> {
    field::length(field, &types, low, MAX_TYPES)?;
    let parse = |(i, text)| {
        EventType::parse(text).map_err(|why| Violation::new(format!("{field}[{i}]"), why))
    };
    types.into_iter().enumerate().map(parse).collect()
}

impl From<StoredEvent> for Event {
    fn from(event: StoredEvent) -> Self {
        let optional = |id: Option<uuid::Uuid>| id.map_or_else(String::new, |id| id.to_string());
        Self {
            cursor: event.place().cursor(),
            event_id: event.event_id.to_string(),
            aggregate_type: event.aggregate_type,
            aggregate_id: event.aggregate_id.to_string(),
            version: event.version,
            r#type: event.event_type,
            user_id: event.user_id,
            occur_time: Some(field::timestamp(event.occurred_at)),
            data: event.data,
            metadata: event.metadata,
            causation_id: optional(event.causation_id),
            correlation_id: optional(event.correlation_id),
            source: event.source,
            position: Some(Position {
                xid: event.xid.cast_unsigned(),
                pos: event.pos,
                epoch: event.epoch,
            }),
        }
    }
}
