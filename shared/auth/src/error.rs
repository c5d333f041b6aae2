//! What can be wrong with a configuration, and what with a token.

use std::{io, path::PathBuf};

use synap_types::InvalidUserId;

use crate::authenticator::MAX_HEADER_BYTES;

/// Why a caller is not known. The messages are for the caller: they name what to change, and hold
/// nothing of the token and nothing of our keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `authorization` header.
    #[error("no token: send the header `authorization: Bearer <token>`")]
    Missing,
    /// The header is not `Bearer` and one token, or the token is not a signed JWT.
    #[error("the authorization header is not `Bearer` and one signed JWT")]
    Malformed,
    /// The header is too large to be looked at.
    #[error("the authorization header is larger than {MAX_HEADER_BYTES} bytes")]
    TooLarge,
    /// The signature is wrong, its algorithm is not the key's, or no trusted key made it.
    #[error("the token is not signed by a key that is trusted here")]
    Untrusted,
    /// There is no `exp` claim: such a token would be good for ever.
    #[error("the token has no `exp` claim: a token must expire")]
    NoExpiry,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The `nbf` claim lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim has a value of the wrong type.
    #[error("a claim of the token is malformed")]
    MalformedClaim,
    /// The `iss` claim is not the issuer that is trusted.
    #[error("the token comes from an issuer that is not trusted here")]
    WrongIssuer,
    /// The `aud` claim does not name us.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// There is no `sub` claim, or it is no text.
    #[error("the token's `sub` claim does not name a user")]
    NoSubject,
    /// The `sub` claim cannot be a user id.
    #[error("the token's `sub` claim cannot be a user id: {0}")]
    InvalidSubject(#[from] InvalidUserId),
    /// The identity provider's keys could never be read: not the caller's fault, and worth another
    /// try.
    #[error("the keys that tokens are checked with cannot be read now; try again")]
    KeysUnavailable,
}

/// Why tokens cannot be checked with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// Nothing, or more than one thing, says whose signatures are trusted.
    #[error(
        "set exactly one of JWT_HS256_SECRET, JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL; set now: {set}"
    )]
    KeySource {
        /// The variables that are set, or `none`.
        set: String,
    },
    /// The secret can be guessed.
    #[error(
        "JWT_HS256_SECRET has {bytes} bytes; HS256 needs at least {} (RFC 7518), for example the output of `openssl rand -base64 48`",
        crate::key::MIN_SECRET_BYTES
    )]
    SecretTooShort {
        /// Its length.
        bytes: usize,
    },
    /// The file cannot be read.
    #[error("JWT_PUBLIC_KEY_FILE: cannot read {path}")]
    KeyFileUnreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file does not hold a key that can be used.
    #[error("JWT_PUBLIC_KEY_FILE: {path} {problem}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: &'static str,
    },
    /// The URL is not one that keys may come from.
    #[error("JWT_JWKS_URL {problem}")]
    JwksUrl {
        /// What is wrong with it, and what would be right.
        problem: &'static str,
    },
    /// The client that would read the URL cannot be made.
    #[error("JWT_JWKS_URL: no HTTPS client can be made")]
    HttpClient(#[source] reqwest::Error),
}
