//! R2, or any other S3.

use std::{io, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
};

use crate::config::Bucket;

/// Silence of the other side after which a request is given up.
const SILENCE: Duration = Duration::from_mins(1);

/// Makes the client; nothing is sent.
///
/// object_store ends every request after 30 s, body included, and tries 10 times within 3 minutes.
/// Here the caller's deadline ends a request, silence does, and a store that fails is reported
/// soon: the caller has its own retries, and recovery behind them.
pub(super) fn open(bucket: &Bucket) -> io::Result<AmazonS3> {
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(3))
        .with_timeout_disabled()
        .with_read_timeout(SILENCE);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(10),
    };
    AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(retry)
        .with_endpoint(&bucket.endpoint)
        .with_allow_http(bucket.endpoint.starts_with("http://"))
        .with_region(&bucket.region)
        .with_bucket_name(&bucket.name)
        .with_virtual_hosted_style_request(false)
        .with_access_key_id(&bucket.access_key_id)
        .with_secret_access_key(bucket.secret_access_key.reveal())
        .build()
        .map_err(io::Error::other)
}
