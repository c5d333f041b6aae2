//! gRPC written by hand over HTTP/2: what no well-behaved client sends.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tonic::Status;

/// Calls a method of the content service with one message and tells how the call ended.
pub(crate) async fn call(
    address: SocketAddr,
    method: &str,
    grpc_timeout: Option<&[u8]>,
    message: &[u8],
) -> Status {
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(true)
        .build_http();
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    let mut request =
        Request::post(format!("http://{address}/synap.content.v1.ContentService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
    if let Some(timeout) = grpc_timeout {
        request = request.header("grpc-timeout", HeaderValue::from_bytes(timeout).unwrap());
    }
    let request = request.body(Full::<Bytes>::new(frame.freeze())).unwrap();
    let answer = client.request(request).await.unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let body = answer.into_body().collect().await.unwrap();
    Status::from_header_map(body.trailers().unwrap()).unwrap()
}

/// A length-delimited field of a protobuf message.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    assert!(bytes.len() < 128, "a length of one byte");
    field.extend_from_slice(bytes);
    field
}
