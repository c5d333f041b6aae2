//! What an error says, and tokens that earn one.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use synap_proto::reason;
use synap_types::{Clock as _, SystemClock};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::SECRET;

/// The status has this code and reason, and its details are as every error's must be.
#[track_caller]
pub fn assert_status(status: &Status, code: Code, reason: &str) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(info.domain, "synap");
    assert!(!status.message().is_empty());
}

/// The status is about one field, and says what is wrong with it.
#[track_caller]
pub fn assert_field(status: &Status, reason: &str, field: &str) {
    assert_status(status, Code::InvalidArgument, reason);
    let details = status.get_error_details();
    let bad = details.bad_request().unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
    let [violation] = &bad.field_violations[..] else { panic!("not one violation: {bad:?}") };
    assert_eq!(violation.field, field, "{status:?}");
    assert!(!violation.description.is_empty());
}

/// The etag was of another version; the status says what it is by now.
#[track_caller]
pub fn assert_etag(status: &Status, current: &str) {
    assert_status(status, Code::Aborted, reason::ETAG_MISMATCH);
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["etag"], current);
}

/// The status says that something is away, and when to try again.
#[track_caller]
pub fn assert_unavailable(status: &Status, reason: &str) {
    assert_status(status, Code::Unavailable, reason);
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

/// Nobody was let in.
#[track_caller]
pub fn assert_unauthenticated(status: &Status) {
    assert_status(status, Code::Unauthenticated, reason::UNAUTHENTICATED);
}

/// A token with any `sub`, even one that no user can have, signed as it should be.
pub fn token_for(subject: &Value) -> String {
    sign(SECRET, Algorithm::HS256, &json!({ "sub": subject, "exp": in_an_hour() }))
}

pub fn sign(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

/// Seconds since 1970, as a token says it.
pub fn in_an_hour() -> i64 {
    (SystemClock.now() + Duration::from_hours(1)).timestamp()
}

pub fn an_hour_ago() -> i64 {
    (SystemClock.now() - Duration::from_hours(1)).timestamp()
}
