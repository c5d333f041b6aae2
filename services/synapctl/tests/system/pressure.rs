//! Callers who take more than their part, or do not come to an end, keep nobody else out.

use std::time::Duration;

use crate::support::{
    System, eventually,
    http::{assert_envelope, raw::Conversation},
    refusal::assert_status,
    token,
};
use futures::future::join_all;
use http::uri::PathAndQuery;
use serde_json::json;
use synap_proto::{
    gateway::{CreateNoteRequest, CreateNoteResponse},
    reason,
};
use synap_rpc::RpcError;
use tonic::{Code, Request, client::Grpc};
use tonic_prost::ProstCodec;

const KIB: usize = 1024;

async fn system(environment: &[(&'static str, &str)]) -> System {
    let mut system = System::new().await;
    let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned()));
    system.environment.extend(environment);
    system.start_all(None).await;
    system
}

#[tokio::test]
async fn strangers_who_send_nothing_take_no_place() {
    let system = system(&[("MAX_CONCURRENT_CALLS", "2"), ("MAX_WAITING_CALLS", "0")]).await;
    let client = system.client("ada");
    let strangers = (0..6).map(|_| {
        let mut grpc = Grpc::new(client.channel.clone());
        async move {
            // Headers, and no body for an hour.
            let mut request = Request::new(tokio_stream::pending::<CreateNoteRequest>());
            request.set_timeout(Duration::from_hours(1));
            grpc.ready().await.unwrap();
            let path = PathAndQuery::from_static("/synap.gateway.v1.NoteService/CreateNote");
            let codec = ProstCodec::<CreateNoteRequest, CreateNoteResponse>::default();
            let answer = grpc.client_streaming(request, path, codec).await;
            answer.map(|answer: tonic::Response<CreateNoteResponse>| answer.into_inner())
        }
    });
    let strangers: Vec<_> = strangers.map(tokio::spawn).collect();
    for stranger in strangers {
        let status = tokio::time::timeout(Duration::from_secs(3), stranger).await;
        let status = status.expect("a stranger is let in").unwrap().unwrap_err();
        assert_status(&status, Code::Unauthenticated, reason::UNAUTHENTICATED);
    }
    client.create("text", "").await.unwrap();
}

#[tokio::test]
async fn one_user_leaves_places_to_others() {
    let system = system(&[("MAX_CALLS_PER_USER", "1"), ("MAX_CONCURRENT_CALLS", "8")]).await;
    let held = Conversation::posting(system.http, &token("ada"), 100).await;
    // Both edges count together.
    let status = system.client("ada").create("text", "").await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, reason::OVERLOADED);
    let refused = system.edge("ada").create(&json!({ "content": "text" })).await;
    assert_envelope(&refused, 429, "TOO_MANY_REQUESTS", reason::OVERLOADED);
    system.client("eve").create("text", "").await.unwrap();
    drop(held);
    eventually("the place of a caller who left is free", || async {
        system.client("ada").create("text", "").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn one_user_who_calls_too_often_is_told_when_to_come_back() {
    let limits = [("CALLS_PER_SECOND_PER_USER", "1"), ("CALL_BURST_PER_USER", "3")];
    let system = system(&limits).await;
    let (ada, edge) = (system.client("ada"), system.edge("ada"));
    // Whatever is asked for, and by whichever door.
    for _ in 0..3 {
        let _ = ada.get("none").await.unwrap_err();
    }
    let status = ada.create("text", "").await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, reason::RATE_LIMITED);
    let wait = RpcError::from_status(&status).retry_after.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    let refused = edge.create(&json!({ "content": "text" })).await;
    assert_envelope(&refused, 429, "TOO_MANY_REQUESTS", reason::RATE_LIMITED);
    system.client("eve").create("text", "").await.unwrap();
    eventually("the next call", || async { ada.create("text", "").await.is_ok() }).await;
}

#[tokio::test]
async fn bodies_that_do_not_come_take_no_place_and_end() {
    let system = system(&[("MAX_CONCURRENT_CALLS", "1"), ("HTTP_BODY_SECS", "2")]).await;
    let ada = token("ada");
    let slow = join_all((0..4).map(|_| Conversation::posting(system.http, &ada, 100))).await;
    let (status, answer) = system.edge("ada").create(&json!({ "content": "text" })).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    for mut slow in slow {
        let (status, body) = slow.answer().await.unwrap();
        assert_eq!(status, 408, "{body}");
        assert!(body.contains("TIMEOUT"), "{body}");
    }
}

#[tokio::test]
async fn bodies_that_are_held_are_counted() {
    let limit = 1000 * KIB;
    let system = system(&[("GATEWAY_MAX_INFLIGHT_BYTES", &limit.to_string())]).await;
    let text = "x".repeat(300 * KIB);
    let mut held = Conversation::posting(system.http, &token("ada"), limit).await;
    held.send(&vec![b' '; 800 * KIB]).await.unwrap();
    let edge = system.edge("eve");
    eventually("the bytes are counted", || async {
        edge.create(&json!({ "content": text })).await.0.as_u16() == 429
    })
    .await;
    let status = system.client("eve").create(&text, "").await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, reason::OVERLOADED);
    system.client("eve").create("short", "").await.unwrap();
    drop(held);
    eventually("the bytes are given back", || async {
        system.client("eve").create(&text, "").await.is_ok()
    })
    .await;
}

/// Most clients write all they have before they read. An answer that is followed by a reset never
/// reaches them.
#[tokio::test]
async fn who_writes_before_it_reads_hears_why_it_was_refused() {
    let system = system(&[("MAX_NOTE_BYTES", "1000")]).await;
    let much = vec![b'x'; 24 * 1024 * KIB];
    for (token, path, expected) in [
        (token("ada"), "/trpc/notes.create", 413),
        ("nobody".to_owned(), "/trpc/notes.create", 401),
        (token("ada"), "/trpc/notes.forget", 404),
        (token("ada"), "/trpc/notes.get", 405),
    ] {
        let mut conversation = Conversation::start(system.http).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: synap\r\nauthorization: Bearer {token}\r\n\
             content-length: {}\r\n\r\n",
            much.len()
        );
        conversation.send(head.as_bytes()).await.unwrap();
        let sent = conversation.send(&much).await;
        assert!(sent.is_ok(), "{path} {expected}: the connection was cut: {sent:?}");
        let (status, body) = conversation.answer().await.unwrap();
        assert_eq!(status, expected, "{body}");
        assert!(body.starts_with(r#"{"error":"#), "{body}");
    }
}

#[tokio::test]
async fn watches_have_places_of_their_own() {
    let system = system(&[("MAX_WATCHES", "1")]).await;
    let (ada, eve) = (system.client("ada"), system.client("eve"));
    let mut watch = ada.watch("").await.unwrap();
    let start = watch.next().await.unwrap();
    let refused = eve.watch("").await.err().unwrap();
    assert_status(&refused, Code::ResourceExhausted, reason::OVERLOADED);
    eve.create("hers", "").await.unwrap();
    drop(watch);
    // Until the gateway has heard that ada left.
    eventually("a place", || async { eve.watch(&start.cursor).await.is_ok() }).await;
}
