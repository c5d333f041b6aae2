//! What operators and strangers see: health, reflection, deadlines.

use std::time::Duration;

use crate::support::{
    Name, System,
    client::new_note,
    eventually,
    http::assert_envelope,
    refusal::{assert_status, assert_unavailable},
};
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorProto, MessageOptions, source_code_info::Location,
};
use reqwest::Method;
use serde_json::json;
use synap_proto::{gateway::note_service_client::NoteServiceClient, reason};
use tokio::time::Instant;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

/// Asks both versions of the reflection protocol the same: they differ only in the package.
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
        match answers.message().await.unwrap().unwrap().message_response {
            Some($version::server_reflection_response::MessageResponse::$answer(answer)) => answer,
            other => panic!("not what was asked: {other:?}"),
        }
    }};
}

/// Everything in a file that a comment belongs to: its path in the descriptor, and its name.
fn described(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    fn messages(
        path: &[i32],
        field: i32,
        all: &[DescriptorProto],
        found: &mut Vec<(Vec<i32>, String)>,
    ) {
        for (at, message) in (0..).zip(all) {
            if message.options.as_ref().is_some_and(MessageOptions::map_entry) {
                // protoc's own message for a map: nobody can comment on it.
                continue;
            }
            let path = [path, &[field, at]].concat();
            for (at, field) in (0..).zip(&message.field) {
                found.push(([&path[..], &[2, at]].concat(), field.name().to_owned()));
            }
            messages(&path, 3, &message.nested_type, found);
            found.push((path, message.name().to_owned()));
        }
    }
    let mut found = Vec::new();
    messages(&[], 4, &file.message_type, &mut found);
    for (at, service) in (0..).zip(&file.service) {
        found.push((vec![6, at], service.name().to_owned()));
        for (method, one) in (0..).zip(&service.method) {
            found.push((vec![6, at, 2, method], one.name().to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn reflection_lists_and_describes_every_service() {
    let system = System::start().await;
    let mut methods = Vec::new();
    for (name, package, served) in [
        (Name::Content, "synap.content.v1", &["ContentService"][..]),
        (
            Name::Entity,
            "synap.entity.v1",
            &[
                "AdoptionService",
                "ContentMigrationService",
                "EntityService",
                "OperationService",
                "StorageService",
                "TakeoverService",
                "VerificationService",
            ],
        ),
        (Name::Event, "synap.event.v1", &["EventAdminService", "EventService"]),
        (Name::Gateway, "synap.gateway.v1", &["ActivityService", "FileService", "NoteService"]),
    ] {
        let channel = system.channel(name);
        let v1 = ask!(v1, channel, ListServices, "", ListServicesResponse);
        let alpha = ask!(v1alpha, channel, ListServices, "", ListServicesResponse);
        let mut v1: Vec<_> = v1.service.into_iter().map(|one| one.name).collect();
        let mut alpha: Vec<_> = alpha.service.into_iter().map(|one| one.name).collect();
        v1.sort();
        alpha.sort();
        let mut expected = vec!["grpc.health.v1.Health".to_owned()];
        expected.extend(served.iter().map(|service| format!("{package}.{service}")));
        assert_eq!((&v1, &alpha), (&expected, &expected));

        for symbol in &expected[1..] {
            let v1 = ask!(v1, channel, FileContainingSymbol, symbol, FileDescriptorResponse);
            let alpha =
                ask!(v1alpha, channel, FileContainingSymbol, symbol, FileDescriptorResponse);
            assert_eq!(v1.file_descriptor_proto, alpha.file_descriptor_proto);
            let files = v1.file_descriptor_proto.iter();
            let file = files
                .map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).unwrap())
                .find(|file| file.package() == package)
                .unwrap();
            let places = file.source_code_info.as_ref().unwrap();
            let comment = |path: &[i32]| {
                let place = places.location.iter().find(|place: &&Location| place.path == path);
                place.and_then(|place| place.leading_comments.clone()).unwrap_or_default()
            };
            for (path, name) in described(&file) {
                assert!(!comment(&path).trim().is_empty(), "{package}: {name} has no comment");
            }
            let of_service = file.service.iter().flat_map(|service| &service.method);
            methods.extend(of_service.map(|method| method.name().to_owned()));
        }
    }
    for method in ["CreateNote", "GetNote", "PutBlob", "BeginOperation", "GetEntity", "ReadStream"]
    {
        assert!(methods.iter().any(|one| one == method), "{method} is not described");
    }
}

async fn health(system: &System, name: Name, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(system.channel(name)).check(request).await;
    answer.ok().map(|answer| answer.into_inner().status())
}

#[tokio::test]
async fn a_service_lives_before_it_is_ready() {
    let mut system = System::new().await;
    let edge = system.edge("ada");
    let http =
        async |path: &str| edge.request(Method::GET, path).send().await.unwrap().status().as_u16();
    // Alone, the gateway lives and cannot work.
    system.spawn(Name::Gateway, None);
    eventually("the gateway lives", || async {
        health(&system, Name::Gateway, "liveness").await == Some(ServingStatus::Serving)
    })
    .await;
    for service in ["readiness", ""] {
        assert_eq!(health(&system, Name::Gateway, service).await, Some(ServingStatus::NotServing));
    }
    assert_eq!((http("/healthz").await, http("/readyz").await), (200, 503));
    let refused = system.client("ada").create("text", "").await.unwrap_err();
    assert_unavailable(&refused, reason::SERVICE_UNAVAILABLE);

    for name in [Name::Content, Name::Entity, Name::Event] {
        system.spawn(name, None);
    }
    for name in Name::ALL {
        system.ready(name).await;
        for service in ["liveness", "readiness", ""] {
            assert_eq!(health(&system, name, service).await, Some(ServingStatus::Serving));
        }
        // Nobody else is known to it.
        assert_eq!(health(&system, name, "synap.NoSuchService").await, None);
    }
    assert_eq!((http("/healthz").await, http("/readyz").await), (200, 200));
    system.client("ada").create("text", "").await.unwrap();
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_servers() {
    let mut system = System::new().await;
    system.environment.push(("DEFAULT_DEADLINE_SECS", "1".to_owned()));
    system.start_all(None).await;
    let client = system.client("ada");
    // A client of tonic's own, which sends no deadline.
    let address = format!("http://{}", system.address(Name::Gateway));
    let plain = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let mut plain = NoteServiceClient::new(plain);
    plain.create_note(client.request(new_note("text", ""))).await.unwrap();

    system.signal(Name::Content, "STOP");
    let begun = Instant::now();
    let status = plain.create_note(client.request(new_note("text", ""))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
    let refused = system.edge("ada").create(&json!({ "content": "text" })).await;
    assert_envelope(&refused, 408, "TIMEOUT", reason::DEADLINE_EXCEEDED);
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
    system.signal(Name::Content, "CONT");
    system.ready(Name::Content).await;
}
