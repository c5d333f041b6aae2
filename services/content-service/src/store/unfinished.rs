//! Multipart uploads that nobody will finish: the process that wrote them was killed. S3 keeps
//! their parts, unseen by any listing of objects, and charges for them. object_store cannot list
//! them, so the request is made here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use object_store::{
    aws::AwsAuthorizer,
    client::{HttpRequest, HttpRequestBody},
    multipart::MultipartStore as _,
};
use serde::Deserialize;
use synap_types::{BlobKey, Clock as _, SystemClock};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{S3, StoreError, path};

/// No upload takes so long: the longest deadline of a call is a small part of it.
const LEFT_BEHIND: TimeDelta = TimeDelta::days(1);
/// How often is looked for uploads that are [`LEFT_BEHIND`].
const EVERY: Duration = Duration::from_hours(24);
/// How often a listing is tried.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// An answer to ListMultipartUploads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Uploads {
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
    upload: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
    initiated: DateTime<Utc>,
}

impl S3 {
    /// Aborts whatever was begun under these keys.
    pub(super) async fn abort_uploads_of(&self, keys: &[BlobKey]) -> Result<(), StoreError> {
        let Some(prefix) = common_prefix(keys) else { return Ok(()) };
        // One request for all of them: unfinished uploads are few.
        let keys: HashSet<&str> = keys.iter().map(BlobKey::as_str).collect();
        self.abort_uploads(prefix, |upload| keys.contains(&*upload.key)).await?;
        Ok(())
    }

    /// Once a day, in the background, aborts what is [`LEFT_BEHIND`].
    pub(super) fn sweep(self: &Arc<Self>, clock: SystemClock, stop: CancellationToken) {
        let s3 = Arc::clone(self);
        let sweep = async move {
            let mut days = tokio::time::interval(EVERY);
            loop {
                days.tick().await;
                let before = clock.now() - LEFT_BEHIND;
                match s3.abort_uploads("", |upload| upload.initiated < before).await {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(count, "uploads of died processes aborted"),
                    Err(error) => tracing::warn!(
                        reason = error.cause(),
                        "uploads of died processes were not all looked for"
                    ),
                }
            }
        };
        tokio::spawn(stop.run_until_cancelled_owned(sweep));
    }

    /// Aborts uploads whose keys begin so and that are `meant`; tells how many.
    async fn abort_uploads(
        &self,
        prefix: &str,
        meant: impl Fn(&Upload) -> bool,
    ) -> Result<u64, StoreError> {
        let mut count = 0;
        let mut page = Uploads { is_truncated: true, ..Uploads::default() };
        while page.is_truncated {
            page = self.unfinished(prefix, &page).await?;
            for upload in page.upload.iter().filter(|upload| meant(upload)) {
                let Ok(key) = BlobKey::parse(&*upload.key) else { continue };
                match self.objects.abort_multipart(&path(&key)?, &upload.id).await {
                    Ok(()) => count += 1,
                    Err(error) => match StoreError::from(error) {
                        // It was finished, or another replica was faster.
                        StoreError::NotFound => {}
                        error => return Err(error),
                    },
                }
            }
        }
        Ok(count)
    }

    /// The page after `last`.
    async fn unfinished(&self, prefix: &str, last: &Uploads) -> Result<Uploads, StoreError> {
        let mut query = vec![("uploads", ""), ("prefix", prefix)];
        if !last.next_key_marker.is_empty() {
            query.push(("key-marker", &last.next_key_marker));
            query.push(("upload-id-marker", &last.next_upload_id_marker));
        }
        let url = Url::parse_with_params(&self.bucket_url, query)
            .map_err(|error| StoreError::Unexpected(error.to_string()))?;
        let mut tried = 0;
        loop {
            let failed = match self.get(&url).await {
                Ok((StatusCode::OK, body)) => {
                    return quick_xml::de::from_reader(&*body)
                        .map_err(|error| StoreError::Unexpected(error.to_string()));
                }
                // A server that cannot tell. Its operator has a rule for what is left over, or the
                // server has none; no object is there either way.
                Ok((StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED, _)) => {
                    tracing::debug!("the store does not list unfinished uploads");
                    return Ok(Uploads::default());
                }
                Ok((status, body)) => {
                    let said = String::from_utf8_lossy(&body);
                    let failed = StoreError::of_answer(status, &said);
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return Err(failed);
                    }
                    failed
                }
                Err(failed) => failed,
            };
            tried += 1;
            if tried == TRIES {
                return Err(failed);
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(tried)).await;
        }
    }

    async fn get(&self, url: &Url) -> Result<(StatusCode, bytes::Bytes), StoreError> {
        let mut request: HttpRequest = http::Request::get(url.as_str())
            .body(HttpRequestBody::empty())
            .map_err(|error| StoreError::Unexpected(error.to_string()))?;
        let credential = self.objects.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let (head, body) = self.http.execute(request).await?.into_parts();
        Ok((head.status, body.bytes().await?))
    }
}

/// What all keys begin with; `None` without any.
fn common_prefix(keys: &[BlobKey]) -> Option<&str> {
    let (first, others) = keys.split_first()?;
    let first = first.as_str();
    let alike = |other: &BlobKey| {
        first.bytes().zip(other.as_str().bytes()).take_while(|(one, two)| one == two).count()
    };
    let end = others.iter().map(alike).min().unwrap_or(first.len());
    // Keys are ASCII.
    first.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let one = |key: &str, id: &str| {
            format!(
                "<Upload><Initiated>2026-01-02T03:04:05.000Z</Initiated><Key>{key}</Key>\
                 <UploadId>{id}</UploadId><StorageClass>STANDARD</StorageClass></Upload>"
            )
        };
        let answer = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListMultipartUploadsResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>b</Bucket>{}\
             <NextKeyMarker>users/u/x</NextKeyMarker><IsTruncated>true</IsTruncated>\
             <NextUploadIdMarker>2</NextUploadIdMarker>{}</ListMultipartUploadsResult>",
            one("users/u/a%252E", "1"),
            one("users/u/x", "2"),
        );
        let page: Uploads = quick_xml::de::from_str(&answer).unwrap();
        assert!(page.is_truncated);
        assert_eq!((&*page.next_key_marker, &*page.next_upload_id_marker), ("users/u/x", "2"));
        let ids: Vec<_> = page.upload.iter().map(|one| (&*one.key, &*one.id)).collect();
        assert_eq!(ids, [("users/u/a%252E", "1"), ("users/u/x", "2")]);
        let none: Uploads = quick_xml::de::from_str("<ListMultipartUploadsResult/>").unwrap();
        assert!(none.upload.is_empty() && !none.is_truncated);
    }

    #[test]
    fn keys_have_their_begin_in_common() {
        let keys = |keys: &[&str]| -> Vec<BlobKey> {
            keys.iter().map(|&key| BlobKey::parse(key).unwrap()).collect()
        };
        assert_eq!(common_prefix(&[]), None);
        assert_eq!(common_prefix(&keys(&["users/u/a.md"])), Some("users/u/a.md"));
        let three = keys(&["users/u/ab.md", "users/u/abc.md", "users/u/a"]);
        assert_eq!(common_prefix(&three), Some("users/u/a"));
    }
}
