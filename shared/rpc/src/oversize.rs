//! What tonic refuses before a handler sees it, said the way everything else is said: a message
//! over the limit is `RESOURCE_EXHAUSTED` (tonic: `OUT_OF_RANGE`), one that is not valid protobuf,
//! bad UTF-8 included, is `INVALID_ARGUMENT` (tonic: `INTERNAL`).

use http::Response;
use synap_proto::{field::Violation, reason};
use tonic::{Code, Status, body::Body};

use crate::RpcError;

/// Rewrites the answer if it is one of tonic's own refusals.
pub(crate) fn reword(response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    // Ours have details; decoding those of another would panic if they are not base64.
    if response.headers().contains_key(Status::GRPC_STATUS_DETAILS) {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let message = status.message();
    let error = match status.code() {
        Code::OutOfRange if message.contains("message length too large") => RpcError::new(
            Code::ResourceExhausted,
            reason::MESSAGE_TOO_LARGE,
            format!("{message}; send less, or a file through FileService"),
        ),
        Code::Internal if message.contains("failed to decode Protobuf message") => {
            RpcError::invalid(vec![Violation::new(
                decoded_field(message),
                format!("is not valid protobuf: {message}"),
            )])
        }
        _ => return response,
    };
    Status::from(error).into_http()
}

/// prost names each field on the way to the bad one, the innermost first:
/// `PutBlobSpec.key: PutBlobRequest.spec: invalid string value`.
fn decoded_field(message: &str) -> String {
    let mut names: Vec<_> = message
        .split(": ")
        .filter(|part| !part.contains(' '))
        .filter_map(|part| part.split_once('.'))
        .map(|(_, field)| field)
        .collect();
    names.reverse();
    names.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_could_not_be_decoded_is_named() {
        let message = "failed to decode Protobuf message: CreateNoteRequest.content: invalid string \
                       value: data is not UTF-8 encoded";
        assert_eq!(decoded_field(message), "content");
        let message = "failed to decode Protobuf message: PutBlobSpec.key: PutBlobRequest.spec: \
                       invalid string value: data is not UTF-8 encoded";
        assert_eq!(decoded_field(message), "spec.key");
        assert_eq!(decoded_field("failed to decode Protobuf message: buffer underflow"), "");
    }

    #[test]
    fn an_answer_of_ours_is_left_alone() {
        let ours = Status::from(RpcError::new(Code::Internal, reason::INTERNAL, "x")).into_http();
        assert_eq!(reword(ours).headers()["grpc-status"], "13");
        let theirs =
            Status::new(Code::OutOfRange, "Error, decoded message length too large").into_http();
        assert_eq!(reword(theirs).headers()["grpc-status"], "8");
    }
}
