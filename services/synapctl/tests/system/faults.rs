//! A store that fails one call in five, in every way that a network and a store have: what is
//! acknowledged is there, what is not is refused in words, and nothing else is left.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{
    System,
    files::{metadata, pdf},
    full_size,
};
use futures::{StreamExt as _, stream};
use synap_proto::reason;
use synap_testkit::{faults::Faults, s3::S3Server};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const AT_ONCE: usize = 16;
const PERCENT: u64 = 20;

/// From a line to more than one part.
fn size(n: u64) -> usize {
    match n % 100 {
        0 => 9 * 1024 * 1024,
        1..5 => 1024 * 1024,
        5..30 => 64 * 1024,
        _ => 40 + usize::try_from(n).unwrap(),
    }
}

/// A refusal that says what to do: the store is away, or has too much to do, or time was up, or
/// the upload was slower than its lease.
fn assert_clean(status: &Status) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str()).unwrap_or_default();
    let known = [
        (Code::Unavailable, reason::STORE_UNAVAILABLE),
        (Code::ResourceExhausted, reason::OVERLOADED),
        (Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED),
        (Code::Aborted, reason::OPERATION_FENCED),
    ];
    assert!(known.contains(&(status.code(), reason)), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_to_a_store_that_fails_are_acknowledged_or_refused_and_nothing_between() {
    let uploads = full_size(200, 2000);
    let server = S3Server::start().await.unwrap();
    let faults = Faults::before(&server).await.unwrap();
    let mut system = System::new().await;
    // Uploads that are broken off take their time. A lease of a second is for tests that wait for
    // its end.
    system.environment.push(("BLOB_SETTLE_SECS", "5".to_owned()));
    system.environment.push(("OPERATION_LEASE_SECS", "10".to_owned()));
    system.use_s3_behind(server, faults.endpoint());
    system.start_all(None).await;
    let ada = system.client("ada");

    faults.mixed(PERCENT, 7);
    let calls = stream::iter(0..uploads).map(|n| {
        let ada = ada.clone();
        async move {
            let body = pdf(n, size(n));
            (n, ada.upload(metadata("application/pdf", ""), &body).await)
        }
    });
    let outcomes: Vec<_> = calls.buffer_unordered(AT_ONCE).collect().await;
    faults.none();
    let (calls, injected) = (faults.calls().len(), faults.injected());

    let mut acknowledged = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for (n, outcome) in &outcomes {
        match outcome {
            Ok((file, _)) => {
                acknowledged.insert(file.id.clone(), *n);
                paths.insert(file.file_path.clone());
            }
            Err(status) => assert_clean(status),
        }
    }
    println!(
        "{} of {uploads} acknowledged; {injected} of {calls} calls to the store failed",
        acknowledged.len()
    );
    assert!(injected * 10 > uploads, "{injected} faults are too few");
    assert!(
        acknowledged.len() as u64 > uploads / 2,
        "only {} were acknowledged",
        acknowledged.len()
    );

    // What could not be deleted while the store failed is deleted now.
    system.retry_deletions().await;
    system.settled().await;
    let kept = system.check_everything().await;
    for (id, n) in &acknowledged {
        let there = kept.get(id).unwrap_or_else(|| panic!("upload {n} is lost"));
        assert!(there.body == pdf(*n, size(*n)), "upload {n} differs");
    }
    // Nobody was refused whose file is there all the same.
    assert_eq!(kept.len(), acknowledged.len());
    // The beginning of a multipart upload whose answer was lost, and that was begun again: nobody
    // knows its id, and content-service's daily sweep ends it. Under a key that was given up there
    // is none: the deletion has looked for them.
    for key in system.unfinished_uploads() {
        assert!(paths.contains(&key), "an upload that was refused is unfinished: {key}");
    }
}
