//! event-service.

use chrono::{DateTime, Utc};
use synap_proto::{
    event::{
        AppendEventsRequest, ExpectedVersion, NewEvent, StreamAppend,
        event_service_client::EventServiceClient, expected_version::Expectation,
    },
    field,
};
use synap_rpc::{Channel, RpcError, retry};
use uuid::Uuid;

use crate::error::Error;

/// An event of one entity, as the pivot decided it.
#[derive(Debug, Clone)]
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
}

/// The event store.
#[derive(Clone)]
pub(crate) struct EventClient {
    stub: EventServiceClient<Channel>,
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
}

impl From<&EntityEvent> for StreamAppend {
    fn from(event: &EntityEvent) -> Self {
        Self {
            aggregate_type: event.entity_type.clone(),
            aggregate_id: event.entity_id.to_string(),
            user_id: event.user_id.clone(),
            expected_version: Some(ExpectedVersion {
                expectation: Some(Expectation::Exact(event.version - 1)),
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
