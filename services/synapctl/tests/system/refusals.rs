//! What must not get in does not get in, is told why, and leaves nothing behind.

use crate::support::{
    Client, Name, SECRET, System,
    client::new_note,
    eventually,
    http::{answer, assert_bad_field, assert_envelope},
    markdown::{KIB, MIB},
    refusal::{an_hour_ago, assert_field, assert_status, assert_unauthenticated, in_an_hour, sign},
    token,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::uri::PathAndQuery;
use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::json;
use synap_proto::{
    gateway::{CreateNoteRequest, CreateNoteResponse},
    reason,
};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

const ID: &str = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";

/// What the header `authorization` can be, and still name nobody.
fn unknown_callers() -> Vec<(&'static str, String)> {
    let base64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let good = token("ada");
    let claims = json!({ "sub": "ada", "exp": in_an_hour() });
    let [header, _, signature] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("no JWT: {good}"));
    let bearer = |token: String| format!("Bearer {token}");
    let signed = |claims| bearer(sign(SECRET, Algorithm::HS256, &claims));
    let unsigned = base64(r#"{"alg":"none","typ":"JWT"}"#);
    let theirs = base64(&claims.to_string().replace("ada", "eve"));
    vec![
        ("an empty header", String::new()),
        ("another scheme", "Basic YWRhOmFkYQ==".to_owned()),
        ("no scheme", good.clone()),
        ("garbage", bearer("garbage".to_owned())),
        ("three parts of garbage", bearer("a.b.c".to_owned())),
        ("more than a token takes", bearer("a".repeat(9 * KIB))),
        ("expired", signed(json!({ "sub": "ada", "exp": an_hour_ago() }))),
        ("good for ever", signed(json!({ "sub": "ada" }))),
        ("not good yet", signed(json!({ "sub": "ada", "exp": in_an_hour(), "nbf": in_an_hour() }))),
        ("of nobody", signed(json!({ "exp": in_an_hour() }))),
        ("of a number", signed(json!({ "sub": 7, "exp": in_an_hour() }))),
        (
            "signed by another key",
            bearer(sign("the secret of somebody else, and not ours", Algorithm::HS256, &claims)),
        ),
        ("signed another way", bearer(sign(SECRET, Algorithm::HS512, &claims))),
        ("not signed", bearer(format!("{unsigned}.{}.", base64(&claims.to_string())))),
        ("signed for another algorithm", bearer(format!("{unsigned}.{theirs}.{signature}"))),
        ("changed after it was signed", bearer(format!("{header}.{theirs}.{signature}"))),
        ("without its signature", bearer(format!("{header}.{theirs}."))),
    ]
}

#[tokio::test]
async fn whom_we_do_not_know_gets_nothing() {
    let system = System::start().await;
    let client = system.client("ada");
    let create = async |header: Option<&str>| {
        let mut request = Request::new(new_note("text", ""));
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        client.stub.clone().create_note(request).await.unwrap_err()
    };
    let mut edge = system.edge("ada");
    edge.token = None;

    assert_unauthenticated(&create(None).await);
    let refused = edge.create(&json!({ "content": "text" })).await;
    assert_envelope(&refused, 401, "UNAUTHORIZED", reason::UNAUTHENTICATED);
    for (what, header) in unknown_callers() {
        let status = create(Some(&header)).await;
        assert_unauthenticated(&status);
        assert!(!status.message().contains(SECRET), "{what}");
        for (method, path) in [(Method::POST, "notes.create"), (Method::GET, "notes.get")] {
            let call =
                edge.request(method, &format!("/trpc/{path}")).header("authorization", &header);
            let refused = answer(call.body(r#"{"content":"text"}"#)).await;
            assert_envelope(&refused, 401, "UNAUTHORIZED", reason::UNAUTHENTICATED);
        }
    }
    system.check_untouched().await;
    // The same call with a good token: it was the token.
    client.create("text", "").await.unwrap();
}

#[tokio::test]
async fn a_field_that_cannot_be_stored_is_named() {
    let mut system = System::new().await;
    system.environment.push(("MAX_NOTE_BYTES", "1000".to_owned()));
    system.start_all(None).await;
    let client = system.client("ada");

    let with = |change: &dyn Fn(&mut CreateNoteRequest)| {
        let mut request = new_note("text", ID);
        change(&mut request);
        request
    };
    let url = |text: &str| with(&|request| request.audio_url = text.to_owned());
    let tags = |tags: &[&str]| {
        with(&|request| request.tags = tags.iter().map(ToString::to_string).collect())
    };
    for (field, request) in [
        ("content", new_note("", ID)),
        ("content", new_note("a\0b", ID)),
        ("content", new_note(&"x".repeat(1001), ID)),
        // Bytes count, not characters.
        ("content", new_note(&"語".repeat(334), ID)),
        ("title", with(&|request| request.title = "ü".repeat(501))),
        ("title", with(&|request| request.title = "a\0b".to_owned())),
        ("tags", tags(&["t"; 51])),
        ("tags[1]", tags(&["a", &"é".repeat(101)])),
        ("tags[2]", tags(&["a", "b", " \t"])),
        ("tags[0]", tags(&["\0"])),
        ("input_type", with(&|request| request.input_type = "video".to_owned())),
        ("audio_url", url("not a url")),
        ("audio_url", url("/relative")),
        ("audio_url", url("file:///etc/passwd")),
        ("audio_url", url("javascript:alert(1)")),
        ("audio_url", url(&format!("https://example.org/{}", "x".repeat(2048)))),
        ("request_id", with(&|request| request.request_id = "7".to_owned())),
    ] {
        let json = json!({
            "content": request.content, "title": request.title, "tags": request.tags,
            "inputType": request.input_type, "audioUrl": request.audio_url,
            "requestId": request.request_id,
        });
        let status = client.send(client.request(request)).await.unwrap_err();
        assert_field(&status, reason::INVALID_FIELD, field);
        let camel = match field {
            "input_type" => "inputType",
            "audio_url" => "audioUrl",
            "request_id" => "requestId",
            field => field,
        };
        assert_bad_field(&system.edge("ada").create(&json).await, camel);
        system.check_untouched().await;
    }

    // What the message cannot even hold.
    let status = client.create(&"x".repeat(2 * MIB), ID).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, reason::MESSAGE_TOO_LARGE);
    let status = create_with_bytes(&client, b"caf\xe9".to_vec()).await.unwrap_err();
    assert_field(&status, reason::INVALID_FIELD, "content");
    let huge = system.edge("ada").create(&json!({ "content": "x".repeat(MIB) })).await;
    assert_envelope(&huge, 413, "PAYLOAD_TOO_LARGE", reason::MESSAGE_TOO_LARGE);
    assert_eq!(huge.1["error"]["data"]["fieldViolations"][0]["field"], "content");
    system.check_untouched().await;

    // At its limits everything fits, and none of the refused calls has used up its request id.
    let whole = CreateNoteRequest {
        content: "y".repeat(1000),
        title: "ü".repeat(500),
        tags: vec!["é".repeat(100); 50],
        input_type: "audio".to_owned(),
        audio_url: format!("https://example.org/{}", "x".repeat(2048 - 20)),
        auto_enrich: true,
        request_id: ID.to_owned(),
    };
    client.send(client.request(whole)).await.unwrap();
    system.settled().await;
    assert_eq!(system.check_whole().await.len(), 1);
}

/// CreateNote with any bytes as its content.
async fn create_with_bytes(client: &Client, content: Vec<u8>) -> Result<(), Status> {
    #[derive(prost::Message)]
    struct Raw {
        #[prost(bytes = "vec", tag = "1")]
        content: Vec<u8>,
    }
    let mut grpc = Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/synap.gateway.v1.NoteService/CreateNote");
    let codec = ProstCodec::<Raw, CreateNoteResponse>::default();
    grpc.unary(client.request(Raw { content }), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn a_body_over_16_mib_is_refused() {
    let system = System::start().await;
    let client = system.client("ada");
    let status = client.create(&"x".repeat(16 * MIB + 1), "").await.unwrap_err();
    assert_field(&status, reason::INVALID_FIELD, "content");
    let edge = system.edge("ada");
    let json = |bytes| format!(r#"{{"content":"{}"}}"#, "x".repeat(bytes));
    assert_bad_field(&edge.create_raw(json(16 * MIB + 1)).await, "content");

    let status = client.create(&"x".repeat(40 * MIB), "").await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, reason::MESSAGE_TOO_LARGE);
    let huge = edge.create_raw(json(97 * MIB)).await;
    assert_envelope(&huge, 413, "PAYLOAD_TOO_LARGE", reason::MESSAGE_TOO_LARGE);
    system.check_untouched().await;
}

#[tokio::test]
async fn what_is_not_the_json_that_is_expected_is_refused() {
    let system = System::start().await;
    let edge = system.edge("ada");
    let nested = format!(r#"{{"content":"a","x":{}}}"#, "[".repeat(100_000));
    let bodies: [&[u8]; 20] = [
        b"",
        b" ",
        b"null",
        b"7",
        b"\"text\"",
        b"[]",
        b"[\"text\"]",
        b"{\"content\":\"a\"",
        b"{\"content\":\"a\"} {}",
        b"{\"content\":null}",
        b"{\"content\":7}",
        b"{\"content\":[\"a\"]}",
        b"{\"content\":\"a\",\"content\":\"b\"}",
        b"{\"content\":\"a\",\"tags\":\"b\"}",
        b"{\"content\":\"a\",\"tags\":[1]}",
        b"{\"content\":\"a\",\"autoEnrich\":\"yes\"}",
        // Not UTF-8, a surrogate without its other half, and the halves the wrong way round.
        b"{\"content\":\"caf\xe9\"}",
        b"{\"content\":\"\\ud83d\"}",
        b"{\"content\":\"\\udc00\\ud83d\"}",
        nested.as_bytes(),
    ];
    for body in bodies {
        assert_bad_field(&edge.create_raw(body.to_vec()).await, "body");
        system.check_untouched().await;
    }
    // NUL can be written as JSON, and is refused as in any other dress.
    assert_bad_field(&edge.create_raw(r#"{"content":"a\u0000b"}"#).await, "content");
    assert_bad_field(&edge.create_raw("{}").await, "content");

    // A form is not JSON, whatever it is called.
    for content_type in [None, Some("application/x-www-form-urlencoded"), Some("application/json")]
    {
        let mut call = edge.request(Method::POST, "/trpc/notes.create").body("content=text");
        if let Some(content_type) = content_type {
            call = call.header("content-type", content_type);
        }
        assert_bad_field(&answer(call).await, "body");
    }

    for (query, field) in [
        ("input=%7B", "input"),
        ("input=7", "input"),
        ("input=%FF", "input"),
        ("", "id"),
        ("id=7", "id"),
    ] {
        let call = edge.request(Method::GET, &format!("/trpc/notes.get?{query}"));
        assert_bad_field(&answer(call).await, field);
    }
    system.check_untouched().await;

    // JSON is JSON, whatever it is called: V0.2 did not look, and `curl -d` names no type of ours.
    for content_type in [None, Some("application/x-www-form-urlencoded"), Some("text/plain")] {
        let mut call = edge.request(Method::POST, "/trpc/notes.create").body(r#"{"content":"a"}"#);
        if let Some(content_type) = content_type {
            call = call.header("content-type", content_type);
        }
        assert_eq!(answer(call).await.0.as_u16(), 200);
    }
    // Both halves of a surrogate in their order are a character.
    let (status, created) = edge.create_raw(r#"{"content":"\ud83d\ude00"}"#).await;
    assert_eq!(status.as_u16(), 200);
    let id = created["result"]["data"]["note"]["id"].as_str().unwrap();
    assert_eq!(system.client("ada").get(id).await.unwrap().content, "😀");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_an_envelope() {
    let mut system = System::new().await;
    // Nothing behind the gateway is needed to say so.
    system.spawn(Name::Gateway, None);
    let edge = system.edge("ada");
    eventually("the gateway is up", || async {
        edge.request(Method::GET, "/healthz").send().await.is_ok()
    })
    .await;
    for path in
        ["/trpc/notes.forget", "/trpc/notes", "/trpc/", "/trpc", "/", "/notes.create", "/../x"]
    {
        for method in [Method::GET, Method::POST] {
            let refused = answer(edge.request(method, path)).await;
            assert_envelope(&refused, 404, "NOT_FOUND", reason::NOT_FOUND);
        }
    }
    for (method, path) in [
        (Method::GET, "/trpc/notes.create"),
        (Method::PUT, "/trpc/notes.create"),
        (Method::DELETE, "/trpc/notes.create"),
        (Method::POST, "/trpc/notes.get"),
        (Method::PATCH, "/trpc/notes.get"),
        (Method::GET, "/trpc/notes.update"),
        (Method::DELETE, "/trpc/notes.delete"),
    ] {
        let (status, body) = answer(edge.request(method, path)).await;
        assert_eq!(status.as_u16(), 405);
        assert_eq!(body["error"]["data"]["code"], "METHOD_NOT_SUPPORTED");
        assert_eq!(body["error"]["data"]["path"], path.trim_start_matches("/trpc/"));
    }
}
