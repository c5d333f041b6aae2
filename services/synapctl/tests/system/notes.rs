//! A note that was created is there: byte by byte, in every store, under its owner's prefix, and
//! for nobody else.

use std::collections::BTreeMap;

use crate::support::{
    Client, Name, System,
    http::{assert_bad_field, assert_envelope},
    markdown::{MIB, samples},
    refusal::{assert_field, assert_status, token_for},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use synap_proto::{
    event::{Event, ReadStreamRequest, event_service_client::EventServiceClient},
    gateway::{CreateNoteRequest, GetNoteRequest},
    reason,
};
use synap_types::Checksum;
use tonic::Code;

/// With the lease that a writer really has: large bodies take their time on a busy machine.
async fn system_for_large_bodies() -> System {
    let mut system = System::new().await;
    system.environment.push(("OPERATION_LEASE_SECS", "30".to_owned()));
    system.start_all(None).await;
    system
}

#[tokio::test]
async fn what_was_created_is_read_back_to_the_byte() {
    let system = system_for_large_bodies().await;
    let client = system.client("ada");
    let samples = samples();
    assert!(samples.len() >= 40 && samples.iter().any(|text| text.len() >= 3 * MIB - 4));

    let notes: BTreeMap<String, String> = stream::iter(samples)
        .map(|body| async {
            let (note, event_pending) = client.create(&body, "").await?;
            assert_eq!((note.user_id.as_str(), event_pending), ("ada", false));
            assert_eq!((note.version, note.content.as_str()), (1, ""));
            assert_eq!(note.file_size, i64::try_from(body.len()).unwrap());
            assert_eq!(note.file_path, format!("users/ada/notes/{}.md", note.id));
            assert_eq!(note.checksum, Checksum::of(body.as_bytes()).to_string());
            let read = client.get(&note.id).await?;
            assert!(read.content == body, "{} bytes came back different", body.len());
            assert_eq!(synap_proto::gateway::Note { content: String::new(), ..read }, note);
            Ok::<_, tonic::Status>((note.id, body))
        })
        .buffer_unordered(8)
        .try_collect()
        .await
        .unwrap();

    system.settled().await;
    assert!(system.check_whole().await == notes, "the stores hold something else");

    // The HTTP edge reads the same, and what it writes is the same.
    let edge = system.edge("ada");
    for (id, body) in notes.iter().step_by(9) {
        let (status, answer) = edge.get(id).await;
        let note = &answer["result"]["data"]["note"];
        assert_eq!((status.as_u16(), &note["id"]), (200, &json!(id)));
        assert!(note["content"] == json!(body), "{} bytes came back different", body.len());
        let (status, answer) = edge.create(&json!({ "content": body, "autoEnrich": false })).await;
        assert_eq!(status.as_u16(), 200, "{answer}");
        let created = &answer["result"]["data"]["note"];
        assert_eq!(created["checksum"], note["checksum"]);
        assert_eq!(client.get(created["id"].as_str().unwrap()).await.unwrap().content, *body);
    }
}

#[tokio::test]
async fn a_note_of_exactly_the_limit_is_stored() {
    let system = system_for_large_bodies().await;
    let client = system.client("ada");
    let body = "sixteen bytes…".repeat(MIB);
    assert_eq!(body.len(), 16 * MIB);
    let (note, _) = client.create(&body, "").await.unwrap();
    assert!(client.get(&note.id).await.unwrap().content == body);
    system.settled().await;
    assert_eq!(system.check_whole().await.len(), 1);
}

async fn stream_of(system: &System, user: &str, note: &str) -> Vec<Event> {
    let request = ReadStreamRequest {
        user_id: user.to_owned(),
        aggregate_type: "note".to_owned(),
        aggregate_id: note.to_owned(),
        ..ReadStreamRequest::default()
    };
    let mut events = EventServiceClient::new(system.channel(Name::Event));
    let answers = events.read_stream(request).await.unwrap().into_inner();
    answers.map_ok(|answer| answer.event.unwrap()).try_collect().await.unwrap()
}

#[tokio::test]
async fn the_event_tells_of_the_note_and_does_not_hold_it() {
    let system = System::start().await;
    let client = system.client("ada");
    let body = format!("# Trip\n\n{}", "Only in the body. ".repeat(20));
    let request = CreateNoteRequest {
        content: body.clone(),
        title: "Lisbon".to_owned(),
        tags: vec!["travel".to_owned(), "été".to_owned()],
        input_type: "audio".to_owned(),
        audio_url: "https://example.org/a.ogg?x=1".to_owned(),
        auto_enrich: true,
        request_id: String::new(),
    };
    let (note, event_pending) = client.send(client.request(request)).await.unwrap();
    assert!(!event_pending);
    assert_eq!(
        (note.title.as_str(), &note.tags[..]),
        ("Lisbon", &["travel".into(), "été".into()][..])
    );

    let events = stream_of(&system, "ada", &note.id).await;
    let [event] = &events[..] else { panic!("not one event: {events:?}") };
    assert_eq!((event.r#type.as_str(), event.version), ("entity.created", 1));
    assert_eq!((&event.user_id, &event.aggregate_id), (&note.user_id, &note.id));
    assert_eq!(event.occur_time, note.create_time);
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!(
        data,
        json!({
            "entityType": "note", "title": "Lisbon", "tags": ["travel", "été"],
            "file": { "path": note.file_path, "size": body.len(), "checksum": note.checksum },
            "inputType": "audio", "audioUrl": "https://example.org/a.ogg?x=1", "autoEnrich": true,
        })
    );
    // A stream is its owner's.
    assert_eq!(stream_of(&system, "eve", &note.id).await, []);
}

#[tokio::test]
async fn every_user_stays_under_their_own_prefix() {
    let system = System::start().await;
    let as_user =
        |subject: &str| Client::new(system.channel(Name::Gateway), token_for(&json!(subject)));
    let long = "x".repeat(200);
    let (wide, wide_segment) = ("語".repeat(28), "%E8%AA%9E".repeat(28));
    let stored = [
        ("auth0|12", "auth0%7C12"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("../x", "%2E%2E%2Fx"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("/etc", "%2Fetc"),
        ("C:\\x", "C%3A%5Cx"),
        ("ada@example.org", "ada%40example%2Eorg"),
        ("two words#1", "two%20words%231"),
        ("ADA", "ADA"),
        ("ada", "ada"),
        (&long, &long),
        (&wide, &wide_segment),
    ];
    let mut notes = Vec::new();
    for (user, segment) in stored {
        let client = as_user(user);
        let (note, _) = client.create(&format!("of {user}"), "").await.unwrap();
        assert_eq!(note.user_id, user);
        assert_eq!(note.file_path, format!("users/{segment}/notes/{}.md", note.id));
        let file = system.blob_dir().join(&note.file_path);
        assert_eq!(std::fs::read_to_string(file).unwrap(), format!("of {user}"));
        notes.push((client, note.id));
    }
    for (client, own) in &notes {
        for (_, id) in &notes {
            match client.get(id).await {
                Ok(_) => assert_eq!(id, own),
                Err(status) => {
                    assert_status(&status, Code::NotFound, reason::NOT_FOUND);
                    assert_ne!(id, own);
                }
            }
        }
    }
    system.settled().await;
    assert_eq!(system.check_whole().await.len(), stored.len());
    // Beside the blobs and the logs there is nothing where a path could have led.
    let beside = std::fs::read_dir(system.directory.path()).unwrap();
    let beside = beside.map(|entry| entry.unwrap().path());
    let beside: Vec<_> = beside.filter(|path| path.extension().is_none()).collect();
    assert_eq!(beside, [system.blob_dir()]);
    let below = std::fs::read_dir(system.blob_dir().join("users")).unwrap();
    assert_eq!(below.count(), stored.len());
}

#[tokio::test]
async fn a_user_whom_no_store_could_hold_is_refused() {
    let system = System::start().await;
    for subject in [
        "😀".repeat(200),
        "语".repeat(200),
        "x".repeat(256),
        "a\0b".into(),
        "a\nb".into(),
        String::new(),
    ] {
        let client = Client::new(system.channel(Name::Gateway), token_for(&json!(subject)));
        let refused = client.create("text", "").await.unwrap_err();
        assert_field(&refused, reason::INVALID_FIELD, "sub");
        let refused = client.get("0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60").await.unwrap_err();
        assert_field(&refused, reason::INVALID_FIELD, "sub");

        let mut edge = system.edge("ada");
        edge.token = Some(token_for(&json!(subject)));
        assert_bad_field(&edge.create(&json!({ "content": "text" })).await, "sub");
    }
    system.check_untouched().await;
}

#[tokio::test]
async fn another_users_note_is_like_none() {
    let system = System::start().await;
    let (note, _) = system.client("ada").create("private", "").await.unwrap();
    let eve = system.client("eve");
    let unknown = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";
    for include_content in [false, true] {
        let mut answers = Vec::new();
        for id in [note.id.as_str(), unknown] {
            let request = GetNoteRequest { id: id.to_owned(), include_content, revision: 0 };
            let status = eve.stub.clone().get_note(eve.request(request)).await.unwrap_err();
            assert_status(&status, Code::NotFound, reason::NOT_FOUND);
            answers.push((status.message().to_owned(), status.details().to_vec()));
        }
        // Not even the words tell them apart.
        assert_eq!(answers[0], answers[1]);
    }
    let edge = system.edge("eve");
    let theirs = edge.get(&note.id).await;
    assert_envelope(&theirs, 404, "NOT_FOUND", reason::NOT_FOUND);
    assert_eq!(theirs, edge.get(unknown).await);

    for id in ["", "x", "../ada", &note.id[1..]] {
        let status = eve.get(id).await.unwrap_err();
        assert_field(&status, reason::INVALID_FIELD, "id");
        assert_bad_field(&edge.get(id).await, "id");
    }
}
