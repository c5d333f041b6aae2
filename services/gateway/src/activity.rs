//! ListUserEvents and WatchEvents: what the caller did, and does.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use synap_proto::{
    field::{self, Violation},
    gateway::{GetDailyActivityRequest, ListUserEventsRequest, WatchEventsRequest},
    reason,
};
use synap_types::UserId;
use tokio::sync::Semaphore;

use crate::{
    clients::{DayCount, EventClient, EventPage, Happened, Watched},
    domain::{PageEnd, PageTokens, days_question, events_question, page_size},
    error::Error,
    list_notes::Page,
};

/// Types that a filter names at most; event-service says what a type is.
const MAX_TYPES: usize = 100;

/// What the caller did, whatever it is asked in.
#[derive(Clone)]
pub(crate) struct ActivityApi {
    /// Over a connection of its own: watches must not take the places of appends.
    pub(crate) event: EventClient,
    pub(crate) tokens: PageTokens,
    /// For watches, of all users together.
    pub(crate) places: Arc<Semaphore>,
}

impl ActivityApi {
    /// A page of the user's events, the newest first.
    pub(crate) async fn list(
        &self,
        user: &UserId,
        request: ListUserEventsRequest,
    ) -> Result<Page<Happened>, Error> {
        let size = page_size(request.page_size)?;
        field::length("types", &request.types, 0, MAX_TYPES)?;
        let question = events_question(&request)?;
        let after = self.tokens.open(user, question, &request.page_token)?;
        let page = EventPage {
            from: request.from_time,
            until: request.until_time,
            types: request.types,
            after: after.and_then(PageEnd::from_bytes),
            // One more than the page holds: whether there is another page is known without asking
            // again.
            limit: i32::try_from(size).unwrap_or(i32::MAX).saturating_add(1),
        };
        let mut items = self.event.user_events(user, &page).await?;
        let more = items.len() > size;
        items.truncate(size);
        let last = items.last().filter(|_| more).map(Happened::page_end);
        let seal = |last: PageEnd| self.tokens.seal(user, question, &last.to_bytes());
        Ok(Page { next_page_token: last.map(seal).unwrap_or_default(), items })
    }

    /// A page of how much the user did on each day.
    pub(crate) async fn days(
        &self,
        user: &UserId,
        mut request: GetDailyActivityRequest,
    ) -> Result<Page<DayCount>, Error> {
        let question = days_question(&request);
        let after: Option<Vec<u8>> = self.tokens.open(user, question, &request.page_token)?;
        // event-service's own, which says where to go on and not for whom.
        request.page_token = String::from_utf8(after.unwrap_or_default()).unwrap_or_default();
        let (items, next) = self.event.daily_activity(user, request).await?;
        let seal = |next: String| self.tokens.seal(user, question, next.as_bytes());
        let next = Some(next).filter(|next| !next.is_empty());
        Ok(Page { items, next_page_token: next.map(seal).unwrap_or_default() })
    }

    /// The user's events after a cursor, as they are stored.
    pub(crate) async fn watch(
        &self,
        user: &UserId,
        request: WatchEventsRequest,
    ) -> Result<impl Stream<Item = Result<Watched, Error>> + Send + use<>, Error> {
        field::length("types", &request.types, 0, MAX_TYPES)?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Error::TooManyWatches)?;
        let watched = self.event.watch(user, request.types, request.cursor).await;
        Ok(watched.map_err(as_asked)?.map(move |message| {
            // Held as long as the stream is.
            let _ = &place;
            message
        }))
    }
}

/// event-service speaks of its filter, the caller has given types.
fn as_asked(error: Error) -> Error {
    let Error::Service(mut inner) = error else { return error };
    if inner.reason == reason::INVALID_FIELD {
        let outside = |why: Violation| {
            Violation::new(why.field.trim_start_matches("filter."), why.description)
        };
        inner.violations = inner.violations.into_iter().map(outside).collect();
    }
    Error::Service(inner)
}
