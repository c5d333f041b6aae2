//! Signed URLs: whoever has one can read a blob, or write it once with exactly the promised bytes,
//! without credentials. S3 checks its own; for memory and the local file system content-service
//! does ([`crate::http`]), by the same rules and with the same headers, so that a client need not
//! know which it talks to.

mod disposition;
mod request;
mod route;
mod s3;
mod secret;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use synap_proto::{content::SignUrlResponse, field};
use synap_types::{BlobKey, Checksum};

pub(crate) use self::{
    disposition::attachment,
    route::{Presented, RouteSigner},
    s3::S3Signer,
    secret::SecretSource,
};
use crate::store::StoreError;

/// The header that carries a body's SHA-256 in base64: S3's name for it.
pub(crate) const SHA256_HEADER: &str = "x-amz-checksum-sha256";

/// What a URL is wished for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) key: BlobKey,
    pub(crate) allows: Allows,
    /// 1 to 7 days.
    pub(crate) seconds: u32,
}

/// What a URL allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allows {
    /// To read the blob; `Content-Disposition` of the answer, or empty.
    Get { disposition: String },
    /// To write it.
    Put(BoundBody),
}

/// The one body that a URL for PUT takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoundBody {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) sha256: Checksum,
}

impl BoundBody {
    /// The headers that the signature covers, sorted by name. A request with another value, or
    /// without one of them, has another signature.
    pub(crate) fn headers(&self, key: &BlobKey) -> [(&'static str, String); 4] {
        [
            ("content-length", self.size.to_string()),
            ("content-type", key.content_type().to_owned()),
            ("if-none-match", "*".to_owned()),
            (SHA256_HEADER, STANDARD.encode(self.sha256.as_bytes())),
        ]
    }
}

/// Signs URLs for the store.
#[derive(Debug, Clone)]
pub(crate) enum Signer {
    /// The store checks them.
    S3(S3Signer),
    /// We do.
    Route(RouteSigner),
}

impl Signer {
    /// Signs a URL that is good from `now` on.
    ///
    /// # Errors
    /// If there is no secret yet and none can be made.
    pub(crate) async fn sign(
        &self,
        wish: &Wish,
        now: DateTime<Utc>,
    ) -> Result<SignUrlResponse, StoreError> {
        // S3 counts in seconds.
        let now = now.trunc_subsecs(0);
        let expires = now + TimeDelta::seconds(wish.seconds.into());
        let url = match self {
            Self::S3(signer) => signer.sign(wish, now)?,
            Self::Route(signer) => signer.sign(wish, expires).await?,
        };
        let (method, headers) = match &wish.allows {
            Allows::Get { .. } => ("GET", Vec::new()),
            // Whatever sends the body sends its length.
            Allows::Put(body) => ("PUT", body.headers(&wish.key)[1..].to_vec()),
        };
        Ok(SignUrlResponse {
            url,
            method: method.to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            expire_time: Some(field::timestamp(expires)),
        })
    }
}
