//! URLs that S3 checks: Signature Version 4 in the query.
//!
//! `object_store` signs URLs too, but leaves out `content-length`: a body of 5 GiB would be taken
//! before its checksum refuses it. `rusty_s3` signs what it is told to, makes no requests, and works
//! with our one provider of cryptography.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use rusty_s3::{Credentials, S3Action, UrlStyle};
use url::Url;

use super::{Allows, Wish};
use crate::{
    config::{Bucket, ConfigError},
    store::StoreError,
};

/// Signs for one bucket. Nothing is asked of it.
#[derive(Clone)]
pub(crate) struct S3Signer(Arc<Inner>);

struct Inner {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
}

impl S3Signer {
    pub(crate) fn new(bucket: &Bucket) -> Result<Self, ConfigError> {
        let wrong = ConfigError::Wrong { name: "S3_ENDPOINT", why: "cannot have signed URLs" };
        let endpoint = Url::parse(&bucket.endpoint).map_err(|_| wrong.clone())?;
        let credentials =
            Credentials::new(bucket.access_key_id.clone(), bucket.secret_access_key.reveal());
        let bucket = rusty_s3::Bucket::new(
            endpoint,
            UrlStyle::Path,
            bucket.name.clone(),
            bucket.region.clone(),
        );
        Ok(Self(Arc::new(Inner { bucket: bucket.map_err(|_| wrong)?, credentials })))
    }

    pub(super) fn sign(&self, wish: &Wish, now: DateTime<Utc>) -> Result<String, StoreError> {
        let Inner { bucket, credentials } = &*self.0;
        let key = wish.key.as_str();
        // The library's own type of time, read from text.
        let at = now.to_rfc3339().parse();
        let at = at.map_err(|cause| StoreError::Unexpected(format!("{now}: {cause}")))?;
        let lifetime = Duration::from_secs(wish.seconds.into());
        let url = match &wish.allows {
            Allows::Get { disposition } => {
                let mut action = bucket.get_object(Some(credentials), key);
                let query = action.query_mut();
                query.insert("response-content-type", wish.key.content_type());
                if !disposition.is_empty() {
                    query.insert("response-content-disposition", disposition.as_str());
                }
                action.sign_with_time(lifetime, &at)
            }
            Allows::Put(body) => {
                let mut action = bucket.put_object(Some(credentials), key);
                for (name, value) in body.headers(&wish.key) {
                    action.headers_mut().insert(name, value);
                }
                action.sign_with_time(lifetime, &at)
            }
        };
        Ok(url.into())
    }
}

impl fmt::Debug for S3Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Signer")
    }
}
