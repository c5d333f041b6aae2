//! tRPC's envelopes: `{"result":{"data":…}}`, and `{"error":…}` with tRPC's own code and key beside
//! what gRPC callers get.

use axum::{
    Json,
    body::to_bytes,
    http::{StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::json;
use synap_proto::reason;
use synap_rpc::{DOMAIN, RpcError};
use tonic::Code;

use crate::error::Error;

/// What there is, for those who ask for something else.
const PROCEDURES: [&str; 7] = [
    "notes.create",
    "notes.get",
    "notes.list",
    "notes.search",
    "notes.update",
    "notes.delete",
    "notes.undelete",
];

/// A result, or an error, in its envelope. `path` is the request's.
pub(super) fn answer(path: &str, answer: Result<impl Serialize, Error>) -> Response {
    match answer {
        Ok(data) => Json(json!({ "result": { "data": data } })).into_response(),
        Err(error) => failure(path, &error.into()),
    }
}

/// The answer to a batch of one.
pub(super) async fn list_of_one(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, [b"[", &*body, b"]"].concat().into())
}

/// An error in its envelope. `path` is the request's: `/trpc/notes.create`.
pub(super) fn failure(path: &str, error: &RpcError) -> Response {
    let (status, key, code) = kind(error);
    let procedure = path.trim_start_matches("/trpc/");
    let violations: Vec<_> = error
        .violations
        .iter()
        .map(|one| json!({ "field": camel_case(&one.field), "description": one.description }))
        .collect();
    let body = json!({ "error": {
        "message": error.message,
        "code": code,
        "data": {
            "code": key,
            "httpStatus": status.as_u16(),
            "path": procedure,
            "reason": error.reason,
            "domain": DOMAIN,
            "metadata": error.metadata,
            "fieldViolations": violations,
        },
    }});
    let mut response = (status, Json(body)).into_response();
    if let Some(delay) = error.retry_after {
        let seconds = delay.as_secs_f64().ceil().max(1.0);
        if let Ok(value) = format!("{seconds:.0}").parse() {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
    }
    response
}

pub(super) async fn no_such_procedure(uri: Uri) -> Response {
    let path = uri.path();
    let message = format!("no procedure at {path}; there are {}", PROCEDURES.join(", "));
    failure(uri.path(), &RpcError::new(Code::NotFound, reason::NOT_FOUND, message))
}

pub(super) async fn wrong_method(uri: Uri) -> Response {
    let message = "what changes a note is called with POST, everything else with GET";
    let error = RpcError::new(Code::Unimplemented, reason::INVALID_FIELD, message);
    failure(uri.path(), &error)
}

/// HTTP status, tRPC key and JSON-RPC code, as tRPC pairs them.
fn kind(error: &RpcError) -> (StatusCode, &'static str, i32) {
    match error.code {
        _ if error.reason == reason::MESSAGE_TOO_LARGE => {
            (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", -32013)
        }
        Code::InvalidArgument | Code::OutOfRange => {
            (StatusCode::BAD_REQUEST, "BAD_REQUEST", -32600)
        }
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", -32001),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "FORBIDDEN", -32003),
        Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND", -32004),
        Code::Unimplemented => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_SUPPORTED", -32005),
        Code::DeadlineExceeded => (StatusCode::REQUEST_TIMEOUT, "TIMEOUT", -32008),
        Code::Aborted | Code::AlreadyExists => (StatusCode::CONFLICT, "CONFLICT", -32009),
        Code::FailedPrecondition => {
            (StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", -32012)
        }
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", -32029),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", -32603),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_SERVER_ERROR", -32603),
    }
}

/// `audio_url` is `audioUrl` at this edge.
fn camel_case(field: &str) -> String {
    let mut camel = String::with_capacity(field.len());
    let mut upper = false;
    for c in field.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_the_client_wrote_them() {
        assert_eq!(camel_case("audio_url"), "audioUrl");
        assert_eq!(camel_case("tags[3]"), "tags[3]");
    }
}
