//! URLs that we check ourselves: an HMAC over everything that such a URL allows.
//!
//! `{base}/{key}?expires={Unix seconds}[&disposition={…}]&signature={…}`. As with S3, the headers
//! that a PUT must carry are not in the URL: what the request has in their place goes into the HMAC
//! that is compared.

use std::{fmt, sync::Arc};

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;
use synap_types::{BlobKey, Checksum};
use tokio::sync::OnceCell;
use url::form_urlencoded;

use super::{Allows, BoundBody, SHA256_HEADER, SecretSource, Wish};
use crate::store::StoreError;

/// Signs URLs and checks them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RouteSigner(Arc<Inner>);

struct Inner {
    /// Without a slash at its end.
    base: String,
    source: SecretSource,
    /// Empty until it is first needed: a disk that cannot be written to now is no reason not to
    /// start.
    key: OnceCell<Key>,
}

/// A request that is yet to be believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    pub(crate) key: BlobKey,
    pub(crate) allows: Allows,
    /// Unix seconds.
    expires: i64,
    signature: Vec<u8>,
}

impl RouteSigner {
    pub(crate) fn new(base: String, source: SecretSource) -> Self {
        Self(Arc::new(Inner { base, source, key: OnceCell::new() }))
    }

    pub(super) async fn sign(
        &self,
        wish: &Wish,
        expires: DateTime<Utc>,
    ) -> Result<String, StoreError> {
        let expires = expires.timestamp();
        let tag = hmac::sign(self.key().await?, &message(&wish.key, &wish.allows, expires));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("expires", &expires.to_string());
        if let Allows::Get { disposition } = &wish.allows
            && !disposition.is_empty()
        {
            query.append_pair("disposition", disposition);
        }
        query.append_pair("signature", &URL_SAFE_NO_PAD.encode(tag));
        // A key's only character that a path does not take as it is.
        let path = wish.key.as_str().replace('%', "%25");
        Ok(format!("{}/{path}?{}", self.0.base, query.finish()))
    }

    /// Whether we signed this, and it is not over. Takes as long for any wrong signature.
    ///
    /// # Errors
    /// If there is no secret yet and none can be made.
    pub(crate) async fn verify(
        &self,
        presented: &Presented,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let Presented { key, allows, expires, signature } = presented;
        let message = message(key, allows, *expires);
        let signed = hmac::verify(self.key().await?, &message, signature).is_ok();
        Ok(signed && now.timestamp() < *expires)
    }

    async fn key(&self) -> Result<&Key, StoreError> {
        let Inner { source, key, .. } = &*self.0;
        let make = async || {
            let source = source.clone();
            let read = tokio::task::spawn_blocking(move || source.read()).await;
            let secret = read.map_err(|cause| StoreError::Unexpected(cause.to_string()))??;
            Ok(Key::new(HMAC_SHA256, &secret))
        };
        key.get_or_try_init(make).await
    }
}

impl fmt::Debug for RouteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteSigner({})", self.0.base)
    }
}

/// What is signed: one thing a line, none of which can have a line break before the last.
fn message(key: &BlobKey, allows: &Allows, expires: i64) -> Vec<u8> {
    let mut message = format!("synap-blob-url-1\n{key}\n{expires}\n");
    match allows {
        Allows::Get { disposition } => {
            message.push_str("GET\n");
            message.push_str(disposition);
        }
        Allows::Put(body) => {
            message.push_str("PUT\n");
            for (name, value) in body.headers(key) {
                message.extend([name, ":", &value, "\n"]);
            }
        }
    }
    message.into_bytes()
}

impl Presented {
    /// Reads a request. A request that no URL of ours could have made is none.
    pub(crate) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let path = percent_decode_str(uri.path().strip_prefix('/')?).decode_utf8().ok()?;
        let key = BlobKey::parse(path).ok()?;
        let (mut expires, mut disposition, mut signature) = (None, None, None);
        for (name, value) in form_urlencoded::parse(uri.query()?.as_bytes()) {
            let before = match name.as_ref() {
                "expires" => expires.replace(value),
                "disposition" => disposition.replace(value),
                "signature" => signature.replace(value),
                _ => return None,
            };
            if before.is_some() {
                return None;
            }
        }
        let allows = match *method {
            Method::GET | Method::HEAD => {
                Allows::Get { disposition: disposition.unwrap_or_default().into_owned() }
            }
            Method::PUT if disposition.is_none() => Allows::Put(bound_body(&key, headers)?),
            _ => return None,
        };
        Some(Self {
            key,
            allows,
            expires: expires?.parse().ok()?,
            signature: URL_SAFE_NO_PAD.decode(signature?.as_ref()).ok()?,
        })
    }
}

/// The body that the request's headers promise, if they are the ones that a signature covers.
fn bound_body(key: &BlobKey, headers: &HeaderMap) -> Option<BoundBody> {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    };
    let body = BoundBody {
        size: only("content-length")?.parse().ok()?,
        sha256: format!("sha256:{}", only(SHA256_HEADER)?).parse::<Checksum>().ok()?,
    };
    // Compared as text: `+5` is no length that we sign, nor is hex a checksum.
    let as_signed = body.headers(key).iter().all(|(name, value)| only(name) == Some(value));
    as_signed.then_some(body)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use synap_types::{Clock as _, SystemClock};

    use super::*;

    const BASE: &str = "http://h";

    fn signer() -> RouteSigner {
        RouteSigner::new(BASE.to_owned(), SecretSource::Fresh)
    }

    fn wish(allows: Allows) -> Wish {
        let key = BlobKey::parse("users/ada%40x%2Ey/notes/n.md").unwrap();
        Wish { key, allows, seconds: 60 }
    }

    fn body() -> BoundBody {
        BoundBody { size: 3, sha256: Checksum::of(b"abc") }
    }

    fn headers() -> HeaderMap {
        let all = body().headers(&wish(Allows::Put(body())).key);
        all.into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    async fn good(signer: &RouteSigner, method: &Method, url: &str, headers: &HeaderMap) -> bool {
        let uri = url.strip_prefix(BASE).unwrap().parse().unwrap();
        let Some(presented) = Presented::read(method, &uri, headers) else { return false };
        signer.verify(&presented, SystemClock.now()).await.unwrap()
    }

    #[tokio::test]
    async fn a_url_allows_what_it_was_signed_for_and_nothing_else() {
        let signer = signer();
        let later = SystemClock.now() + TimeDelta::seconds(60);
        let named = Allows::Get { disposition: "attachment; filename=\"a b&c\"".to_owned() };
        let plain = HeaderMap::new();
        for allows in [Allows::Get { disposition: String::new() }, named] {
            let url = signer.sign(&wish(allows), later).await.unwrap();
            assert!(good(&signer, &Method::GET, &url, &plain).await, "{url}");
            assert!(good(&signer, &Method::HEAD, &url, &plain).await, "{url}");
            for method in [Method::PUT, Method::DELETE, Method::POST] {
                assert!(!good(&signer, &method, &url, &headers()).await, "{method} {url}");
            }
            let expires = later.timestamp();
            for tampered in [
                url.replace("n.md", "m.md"),
                url.replace(&expires.to_string(), &(expires + 1).to_string()),
                url.replace("filename", "filenama").replace("signature", "Signature"),
                format!("{url}&expires={expires}"),
                format!("{url}&more=1"),
                url.replace("signature=", "signature=A"),
                url.split('?').next().unwrap().to_owned(),
            ] {
                assert!(!good(&signer, &Method::GET, &tampered, &plain).await, "{tampered}");
            }
            let another = RouteSigner::new(BASE.to_owned(), SecretSource::Fresh);
            assert!(!good(&another, &Method::GET, &url, &plain).await);
        }
        let over = signer.sign(&wish(Allows::Put(body())), SystemClock.now()).await.unwrap();
        assert!(!good(&signer, &Method::PUT, &over, &headers()).await);
    }

    #[tokio::test]
    async fn a_put_is_bound_to_its_headers() {
        let signer = signer();
        let later = SystemClock.now() + TimeDelta::seconds(60);
        let url = signer.sign(&wish(Allows::Put(body())), later).await.unwrap();
        assert!(good(&signer, &Method::PUT, &url, &headers()).await);
        assert!(!good(&signer, &Method::GET, &url, &headers()).await);
        for (name, other) in [
            ("content-length", "4"),
            ("content-length", "+3"),
            ("content-type", "text/html"),
            ("if-none-match", "\"x\""),
            (SHA256_HEADER, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ] {
            let mut changed = headers();
            changed.insert(name, other.parse().unwrap());
            assert!(!good(&signer, &Method::PUT, &url, &changed).await, "{name}: {other}");
            let mut missing = headers();
            missing.remove(name);
            assert!(!good(&signer, &Method::PUT, &url, &missing).await, "no {name}");
            let mut twice = headers();
            twice.append(name, headers()[name].clone());
            assert!(!good(&signer, &Method::PUT, &url, &twice).await, "{name} twice");
        }
    }
}
