//! event-service: what a user did.

use futures::{Stream, TryStreamExt as _};
use prost_types::Timestamp;
use synap_proto::{
    event::{
        self as pb, Event, EventFilter, ReadUserEventsRequest, SubscribeRequest,
        subscribe_request::Start, subscribe_response::Message,
    },
    field, gateway,
};
use synap_rpc::{RpcError, retry};
use synap_types::UserId;

use super::{EntityEvent, EventClient, event::SERVICE, promised};
use crate::{domain::PageEnd, error::Error};

/// An event and where it stands.
#[derive(Debug)]
pub(crate) struct Happened {
    pub(crate) event: EntityEvent,
    pub(crate) cursor: String,
    pos: i64,
}

/// How often a thing happened on a day.
#[derive(Debug)]
pub(crate) struct DayCount {
    /// As 2026-11-28.
    pub(crate) date: String,
    pub(crate) event_type: String,
    pub(crate) entity_type: String,
    pub(crate) count: i64,
}

/// Which of a user's events.
#[derive(Debug)]
pub(crate) struct EventPage {
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) types: Vec<String>,
    pub(crate) after: Option<PageEnd>,
    pub(crate) limit: i32,
}

/// An event or none, and where to go on.
pub(crate) type Watched = (Option<Happened>, String);

impl Happened {
    pub(crate) fn page_end(&self) -> PageEnd {
        PageEnd { occurred_at: self.event.occurred_at, pos: self.pos }
    }

    fn read(event: Event) -> Result<Self, Error> {
        let position = promised(SERVICE, "position", event.position)?;
        let cursor = event.cursor.clone();
        Ok(Self { event: EntityEvent::read(event)?, cursor, pos: position.pos })
    }
}

impl EventClient {
    /// What a user did, the newest first.
    pub(crate) async fn user_events(
        &self,
        user: &UserId,
        page: &EventPage,
    ) -> Result<Vec<Happened>, Error> {
        let events = retry(|| async {
            let request = ReadUserEventsRequest {
                user_id: user.to_string(),
                from_time: page.from,
                until_time: page.until,
                types: page.types.clone(),
                backwards: true,
                after: page.after.map(|end| pb::PageEnd {
                    occur_time: Some(field::timestamp(end.occurred_at)),
                    pos: end.pos,
                }),
                limit: page.limit,
            };
            let answers = self.stub.clone().read_user_events(request).await?.into_inner();
            answers.map_err(RpcError::from).try_collect::<Vec<_>>().await
        })
        .await?;
        let read = |answer: pb::ReadUserEventsResponse| {
            Happened::read(promised(SERVICE, "event", answer.event)?)
        };
        events.into_iter().map(read).collect()
    }

    /// How much a user did on each day, as event-service has counted it. It names the fields as our
    /// caller does, and checks them. With the rows comes its own token for the next ones.
    pub(crate) async fn daily_activity(
        &self,
        user: &UserId,
        days: gateway::GetDailyActivityRequest,
    ) -> Result<(Vec<DayCount>, String), Error> {
        let answer = retry(|| async {
            let days = days.clone();
            let request = pb::GetDailyActivityRequest {
                user_id: user.to_string(),
                start_date: days.start_date,
                end_date: days.end_date,
                page_size: days.page_size,
                page_token: days.page_token,
            };
            Ok::<_, RpcError>(self.stub.clone().get_daily_activity(request).await?.into_inner())
        });
        let answer = answer.await?;
        let count = |day: pb::DailyActivity| DayCount {
            date: day.date,
            event_type: day.r#type,
            entity_type: day.aggregate_type,
            count: day.count,
        };
        Ok((answer.activities.into_iter().map(count).collect(), answer.next_page_token))
    }

    /// Follows what a user does after a cursor, or from now on.
    pub(crate) async fn watch(
        &self,
        user: &UserId,
        types: Vec<String>,
        cursor: String,
    ) -> Result<impl Stream<Item = Result<Watched, Error>> + Send + use<>, Error> {
        let start = if cursor.is_empty() { Start::Now(()) } else { Start::Cursor(cursor) };
        let request = SubscribeRequest {
            filter: Some(EventFilter {
                types,
                user_id: user.to_string(),
                ..EventFilter::default()
            }),
            start: Some(start),
            ..SubscribeRequest::default()
        };
        let answers = self.stub.clone().subscribe(request).await.map_err(RpcError::from)?;
        let answers = answers.into_inner().map_err(|status| RpcError::from(status).into());
        Ok(answers.and_then(|answer| async {
            Ok(match promised(SERVICE, "message", answer.message)? {
                Message::Event(event) => {
                    let happened = Happened::read(event)?;
                    let cursor = happened.cursor.clone();
                    (Some(happened), cursor)
                }
                Message::Heartbeat(heartbeat) => (None, heartbeat.cursor),
            })
        }))
    }
}
