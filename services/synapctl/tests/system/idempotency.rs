//! A request id makes a call safe to repeat: at the same time, much later, through another gateway,
//! and while the first try is stuck.

use crate::support::{
    Armed, Client, Name, System,
    client::new_note,
    eventually,
    http::{assert_bad_field, assert_envelope},
    refusal::assert_field,
    token,
};
use futures::future::try_join_all;
use serde_json::json;
use synap_proto::{gateway::CreateNoteRequest, reason};

const ID: &str = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";

#[tokio::test]
async fn of_64_calls_at_once_all_get_the_one_note() {
    let mut system = System::start().await;
    let second = Client::new(system.second_gateway().await, token("ada"));
    // Through both gateways, each over several connections.
    let clients: Vec<Client> =
        (0..64).map(|n| if n % 2 == 0 { system.client("ada") } else { second.clone() }).collect();
    let calls = clients.iter().map(|client| client.create("the only one", ID));
    let answers = try_join_all(calls).await.unwrap();

    assert_eq!(answers.len(), 64);
    let (first, _) = &answers[0];
    for (note, event_pending) in &answers {
        assert_eq!((note, *event_pending), (first, false));
    }
    system.settled().await;
    let bodies = system.check_whole().await;
    assert_eq!(
        bodies.into_iter().collect::<Vec<_>>(),
        [(first.id.clone(), "the only one".to_owned())]
    );

    // Much later, with everything started again, over HTTP: still the first answer.
    for name in Name::ALL {
        system.kill(name).await;
        system.spawn(name, None);
    }
    for name in Name::ALL {
        system.ready(name).await;
    }
    assert_eq!(system.client("ada").create("the only one", ID).await.unwrap().0, *first);
    let input = json!({ "content": "the only one", "autoEnrich": false, "requestId": ID });
    let (status, answer) = system.edge("ada").create(&input).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    assert_eq!(answer["result"]["data"]["note"]["id"], json!(first.id));
}

#[tokio::test]
async fn a_request_id_stands_for_one_payload_of_one_user() {
    let system = System::start().await;
    let ada = system.client("ada");
    let (note, _) = ada.create("a", ID).await.unwrap();

    let other = |change: fn(&mut CreateNoteRequest)| {
        let mut request = new_note("a", ID);
        change(&mut request);
        request
    };
    for request in [
        other(|request| request.content = "b".into()),
        other(|request| request.title = "another".into()),
        other(|request| request.tags = vec!["t".into()]),
        other(|request| request.input_type = "audio".into()),
        other(|request| request.audio_url = "https://example.org/".into()),
        other(|request| request.auto_enrich = true),
    ] {
        let refused = ada.send(ada.request(request)).await.unwrap_err();
        assert_field(&refused, reason::REQUEST_ID_REUSED, "request_id");
    }
    let refused = system.edge("ada").create(&json!({ "content": "b", "requestId": ID })).await;
    assert_envelope(&refused, 400, "BAD_REQUEST", reason::REQUEST_ID_REUSED);

    // The same id however it is written, and another user's is another.
    let again = ada.create("a", &ID.to_uppercase()).await.unwrap().0;
    assert_eq!(again, note);
    let (theirs, _) = system.client("eve").create("b", ID).await.unwrap();
    assert_ne!(theirs.id, note.id);

    for bad in ["1", "not-a-uuid", &ID[1..], "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60\u{200b}"] {
        let refused = ada.create("a", bad).await.unwrap_err();
        assert_field(&refused, reason::INVALID_FIELD, "request_id");
        let refused = system.edge("ada").create(&json!({ "content": "a", "requestId": bad })).await;
        assert_bad_field(&refused, "requestId");
    }
    // Without one, every call is a call of its own.
    let (one, _) = ada.create("a", "").await.unwrap();
    let (two, _) = ada.create("a", "").await.unwrap();
    assert_ne!(one.id, two.id);

    system.settled().await;
    assert_eq!(system.check_whole().await.len(), 4);
}

/// The gateway stops in the middle of a write, for longer than its lease; another one takes the
/// operation over and succeeds; then the first goes on.
async fn a_slow_writer_is_taken_over_at(place: &str) {
    let mut system = System::new().await;
    // Longer than the slow writer is slow: it may write its blob after its key was given up.
    system.environment.push(("BLOB_SETTLE_SECS", "6".to_owned()));
    system.start_all(Some((Name::Gateway, Armed(place.to_owned(), "pause")))).await;
    let second = Client::new(system.second_gateway().await, token("ada"));

    let slow = system.client("ada");
    let slow = tokio::spawn(async move { slow.create("the only one", ID).await });
    let mark = system.mark();
    eventually("the first gateway has stopped", || async { mark.exists() }).await;
    let (note, event_pending) = second.create("the only one", ID).await.unwrap();
    assert!(!event_pending);
    assert_eq!(second.get(&note.id).await.unwrap().content, "the only one");

    std::fs::remove_file(&mark).unwrap();
    // It could not commit, and found out what became of its operation.
    assert_eq!(slow.await.unwrap().unwrap(), (note.clone(), false));
    system.settled().await;
    let bodies = system.check_whole().await;
    assert_eq!(bodies.into_keys().collect::<Vec<_>>(), [note.id]);
    let attempts: i64 = sqlx::query_scalar("SELECT committed_epoch FROM write_operations")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert!(attempts > 1, "nobody took it over");
}

#[tokio::test]
async fn a_slow_writer_cannot_commit_what_was_taken_over() {
    a_slow_writer_is_taken_over_at("gateway.commit.before").await;
}

#[tokio::test]
async fn a_slow_writer_leaves_no_blob_behind() {
    a_slow_writer_is_taken_over_at("gateway.put.before").await;
}
