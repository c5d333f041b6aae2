//! What a stranger with grpcurl is told.

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic_reflection::pb::{v1, v1alpha};

use crate::running::{Running, args};

const SYMBOL: &str = "synap.content.v1.ContentService";

/// Asks both versions of the protocol the same: they differ only in the package.
macro_rules! ask {
    ($version:ident, $channel:expr, $question:ident, $text:expr, $answer:ident) => {{
        let question = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some($version::server_reflection_request::MessageRequest::$question(
                $text.to_owned(),
            )),
        };
        let mut client =
            $version::server_reflection_client::ServerReflectionClient::new($channel.clone());
        let mut answers =
            client.server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        match answer.message_response {
            Some($version::server_reflection_response::MessageResponse::$answer(answer)) => answer,
            other => panic!("not what was asked: {other:?}"),
        }
    }};
}

#[tokio::test]
async fn exactly_the_services_that_are_served_are_listed() {
    let (server, _stage) = Running::scripted(&args()).await;
    let channel = server.plain().await;
    let v1 = ask!(v1, channel, ListServices, "", ListServicesResponse);
    let alpha = ask!(v1alpha, channel, ListServices, "", ListServicesResponse);
    let mut v1: Vec<_> = v1.service.into_iter().map(|one| one.name).collect();
    let mut alpha: Vec<_> = alpha.service.into_iter().map(|one| one.name).collect();
    v1.sort();
    alpha.sort();
    assert_eq!(v1, ["grpc.health.v1.Health", SYMBOL]);
    assert_eq!(alpha, v1);
}

#[tokio::test]
async fn descriptors_carry_their_comments() {
    let (server, _stage) = Running::scripted(&args()).await;
    let channel = server.plain().await;
    let v1 = ask!(v1, channel, FileContainingSymbol, SYMBOL, FileDescriptorResponse);
    let alpha = ask!(v1alpha, channel, FileContainingSymbol, SYMBOL, FileDescriptorResponse);
    assert_eq!(v1.file_descriptor_proto, alpha.file_descriptor_proto);
    let file = v1
        .file_descriptor_proto
        .iter()
        .map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).unwrap())
        .find(|file| file.package() == "synap.content.v1")
        .unwrap();
    let info = file.source_code_info.unwrap();
    // Path 6.0: the file's first service; 6.0.2.n: its methods.
    let comment = |path: &[i32]| {
        let location = info.location.iter().find(|one| one.path == path);
        location.and_then(|one| one.leading_comments.clone())
    };
    assert!(comment(&[6, 0]).unwrap().contains("Keeps the bytes"));
    let methods = i32::try_from(file.service[0].method.len()).unwrap();
    assert!(methods > 0);
    for method in 0..methods {
        assert!(comment(&[6, 0, 2, method]).is_some(), "method {method}");
    }
}
