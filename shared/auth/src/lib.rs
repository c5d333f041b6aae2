//! Who is calling: a bearer token (RFC 6750) that is a signed JWT (RFC 7519) names the user in its
//! `sub` claim.
//!
//! [`AuthArgs`] says whose signatures are trusted: one shared secret, one public key, or the key set
//! that an identity provider publishes. The key decides which algorithms a token may use, never the
//! token itself: there is no `none`, and a public key never becomes an HMAC secret.
//! [`Authenticator::authenticate`] turns the `authorization` header of a call into a
//! [`UserId`](synap_types::UserId) or an [`AuthError`].
//!
//! `exp` and `nbf` are compared with the machine's clock by the `jsonwebtoken` crate itself; that
//! crate also picks aws-lc-rs for its cryptography, the only provider that it is built with here.

mod args;
mod authenticator;
mod error;
mod issue;
mod jwks;
mod key;

pub use args::{AuthArgs, Secret};
pub use authenticator::Authenticator;
pub use error::{AuthConfigError, AuthError};
pub use issue::issue_hs256;
