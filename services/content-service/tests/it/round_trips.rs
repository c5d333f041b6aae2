//! What is put can be read, looked at and deleted.

use synap_proto::content::BuildKeyRequest;
use synap_testkit::s3::S3Server;

use crate::running::{Running, bytes, messages, over_every_store};

over_every_store!(
    bodies_of_every_size_come_back,
    a_body_in_tiny_messages_comes_back,
    percent_signs_in_a_key_are_kept,
    the_same_bytes_may_be_put_again,
    what_is_deleted_is_gone,
    a_key_is_built_as_the_write_path_builds_it,
);

async fn bodies_of_every_size_come_back(service: Running) {
    let mib = 1024 * 1024;
    for size in [0, 1, 100, mib, mib + 1, 3 * mib] {
        let key = format!("users/user-123/notes/{size}.md");
        let body = bytes(size);
        let put = service.put(&key, &body).await.unwrap();
        assert_eq!(put.key, key);
        assert_eq!(put.size, i64::try_from(size).unwrap());

        let (found, read) = service.get(&key).await.unwrap();
        assert!(read == body, "{size} bytes came back as {}", read.len());
        assert_eq!(found.key, key);
        assert_eq!(found.size, put.size);
        assert_eq!(found.content_type, "text/markdown; charset=utf-8");
        assert_eq!(found.url, format!("https://blobs.example/{key}"));
        assert!(found.update_time.is_some_and(|time| time.seconds > 0));
        assert_eq!(service.head(&key).await.unwrap(), found);
    }
    assert!([0, 6].contains(&service.files().len()));
    if let Some(s3) = &service.s3 {
        assert_content_type_is_stored(s3);
    }
}

/// Whoever opens a signed URL gets the type from the store, not from us.
fn assert_content_type_is_stored(s3: &S3Server) {
    let beside = std::fs::read_dir(s3.root()).unwrap();
    let attributes = beside
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find(|text| text.contains("text/markdown"));
    assert!(attributes.is_some(), "the server was not told a content type");
}

async fn a_body_in_tiny_messages_comes_back(service: Running) {
    let key = "users/u/notes/tiny.md";
    let body = bytes(2_000);
    let mut parts = messages(key, &body);
    let data = std::mem::take(&mut parts[0].data);
    parts.extend(data.chunks(7).map(|chunk| {
        let data = chunk.to_vec().into();
        synap_proto::content::PutBlobRequest { spec: None, data }
    }));
    service.send(tokio_stream::iter(parts)).await.unwrap();
    assert_eq!(service.get(key).await.unwrap().1, body);
}

async fn percent_signs_in_a_key_are_kept(service: Running) {
    let encoded = "users/auth0%7C12/notes/a%252Fb.md";
    let other = "users/auth0%257C12/notes/a%252Fb.md";
    service.put(encoded, b"mine").await.unwrap();
    service.put(other, b"another's").await.unwrap();
    assert_eq!(service.get(encoded).await.unwrap().1, b"mine");
    assert_eq!(service.get(other).await.unwrap().1, b"another's");
    let files = service.files();
    assert!(files.is_empty() || files.iter().any(|file| file.ends_with(encoded)), "{files:?}");
}

async fn the_same_bytes_may_be_put_again(service: Running) {
    let key = "users/u/notes/again.md";
    let body = bytes(1_500_000);
    service.put(key, &body).await.unwrap();
    let again = service.put(key, &body).await.unwrap();
    assert_eq!(again.size, 1_500_000);
    assert_eq!(service.get(key).await.unwrap().1, body);
    assert!(service.files().len() <= 1);
}

async fn what_is_deleted_is_gone(service: Running) {
    let keys: Vec<String> = (0..25).map(|i| format!("users/u/notes/{i}.md")).collect();
    for key in &keys {
        service.put(key, key.as_bytes()).await.unwrap();
    }
    let mut doomed: Vec<&str> = keys[1..].iter().map(String::as_str).collect();
    doomed.insert(0, "users/u/notes/never-written.md");
    doomed.push("users/nobody/notes/x.md");
    service.delete(&doomed).await.unwrap();
    // All are gone by now, and that is no mistake either.
    service.delete(&doomed).await.unwrap();
    service.delete(&[]).await.unwrap();
    for key in &keys[1..] {
        assert_eq!(service.head(key).await.unwrap_err().reason, "NOT_FOUND");
    }
    assert_eq!(service.get(&keys[0]).await.unwrap().1, keys[0].as_bytes());
    assert!(service.files().len() <= 1);
}

async fn a_key_is_built_as_the_write_path_builds_it(service: Running) {
    let parts = |user_id: &str, extension: &str| BuildKeyRequest {
        user_id: user_id.to_owned(),
        entity_type: "note".to_owned(),
        entity_id: "entity-456".to_owned(),
        extension: extension.to_owned(),
    };
    let mut client = service.client();
    let built = client.build_key(parts("user-123", "md")).await.unwrap();
    let built = built.into_inner();
    assert_eq!(built.key, "users/user-123/notes/entity-456.md");
    assert_eq!(built.url, "https://blobs.example/users/user-123/notes/entity-456.md");
    let hostile = client.build_key(parts("../x", "md")).await.unwrap();
    assert_eq!(hostile.into_inner().key, "users/%2E%2E%2Fx/notes/entity-456.md");

    for (parts, field) in [
        (parts("", "md"), "user_id"),
        (parts("u", "md/../x"), "extension"),
        (BuildKeyRequest { entity_type: "Note".to_owned(), ..parts("u", "md") }, "entity_type"),
        (BuildKeyRequest { entity_id: "ü".repeat(100), ..parts("u", "md") }, "entity_id"),
    ] {
        let status = client.build_key(parts).await.unwrap_err();
        let error = synap_rpc::RpcError::from_status(&status);
        assert_eq!(error.reason, "INVALID_FIELD");
        assert_eq!(error.violations[0].field, field);
    }
}
