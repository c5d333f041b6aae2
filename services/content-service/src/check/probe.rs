//! The steps of a check.

use std::time::Duration;

use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use reqwest::{Client, Method};
use synap_types::{BlobKey, Checksum, Clock as _, InvalidKey, SystemClock};

use super::{diagnosis, report::Report};
use crate::{
    config::Place,
    domain::Promise,
    error::ContentError,
    sign::{Allows, BoundBody, Signer, Wish},
    store::{BlobStore, Listing, Range, StoreError, words},
    upload::Uploads,
};

/// What is written: long enough for a range in its middle.
const BODY: &[u8] = &[b'?'; 4096];
/// As long as it takes to see that an answer does not come.
const URL_TIMEOUT: Duration = Duration::from_secs(30);

const AFTER_PUT: [&str; 8] =
    ["head", "get", "ranged get", "conditional put", "signed get", "signed put", "list", "delete"];

/// What the steps work with.
pub(super) struct Probe<'a> {
    pub(super) store: BlobStore,
    pub(super) uploads: Uploads,
    pub(super) signer: Signer,
    pub(super) place: &'a Place,
    /// Of the keys that are written; nobody else's.
    pub(super) prefix: String,
}

/// What was seen, or what is wrong.
type Seen = Result<String, String>;

impl Probe<'_> {
    pub(super) async fn run(&self, report: &mut Report) {
        let (Ok(key), Ok(signed)) = (self.key("direct"), self.key("signed")) else {
            return report.failed("put", "the probe has no key: a fault of this program");
        };
        let put = self.put(&key).await;
        let written = put.is_ok();
        note(report, "put", put);
        if !written {
            for step in AFTER_PUT {
                report.not_tried(step);
            }
            // It may have been written all the same.
            let _ = self.store.delete(&[key]).await;
            return;
        }
        note(report, "head", self.head(&key).await);
        note(report, "get", self.get(&key, Range::WHOLE, BODY).await);
        let middle = Range { offset: 1000, length: Some(100) };
        note(report, "ranged get", self.get(&key, middle, &BODY[1000..1100]).await);
        note(report, "conditional put", self.put_again(&key).await);
        note(report, "signed get", self.signed_get(&key).await);
        note(report, "signed put", self.signed_put(&signed).await);
        note(report, "list", self.list(&key).await);
        note(report, "delete", self.delete(&[key, signed]).await);
    }

    fn key(&self, name: &str) -> Result<BlobKey, InvalidKey> {
        BlobKey::parse(format!("{}/{name}.md", self.prefix))
    }

    async fn put(&self, key: &BlobKey) -> Seen {
        // Some servers make any bucket that is written to: then it is never the wrong one.
        if let Err(error @ StoreError::Unavailable { .. }) =
            self.store.list(Listing::of(&self.prefix)).try_next().await
            && error.cause().contains("NoSuchBucket")
        {
            return Err(self.explain("write", &error));
        }
        match self.upload(key, Bytes::from_static(BODY)).await {
            Ok(()) => Ok(format!("{} bytes under {key}", BODY.len())),
            Err(error) => Err(self.explain("write", &error)),
        }
    }

    async fn upload(&self, key: &BlobKey, body: Bytes) -> Result<(), StoreError> {
        let size = Some(body.len() as u64);
        let promised = Promise { size, sha256: Some(Checksum::of(&body)) };
        match self.uploads.put(key, promised, stream::iter([Ok(body)])).await {
            Ok(_) => Ok(()),
            Err(ContentError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Unexpected(format!("{error:?}"))),
        }
    }

    async fn head(&self, key: &BlobKey) -> Seen {
        match self.store.head(key).await {
            Ok(meta) if meta.size == BODY.len() as u64 => Ok(format!("{} bytes", meta.size)),
            Ok(meta) => Err(format!("the store says {} bytes of {}", meta.size, BODY.len())),
            Err(error) => Err(self.explain("read", &error)),
        }
    }

    async fn get(&self, key: &BlobKey, range: Range, expected: &[u8]) -> Seen {
        let read = async { self.store.read(key, range).await?.chunks.try_collect().await };
        let read: Result<Vec<Bytes>, StoreError> = read.await;
        match read {
            Ok(chunks) if chunks.concat() == expected => Ok(format!("{} bytes", expected.len())),
            Ok(_) => Err("the store gives back other bytes than were written".to_owned()),
            Err(error) => Err(self.explain("read", &error)),
        }
    }

    async fn put_again(&self, key: &BlobKey) -> Seen {
        match self.upload(key, Bytes::from_static(b"other bytes")).await {
            Err(StoreError::Taken) => Ok("other bytes under the same key are refused".to_owned()),
            Ok(()) => {
                Err("the store writes over an object in spite of If-None-Match: *; blobs are \
                           safe as long as no key is used twice, but the second line of defence is \
                           missing"
                    .to_owned())
            }
            Err(error) => Err(self.explain("write", &error)),
        }
    }

    async fn signed_get(&self, key: &BlobKey) -> Seen {
        let allows = Allows::Get { disposition: String::new() };
        let body = self.call(key, allows, Bytes::new()).await?;
        if body != BODY {
            return Err("the signed URL gives back other bytes than were written".to_owned());
        }
        Ok(format!("{} bytes", body.len()))
    }

    async fn signed_put(&self, key: &BlobKey) -> Seen {
        let body = BoundBody { size: BODY.len() as u64, sha256: Checksum::of(BODY) };
        self.call(key, Allows::Put(body), Bytes::from_static(BODY)).await?;
        self.get(key, Range::WHOLE, BODY).await
    }

    /// Makes a URL, and the request that it allows.
    async fn call(&self, key: &BlobKey, allows: Allows, body: Bytes) -> Result<Bytes, String> {
        let wish = Wish { key: key.clone(), allows, seconds: 60 };
        let signed = self.signer.sign(&wish, SystemClock.now()).await;
        let signed = signed.map_err(|error| self.explain("sign a URL for", &error))?;
        let method = if signed.method == "PUT" { Method::PUT } else { Method::GET };
        let failed = |error: reqwest::Error| {
            diagnosis::explain(self.place, "open a signed URL of", &words(&error.without_url()))
        };
        let mut request = Client::new().request(method, &signed.url).timeout(URL_TIMEOUT);
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok(body);
        }
        let cause = format!("{status}: {}", String::from_utf8_lossy(&body));
        Err(diagnosis::explain(self.place, "open a signed URL of", &cause))
    }

    async fn list(&self, key: &BlobKey) -> Seen {
        let mut pages = self.store.list(Listing::of(&self.prefix));
        let mut count = 0;
        let mut found = false;
        loop {
            match pages.try_next().await {
                Ok(Some(page)) => {
                    count += page.blobs.len();
                    found |= page.blobs.iter().any(|blob| blob.key == *key);
                }
                Ok(None) if found => return Ok(format!("{count} objects of this check")),
                Ok(None) => return Err("the object that was written is not listed".to_owned()),
                Err(error) => return Err(self.explain("list", &error)),
            }
        }
    }

    async fn delete(&self, keys: &[BlobKey]) -> Seen {
        self.store.delete(keys).await.map_err(|error| self.explain("delete", &error))?;
        for key in keys {
            match self.store.head(key).await {
                Err(StoreError::NotFound) => {}
                Ok(_) => return Err(format!("{key} is still there")),
                Err(error) => return Err(self.explain("read", &error)),
            }
        }
        Ok("nothing is left".to_owned())
    }

    /// What an error means, for an operator. `verb` is what was tried with an object.
    fn explain(&self, verb: &str, error: &StoreError) -> String {
        match error {
            // No blob was asked for that is not there.
            StoreError::NotFound => diagnosis::explain(self.place, verb, "404 Not Found"),
            StoreError::Unavailable { advice, cause } if matches!(self.place, Place::S3(_)) => {
                diagnosis::of_s3(self.place, verb, cause)
                    .unwrap_or_else(|| format!("{advice}. It said: {cause}"))
            }
            StoreError::Unavailable { advice, cause } => format!("{advice} ({cause})"),
            error => error.to_string(),
        }
    }
}

fn note(report: &mut Report, step: &'static str, seen: Seen) {
    match seen {
        Ok(says) => report.ok(step, says),
        Err(says) => report.failed(step, says),
    }
}
