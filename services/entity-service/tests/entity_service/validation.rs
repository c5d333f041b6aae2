//! Whatever a field holds, the answer names it, and nothing is written.

use std::fmt::Write as _;

use synap_proto::{entity as pb, reason};
use tonic::Code;

use crate::support::{
    Rows, assert_invalid, assert_refused, begin_request, commit_request, id, rows, service,
};

/// A field, and a way to spoil it.
type Spoil<M> = (&'static str, fn(&mut M));

const BAD_UUIDS: [&str; 4] =
    ["", "x", "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f6", "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60\0"];

/// Ids of users that have no place in the database or the object store.
fn bad_users() -> [String; 5] {
    [
        String::new(),
        "a\0b".to_owned(),
        "line\nbreak".to_owned(),
        "\u{1d11e}".repeat(200),
        "x".repeat(256),
    ]
}

#[tokio::test]
async fn a_begin_is_checked_field_by_field() {
    let (database, running) = service(&[]).await;
    let spoils: &[Spoil<pb::BeginOperationRequest>] = &[
        ("kind", |r| r.kind = 0),
        ("kind", |r| r.kind = 99),
        ("kind", |r| r.kind = -1),
        ("fingerprint", |r| r.fingerprint = vec![7; 31].into()),
        ("fingerprint", |r| r.fingerprint = vec![7; 33].into()),
        ("fingerprint", |r| r.fingerprint = Vec::new().into()),
        ("entity_type", |r| r.entity_type = String::new()),
        ("entity_type", |r| r.entity_type = "note/..".into()),
        ("entity_type", |r| r.entity_type = "Note".into()),
        ("entity_type", |r| r.entity_type = "n".repeat(33)),
        ("entity_type", |r| r.entity_type = "no\0te".into()),
        ("extension", |r| r.extension = String::new()),
        ("extension", |r| r.extension = "md/../x".into()),
        ("extension", |r| r.extension = ".md".into()),
        ("extension", |r| r.extension = "MD".into()),
        ("extension", |r| r.extension = "m\0d".into()),
        ("extension", |r| r.extension = "m".repeat(17)),
    ];
    for (field, spoil) in spoils {
        let mut request = begin_request("ada", &id());
        spoil(&mut request);
        assert_invalid(running.api.begin(request).await, field);
    }
    for user in bad_users() {
        assert_invalid(running.api.begin(begin_request(&user, &id())).await, "user_id");
    }
    for uuid in BAD_UUIDS {
        assert_invalid(running.api.begin(begin_request("ada", uuid)).await, "request_id");
        let request = pb::BeginOperationRequest {
            attempt_id: uuid.to_owned(),
            ..begin_request("ada", &id())
        };
        assert_invalid(running.api.begin(request).await, "attempt_id");
    }
    assert_eq!(rows(&database.pool).await, EMPTY);
}

const EMPTY: Rows =
    Rows { entities: 0, content_blocks: 0, entity_revisions: 0, write_operations: 0, blob_gc: 0 };

fn draft(request: &mut pb::CommitOperationRequest) -> &mut pb::EntityDraft {
    request.create.as_mut().unwrap()
}

fn file(request: &mut pb::CommitOperationRequest) -> &mut pb::File {
    draft(request).file.as_mut().unwrap()
}

fn event(request: &mut pb::CommitOperationRequest) -> &mut pb::EventDraft {
    request.event.as_mut().unwrap()
}

const COMMIT_SPOILS: &[Spoil<pb::CommitOperationRequest>] = &[
    ("operation", |r| r.operation = None),
    ("operation.epoch", |r| r.operation.as_mut().unwrap().epoch = 0),
    ("operation.epoch", |r| r.operation.as_mut().unwrap().epoch = -1),
    ("operation.user_id", |r| r.operation.as_mut().unwrap().user_id.clear()),
    ("operation.request_id", |r| r.operation.as_mut().unwrap().request_id.clear()),
    ("phase", |r| r.phase = 0),
    ("phase", |r| r.phase = 77),
    ("create", |r| r.create = None),
    ("create.title", |r| draft(r).title = "a\0b".into()),
    ("create.title", |r| draft(r).title = "x".repeat(4097)),
    ("create.preview", |r| draft(r).preview = "\0".into()),
    ("create.preview", |r| draft(r).preview = "x".repeat(4097)),
    ("create.tags", |r| draft(r).tags = vec!["x".to_owned(); 101]),
    ("create.tags[1]", |r| draft(r).tags = vec!["x".to_owned(), "a\0".to_owned()]),
    ("create.tags[0]", |r| draft(r).tags = vec!["x".repeat(1025)]),
    ("create.content_block", |r| draft(r).content_block = Some("a\0b".to_owned())),
    ("create.content_block", |r| draft(r).content_block = None),
    ("create.file", |r| draft(r).file = None),
    ("create.file.url", |r| file(r).url = "https://x/\0".into()),
    ("create.file.url", |r| file(r).url = "x".repeat(4097)),
    ("create.file.path", |r| file(r).path.clear()),
    ("create.file.path", |r| file(r).path = "tmp/ada/notes/x.md".into()),
    ("create.file.path", |r| file(r).path = "users/../etc/passwd".into()),
    ("create.file.path", |r| file(r).path = "/users/ada/notes/x.md".into()),
    ("create.file.path", |r| file(r).path = "users/ada/notes/a\0.md".into()),
    ("create.file.path", |r| file(r).path = "users/ada/notes/x.md".into()),
    ("create.file.path", |r| file(r).path = format!("users/ada/{}.md", "x/".repeat(600))),
    ("create.file.size", |r| file(r).size = -1),
    ("create.file.type", |r| file(r).r#type.clear()),
    ("create.file.type", |r| file(r).r#type = "exe".into()),
    ("create.file.checksum", |r| file(r).checksum.clear()),
    ("create.file.checksum", |r| file(r).checksum = "sha256:AAAA".into()),
    ("create.file.checksum", |r| file(r).checksum = "md5:1B2M2Y8AsgTpgAmY7PhCfg==".into()),
    ("event", |r| r.event = None),
    ("event.type", |r| event(r).r#type.clear()),
    ("event.type", |r| event(r).r#type = "created".into()),
    ("event.type", |r| event(r).r#type = "Entity.Created".into()),
    ("event.type", |r| event(r).r#type = "entity.\0".into()),
    ("event.type", |r| event(r).r#type = format!("a.{}", "b".repeat(99))),
    ("event.data", |r| event(r).data.clear()),
    ("event.data", |r| event(r).data = "[]".into()),
    ("event.data", |r| event(r).data = "null".into()),
    ("event.data", |r| event(r).data = "{} {}".into()),
    ("event.data", |r| event(r).data = "{\"a\":".into()),
    ("event.data", |r| event(r).data = "{\"a\":NaN}".into()),
    ("event.data", |r| event(r).data = "{\"a\":\"\0\"}".into()),
    ("event.data", |r| event(r).data = r#"{"a":"\u0000"}"#.into()),
    ("event.data", |r| event(r).data = r#"{"a":["\\\u0000"]}"#.into()),
    ("event.data", |r| event(r).data = r#"{"\u0000":1}"#.into()),
    ("event.data", |r| event(r).data = r#"{"a":"\ud800"}"#.into()),
    ("event.data", |r| event(r).data = r#"{"a":"\udc00\ud800"}"#.into()),
    ("event.data", |r| event(r).data = r#"{"a":1e400}"#.into()),
    ("event.data", |r| event(r).data = "{\"a\":".repeat(200) + "1" + &"}".repeat(200)),
    ("event.data", |r| event(r).data = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024))),
];

#[tokio::test]
async fn a_commit_is_checked_field_by_field() {
    let (database, running) = service(&[]).await;
    let started = running.api.start("ada", &id()).await;
    let before = rows(&database.pool).await;
    for (field, spoil) in COMMIT_SPOILS {
        let mut request = commit_request(&started, "body");
        spoil(&mut request);
        assert_invalid(running.api.commit(request).await, field);
    }
    assert_eq!(rows(&database.pool).await, before);
    assert_eq!(before.entities, 0);
    running.api.commit(commit_request(&started, "body")).await.unwrap();
}

#[tokio::test]
async fn what_only_looks_wrong_is_accepted() {
    let (_database, running) = service(&[]).await;
    for data in [
        "{}",
        // A backslash and the letters u0000: a note about NUL.
        r#"{"title":"\\u0000"}"#,
        r#"{"title":"1e-20000 \" 1e-20000","é😀":"\ud83d\ude00","n":[1,-2.5e-3,1E+20,0]}"#,
    ] {
        let started = running.api.start("ada", &id()).await;
        let mut request = commit_request(&started, "body");
        event(&mut request).data = data.to_owned();
        running.api.commit(request).await.unwrap();
        let repeat = begin_request("ada", &started.operation.unwrap().request_id);
        match running.api.begin(repeat).await.unwrap() {
            pb::begin_operation_response::Outcome::Committed(committed) => {
                assert_eq!(committed.pending_event.unwrap().event.unwrap().data, data);
            }
            other => panic!("{other:?}"),
        }
    }
    let longest = "x".repeat(255);
    running.api.write(&longest).await;
    running.api.write(&"\u{1d11e}".repeat(21)).await;
}

#[tokio::test]
async fn a_checksum_in_hex_is_stored_in_base64() {
    let (_database, running) = service(&[]).await;
    let started = running.api.start("ada", &id()).await;
    let mut request = commit_request(&started, "body");
    let base64 = file(&mut request).checksum.clone();
    let checksum: synap_types::Checksum = base64.parse().unwrap();
    let mut hex = "sha256:".to_owned();
    for byte in checksum.as_bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    file(&mut request).checksum = hex;
    let entity = running.api.commit(request).await.unwrap();
    assert_eq!(entity.file.unwrap().checksum, base64);
    let read = running.api.get("ada", &entity.id).await.unwrap();
    assert_eq!(read.entity.unwrap().file.unwrap().checksum, base64);
}

#[tokio::test]
async fn lists_and_limits_are_bounded() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let operation = || pb::OperationRef { user_id: "ada".to_owned(), request_id: id(), epoch: 1 };
    let key = || "users/ada/notes/x.md".to_owned();

    api.finish((0..1000).map(|_| operation()).collect()).await.unwrap();
    assert_invalid(api.finish((0..1001).map(|_| operation()).collect()).await, "operations");
    let bad = pb::OperationRef { epoch: 0, ..operation() };
    assert_invalid(api.finish(vec![operation(), bad]).await, "operations[1].epoch");
    let bad = pb::OperationRef { user_id: "a\0".to_owned(), ..operation() };
    assert_invalid(api.finish(vec![bad]).await, "operations[0].user_id");
    for limit in [0, -1, 1001, i32::MIN] {
        assert_invalid(api.claim(limit).await, "limit");
        assert_invalid(api.claim_deletions(limit).await, "limit");
    }
    api.claim(1000).await.unwrap();
    api.claim_deletions(1000).await.unwrap();
    api.complete_deletions(vec![key(); 1000]).await.unwrap();
    assert_invalid(api.complete_deletions(vec![key(); 1001]).await, "keys");
    for bad in [String::new(), "a\0b".to_owned(), "x".repeat(1025)] {
        assert_invalid(api.complete_deletions(vec![key(), bad]).await, "keys[1]");
    }
    assert_invalid(api.abort(None).await, "operation");
    for uuid in BAD_UUIDS {
        let bad = pb::OperationRef { request_id: uuid.to_owned(), ..operation() };
        assert_invalid(api.abort(Some(bad)).await, "operation.request_id");
        assert_invalid(api.get("ada", uuid).await, "id");
    }
    for user in bad_users() {
        let bad = pb::OperationRef { user_id: user.clone(), ..operation() };
        assert_invalid(api.abort(Some(bad)).await, "operation.user_id");
        assert_invalid(api.get(&user, &id()).await, "user_id");
    }
    assert_eq!(rows(&database.pool).await, EMPTY);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_as_such() {
    let (database, running) = service(&[]).await;
    let started = running.api.start("ada", &id()).await;
    let large = "x".repeat(20 * 1024 * 1024);
    let refused = running.api.commit(commit_request(&started, &large)).await;
    assert_refused(refused, Code::ResourceExhausted, reason::MESSAGE_TOO_LARGE);
    assert_eq!(rows(&database.pool).await.entities, 0);
    // Sixteen MiB and what surrounds them fit.
    running.api.commit(commit_request(&started, &large[..16 * 1024 * 1024])).await.unwrap();
}
