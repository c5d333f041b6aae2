//! Events that are sent before their pivot: event-service does all of the append but its commit, which
//! it is told when the pivot has committed.

use synap_proto::event::{
    AppendEventsRequest, PrepareAppendRequest, PrepareAppendResponse, prepare_append_request::Step,
};

use super::{super::prepared::Prepared, EntityEvent, EventClient};

/// An append on its way. Dropped, it leaves nothing.
pub(crate) struct EventAhead {
    event: EntityEvent,
    append: Prepared<PrepareAppendRequest, PrepareAppendResponse>,
}

impl EventClient {
    /// Begins to append an event that may still not happen; `None` outside of a call, which has no
    /// deadline.
    pub(crate) fn send_ahead(&self, event: EntityEvent) -> Option<EventAhead> {
        let append = Step::Append(AppendEventsRequest { appends: vec![(&event).into()] });
        let steps = [append, Step::Commit(())];
        let messages = steps.map(|step| PrepareAppendRequest { step: Some(step) });
        let mut stub = self.stub.clone();
        let call = |messages| async move { stub.prepare_append(messages).await };
        Some(EventAhead { event, append: Prepared::begin(messages, call)? })
    }
}

impl EventAhead {
    /// The pivot has committed. Returns whether it was of this event, and the event is stored; if not,
    /// it is to be appended as any other: where it is stored after all, that does no harm.
    pub(crate) async fn commit(self, event: &EntityEvent) -> bool {
        self.event == *event && self.append.commit().await.is_some()
    }
}
