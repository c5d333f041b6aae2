//! What operators and tools see: health, reflection, a stop that ends.

use synap_content_service::{Backend, Service, StartError};
use synap_proto::content::PutBlobRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::running::{Running, bytes, launch, messages, start};

async fn health(service: &Running, name: &str) -> ServingStatus {
    let service_name = name.to_owned();
    let mut client = HealthClient::new(service.channel.clone());
    let request = HealthCheckRequest { service: service_name };
    client.check(request).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn alive_is_not_ready() {
    let ready = start(Backend::Memory).await;
    for name in ["liveness", "readiness", ""] {
        assert_eq!(health(&ready, name).await, ServingStatus::Serving, "{name}");
    }
    let broken = launch(Backend::S3, |config| {
        config.store.s3_endpoint = Some("http://127.0.0.1:1".to_owned());
    })
    .await;
    assert_eq!(health(&broken, "liveness").await, ServingStatus::Serving);
    assert_eq!(health(&broken, "readiness").await, ServingStatus::NotServing);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_service_in_both_versions() {
    let service = start(Backend::Memory).await;
    let expected = "synap.content.v1.ContentService";

    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(service.channel.clone());
    let list = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answer = client.server_reflection_info(tokio_stream::iter([list]));
    let answer = answer.await.unwrap().into_inner().message().await.unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.unwrap().message_response
    else {
        panic!("no list");
    };
    assert!(list.service.iter().any(|one| one.name == expected));

    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(service.channel.clone());
    let list = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answer = client.server_reflection_info(tokio_stream::iter([list]));
    let answer = answer.await.unwrap().into_inner().message().await.unwrap();
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.unwrap().message_response
    else {
        panic!("no list");
    };
    assert!(list.service.iter().any(|one| one.name == expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_ends_before_the_service_does() {
    let service = start(Backend::Local).await;
    let key = "users/u/notes/last.md";
    let body = bytes(1_000_000);
    let mut parts = messages(key, &body).into_iter();
    let (send, messages_of) = mpsc::unbounded_channel::<PutBlobRequest>();
    send.send(parts.next().unwrap()).unwrap();
    let mut client = service.client();
    let put =
        tokio::spawn(
            async move { client.put_blob(UnboundedReceiverStream::new(messages_of)).await },
        );
    // Another call on the same connection is answered: the one before has been taken.
    service.head(key).await.unwrap_err();

    let Running { stop, served, directory, _files, .. } = service;
    drop(stop);
    for part in parts {
        send.send(part).unwrap();
    }
    drop(send);
    put.await.unwrap().unwrap();
    served.await.unwrap().unwrap();
    assert!(std::fs::read(directory.join(key)).unwrap() == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut config = None;
    let _running = launch(Backend::Memory, |usual| config = Some(usual.clone())).await;
    let mut config = config.unwrap();
    config.listen = address;
    let Err(error) = Service::bind(config).await else {
        panic!("bound twice");
    };
    assert!(matches!(error, StartError::Listen(_)));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
