//! Files that are refused, and those who are.

use futures::stream;
use synap_proto::{
    gateway::{CreateDownloadUrlRequest, FileMetadata, UploadFileRequest},
    reason,
};
use synap_types::Checksum;
use tonic::Code;

use super::{ID, assert_nothing_left, promised};
use crate::support::{
    Client, System,
    files::{messages, metadata, pdf},
    refusal::{assert_field, assert_status, assert_unauthenticated},
};

#[tokio::test]
async fn what_is_not_what_it_is_said_to_be_is_refused_and_leaves_nothing() {
    let system = System::start().await;
    let ada = system.client("ada");
    let body = pdf(1, 600_000);
    let good = || promised("application/pdf", &body, "");
    let field = |name: &str| (reason::INVALID_FIELD, format!("metadata.{name}"));
    let mismatch = |name: &str| (reason::BODY_MISMATCH, format!("metadata.{name}"));
    let text = |content_type: &str| metadata(content_type, "");
    let cases: Vec<(FileMetadata, Vec<u8>, (&str, String))> = vec![
        (
            FileMetadata { content_type: "image/png".into(), ..good() },
            body.clone(),
            field("content_type"),
        ),
        (text("text/markdown"), body.clone(), field("content_type")),
        (text("text/markdown"), b"a\0b".to_vec(), field("content_type")),
        (text("text/markdown"), b"caf\xc3".to_vec(), field("content_type")),
        (text("application/pdf"), b"<html>".to_vec(), field("content_type")),
        (text("text/html"), b"<html>".to_vec(), field("content_type")),
        (text("application/pdf"), Vec::new(), (reason::INVALID_FIELD, "data".to_owned())),
        (FileMetadata { size: Some(599_999), ..good() }, body.clone(), mismatch("size")),
        (FileMetadata { size: Some(600_001), ..good() }, body.clone(), mismatch("size")),
        (FileMetadata { size: Some(0), ..good() }, body.clone(), field("size")),
        (FileMetadata { size: Some(i64::MAX), ..good() }, body.clone(), field("size")),
        (
            FileMetadata { checksum: Checksum::of(b"x").to_string(), ..good() },
            body.clone(),
            mismatch("checksum"),
        ),
        (FileMetadata { checksum: "x".into(), ..good() }, body.clone(), field("checksum")),
        (FileMetadata { file_name: "../../x".into(), ..good() }, body.clone(), field("file_name")),
        (FileMetadata { file_name: "a\0b".into(), ..good() }, body.clone(), field("file_name")),
        (
            FileMetadata { file_name: "x".repeat(10_000), ..good() },
            body.clone(),
            field("file_name"),
        ),
        (FileMetadata { title: "a\0b".into(), ..good() }, body.clone(), field("title")),
        (FileMetadata { tags: vec![String::new()], ..good() }, body.clone(), field("tags[0]")),
        (FileMetadata { request_id: "x".into(), ..good() }, body.clone(), field("request_id")),
    ];
    for (what, body, (reason, field)) in cases {
        let refused = ada.upload(what, &body).await.unwrap_err();
        assert_field(&refused, reason, &field);
    }
    // Without metadata, and with it twice.
    let mut none = messages(good(), &body);
    none.remove(0);
    let refused = ada.upload_stream(stream::iter(none)).await.unwrap_err();
    assert_field(&refused, reason::INVALID_FIELD, "metadata");
    let again = UploadFileRequest { metadata: Some(good()), ..UploadFileRequest::default() };
    let twice = [messages(good(), &body), vec![again]].concat();
    let refused = ada.upload_stream(stream::iter(twice)).await.unwrap_err();
    assert_field(&refused, reason::INVALID_FIELD, "metadata");
    assert_nothing_left(&system).await;
}

#[tokio::test]
async fn nobody_sees_or_touches_another_users_files() {
    let system = System::start().await;
    let (ada, eve) = (system.client("ada"), system.client("../ada"));
    let body = pdf(1, 100_000);
    let (file, _) = ada.upload(metadata("application/pdf", ID), &body).await.unwrap();
    let (note, _) = ada.create("a note", "").await.unwrap();
    let upload = ada.upload_url(promised("application/pdf", &body, "")).await.unwrap();

    let not_found =
        |status: tonic::Status| assert_status(&status, Code::NotFound, reason::NOT_FOUND);
    for (who, id) in [(&eve, &file.id), (&ada, &note.id), (&eve, &ID.to_owned())] {
        not_found(who.get_file(id).await.unwrap_err());
        not_found(who.download(id, 0, 0).await.unwrap_err());
        not_found(who.delete_file(id, "", "").await.unwrap_err());
        let request = CreateDownloadUrlRequest { id: id.clone(), expires_in: None };
        not_found(who.files().create_download_url(who.request(request)).await.unwrap_err());
    }
    not_found(ada.get(&file.id).await.unwrap_err());
    not_found(eve.complete(&upload.upload_id).await.unwrap_err());
    not_found(ada.complete(ID).await.unwrap_err());
    for bad in ["", "x", "../x", "a\0b", &"x".repeat(10_000)] {
        assert_field(&ada.get_file(bad).await.unwrap_err(), reason::INVALID_FIELD, "id");
        assert_field(&ada.download(bad, 0, 0).await.unwrap_err(), reason::INVALID_FIELD, "id");
        assert_field(&ada.complete(bad).await.unwrap_err(), reason::INVALID_FIELD, "upload_id");
    }
    assert_field(
        &ada.download(&file.id, -1, 0).await.unwrap_err(),
        reason::INVALID_FIELD,
        "offset",
    );
    assert_field(
        &ada.download(&file.id, 0, -1).await.unwrap_err(),
        reason::INVALID_FIELD,
        "length",
    );

    // The same request id of another user is another file, below that user's prefix.
    let (theirs, _) = eve.upload(metadata("application/pdf", ID), &body).await.unwrap();
    assert_ne!(theirs.id, file.id);
    assert!(theirs.file_path.starts_with("users/%2E%2E%2Fada/files/"), "{}", theirs.file_path);
    let nobody = Client { token: "x".to_owned(), ..ada.clone() };
    let refused = nobody.upload(metadata("application/pdf", ""), &body).await.unwrap_err();
    assert_unauthenticated(&refused);
}
