//! Uploads that take long, and uploads that end in the middle.

use super::{ID, MIB, assert_nothing_left};
use crate::support::{
    Name, System, eventually,
    files::{halfway, metadata, pdf},
};

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
