//! Events that are sent before their pivot: event-service does all of the append but its commit, which
//! it is told when the pivot has committed. A call that breaks off leaves nothing.

use futures::{Stream, StreamExt as _, stream};
use synap_proto::event::{AppendEventsRequest, PrepareAppendRequest, prepare_append_request::Step};
use synap_rpc::{RpcError, deadline};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::{EntityEvent, EventClient};

/// An append on its way. Dropped, it leaves nothing.
pub(crate) struct EventAhead {
    event: EntityEvent,
    pivot: oneshot::Sender<()>,
    call: AbortOnDropHandle<Result<(), RpcError>>,
}

impl EventClient {
    /// Begins to append an event that may still not happen; `None` outside of a call, which has no
    /// deadline.
    pub(crate) fn send_ahead(&self, event: EntityEvent) -> Option<EventAhead> {
        let limit = deadline::remaining()?;
        let (pivot, committed) = oneshot::channel();
        let append = Step::Append(AppendEventsRequest { appends: vec![(&event).into()] });
        let steps = stream::iter([append]).chain(commit_after(committed));
        let messages = steps.map(|step| PrepareAppendRequest { step: Some(step) });
        let mut stub = self.stub.clone();
        let append = async move { stub.prepare_append(messages).await.map_err(RpcError::from) };
        let call = async move { deadline::within(limit, append).await?.map(drop) };
        let call = AbortOnDropHandle::new(tokio::spawn(call.in_current_span()));
        Some(EventAhead { event, pivot, call })
    }
}

/// Says it when it is told to. If nobody will tell it any more it says nothing, and does not end.
fn commit_after(pivot: oneshot::Receiver<()>) -> impl Stream<Item = Step> + Send + 'static {
    stream::once(async {
        if pivot.await.is_err() {
            std::future::pending::<()>().await;
        }
        Step::Commit(())
    })
}

impl EventAhead {
    /// The pivot has committed. Returns whether it was of this event, and the event is stored; if not,
    /// it is to be appended as any other: where it is stored after all, that does no harm.
    pub(crate) async fn commit(self, event: &EntityEvent) -> bool {
        if self.event != *event {
            return false;
        }
        // If nobody listens, the call has failed, and says why.
        let _ = self.pivot.send(());
        match self.call.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, event_id = %event.event_id, "not appended ahead");
                false
            }
            Err(_) => false,
        }
    }
}
