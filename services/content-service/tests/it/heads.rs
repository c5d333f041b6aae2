//! Looking at blobs, one or many.

use synap_proto::content::BatchHeadBlobsRequest;
use synap_types::Checksum;

use crate::running::{MIB, Running, bytes, over_every_store};

over_every_store!(a_look_may_hash, many_looks_are_answered_in_order);

async fn a_look_may_hash(service: Running) {
    for size in [0, 10, 2 * MIB] {
        let key = format!("users/u/files/{size}.png");
        let body = bytes(size);
        service.put(&key, &body).await.unwrap();
        let plain = service.look(&key, false).await.unwrap();
        assert!(plain.sha256.is_empty());
        let hashed = service.look(&key, true).await.unwrap();
        assert_eq!(&hashed.sha256[..], Checksum::of(&body).as_bytes());
        assert_eq!((hashed.size, hashed.update_time), (plain.size, plain.update_time));
    }
    let error = service.look("users/u/files/none.png", true).await.unwrap_err();
    assert_eq!(error.reason, "NOT_FOUND");
}

async fn many_looks_are_answered_in_order(service: Running) {
    for i in (0..60).step_by(2) {
        let body = bytes(i);
        service.put(&format!("users/u/notes/{i}.md"), &body).await.unwrap();
    }
    let mut keys: Vec<_> = (0..60).rev().map(|i| format!("users/u/notes/{i}.md")).collect();
    keys.push(keys[3].clone());
    for with_sha256 in [false, true] {
        let request = BatchHeadBlobsRequest { keys: keys.clone(), with_sha256 };
        let answer = service.client().batch_head_blobs(request).await.unwrap().into_inner();
        assert_eq!(answer.lookups.len(), keys.len());
        for (key, lookup) in keys.iter().zip(answer.lookups) {
            assert_eq!(&lookup.key, key);
            let i: usize = key[14..key.len() - 3].parse().unwrap();
            assert_eq!(lookup.blob.is_some(), i.is_multiple_of(2), "{key}");
            let Some(blob) = lookup.blob else { continue };
            assert_eq!((&blob.key, blob.size), (key, i64::try_from(i).unwrap()));
            let sha256 = with_sha256.then(|| Checksum::of(&bytes(i)).as_bytes().to_vec());
            assert_eq!(blob.sha256.to_vec(), sha256.unwrap_or_default());
        }
    }
    let empty = BatchHeadBlobsRequest::default();
    let answer = service.client().batch_head_blobs(empty).await.unwrap().into_inner();
    assert!(answer.lookups.is_empty());
    for bad in [vec!["users/u/notes/x.md".to_owned(); 1001], vec!["/etc/passwd".to_owned()]] {
        let request = BatchHeadBlobsRequest { keys: bad, with_sha256: false };
        let status = service.client().batch_head_blobs(request).await.unwrap_err();
        let error = synap_rpc::RpcError::from_status(&status);
        assert_eq!(error.reason, "INVALID_FIELD");
        assert!(error.violations[0].field.starts_with("keys"));
    }
}
