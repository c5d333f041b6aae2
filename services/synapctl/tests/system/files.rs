//! Files from end to end: up and down, by streams and by URLs, refused, deleted, broken off.

mod broken_off;
mod direct;
mod refusals;

use std::collections::BTreeMap;

use crate::support::{
    Name, System,
    files::{metadata, pdf, samples},
    refusal::{assert_etag, assert_field, assert_status},
};
use futures::future::join_all;
use synap_proto::{
    gateway::{DownloadFileRequest, File, FileMetadata, UploadFileRequest},
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
