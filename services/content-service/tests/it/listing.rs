//! Listings: every blob once, ascending, and nothing else.

use std::fs;

use futures::{StreamExt as _, stream};
use synap_content_service::Backend;
use synap_proto::content::{Blob, ListBlobsRequest};
use synap_rpc::RpcError;

use crate::running::{Running, over_every_store, start};

over_every_store!(
    a_listing_has_every_blob_once_and_ascends,
    what_is_no_blob_is_not_listed,
    what_is_not_ours_is_named_to_who_asks,
);

async fn list(service: &Running, prefix: &str, after: &str) -> Result<Vec<Blob>, RpcError> {
    let (prefix, start_after) = (prefix.to_owned(), after.to_owned());
    let request = ListBlobsRequest { prefix, start_after, with_foreign: false };
    let answer = service.client().list_blobs(request).await;
    let mut pages = answer.map_err(|status| RpcError::from_status(&status))?.into_inner();
    let mut blobs = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|status| RpcError::from_status(&status))?;
        assert!((1..=1000).contains(&page.blobs.len()));
        blobs.extend(page.blobs);
    }
    Ok(blobs)
}

async fn keys(service: &Running, prefix: &str, after: &str) -> Vec<String> {
    let blobs = list(service, prefix, after).await.unwrap();
    blobs.into_iter().map(|blob| blob.key).collect()
}

async fn a_listing_has_every_blob_once_and_ascends(service: Running) {
    assert_eq!(keys(&service, "", "").await, Vec::<String>::new());
    let mut expected: Vec<_> = (0..1300).map(|i| format!("users/u/notes/{i}.md")).collect();
    for special in ["users/u/notes/7/r1.md", "users/u/notes/7/r2.md", "users/u/notes-/a.md"] {
        expected.push(special.to_owned());
    }
    expected.extend(["users/a%252Fb/notes/x.md".to_owned(), "users/zoe/files/y.pdf".to_owned()]);
    stream::iter(&expected)
        .for_each_concurrent(16, |key| async {
            service.put(key, key.as_bytes()).await.unwrap();
        })
        .await;
    expected.sort();
    for (prefix, after) in [
        ("", ""),
        ("users/", ""),
        ("us", ""),
        ("users/u/notes/7", ""),
        ("users/u/notes/7/", ""),
        ("users/u/notes/7/r2.md", ""),
        ("users/u/notes", "users/u/notes/55.md"),
        ("", "users/u/notes/7/r1.md"),
        ("", "users/u/notes/7/"),
        ("", "users/u/notes/7"),
        ("users/zoe", "users/b"),
        ("users/b", "users/u/notes"),
        ("", "zzz"),
        ("nothing", ""),
        ("users/../", ""),
        ("/", ""),
    ] {
        let wanted: Vec<_> = expected
            .iter()
            .filter(|key| key.starts_with(prefix) && key.as_str() > after)
            .cloned()
            .collect();
        assert_eq!(keys(&service, prefix, after).await, wanted, "{prefix:?} after {after:?}");
    }
    let all = list(&service, "", "").await.unwrap();
    for blob in all {
        assert_eq!(usize::try_from(blob.size).unwrap(), blob.key.len());
        assert!(blob.update_time.is_some_and(|time| time.seconds > 0));
        assert!(blob.content_type.starts_with("text/") || blob.content_type == "application/pdf");
    }
}

async fn what_is_no_blob_is_not_listed(service: Running) {
    service.put("users/u/notes/x.md", b"body").await.unwrap();
    let root = match service.backend {
        Backend::Memory => return,
        Backend::Local => service.directory.clone(),
        Backend::S3 => service.s3.as_ref().unwrap().objects(),
    };
    fs::create_dir_all(root.join("users/u/empty")).unwrap();
    for foreign in ["users/u/notes/x.md#7", "users/u/no key", "users/top", "other", ".probe"] {
        fs::write(root.join(foreign), b"?").unwrap();
    }
    assert_eq!(keys(&service, "", "").await, ["users/u/notes/x.md"]);
}

async fn what_is_not_ours_is_named_to_who_asks(service: Running) {
    let archive = "events/events_2026w48/0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60.parquet";
    let mut expected = ["users/u/notes/x.md", archive, "quarantine/users/u/notes/y.md"];
    for key in expected {
        service.put(key, key.as_bytes()).await.unwrap();
    }
    let strange = ["backups/2026.tar", "notes.txt", "users/top", "users/u/no key"];
    let root = match service.backend {
        Backend::Memory => None,
        Backend::Local => Some(service.directory.clone()),
        Backend::S3 => Some(service.s3.as_ref().unwrap().objects()),
    };
    if let Some(root) = &root {
        fs::create_dir(root.join("backups")).unwrap();
        for name in strange {
            fs::write(root.join(name), b"?").unwrap();
        }
        // Drafts of ours.
        fs::write(root.join("users/u/#12"), b"?").unwrap();
    }
    let request = |with_foreign, prefix: &str| ListBlobsRequest {
        with_foreign,
        prefix: prefix.to_owned(),
        start_after: String::new(),
    };
    let answer = service.client().list_blobs(request(true, "")).await.unwrap().into_inner();
    let pages: Vec<_> = answer.map(Result::unwrap).collect().await;
    let mut found: Vec<_> =
        pages.iter().flat_map(|page| &page.blobs).map(|blob| &*blob.key).collect();
    let mut foreign: Vec<_> = pages.iter().flat_map(|page| &page.foreign).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    foreign.retain(|name| !name.contains('#'));
    foreign.sort_unstable();
    assert_eq!(foreign, if root.is_some() { &strange[..] } else { &[] });
    let error = service.client().list_blobs(request(true, "users/")).await.map(drop).unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert_eq!(keys(&service, "", "").await, ["users/u/notes/x.md"]);
    assert_eq!(keys(&service, "quarantine/", "").await, ["quarantine/users/u/notes/y.md"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_no_empty_store() {
    let service = start(Backend::Local).await;
    service.put("users/u/notes/x.md", b"body").await.unwrap();
    fs::rename(&service.directory, service.directory.with_extension("aside")).unwrap();
    let error = list(&service, "", "").await.unwrap_err();
    assert_eq!(error.reason, "STORE_UNAVAILABLE");
}
