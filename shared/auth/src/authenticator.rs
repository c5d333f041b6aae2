//! From the header of a call to the user who makes it.

use std::sync::Arc;

use jsonwebtoken::decode_header;
use synap_types::UserId;

use crate::{
    AuthArgs, AuthConfigError, AuthError,
    jwks::Jwks,
    key::{Key, Rules},
};

/// Larger headers are refused unread. Tokens of identity providers take 1 to 4 KiB.
pub(crate) const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Checks tokens. Made once; used by all calls at the same time.
#[derive(Debug)]
pub struct Authenticator {
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    /// The secret, or the public key.
    One(Box<Key>),
    /// Those that the identity provider publishes.
    Set(Arc<Jwks>),
}

impl Authenticator {
    /// Reads the key that `args` names. A key set is not fetched before the first token comes, so
    /// that we can start before the identity provider does.
    ///
    /// # Errors
    /// [`AuthConfigError`], which names the variable and what it should be.
    pub fn new(args: &AuthArgs) -> Result<Self, AuthConfigError> {
        let rules = Rules::new(args);
        let secret = args.jwt_hs256_secret.as_ref().filter(|secret| !secret.expose().is_empty());
        let file = args.jwt_public_key_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let url = args.jwt_jwks_url.as_deref().filter(|url| !url.is_empty());
        let keys = match (secret, file, url) {
            (Some(secret), None, None) => Keys::One(Box::new(Key::from_secret(secret, &rules)?)),
            (None, Some(file), None) => Keys::One(Box::new(Key::from_pem_file(file, &rules)?)),
            (None, None, Some(url)) => Keys::Set(Arc::new(Jwks::new(url, rules)?)),
            _ => {
                let set: Vec<_> = [
                    secret.map(|_| "JWT_HS256_SECRET"),
                    file.map(|_| "JWT_PUBLIC_KEY_FILE"),
                    url.map(|_| "JWT_JWKS_URL"),
                ]
                .into_iter()
                .flatten()
                .collect();
                let set = if set.is_empty() { "none".to_owned() } else { set.join(", ") };
                return Err(AuthConfigError::KeySource { set });
            }
        };
        Ok(Self { keys })
    }

    /// Names the user whose token the `authorization` header carries. Waits only for a key set that
    /// has to be fetched, 5 s at most; everything else takes microseconds.
    ///
    /// # Errors
    /// [`AuthError::KeysUnavailable`] if it could not be told whether the token is good, any other
    /// if it is not.
    pub async fn authenticate(
        &self,
        authorization_header: Option<&str>,
    ) -> Result<UserId, AuthError> {
        let token = bearer(authorization_header)?;
        let header = decode_header(token).map_err(|_| AuthError::Malformed)?;
        // RFC 7515, section 4.1.11: an extension that must be understood, and that we do not know.
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        match &self.keys {
            Keys::One(key) => key.verify(token),
            Keys::Set(set) => set.key_for(&header).await?.verify(token),
        }
    }
}

/// The token of `Bearer <token>`: the scheme in any case, RFC 6750.
fn bearer(header: Option<&str>) -> Result<&str, AuthError> {
    let header = header.ok_or(AuthError::Missing)?.trim_matches(' ');
    if header.is_empty() {
        return Err(AuthError::Missing);
    }
    if header.len() > MAX_HEADER_BYTES {
        return Err(AuthError::TooLarge);
    }
    let (scheme, token) = header.split_once(' ').ok_or(AuthError::Malformed)?;
    let token = token.trim_start_matches(' ');
    let of_jwt = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(of_jwt) {
        Ok(token)
    } else {
        Err(AuthError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_bearer_and_one_token() {
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "] {
            assert_eq!(bearer(Some(good)), Ok("a.b.c"), "{good:?}");
        }
        for missing in [None, Some(""), Some("  ")] {
            assert_eq!(bearer(missing), Err(AuthError::Missing));
        }
        for bad in [
            "a.b.c",
            "Bearer",
            "Bearer ",
            "Bearera.b.c",
            "Basic YTpi",
            "Bearer Bearer a.b.c",
            "Bearer a.b.c, Bearer a.b.c",
            "Bearer a.b.c a.b.c",
            "Bearer a.b\u{e9}.c",
            "Bearer\ta.b.c",
        ] {
            assert_eq!(bearer(Some(bad)), Err(AuthError::Malformed), "{bad:?}");
        }
        let huge = format!("Bearer {}", "a".repeat(MAX_HEADER_BYTES));
        assert_eq!(bearer(Some(&huge)), Err(AuthError::TooLarge));
    }
}
