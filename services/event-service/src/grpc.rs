//! `synap.event.v1.EventService`: validates, calls the store, maps.

mod activity;
mod admin;
mod capabilities;
mod convert;
mod legacy;

use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use synap_proto::event::{
    AppendEventsRequest, AppendEventsResponse, CountEventsRequest, CountEventsResponse,
    DeleteConsumerRequest, DeleteConsumerResponse, GetCapabilitiesRequest, GetCapabilitiesResponse,
    GetDailyActivityRequest, GetDailyActivityResponse, GetStreamVersionRequest,
    GetStreamVersionResponse, ListConsumersRequest, ListConsumersResponse, PrepareAppendRequest,
    PrepareAppendResponse, ReadByTypeRequest, ReadByTypeResponse, ReadCorrelatedRequest,
    ReadCorrelatedResponse, ReadStreamRequest, ReadStreamResponse, ReadUserEventsRequest,
    ReadUserEventsResponse, SaveCheckpointRequest, SaveCheckpointResponse, SubscribeRequest,
    SubscribeResponse, event_service_server::EventService, prepare_append_request::Step,
};
use synap_proto::field;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Streaming};

pub(crate) use admin::EventAdminApi;

use crate::{
    domain::Read,
    error::{Answer, Failure, Streamed},
    store::Store,
    upkeep::Upkeep,
};

/// Calls that are good for as long as a deadline can be.
pub(crate) const LONG_CALLS: &[&str] = &[
    "/synap.event.v1.EventService/Subscribe",
    "/synap.event.v1.EventAdminService/RebuildRollups",
    "/synap.event.v1.EventAdminService/ArchiveEvents",
    "/synap.event.v1.EventAdminService/ApplyRetention",
];

/// How long a call that prepares an append may be without saying which.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

pub(crate) struct EventApi {
    store: Store,
    /// Ends subscriptions: nothing else would.
    stop: CancellationToken,
    upkeep: Upkeep,
}

impl EventApi {
    pub(crate) fn new(store: Store, upkeep: Upkeep, stop: CancellationToken) -> Self {
        Self { store, stop, upkeep }
    }

    async fn read<T: 'static>(
        &self,
        read: Read,
        answer: impl Fn(synap_proto::event::Event) -> T + Send + 'static,
    ) -> Answer<Streamed<T>> {
        let events = self.store.read(read).await.map_err(Failure::from)?;
        Ok(streamed(events.map_ok(move |event| answer(event.into()))))
    }
}

fn streamed<T: 'static, E: 'static>(
    answers: impl Stream<Item = Result<T, E>> + Send + 'static,
) -> Response<Streamed<T>>
where
    Failure: From<E>,
{
    Response::new(answers.map_err(|error| Failure::from(error).into()).boxed())
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

    async fn prepare_append(
        &self,
        request: Request<Streaming<PrepareAppendRequest>>,
    ) -> Answer<PrepareAppendResponse> {
        let mut messages = request.into_inner();
        // A call that says nothing holds no place, and does not stay either.
        let first = timeout(FIRST_MESSAGE, messages.message()).await;
        let append = convert::to_prepare(first.unwrap_or(Ok(None))?).map_err(Failure::from)?;
        let confirmed = async move {
            synap_failpoint::hit("prepare.effect").await;
            let told = messages.message().await;
            synap_failpoint::hit("append.before").await;
            matches!(told, Ok(Some(PrepareAppendRequest { step: Some(Step::Commit(())) })))
        };
        let appended = self.store.append_if(append, confirmed).await.map_err(Failure::from)?;
        synap_failpoint::hit("append.effect").await;
        Ok(PrepareAppendResponse { result: Some(appended.into()) }.into())
    }

    type ReadStreamStream = Streamed<ReadStreamResponse>;

    async fn read_stream(
        &self,
        request: Request<ReadStreamRequest>,
    ) -> Answer<Self::ReadStreamStream> {
        let read = convert::stream(request.into_inner()).map_err(Failure::from)?;
        self.read(read, |event| ReadStreamResponse { event: Some(event) }).await
    }

    async fn get_stream_version(
        &self,
        request: Request<GetStreamVersionRequest>,
    ) -> Answer<GetStreamVersionResponse> {
        let request = request.into_inner();
        let user = field::user_id("user_id", request.user_id).map_err(Failure::from)?;
        let stream = convert::stream_id(request.aggregate_type, &request.aggregate_id);
        let stream = stream.map_err(Failure::from)?;
        let version = self.store.stream_version(&user, &stream).await.map_err(Failure::from)?;
        Ok(GetStreamVersionResponse { version }.into())
    }

    type ReadUserEventsStream = Streamed<ReadUserEventsResponse>;

    async fn read_user_events(
        &self,
        request: Request<ReadUserEventsRequest>,
    ) -> Answer<Self::ReadUserEventsStream> {
        let read = convert::timeline(request.into_inner()).map_err(Failure::from)?;
        self.read(read, |event| ReadUserEventsResponse { event: Some(event) }).await
    }

    type ReadCorrelatedStream = Streamed<ReadCorrelatedResponse>;

    async fn read_correlated(
        &self,
        request: Request<ReadCorrelatedRequest>,
    ) -> Answer<Self::ReadCorrelatedStream> {
        let read = convert::correlated(request.into_inner()).map_err(Failure::from)?;
        self.read(read, |event| ReadCorrelatedResponse { event: Some(event) }).await
    }

    type ReadByTypeStream = Streamed<ReadByTypeResponse>;

    async fn read_by_type(
        &self,
        request: Request<ReadByTypeRequest>,
    ) -> Answer<Self::ReadByTypeStream> {
        let (filter, after, limit) =
            convert::by_type(request.into_inner()).map_err(Failure::from)?;
        let found = self.store.read_by_type(filter, after, limit).await.map_err(Failure::from)?;
        Ok(streamed(found.map_ok(|(event, place)| convert::progress(event.as_deref(), place))))
    }

    async fn count_events(
        &self,
        request: Request<CountEventsRequest>,
    ) -> Answer<CountEventsResponse> {
        let counting = convert::counting(request.into_inner()).map_err(Failure::from)?;
        let count = self.store.count(&counting).await.map_err(Failure::from)?;
        Ok(CountEventsResponse { count }.into())
    }

    type SubscribeStream = Streamed<SubscribeResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        let subscribing = convert::subscribing(request.into_inner()).map_err(Failure::from)?;
        let subscription = self.store.subscribe(subscribing).await.map_err(Failure::from)?;
        let messages = stream::try_unfold(subscription, |mut subscription| async {
            let message = subscription.next().await.map_err(Failure::from)?;
            Ok(Some((convert::message(message), subscription)))
        });
        // It has no end of its own.
        let stopped = stream::once(async { Err(Failure::stopping().into()) });
        let messages = messages.take_until(self.stop.clone().cancelled_owned()).chain(stopped);
        Ok(Response::new(messages.boxed()))
    }

    async fn save_checkpoint(
        &self,
        request: Request<SaveCheckpointRequest>,
    ) -> Answer<SaveCheckpointResponse> {
        let (name, place, rewind) =
            convert::checkpoint(request.into_inner()).map_err(Failure::from)?;
        let kept = self.store.save_checkpoint(&name, place, rewind).await;
        let cursor = kept.map_err(Failure::from)?.cursor();
        Ok(SaveCheckpointResponse { cursor }.into())
    }

    async fn delete_consumer(
        &self,
        request: Request<DeleteConsumerRequest>,
    ) -> Answer<DeleteConsumerResponse> {
        let name = convert::consumer(request.into_inner().consumer).map_err(Failure::from)?;
        if !self.store.delete_consumer(&name).await.map_err(Failure::from)? {
            return Err(Failure::no_consumer(&name).into());
        }
        Ok(DeleteConsumerResponse {}.into())
    }

    async fn list_consumers(
        &self,
        _: Request<ListConsumersRequest>,
    ) -> Answer<ListConsumersResponse> {
        let consumers = self.store.consumers().await.map_err(Failure::from)?;
        let consumers = consumers.into_iter().map(Into::into).collect();
        Ok(ListConsumersResponse { consumers }.into())
    }

    async fn get_daily_activity(
        &self,
        request: Request<GetDailyActivityRequest>,
    ) -> Answer<GetDailyActivityResponse> {
        let read = activity::read(request.into_inner()).map_err(Failure::from)?;
        let rows = self.store.daily_activity(&read).await.map_err(Failure::from)?;
        Ok(activity::answer(&read, rows).into())
    }

    async fn get_capabilities(
        &self,
        _request: Request<GetCapabilitiesRequest>,
    ) -> Answer<GetCapabilitiesResponse> {
        let answer = capabilities::tell(&self.upkeep, &self.store).await.map_err(Failure::from)?;
        Ok(answer.into())
    }
}
