//! Reading a part of a blob, and knowing that the whole is what it was.

use synap_proto::content::GetBlobRequest;
use synap_types::Checksum;
use tonic::Code;

use crate::running::{MIB, Running, bytes, over_every_store};

over_every_store!(
    every_range_is_what_it_says,
    a_range_behind_the_end_is_refused,
    an_empty_blob_has_one_range,
    a_whole_body_is_compared_with_its_checksum,
    a_request_that_makes_no_sense_is_refused,
);

const KEY: &str = "users/u/files/x.mp3";

async fn every_range_is_what_it_says(service: Running) {
    let size = 2 * MIB + 12_345;
    let body = bytes(size);
    service.put(KEY, &body).await.unwrap();
    let edges = [0, 1, 511, MIB / 2, MIB / 2 + 1, MIB, MIB + 1, 2 * MIB, size - 1];
    let mut ranges: Vec<_> = edges
        .iter()
        .flat_map(|&offset| [0, 1, MIB, size, size * 9].map(|length| (offset, length)))
        .collect();
    // And some that nobody would think of.
    let mut seed = 42_usize;
    for _ in 0..60 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ranges.push(((seed >> 33) % size, (seed >> 20) % (3 * MIB)));
    }
    for (offset, length) in ranges {
        let (found, read) = service.get_range(KEY, offset as u64, length as u64).await.unwrap();
        let end = if length == 0 { size } else { (offset + length).min(size) };
        assert!(read == body[offset..end], "{length} bytes at {offset}: {}", read.len());
        assert_eq!(found.size, i64::try_from(size).unwrap(), "of the whole blob");
    }
}

async fn a_range_behind_the_end_is_refused(service: Running) {
    service.put(KEY, &bytes(1000)).await.unwrap();
    for (offset, length) in [(1000, 0), (1000, 1), (1001, 0), (1 << 40, 5)] {
        let error = service.get_range(KEY, offset, length).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (Code::OutOfRange, "RANGE_NOT_SATISFIABLE"));
        assert!(error.message.contains("1000 bytes"), "{}", error.message);
    }
    let error = service.get_range("users/u/files/none.mp3", 5, 5).await.unwrap_err();
    assert_eq!(error.reason, "NOT_FOUND");
}

async fn an_empty_blob_has_one_range(service: Running) {
    service.put(KEY, b"").await.unwrap();
    for length in [0, 1, 1000] {
        let (found, read) = service.get_range(KEY, 0, length).await.unwrap();
        assert_eq!((found.size, read.len()), (0, 0));
    }
    let error = service.get_range(KEY, 1, 0).await.unwrap_err();
    assert_eq!(error.reason, "RANGE_NOT_SATISFIABLE");
}

async fn a_whole_body_is_compared_with_its_checksum(service: Running) {
    for size in [0, 1000, 3 * MIB] {
        let key = format!("users/u/files/{size}.mp3");
        let body = bytes(size);
        service.put(&key, &body).await.unwrap();
        let expecting = |sha256: Checksum| GetBlobRequest {
            key: key.clone(),
            sha256: sha256.as_bytes().to_vec().into(),
            ..GetBlobRequest::default()
        };
        let (_, read) = service.read(expecting(Checksum::of(&body))).await.unwrap();
        assert!(read == body);
        let error = service.read(expecting(Checksum::of(b"another"))).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (Code::DataLoss, "BODY_CORRUPT"));
    }
}

async fn a_request_that_makes_no_sense_is_refused(service: Running) {
    service.put(KEY, b"body").await.unwrap();
    let sha256 = || Checksum::of(b"body").as_bytes().to_vec().into();
    let good = GetBlobRequest { key: KEY.to_owned(), ..GetBlobRequest::default() };
    for (request, field) in [
        (GetBlobRequest { offset: -1, ..good.clone() }, "offset"),
        (GetBlobRequest { length: -1, ..good.clone() }, "length"),
        (GetBlobRequest { sha256: vec![1].into(), ..good.clone() }, "sha256"),
        (GetBlobRequest { sha256: sha256(), offset: 1, ..good.clone() }, "sha256"),
        (GetBlobRequest { sha256: sha256(), length: 4, ..good.clone() }, "sha256"),
    ] {
        let error = service.read(request).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert_eq!(error.violations[0].field, field);
    }
}
