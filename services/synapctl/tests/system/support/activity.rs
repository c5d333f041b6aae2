//! Calls that tell what a user did.

use synap_proto::gateway::{
    GetDailyActivityRequest, GetDailyActivityResponse, ListUserEventsRequest,
    ListUserEventsResponse, UserEvent, WatchEventsRequest, WatchEventsResponse,
    activity_service_client::ActivityServiceClient,
};
use synap_rpc::Channel;
use tonic::{Status, Streaming};

use super::{Client, SOON};

impl Client {
    fn activity(&self) -> ActivityServiceClient<Channel> {
        ActivityServiceClient::new(self.channel.clone())
    }

    pub async fn events(
        &self,
        request: ListUserEventsRequest,
    ) -> Result<ListUserEventsResponse, Status> {
        let mut request = self.request(request);
        request.set_timeout(SOON);
        Ok(self.activity().list_user_events(request).await?.into_inner())
    }

    pub async fn days(
        &self,
        request: GetDailyActivityRequest,
    ) -> Result<GetDailyActivityResponse, Status> {
        let mut request = self.request(request);
        request.set_timeout(SOON);
        Ok(self.activity().get_daily_activity(request).await?.into_inner())
    }

    /// After a cursor, or from now on.
    pub async fn watch(&self, cursor: &str) -> Result<Watch, Status> {
        let request = WatchEventsRequest { cursor: cursor.to_owned(), types: Vec::new() };
        let mut request = self.request(request);
        request.set_timeout(SOON);
        Ok(Watch { messages: self.activity().watch_events(request).await?.into_inner() })
    }
}

/// A watch, until its time is up.
pub struct Watch {
    messages: Streaming<WatchEventsResponse>,
}

impl Watch {
    pub async fn next(&mut self) -> Result<WatchEventsResponse, Status> {
        Ok(self.messages.message().await?.unwrap())
    }

    /// The next events, whatever comes between.
    pub async fn events(&mut self, count: usize) -> Vec<UserEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.unwrap().event);
        }
        events
    }
}
