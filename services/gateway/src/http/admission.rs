//! How a request gets in, in this order: its caller is known, its body is there, it has a place, its
//! time runs. Nobody's body is read before we know whose it is, and nobody holds a place with a body
//! that does not come.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use synap_proto::{field::Violation, reason};
use synap_rpc::{ByteBudget, Callers, RpcError, Share, deadline};
use tokio::sync::Semaphore;
use tonic::Code;

use super::trpc;

/// What the steps share.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) callers: Callers,
    pub(super) budget: ByteBudget,
    pub(super) places: Arc<Semaphore>,
    /// A body may take this long, from the first byte to the last.
    pub(super) body_limit: Duration,
    /// A request gets this long from when its body is there.
    pub(super) deadline: Duration,
    /// Bytes of a note's body at most.
    pub(super) max_note_bytes: usize,
}

impl Admission {
    /// JSON escapes can make a body of 1 byte one of 6.
    fn max_body_bytes(&self) -> usize {
        self.max_note_bytes.saturating_mul(6).saturating_add(64 * 1024)
    }
}

/// Lets a request in, and answers it.
pub(super) async fn admit(
    State(admission): State<Admission>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    match admission.run(request, next).await {
        Ok(response) => response,
        Err(error) => trpc::failure(&path, &error),
    }
}

impl Admission {
    async fn run(&self, request: Request, next: Next) -> Result<Response, RpcError> {
        let (mut parts, body) = request.into_parts();
        let admitted = self.callers.admit(&parts.headers).await?;
        parts.extensions.insert(admitted.user().clone());

        // The bytes stay in the share until the answer is there: so do they in memory.
        let share = self.budget.share();
        let body = tokio::time::timeout(self.body_limit, self.read(body, &share));
        let body = body.await.map_err(|_| too_slow(self.body_limit))??;
        let Ok(_place) = self.places.try_acquire() else {
            return Err(overloaded());
        };
        let request = Request::from_parts(parts, Body::from(body));
        deadline::within(self.deadline, next.run(request)).await
    }

    async fn read(&self, mut body: Body, share: &Share) -> Result<Bytes, RpcError> {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| broken())?.into_data() else {
                continue;
            };
            if all.len() + data.len() > self.max_body_bytes() {
                return Err(too_large(self.max_note_bytes));
            }
            share.take(data.len())?;
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

fn too_large(max_note_bytes: usize) -> RpcError {
    let what = format!("a note has {max_note_bytes} bytes at most");
    let mut error = RpcError::new(Code::InvalidArgument, reason::MESSAGE_TOO_LARGE, &what);
    error.violations = vec![Violation::new("content", what)];
    error
}

fn too_slow(limit: Duration) -> RpcError {
    let what = format!("the body did not arrive within {limit:?}; nothing was done");
    RpcError::new(Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED, what)
}

/// Nobody will read it: the connection is gone.
fn broken() -> RpcError {
    RpcError::new(Code::Cancelled, reason::INVALID_FIELD, "the body ended before its end")
}

fn overloaded() -> RpcError {
    RpcError::new(
        Code::ResourceExhausted,
        reason::OVERLOADED,
        "more requests at once than this server takes; try again, a little later each time",
    )
    .retry_after(Duration::from_millis(500))
}
