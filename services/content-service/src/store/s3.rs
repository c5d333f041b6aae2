//! R2, or any other S3.

use std::io;

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
};

use super::throttle;
use crate::config::Bucket;

/// Makes the client; nothing is sent.
///
/// object_store ends every request after 30 s, body included, and tries 10 times within 3 minutes.
/// Here [`throttle`] decides what is repeated and what is given up, and object_store only speaks S3.
pub(super) fn open(bucket: &Bucket) -> io::Result<AmazonS3> {
    let no_retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    AmazonS3Builder::new()
        .with_client_options(ClientOptions::new())
        .with_http_connector(throttle::Ready(throttle::client(&bucket.limits)?))
        .with_retry(no_retries)
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
