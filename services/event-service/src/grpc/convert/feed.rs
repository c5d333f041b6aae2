//! The feed: subscriptions, reads by type, consumers.

use std::time::Duration;

use prost_types::Duration as DurationMessage;
use synap_proto::{
    event::{
        Consumer as ConsumerMessage, EventFilter, Heartbeat, ReadByTypeRequest, ReadByTypeResponse,
        SaveCheckpointRequest, SubscribeRequest, SubscribeResponse, subscribe_request,
        subscribe_response,
    },
    field::{self, Checked, Violation},
};

use super::{read::optional_user, types};
use crate::{
    domain::{ConsumerName, Filter, MAX_TYPES, Place, Start, StoredEvent, Subscribing},
    store::{Consumer, Message},
};

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
const MAX_HEARTBEAT: Duration = Duration::from_mins(1);

pub(in crate::grpc) fn subscribing(request: SubscribeRequest) -> Checked<Subscribing> {
    let filter = filter(request.filter.unwrap_or_default());
    let start = match request.start {
        None | Some(subscribe_request::Start::Beginning(())) => Start::After(Place::BEGINNING),
        Some(subscribe_request::Start::Now(())) => Start::Now,
        Some(subscribe_request::Start::Cursor(text)) => Start::After(place("cursor", &text)?),
    };
    Ok(Subscribing {
        filter: filter.map_err(|why| why.within("filter"))?,
        start,
        consumer: match request.consumer {
            name if name.is_empty() => None,
            name => Some(consumer(name)?),
        },
        heartbeat: heartbeat(request.heartbeat_interval)?,
    })
}

fn filter(message: EventFilter) -> Checked<Filter> {
    field::length("aggregate_types", &message.aggregate_types, 0, MAX_TYPES)?;
    let aggregate_type = |(i, text)| field::entity_type(&format!("aggregate_types[{i}]"), text);
    Ok(Filter {
        types: types("types", message.types, 0)?,
        aggregate_types: message
            .aggregate_types
            .into_iter()
            .enumerate()
            .map(aggregate_type)
            .collect::<Checked<_>>()?,
        user: optional_user("user_id", message.user_id)?,
    })
}

fn heartbeat(interval: Option<DurationMessage>) -> Checked<Duration> {
    let Some(interval) = interval else { return Ok(DEFAULT_HEARTBEAT) };
    Duration::try_from(interval)
        .ok()
        .filter(|interval| (MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(interval))
        .ok_or_else(|| Violation::new("heartbeat_interval", "must be between 100 ms and 1 min"))
}

fn place(name: &str, cursor: &str) -> Checked<Place> {
    Place::parse(cursor).map_err(|why| Violation::new(name, why))
}

pub(in crate::grpc) fn consumer(name: String) -> Checked<ConsumerName> {
    ConsumerName::parse(name).map_err(|why| Violation::new("consumer", why))
}

pub(in crate::grpc) fn checkpoint(
    request: SaveCheckpointRequest,
) -> Checked<(ConsumerName, Place, bool)> {
    Ok((consumer(request.consumer)?, place("cursor", &request.cursor)?, request.rewind))
}

/// What to read, where to begin, how many at most.
pub(in crate::grpc) fn by_type(request: ReadByTypeRequest) -> Checked<(Filter, Place, u64)> {
    let filter = Filter {
        types: types("types", request.types, 1)?,
        user: optional_user("user_id", request.user_id)?,
        ..Filter::default()
    };
    let after = match request.cursor.as_str() {
        "" => Place::BEGINNING,
        cursor => place("cursor", cursor)?,
    };
    let limit = match field::within("limit", request.limit, 0, i64::MAX)? {
        0 => u64::MAX,
        limit => limit.unsigned_abs(),
    };
    Ok((filter, after, limit))
}

pub(in crate::grpc) fn progress(event: Option<&StoredEvent>, place: Place) -> ReadByTypeResponse {
    ReadByTypeResponse { event: event.map(|event| event.clone().into()), cursor: place.cursor() }
}

pub(in crate::grpc) fn message(message: Message) -> SubscribeResponse {
    let message = match message {
        Message::Event(event) => {
            subscribe_response::Message::Event(StoredEvent::clone(&event).into())
        }
        Message::Heartbeat { place, caught_up, horizon_age } => {
            subscribe_response::Message::Heartbeat(Heartbeat {
                cursor: place.cursor(),
                caught_up,
                horizon_age: Some(duration(horizon_age)),
            })
        }
    };
    SubscribeResponse { message: Some(message) }
}

impl From<Consumer> for ConsumerMessage {
    fn from(consumer: Consumer) -> Self {
        Self {
            name: consumer.name,
            cursor: consumer.place.cursor(),
            update_time: Some(field::timestamp(consumer.updated_at)),
            lag_events: consumer.lag_events,
            lag: Some(duration(consumer.lag)),
        }
    }
}

fn duration(duration: Duration) -> DurationMessage {
    // No transaction is as old as would be too long.
    DurationMessage::try_from(duration).unwrap_or_default()
}
