//! R2, or any other S3.

use std::{io, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector as _, ReqwestConnector},
};
use tokio_util::task::TaskTracker;

use super::create_only::CreateOnly;
use crate::config::Bucket;

/// Silence of the other side after which a request is given up.
const SILENCE: Duration = Duration::from_mins(1);

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
    /// minutes. Here the caller's deadline ends a request, silence does, and a store that fails is
    /// reported soon: the caller has its own retries, and recovery behind them.
    pub(super) fn open(bucket: &Bucket) -> io::Result<Self> {
        let options = ClientOptions::new()
            .with_allow_http(bucket.endpoint.starts_with("http://"))
            .with_connect_timeout(Duration::from_secs(3))
            .with_timeout_disabled()
            .with_read_timeout(SILENCE);
        let http = ReqwestConnector::default().connect(&options).map_err(io::Error::other)?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 3,
            retry_timeout: Duration::from_secs(10),
        };
        let objects = AmazonS3Builder::new()
            .with_client_options(options)
            .with_http_connector(CreateOnly(http.clone()))
            .with_retry(retry)
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
