//! `content-service check`: green where all is well, and a sentence for each thing that is not.

use std::process::Output;

use axum::{Router, http::StatusCode, routing::any};
use synap_content_service::{Backend, CheckArgs, CheckOutput, Report, StoreArgs, check};
use synap_testkit::s3::{self, S3Server};
use tempfile::TempDir;
use tokio::process::Command;

fn bucket(endpoint: &str) -> StoreArgs {
    StoreArgs {
        blob_store: Some(Backend::S3),
        s3_endpoint: Some(endpoint.to_owned()),
        r2_access_key_id: Some(s3::ACCESS_KEY_ID.to_owned()),
        r2_secret_access_key: Some(s3::SECRET_ACCESS_KEY.into()),
        r2_bucket_name: Some(s3::BUCKET.to_owned()),
        ..StoreArgs::default()
    }
}

fn directory(files: &TempDir) -> StoreArgs {
    StoreArgs {
        blob_store: Some(Backend::Local),
        blob_dir: Some(files.path().join("blobs")),
        ..StoreArgs::default()
    }
}

async fn run(store: StoreArgs) -> Report {
    check(&CheckArgs { store, output: CheckOutput::Text }).await.unwrap()
}

/// The one thing that is wrong: at which step, and with which words.
async fn is_told(store: StoreArgs, step: &str, words: &str) {
    let report = run(store).await;
    let failures: Vec<_> = report.failures().collect();
    assert!(matches!(failures[..], [(at, says)] if at == step && says.contains(words)), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_order_is_green_and_clean_afterwards() {
    let server = S3Server::start().await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let memory = StoreArgs { blob_store: Some(Backend::Memory), ..StoreArgs::default() };
    for store in [bucket(server.endpoint()), directory(&files), memory] {
        let report = run(store).await;
        assert!(report.is_well(), "{report}");
        assert_eq!(report.to_string().matches('✓').count(), 9, "{report}");
    }
    for objects in [server.objects(), files.path().join("blobs")] {
        let probes = objects.join("users/synap.check/probes");
        let left = std::fs::read_dir(&probes).map_or(0, |runs| {
            runs.map(|run| std::fs::read_dir(run.unwrap().path()).unwrap().count()).sum()
        });
        assert_eq!(left, 0, "files are left below {}", probes.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_named() {
    let server = S3Server::start().await.unwrap();
    let right = bucket(server.endpoint());
    let id = StoreArgs { r2_access_key_id: Some("another".to_owned()), ..right.clone() };
    is_told(id, "put", "R2_ACCESS_KEY_ID").await;
    let secret = StoreArgs { r2_secret_access_key: Some("another".into()), ..right.clone() };
    is_told(secret, "put", "R2_SECRET_ACCESS_KEY").await;
    let name = StoreArgs { r2_bucket_name: Some("another".to_owned()), ..right.clone() };
    is_told(name, "put", "R2_BUCKET_NAME").await;
    let tls = server.endpoint().replace("http://", "https://");
    is_told(bucket(&tls), "put", "does not speak TLS").await;
    let gone = server.endpoint().to_owned();
    drop(server);
    is_told(bucket(&gone), "put", "nobody answers at http://127.0.0.1:").await;
}

/// What s3s-fs never says, in the words of S3 and R2.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_says_is_put_into_words() {
    for (status, code, words) in [
        (StatusCode::FORBIDDEN, "RequestTimeTooSkewed", "the clock of this machine"),
        (StatusCode::FORBIDDEN, "AccessDenied", "may not write objects in bucket \"blobs\""),
        (StatusCode::NOT_FOUND, "NoSuchBucket", "has no bucket \"blobs\""),
        (StatusCode::FORBIDDEN, "InvalidAccessKeyId", "check R2_ACCESS_KEY_ID"),
        (StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "try again later"),
        (StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed", "check S3_REGION"),
    ] {
        let answer = (status, format!("<Error><Code>{code}</Code></Error>"));
        let router = Router::new().fallback(any(async move || answer.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        is_told(bucket(&endpoint), "put", words).await;
        serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = StoreArgs {
        blob_store: Some(Backend::Local),
        blob_dir: Some(file.path().join("blobs")),
        ..StoreArgs::default()
    };
    is_told(store, "open", "BLOB_DIR=").await;
}

async fn program(arguments: &[&str]) -> (Option<i32>, Output) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_content-service"));
    let output = command.env_clear().args(arguments).output().await.unwrap();
    (output.status.code(), output)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_how_it_went() {
    let files = tempfile::tempdir().unwrap();
    let blobs = files.path().join("blobs");
    let (code, output) = program(&["check", "--blob-dir", blobs.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("✓ signed put"), "{output:?}");

    let endpoint = ["--s3-endpoint", "http://127.0.0.1:1", "--r2-bucket-name", "b"];
    let access = ["--r2-access-key-id", "i", "--r2-secret-access-key", "s", "--output", "json"];
    let (code, output) = program(&[&["check"], &endpoint[..], &access[..]].concat()).await;
    assert_eq!(code, Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["steps"][0]["outcome"], "failed");
    assert_eq!(report["steps"][1]["outcome"], "not_tried");

    let (code, output) = program(&[&["check"], &endpoint[..]].concat()).await;
    assert_eq!(code, Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("R2_ACCESS_KEY_ID"), "{output:?}");
    let (code, _) = program(&["check", "--no-such-flag"]).await;
    assert_eq!(code, Some(2));
}
