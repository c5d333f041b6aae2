//! synap.gateway.v1.ActivityService

use std::pin::Pin;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use synap_proto::gateway::{
    GetDailyActivityRequest, GetDailyActivityResponse, ListUserEventsRequest,
    ListUserEventsResponse, WatchEventsRequest, WatchEventsResponse,
    activity_service_server::ActivityService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::caller;
use crate::{activity::ActivityApi, error::Error};

/// What the caller did, over gRPC.
pub(crate) struct Activities {
    pub(crate) api: ActivityApi,
    /// Ends watches: nothing else would.
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl ActivityService for Activities {
    async fn list_user_events(
        &self,
        request: Request<ListUserEventsRequest>,
    ) -> Result<Response<ListUserEventsResponse>, Status> {
        let user = caller(&request)?;
        let page = self.api.list(&user, request.into_inner()).await?;
        Ok(Response::new(ListUserEventsResponse {
            events: page.items.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn get_daily_activity(
        &self,
        request: Request<GetDailyActivityRequest>,
    ) -> Result<Response<GetDailyActivityResponse>, Status> {
        let user = caller(&request)?;
        let page = self.api.days(&user, request.into_inner()).await?;
        Ok(Response::new(GetDailyActivityResponse {
            activities: page.items.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let user = caller(&request)?;
        let watched = self.api.watch(&user, request.into_inner()).await?;
        let messages = watched
            .map_ok(|(event, cursor)| WatchEventsResponse { event: event.map(Into::into), cursor })
            .map_err(Status::from);
        let stopped = stream::once(async { Err(Error::Stopping.into()) });
        let messages = messages.take_until(self.stop.clone().cancelled_owned()).chain(stopped);
        Ok(Response::new(messages.boxed()))
    }
}
