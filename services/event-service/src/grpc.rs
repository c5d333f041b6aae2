//! `synap.event.v1.EventService`: validates, calls the store, maps.

mod convert;

use futures::{StreamExt as _, TryStreamExt as _};
use synap_proto::event::{
    AppendEventsRequest, AppendEventsResponse, ReadStreamRequest, ReadStreamResponse,
    event_service_server::EventService,
};
use tonic::Request;

use crate::{
    error::{Answer, Failure, Streamed},
    store::Store,
};

pub(crate) struct EventApi {
    store: Store,
}

impl EventApi {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl EventService for EventApi {
    async fn append_events(
        &self,
        request: Request<AppendEventsRequest>,
    ) -> Answer<AppendEventsResponse> {
        synap_failpoint::hit("append.before").await;
        let appends = convert::appends(request.into_inner()).map_err(Failure::from)?;
        let appended = self.store.append(appends).await.map_err(Failure::from)?;
        synap_failpoint::hit("append.effect").await;
        let results = appended.into_iter().map(Into::into).collect();
        Ok(AppendEventsResponse { results }.into())
    }

    type ReadStreamStream = Streamed<ReadStreamResponse>;

    async fn read_stream(
        &self,
        request: Request<ReadStreamRequest>,
    ) -> Answer<Self::ReadStreamStream> {
        let read = convert::stream_read(request.into_inner()).map_err(Failure::from)?;
        let events = self.store.read_stream(read).await.map_err(Failure::from)?;
        let answers = events
            .map_ok(|event| ReadStreamResponse { event: Some(event.into()) })
            .map_err(|error| Failure::from(error).into());
        Ok(tonic::Response::new(answers.boxed()))
    }
}
