//! Checks of fields on receipt. A failed check names the field's path, so that the answer can carry
//! `google.rpc.BadRequest`.

use std::fmt;

use chrono::{DateTime, NaiveDate, Utc};
use prost_types::Timestamp;
use synap_types::{BlobKey, Checksum, EntityType, UserId};
use uuid::Uuid;

/// A field that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field: `events[2].data`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl Violation {
    /// Says what is wrong with a field.
    pub fn new(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self { field: field.into(), description: description.to_string() }
    }

    /// The same violation, seen from the message that holds this one.
    #[must_use]
    pub fn within(mut self, parent: impl fmt::Display) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

impl std::error::Error for Violation {}

/// The outcome of a check.
pub type Checked<T> = Result<T, Violation>;

/// A message that must be there.
///
/// # Errors
/// A [`Violation`] if it is absent.
pub fn required<T>(field: &str, value: Option<T>) -> Checked<T> {
    value.ok_or_else(|| Violation::new(field, "is required"))
}

/// The owner of a thing.
///
/// # Errors
/// A [`Violation`] that says why it is no [`UserId`].
pub fn user_id(field: &str, text: String) -> Checked<UserId> {
    UserId::parse(text).map_err(|why| Violation::new(field, why))
}

/// A UUID.
///
/// # Errors
/// A [`Violation`] if the text is none.
pub fn uuid(field: &str, text: &str) -> Checked<Uuid> {
    Uuid::parse_str(text).map_err(|_| {
        Violation::new(field, "must be a UUID, like 0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60")
    })
}

/// A UUID or nothing.
///
/// # Errors
/// A [`Violation`] if the text is neither empty nor a UUID.
pub fn optional_uuid(field: &str, text: &str) -> Checked<Option<Uuid>> {
    if text.is_empty() { Ok(None) } else { uuid(field, text).map(Some) }
}

/// An object key.
///
/// # Errors
/// A [`Violation`] that says why it is no [`BlobKey`].
pub fn key(field: &str, text: String) -> Checked<BlobKey> {
    BlobKey::parse(text).map_err(|why| Violation::new(field, why))
}

/// The type of an entity or an aggregate.
///
/// # Errors
/// A [`Violation`] that says why it is no [`EntityType`].
pub fn entity_type(field: &str, text: String) -> Checked<EntityType> {
    EntityType::parse(text).map_err(|why| Violation::new(field, why))
}

/// A SHA-256 in 32 raw bytes.
///
/// # Errors
/// A [`Violation`] unless there are 32 bytes.
pub fn sha256(field: &str, bytes: &[u8]) -> Checked<Checksum> {
    Checksum::from_bytes(bytes).map_err(|_| Violation::new(field, "must be 32 raw bytes"))
}

/// A number between two bounds.
///
/// # Errors
/// A [`Violation`] that names the bounds.
pub fn within<T: PartialOrd + Copy + fmt::Display>(
    field: &str,
    value: T,
    low: T,
    high: T,
) -> Checked<T> {
    if value < low || value > high {
        return Err(Violation::new(field, format!("must be between {low} and {high}")));
    }
    Ok(value)
}

/// A list of a bounded length.
///
/// # Errors
/// A [`Violation`] that names the bounds.
pub fn length<T>(field: &str, list: &[T], low: usize, high: usize) -> Checked<()> {
    within(field, list.len(), low, high)
        .map(drop)
        .map_err(|_| Violation::new(field, format!("must have {low} to {high} elements")))
}

/// A point in time.
///
/// # Errors
/// A [`Violation`] if it is absent or out of range.
pub fn time(field: &str, value: Option<Timestamp>) -> Checked<DateTime<Utc>> {
    let value = required(field, value)?;
    u32::try_from(value.nanos)
        .ok()
        .and_then(|nanos| DateTime::from_timestamp(value.seconds, nanos))
        .ok_or_else(|| Violation::new(field, "is no valid time"))
}

/// A day, as 2026-11-28.
///
/// # Errors
/// A [`Violation`] if the text is none, or not of the years 1 to 9999.
pub fn date(field: &str, text: &str) -> Checked<NaiveDate> {
    // chrono takes less than that: signs and single digits.
    let date = (text.len() == 10).then(|| text.parse::<NaiveDate>().ok()).flatten();
    date.filter(|date| date.to_string() == text && !text.starts_with("0000"))
        .ok_or_else(|| Violation::new(field, "must be a day, like 2026-11-28"))
}

/// A point in time, for the wire.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(999_999_999),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_the_whole_path() {
        let inner = uuid("event_id", "x").unwrap_err().within("events[2]");
        assert_eq!(inner.field, "events[2].event_id");
    }

    #[test]
    fn a_day_has_one_spelling() {
        assert!(date("d", "2024-02-29").is_ok());
        for bad in ["", "2023-02-29", "2024-2-29", "+024-02-29", "20240229", "2024-02-29Z"] {
            assert!(date("d", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_go_there_and_back() {
        let before = DateTime::from_timestamp(-1, 999_999_000).unwrap();
        assert_eq!(time("t", Some(timestamp(before))), Ok(before));
        assert!(time("t", None).is_err());
        assert!(time("t", Some(Timestamp { seconds: i64::MAX, nanos: 0 })).is_err());
        assert!(time("t", Some(Timestamp { seconds: 0, nanos: -1 })).is_err());
    }
}
