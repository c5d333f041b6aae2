//! Bodies that are sent before it is known whether they may be written: all of the body, and not its
//! end. content-service takes them as far as it can without anybody seeing anything; a call that
//! breaks off before its end leaves nothing.

use futures::{Stream, StreamExt as _, stream};
use synap_proto::{
    content::{PutBlobRequest, PutBlobResponse},
    reason,
};
use synap_rpc::{CHUNK_BYTES, RpcError, deadline};
use synap_types::BlobKey;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tracing::Instrument as _;

use super::{ContentClient, put_messages};
use crate::domain::Body;

/// Larger bodies wait, as all of them do in two messages or more: they cost more if it turns out that
/// they are not to be written, and what step 1 takes is little beside what they take.
const LARGEST: usize = CHUNK_BYTES;

/// A body on its way. Dropped, it leaves no blob.
pub(crate) struct BodyAhead {
    key: BlobKey,
    end: oneshot::Sender<()>,
    call: AbortOnDropHandle<Result<PutBlobResponse, RpcError>>,
}

impl ContentClient {
    /// Begins to send a body under a key that was never used; `None` for one that is too large, and
    /// outside of a call, which has no deadline.
    pub(crate) fn send_ahead(&self, key: BlobKey, body: &Body) -> Option<BodyAhead> {
        let limit = deadline::remaining().filter(|_| body.bytes().len() <= LARGEST)?;
        let (end, may_end) = oneshot::channel();
        let messages = stream::iter(put_messages(key.as_str(), body)).chain(nothing_until(may_end));
        let mut stub = self.stub.clone();
        let put = async move { stub.put_blob(messages).await.map_err(RpcError::from) };
        let call = async move { Ok(deadline::within(limit, put).await??.into_inner()) };
        let call = call.in_current_span();
        Some(BodyAhead { key, end, call: AbortOnDropHandle::new(tokio::spawn(call)) })
    }
}

/// Ends when it is told to. If nobody will tell it any more it never ends: a body that breaks off
/// must not look like one that has ended.
fn nothing_until(
    told: oneshot::Receiver<()>,
) -> impl Stream<Item = PutBlobRequest> + Send + 'static {
    stream::unfold(told, |told| async {
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
        None
    })
}

impl BodyAhead {
    pub(super) fn is_at(&self, key: &str) -> bool {
        self.key.as_str() == key
    }

    /// Ends the body: now it is written.
    pub(super) async fn finish(self) -> Result<PutBlobResponse, RpcError> {
        // If nobody listens, the call has failed, and says why.
        let _ = self.end.send(());
        match self.call.await {
            Ok(outcome) => outcome,
            // It was lost on our side: to be sent again.
            Err(cause) => Err(RpcError::new(
                Code::Unavailable,
                reason::SERVICE_UNAVAILABLE,
                format!("the upload ended early: {cause}"),
            )),
        }
    }
}
