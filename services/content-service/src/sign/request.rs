//! What a URL may be wished for.

use synap_proto::{
    content::{SignUrlRequest, SignedMethod},
    field::{self, Checked, Violation},
};

use super::{Allows, BoundBody, Wish, attachment};

/// Seven days: what S3 and R2 take.
const MAX_SECONDS: i64 = 7 * 24 * 60 * 60;
/// What S3 and R2 take in one PUT, in bytes.
const MAX_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// Longest file name in bytes: what file systems take.
const MAX_NAME_BYTES: usize = 255;

impl Wish {
    /// Checks a request.
    ///
    /// # Errors
    /// A [`Violation`] that names the field.
    pub(crate) fn parse(request: SignUrlRequest, max_blob_bytes: u64) -> Checked<Self> {
        let method = request.method();
        let key = field::key("key", request.key)?;
        let expires_in = field::required("expires_in", request.expires_in)?;
        let seconds = u32::try_from(expires_in.seconds)
            .ok()
            .filter(|_| (1..=MAX_SECONDS).contains(&expires_in.seconds))
            .filter(|_| expires_in.seconds < MAX_SECONDS || expires_in.nanos == 0)
            .ok_or_else(|| Violation::new("expires_in", "must be between 1 second and 7 days"))?;
        let allows = match method {
            SignedMethod::Get if request.size != 0 => {
                return Err(Violation::new("size", "belongs to PUT only"));
            }
            SignedMethod::Get if !request.sha256.is_empty() => {
                return Err(Violation::new("sha256", "belongs to PUT only"));
            }
            SignedMethod::Put if !request.file_name.is_empty() => {
                return Err(Violation::new("file_name", "belongs to GET only"));
            }
            SignedMethod::Get => Allows::Get { disposition: disposition(&request.file_name)? },
            SignedMethod::Put => {
                let limit = max_blob_bytes.min(MAX_PUT_BYTES);
                let size = u64::try_from(request.size).ok().filter(|size| *size <= limit);
                let size = size.ok_or_else(|| {
                    Violation::new("size", format!("must be between 0 and {limit} bytes"))
                })?;
                Allows::Put(BoundBody { size, sha256: field::sha256("sha256", &request.sha256)? })
            }
            SignedMethod::Unspecified => {
                return Err(Violation::new("method", "must be GET or PUT"));
            }
        };
        Ok(Self { key, allows, seconds })
    }
}

fn disposition(file_name: &str) -> Checked<String> {
    let refuse = |why| Err(Violation::new("file_name", why));
    if file_name.len() > MAX_NAME_BYTES {
        return refuse("must have 255 bytes at most");
    }
    if file_name.chars().any(char::is_control) {
        return refuse("must not have control characters");
    }
    Ok(if file_name.is_empty() { String::new() } else { attachment(file_name) })
}

#[cfg(test)]
mod tests {
    use prost_types::Duration;

    use super::*;

    fn put() -> SignUrlRequest {
        SignUrlRequest {
            key: "users/u/notes/x.md".to_owned(),
            method: SignedMethod::Put.into(),
            expires_in: Some(Duration { seconds: 60, nanos: 0 }),
            size: 3,
            sha256: vec![7; 32].into(),
            file_name: String::new(),
        }
    }

    fn get() -> SignUrlRequest {
        let method = SignedMethod::Get.into();
        SignUrlRequest { method, size: 0, sha256: bytes::Bytes::new(), ..put() }
    }

    #[test]
    fn what_cannot_be_signed_is_refused_by_the_name_of_its_field() {
        let lasting = |seconds, nanos| SignUrlRequest {
            expires_in: Some(Duration { seconds, nanos }),
            ..put()
        };
        let named = |file_name: &str| SignUrlRequest { file_name: file_name.to_owned(), ..get() };
        for (field, request) in [
            ("key", SignUrlRequest { key: "elsewhere".to_owned(), ..put() }),
            ("method", SignUrlRequest { method: 0, ..put() }),
            ("method", SignUrlRequest { method: 77, ..put() }),
            ("expires_in", SignUrlRequest { expires_in: None, ..put() }),
            ("expires_in", lasting(0, 999_999_999)),
            ("expires_in", lasting(-5, 0)),
            ("expires_in", lasting(MAX_SECONDS + 1, 0)),
            ("expires_in", lasting(MAX_SECONDS, 1)),
            ("size", SignUrlRequest { size: -1, ..put() }),
            ("size", SignUrlRequest { size: 1001, ..put() }),
            ("sha256", SignUrlRequest { sha256: vec![7; 31].into(), ..put() }),
            ("file_name", SignUrlRequest { file_name: "x".to_owned(), ..put() }),
            ("size", SignUrlRequest { size: 1, ..get() }),
            ("sha256", SignUrlRequest { sha256: vec![7; 32].into(), ..get() }),
            ("file_name", named(&"x".repeat(256))),
            ("file_name", named("two\r\nlines")),
        ] {
            assert_eq!(Wish::parse(request, 1000).unwrap_err().field, field);
        }
        for (request, seconds) in
            [(lasting(1, 0), 1), (lasting(MAX_SECONDS, 0), 604_800), (get(), 60)]
        {
            assert_eq!(Wish::parse(request, 1000).unwrap().seconds, seconds);
        }
        let large = SignUrlRequest { size: 6 << 30, ..put() };
        assert_eq!(Wish::parse(large, u64::MAX).unwrap_err().field, "size");
    }
}
