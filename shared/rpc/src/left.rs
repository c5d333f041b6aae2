//! A caller who gives up halfway through a stream. tonic ends such a stream as if all had come, and
//! only then drops the handler: for a moment half a body looks like a whole one. Here it ends with
//! an error.

use http::Request;
use http_body_util::BodyExt as _;
use tonic::{Code, Status, body::Body};

/// Makes the end of a stream tell whether its caller ended it.
pub(crate) fn tell(request: Request<Body>) -> Request<Body> {
    request.map(|body| Body::new(body.map_err(not_cancelled)))
}

/// Only this code is taken for an end.
fn not_cancelled(status: Status) -> Status {
    match status.code() {
        Code::Cancelled => Status::aborted("the caller left"),
        _ => status,
    }
}
