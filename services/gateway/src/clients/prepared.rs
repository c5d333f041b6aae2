//! Calls of two messages: the first has something done but for its commit, the second, which may never
//! come, has it committed. A call that breaks off or ends before leaves nothing.

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use synap_rpc::{RpcError, deadline};
use tokio_util::task::AbortOnDropHandle;
use tonic::Response;
use tracing::Instrument as _;

/// A call between its two messages. Dropped, it leaves nothing.
pub(super) struct Prepared<M, T> {
    messages: UnboundedSender<M>,
    confirmation: M,
    call: AbortOnDropHandle<Result<T, RpcError>>,
}

impl<M, T: Send + 'static> Prepared<M, T> {
    /// Begins a call with its two messages; `None` outside of a call, which has no deadline.
    pub(super) fn begin<F>(
        [first, confirmation]: [M; 2],
        call: impl FnOnce(UnboundedReceiver<M>) -> F,
    ) -> Option<Self>
    where
        F: Future<Output = tonic::Result<Response<T>>> + Send + 'static,
    {
        let limit = deadline::remaining()?;
        let (messages, received) = unbounded();
        messages.unbounded_send(first).ok()?;
        let answer = call(received);
        let answer = async move { Ok(deadline::within(limit, answer).await??.into_inner()) };
        let call = AbortOnDropHandle::new(tokio::spawn(answer.in_current_span()));
        Some(Self { messages, confirmation, call })
    }

    /// Has it committed. `None` if it was not, or if that is not known.
    pub(super) async fn commit(self) -> Option<T> {
        // If nobody listens, the call has failed, and says why.
        let _ = self.messages.unbounded_send(self.confirmation);
        let answer = self.call.await.ok()?;
        answer.inspect_err(|error| tracing::debug!(%error, "not committed ahead")).ok()
    }
}
