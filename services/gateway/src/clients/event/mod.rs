//! event-service.

mod ahead;

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use synap_proto::{
    event::{
        AppendEventsRequest, Event, ExpectedVersion, NewEvent, ReadStreamRequest,
        ReadStreamResponse, StreamAppend, event_service_client::EventServiceClient,
        expected_version::Expectation,
    },
    field,
};
use synap_rpc::{Channel, RpcError, retry};
use synap_types::UserId;
use uuid::Uuid;

pub(crate) use ahead::EventAhead;

use super::{promised, promised_time, promised_uuid};
use crate::error::Error;

pub(super) const SERVICE: &str = "event-service";

/// An event of one entity, as the pivot decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntityEvent {
    /// The key of idempotency: appending it twice is appending it once.
    pub(crate) event_id: Uuid,
    pub(crate) user_id: String,
    pub(crate) entity_type: String,
    pub(crate) entity_id: Uuid,
    /// The version that the event brings the stream to.
    pub(crate) version: i64,
    pub(crate) event_type: String,
    /// Frozen when the operation was begun.
    pub(crate) occurred_at: DateTime<Utc>,
    /// JSON object.
    pub(crate) data: String,
    /// The entity had its versions before it had events.
    pub(crate) adopts: bool,
}

/// The event store.
#[derive(Clone)]
pub(crate) struct EventClient {
    pub(super) stub: EventServiceClient<Channel>,
}

impl EventClient {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { stub: EventServiceClient::new(channel) }
    }

    /// Step 4: appends one event, once however often it is called.
    pub(crate) async fn append(&self, event: &EntityEvent) -> Result<(), Error> {
        retry(|| {
            let request = AppendEventsRequest { appends: vec![event.into()] };
            let mut stub = self.stub.clone();
            async move { stub.append_events(request).await.map_err(RpcError::from) }
        })
        .await?;
        Ok(())
    }

    /// Reads the events of one entity of the user from a version on; another user's has none.
    pub(crate) async fn read_stream(
        &self,
        user: &UserId,
        entity_type: &str,
        id: Uuid,
        from_version: i64,
        limit: i32,
    ) -> Result<Vec<EntityEvent>, Error> {
        let events = retry(|| async {
            let request = ReadStreamRequest {
                user_id: user.to_string(),
                aggregate_type: entity_type.to_owned(),
                aggregate_id: id.to_string(),
                from_version,
                limit,
                backwards: false,
            };
            let answers = self.stub.clone().read_stream(request).await?.into_inner();
            answers.map_err(RpcError::from).try_collect::<Vec<_>>().await
        })
        .await?;
        let event = |answer: ReadStreamResponse| promised(SERVICE, "event", answer.event);
        events.into_iter().map(|answer| EntityEvent::read(event(answer)?)).collect()
    }
}

impl EntityEvent {
    pub(super) fn read(event: Event) -> Result<Self, Error> {
        Ok(Self {
            event_id: promised_uuid(SERVICE, "event_id", &event.event_id)?,
            user_id: event.user_id,
            entity_type: event.aggregate_type,
            entity_id: promised_uuid(SERVICE, "aggregate_id", &event.aggregate_id)?,
            version: event.version,
            event_type: event.r#type,
            occurred_at: promised_time(SERVICE, "occur_time", event.occur_time)?,
            data: event.data,
            adopts: false,
        })
    }
}

impl From<&EntityEvent> for StreamAppend {
    fn from(event: &EntityEvent) -> Self {
        Self {
            aggregate_type: event.entity_type.clone(),
            aggregate_id: event.entity_id.to_string(),
            user_id: event.user_id.clone(),
            expected_version: Some(ExpectedVersion {
                expectation: Some(if event.adopts {
                    Expectation::Adopt(event.version - 1)
                } else {
                    Expectation::Exact(event.version - 1)
                }),
            }),
            events: vec![NewEvent {
                event_id: event.event_id.to_string(),
                r#type: event.event_type.clone(),
                occur_time: Some(field::timestamp(event.occurred_at)),
                data: event.data.clone(),
                source: "api".to_owned(),
                ..NewEvent::default()
            }],
        }
    }
}
