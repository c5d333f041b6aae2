//! Files from end to end: up and down, by streams and by URLs, refused, deleted, broken off.

use std::collections::BTreeMap;

use crate::support::{
    Client, Name, System, eventually,
    files::{halfway, messages, metadata, pdf, put, samples},
    refusal::{assert_etag, assert_field, assert_status},
};
use futures::future::join_all;
use synap_proto::{
    gateway::{
        CreateDownloadUrlRequest, DownloadFileRequest, File, FileMetadata, UploadFileRequest,
    },
    reason,
};
use synap_types::Checksum;
use tonic::Code;

const ID: &str = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";
const MIB: usize = 1024 * 1024;

/// Nothing is there, and recovery has nothing left to do.
async fn assert_nothing_left(system: &System) {
    system.settled().await;
    assert_eq!(system.check_everything().await, BTreeMap::new());
}

fn promised(content_type: &str, body: &[u8], request_id: &str) -> FileMetadata {
    FileMetadata {
        size: Some(i64::try_from(body.len()).unwrap()),
        checksum: Checksum::of(body).to_string(),
        ..metadata(content_type, request_id)
    }
}

#[tokio::test]
async fn files_of_every_kind_go_up_and_down() {
    let system = System::start().await;
    let ada = system.client("ada");
    for (content_type, kind, head) in samples() {
        let body = match kind {
            "markdown" => head.repeat(100_000),
            _ => [head, pdf(1, 1_300_000)].concat(),
        };
        let what = FileMetadata {
            title: "A title".to_owned(),
            tags: vec!["one".to_owned(), "two".to_owned()],
            ..metadata(content_type, "")
        };
        let (file, event_pending) = ada.upload(what, &body).await.unwrap();
        assert!(!event_pending);
        let size = i64::try_from(body.len()).unwrap();
        let expected = File {
            user_id: "ada".to_owned(),
            title: "A title".to_owned(),
            file_name: "Paper.pdf".to_owned(),
            content_type: content_type.to_owned(),
            tags: vec!["one".to_owned(), "two".to_owned()],
            file_size: size,
            file_type: kind.to_owned(),
            checksum: Checksum::of(&body).to_string(),
            version: 1,
            update_time: file.create_time,
            ..file.clone()
        };
        assert_eq!(file, expected);
        assert_eq!(ada.get_file(&file.id).await.unwrap(), file);

        assert_eq!(ada.download(&file.id, 0, 0).await.unwrap(), (file.clone(), body.clone()));
        for (offset, length) in [(0, 1), (0, 700_000), (5, 0), (size - 1, 10), (600_000, 600_000)] {
            let (same, part) = ada.download(&file.id, offset, length).await.unwrap();
            let from = usize::try_from(offset).unwrap();
            let to = if length == 0 { size } else { size.min(offset + length) };
            assert_eq!(same, file);
            assert!(part == body[from..usize::try_from(to).unwrap()], "{offset} {length}");
        }
        let beyond = ada.download(&file.id, size, 1).await.unwrap_err();
        assert_eq!(beyond.code(), Code::OutOfRange, "{beyond:?}");
    }
    system.settled().await;
    assert_eq!(system.check_everything().await.len(), samples().len());
}

#[tokio::test]
async fn a_deleted_file_is_gone_for_its_owner_and_stays_for_the_purge() {
    let system = System::start().await;
    let ada = system.client("ada");
    let (file, _) = ada.upload(metadata("application/pdf", ""), &pdf(1, 1000)).await.unwrap();

    let (other, _) = ada.upload(metadata("application/pdf", ""), &pdf(2, 1000)).await.unwrap();
    let refused = ada.delete_file(&file.id, &other.etag, "").await.unwrap_err();
    assert_etag(&refused, &file.etag);
    assert_field(
        &ada.delete_file(&file.id, "x", "").await.unwrap_err(),
        reason::INVALID_FIELD,
        "etag",
    );

    let (deleted, event_pending) = ada.delete_file(&file.id, &file.etag, ID).await.unwrap();
    assert!(!event_pending && deleted.delete_time.is_some());
    let expected = File {
        version: 2,
        etag: deleted.etag.clone(),
        update_time: deleted.delete_time,
        delete_time: deleted.delete_time,
        ..file.clone()
    };
    assert_eq!(deleted, expected);
    assert_eq!(ada.delete_file(&file.id, &file.etag, ID).await.unwrap().0, deleted);

    let gone = |status: tonic::Status| assert_status(&status, Code::NotFound, reason::NOT_FOUND);
    gone(ada.get_file(&file.id).await.unwrap_err());
    gone(ada.download(&file.id, 0, 0).await.unwrap_err());
    gone(ada.delete_file(&file.id, "", "").await.unwrap_err());
    let other = ada.delete_file(&file.id, "", ID).await.unwrap_err();
    assert_field(&other, reason::REQUEST_ID_REUSED, "request_id");
    system.settled().await;
    let kept = system.check_everything().await;
    assert!(kept[&file.id].deleted);
}

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
    let refused = ada.upload_stream(futures::stream::iter(none)).await.unwrap_err();
    assert_field(&refused, reason::INVALID_FIELD, "metadata");
    let again = UploadFileRequest { metadata: Some(good()), ..UploadFileRequest::default() };
    let twice = [messages(good(), &body), vec![again]].concat();
    let refused = ada.upload_stream(futures::stream::iter(twice)).await.unwrap_err();
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
    crate::support::refusal::assert_unauthenticated(&refused);
}

#[tokio::test]
async fn a_request_id_is_one_file() {
    let system = System::start().await;
    let ada = system.client("ada");
    let body = pdf(1, 700_000);
    let uploads = (0..8).map(|_| ada.upload(metadata("application/pdf", ID), &body));
    let answers = join_all(uploads).await;
    let (file, _) = answers[0].as_ref().unwrap().clone();
    for answer in answers {
        assert_eq!(answer.unwrap(), (file.clone(), false));
    }
    let refused = ada.upload(metadata("application/pdf", ID), &pdf(2, 700_000)).await.unwrap_err();
    assert_field(&refused, reason::REQUEST_ID_REUSED, "metadata.request_id");
    for other in [
        FileMetadata { title: "another".into(), ..metadata("application/pdf", ID) },
        FileMetadata { file_name: "another".into(), ..metadata("application/pdf", ID) },
        promised("application/pdf", &body, ID),
    ] {
        let refused = ada.upload(other, &body).await.unwrap_err();
        assert_field(&refused, reason::REQUEST_ID_REUSED, "request_id");
    }
    let refused = ada.upload_url(promised("application/pdf", &body, ID)).await.unwrap_err();
    assert_field(&refused, reason::REQUEST_ID_REUSED, "request_id");
    let refused = ada.create("a note", ID).await.unwrap_err();
    assert_field(&refused, reason::REQUEST_ID_REUSED, "request_id");
    system.settled().await;
    assert_eq!(system.check_everything().await.len(), 1);
}

/// A file that goes straight to the store and is read straight from there.
async fn direct(system: System) {
    let ada = system.client("ada");
    let body = pdf(1, 9 * MIB);
    let what = || promised("application/pdf", &body, ID);
    for missing in [
        FileMetadata { size: None, ..what() },
        FileMetadata { checksum: String::new(), ..what() },
        FileMetadata { size: Some(5 * 1024 * 1024 * 1024 + 1), ..what() },
    ] {
        let field = if missing.checksum.is_empty() { "checksum" } else { "size" };
        let refused = ada.upload_url(missing).await.unwrap_err();
        assert_field(&refused, reason::INVALID_FIELD, &format!("metadata.{field}"));
    }

    let first = ada.upload_url(what()).await.unwrap();
    assert_eq!((first.upload_id.as_str(), first.method.as_str()), (ID, "PUT"));
    let early = ada.complete(ID).await.unwrap_err();
    assert_status(&early, Code::FailedPrecondition, reason::UPLOAD_INCOMPLETE);
    // Again: the same place under a fresh signature.
    let url = ada.upload_url(what()).await.unwrap();
    let place = |url: &str| url.split('?').next().unwrap().to_owned();
    assert_eq!(place(&url.url), place(&first.url));

    // The URL is bound to the bytes.
    assert!(!put(&url, body[1..].to_vec()).await.is_success());
    if system.s3().is_none() {
        // The S3 server of the tests refuses other bytes, too, but keeps them.
        assert!(!put(&url, pdf(2, 9 * MIB)).await.is_success());
    }
    assert_eq!(put(&url, body.clone()).await, 200);

    // Any number of calls at once, and later: one file, equal answers.
    let answers = join_all((0..4).map(|_| ada.complete(ID))).await;
    let (file, _) = answers[0].as_ref().unwrap().clone();
    for answer in answers {
        assert_eq!(answer.unwrap().0, file);
    }
    assert_eq!(ada.complete(ID).await.unwrap(), (file.clone(), false));
    assert_eq!(file.file_size, i64::try_from(body.len()).unwrap());
    assert_eq!(file.checksum, Checksum::of(&body).to_string());
    assert!(ada.download(&file.id, 0, 0).await.unwrap().1 == body);
    let late = ada.upload_url(what()).await.unwrap_err();
    assert_status(&late, Code::FailedPrecondition, reason::UPLOAD_COMPLETE);

    let request = CreateDownloadUrlRequest { id: file.id.clone(), expires_in: None };
    let url = ada.files().create_download_url(ada.request(request)).await.unwrap().into_inner();
    let read = reqwest::get(&url.url).await.unwrap();
    assert!(read.status().is_success());
    assert!(read.bytes().await.unwrap() == body);

    // Bytes that are what was promised, but not of the type.
    let text = b"no picture".to_vec();
    let lie = ada.upload_url(promised("image/png", &text, "")).await.unwrap();
    assert_eq!(put(&lie, text).await, 200);
    let refused = ada.complete(&lie.upload_id).await.unwrap_err();
    assert_field(&refused, reason::INVALID_FIELD, "metadata.content_type");
    let refused = ada.complete(&lie.upload_id).await.unwrap_err();
    assert_status(&refused, Code::NotFound, reason::NOT_FOUND);

    system.settled().await;
    let kept = system.check_everything().await;
    assert_eq!(kept.keys().collect::<Vec<_>>(), [&file.id]);
}

#[tokio::test]
async fn a_file_can_go_straight_to_the_local_store() {
    direct(System::start().await).await;
}

#[tokio::test]
async fn a_file_can_go_straight_to_s3() {
    let mut system = System::new().await;
    system.use_s3().await;
    system.start_all(None).await;
    direct(system).await;
}

#[tokio::test]
async fn an_upload_that_is_never_completed_leaves_nothing() {
    let mut system = System::new().await;
    system.environment.push(("MAX_OPERATION_LEASE_SECS", "16".to_owned()));
    system.start_all(None).await;
    let ada = system.client("ada");
    let body = pdf(1, 100_000);
    // Valid for eight seconds.
    let sent = ada.upload_url(promised("application/pdf", &body, "")).await.unwrap();
    let never_sent = ada.upload_url(promised("application/pdf", &body, ID)).await.unwrap();
    assert_eq!(put(&sent, body.clone()).await, 200);
    assert_nothing_left(&system).await;
    for upload in [&sent, &never_sent] {
        let late = ada.complete(&upload.upload_id).await.unwrap_err();
        assert_status(&late, Code::NotFound, reason::NOT_FOUND);
    }
    // The id can be used again, for another place.
    let again = ada.upload_url(promised("application/pdf", &body, ID)).await.unwrap();
    assert_ne!(again.url.split('?').next(), never_sent.url.split('?').next());
    assert_eq!(put(&again, body.clone()).await, 200);
    let (file, _) = ada.complete(ID).await.unwrap();
    system.settled().await;
    assert_eq!(system.check_everything().await[&file.id].body, body);
}

async fn pending_operations(system: &System) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM write_operations WHERE state = 'PENDING'")
        .fetch_one(&system.database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_long_upload_keeps_its_lease() {
    let system = System::start().await;
    let ada = system.client("ada");
    let body = pdf(1, 10 * MIB);
    let (messages, gate) = halfway(metadata("application/pdf", ID), &body);
    let uploading = tokio::spawn(async move { ada.upload_stream(messages).await });
    // A lease is a second here: three of them pass.
    let outlived = || async {
        let lived: Option<bool> = sqlx::query_scalar(
            "SELECT lease_until > occurred_at + interval '4 s' FROM write_operations",
        )
        .fetch_optional(&system.database.pool)
        .await
        .unwrap();
        lived == Some(true)
    };
    eventually("the lease was extended again and again", outlived).await;
    gate.send(()).unwrap();
    let (file, _) = uploading.await.unwrap().unwrap();
    let epochs: i64 = sqlx::query_scalar("SELECT epoch FROM write_operations")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(epochs, 1, "somebody took it over");
    system.settled().await;
    assert!(system.check_everything().await[&file.id].body == body);
}

#[tokio::test]
async fn a_caller_who_hangs_up_in_the_middle_leaves_nothing() {
    let system = System::start().await;
    let ada = system.client("ada");
    let (messages, _gate) = halfway(metadata("application/pdf", ID), &pdf(1, 20 * MIB));
    let caller = ada.clone();
    let uploading = tokio::spawn(async move { caller.upload_stream(messages).await });
    eventually("the upload has begun", || async { pending_operations(&system).await == 1 }).await;
    uploading.abort();
    eventually("it is given up", || async { pending_operations(&system).await == 0 }).await;
    assert_nothing_left(&system).await;
    // And the id is still good for the file.
    let body = pdf(1, 20 * MIB);
    let (file, _) = ada.upload(metadata("application/pdf", ID), &body).await.unwrap();
    assert!(ada.download(&file.id, 0, 0).await.unwrap().1 == body);
}

/// A body much larger than what a service may hold of it.
#[tokio::test]
async fn a_large_file_flows_through_in_little_memory() {
    const BLOCKS: u64 = 256;
    let system = System::start().await;
    let ada = system.client("ada");
    // The same block again and again, told apart by its first bytes: nobody holds the whole.
    let block = pdf(1, MIB);
    let nth = |n: u64| [format!("%PDF-1.7 {n:>15}").as_bytes(), &block[24..]].concat();
    let blocks: Vec<_> = (0..BLOCKS).map(|n| bytes::Bytes::from(nth(n))).collect();
    let mut hasher = synap_types::Hasher::default();
    for block in &blocks {
        hasher.update(block);
    }
    let checksum = hasher.finish().to_string();

    let first = UploadFileRequest {
        metadata: Some(metadata("application/pdf", "")),
        ..UploadFileRequest::default()
    };
    let data = blocks.clone().into_iter();
    let chunks = data.map(|data| UploadFileRequest { metadata: None, data });
    let messages = futures::stream::iter(std::iter::once(first).chain(chunks));
    let (file, _) = ada.upload_stream(messages).await.unwrap();
    assert_eq!(file.checksum, checksum);

    let request = DownloadFileRequest { id: file.id.clone(), ..DownloadFileRequest::default() };
    let mut chunks = ada.files().download_file(ada.request(request)).await.unwrap().into_inner();
    let mut hasher = synap_types::Hasher::default();
    while let Some(chunk) = chunks.message().await.unwrap() {
        hasher.update(&chunk.data);
    }
    assert_eq!(hasher.finish().to_string(), checksum);
    for name in [Name::Gateway, Name::Content] {
        let peak = system.peak_memory(name);
        println!("{}: {peak} MiB", name.text());
        assert!(peak < 96, "{} had {peak} MiB", name.text());
    }
}

/// `SYNAP_TEST_FILE_MIB=1024` kills in the middle of 1 GiB; all that is done with it takes longer.
fn large_body() -> Vec<u8> {
    let mib = std::env::var("SYNAP_TEST_FILE_MIB").map_or(40, |mib| mib.parse().unwrap());
    pdf(1, mib * MIB)
}

/// A service is killed while a large body flows through it.
async fn killed_halfway(mut system: System, victim: Name) {
    system.start_all(None).await;
    let ada = system.client("ada");
    let body = large_body();
    let (messages, _gate) = halfway(metadata("application/pdf", ID), &body);
    let caller = ada.clone();
    let uploading = tokio::spawn(async move { caller.upload_stream(messages).await });
    eventually("the upload has begun", || async { pending_operations(&system).await == 1 }).await;
    if system.s3().is_some() {
        let parts = || async { !system.unfinished_uploads().is_empty() };
        eventually("parts are on their way", parts).await;
    }
    system.kill(victim).await;
    uploading.await.unwrap().unwrap_err();
    system.spawn(victim, None);
    system.ready(victim).await;
    assert_nothing_left(&system).await;
    assert_eq!(system.unfinished_uploads(), Vec::<String>::new());
    assert_eq!(system.staging_files(), Vec::<String>::new());

    let (file, _) = ada.upload(metadata("application/pdf", ID), &body).await.unwrap();
    system.settled().await;
    assert!(system.check_everything().await[&file.id].body == body);
}

#[tokio::test]
async fn a_gateway_killed_halfway_leaves_nothing() {
    killed_halfway(System::new().await, Name::Gateway).await;
}

#[tokio::test]
async fn a_content_service_killed_halfway_leaves_nothing() {
    killed_halfway(System::new().await, Name::Content).await;
}

#[tokio::test]
async fn a_gateway_killed_halfway_leaves_nothing_on_s3() {
    let mut system = System::new().await;
    system.use_s3().await;
    killed_halfway(system, Name::Gateway).await;
}

#[tokio::test]
async fn a_content_service_killed_halfway_leaves_nothing_on_s3() {
    let mut system = System::new().await;
    system.use_s3().await;
    killed_halfway(system, Name::Content).await;
}
