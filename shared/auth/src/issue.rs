//! Tokens for development, where no identity provider is at hand.

use std::time::Duration;

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use synap_types::{Clock, UserId};

use crate::Secret;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: i64,
    exp: i64,
}

/// A token for `user`, signed with HS256 and good for `ttl` (to the second). It has neither issuer
/// nor audience, so it is taken only where neither is asked for.
///
/// # Panics
/// Never: a text and two numbers can be written as JSON, and an HMAC can always be made.
#[must_use]
#[expect(clippy::expect_used, reason = "neither JSON of these claims nor an HMAC can fail")]
pub fn issue_hs256(secret: &Secret, user: &UserId, ttl: Duration, clock: &dyn Clock) -> String {
    let now = clock.now();
    let ttl = TimeDelta::from_std(ttl).unwrap_or(TimeDelta::MAX);
    let end = now.checked_add_signed(ttl).unwrap_or(chrono::DateTime::<chrono::Utc>::MAX_UTC);
    let claims = Claims { sub: user.as_str(), iat: now.timestamp(), exp: end.timestamp() };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("HS256 signs whatever it is given")
}
