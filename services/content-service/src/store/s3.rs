//! R2, or any other S3.

use std::{io, sync::Arc};

use object_store::{
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::HttpClient,
};
use tokio_util::task::TaskTracker;

use super::{create_only::CreateOnly, throttle};
use crate::config::Bucket;

/// A bucket.
#[derive(Debug)]
pub(crate) struct S3 {
    pub(super) objects: Arc<AmazonS3>,
    /// For what object_store cannot ask.
    pub(super) http: HttpClient,
    pub(super) bucket_url: String,
    pub(super) region: String,
    /// Ends uploads that were given up; waited for when the service stops.
    pub(super) cleaning: TaskTracker,
}

impl S3 {
    /// Makes the client; nothing is sent.
    ///
    /// object_store ends every request after 30 s, body included, and tries 10 times within 3
    /// minutes. Here [`throttle`] decides what is given up and what is repeated, and object_store
    /// only speaks S3.
    pub(super) fn open(bucket: &Bucket) -> io::Result<Self> {
        let http = throttle::client(&bucket.limits)?;
        let no_retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let objects = AmazonS3Builder::new()
            .with_http_connector(CreateOnly(http.clone()))
            .with_retry(no_retries)
            .with_endpoint(&bucket.endpoint)
            .with_region(&bucket.region)
            .with_bucket_name(&bucket.name)
            .with_virtual_hosted_style_request(false)
            .with_access_key_id(&bucket.access_key_id)
            .with_secret_access_key(bucket.secret_access_key.reveal())
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            objects: Arc::new(objects),
            http,
            bucket_url: format!("{}/{}", bucket.endpoint, bucket.name),
            region: bucket.region.clone(),
            cleaning: TaskTracker::new(),
        })
    }
}
