//! The object store itself, opened directly: the floor of everything that content-service does.

use std::{env, path::Path as Directory, sync::Arc};

use anyhow::Context as _;
use clap::ValueEnum;
use object_store::{
    ObjectStore,
    aws::{AmazonS3, AmazonS3Builder},
    local::LocalFileSystem,
};

/// Where blobs are kept while they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StoreKind {
    /// A directory beside the build, with fsync.
    Local,
    /// The bucket that the environment names, as content-service reads it.
    S3,
}

impl StoreKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
        }
    }

    /// The store, opened as a program would that has no content-service.
    pub(super) fn open(self, directory: &Directory) -> anyhow::Result<Arc<dyn ObjectStore>> {
        Ok(match self {
            Self::Local => {
                std::fs::create_dir_all(directory)?;
                Arc::new(LocalFileSystem::new_with_prefix(directory)?.with_fsync(true))
            }
            Self::S3 => Arc::new(s3()?),
        })
    }
}

/// The bucket that the environment names.
pub(super) fn s3() -> anyhow::Result<AmazonS3> {
    let endpoint = match setting("R2_ACCOUNT_ID") {
        Ok(account) => format!("https://{account}.r2.cloudflarestorage.com"),
        Err(_) => setting("S3_ENDPOINT")?,
    };
    let store = AmazonS3Builder::new()
        .with_allow_http(endpoint.starts_with("http:"))
        .with_endpoint(endpoint)
        .with_region(env::var("S3_REGION").unwrap_or_else(|_| "auto".to_owned()))
        .with_bucket_name(setting("R2_BUCKET_NAME")?)
        .with_access_key_id(setting("R2_ACCESS_KEY_ID")?)
        .with_secret_access_key(setting("R2_SECRET_ACCESS_KEY")?)
        .build()?;
    Ok(store)
}

fn setting(name: &'static str) -> anyhow::Result<String> {
    env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| {
        format!(
            "{name} is not set. `cargo run --release -p synap-testkit --example s3-server` runs an \
             S3 server and prints what to set"
        )
    })
}
