//! Object keys. One type owns them all.

use std::fmt;

use uuid::Uuid;

use crate::{MediaType, UserId};

/// Longest key in bytes (the limit of S3 and R2).
pub const MAX_KEY_BYTES: usize = 1024;

/// What the keys of blobs in quarantine begin with.
const QUARANTINE: &str = "quarantine/";

/// What an entity is: `note`, `task`, `project`, `page`, … Lower-case ASCII letters and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntityType(String);

/// The text is not an entity type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entity type is 1 to 32 lower-case ASCII letters or underscores")]
pub struct InvalidEntityType;

impl EntityType {
    /// The type of files.
    #[must_use]
    pub fn file() -> Self {
        Self("file".to_owned())
    }

    /// The type of notes.
    #[must_use]
    pub fn note() -> Self {
        Self("note".to_owned())
    }

    /// Checks a text from outside.
    ///
    /// # Errors
    /// [`InvalidEntityType`] unless it is 1 to 32 lower-case ASCII letters or underscores.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidEntityType> {
        let text = text.into();
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if fits { Ok(Self(text)) } else { Err(InvalidEntityType) }
    }

    /// The type's name in the singular.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of one blob. A key is written once and never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobKey(String);

/// Why a text is not a [`BlobKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The key is empty or longer than [`MAX_KEY_BYTES`].
    #[error("a key is 1 to {MAX_KEY_BYTES} bytes long")]
    Length,
    /// The key is neither below `users/<user>/`, nor in quarantine, nor a file of the archive of events.
    #[error(
        "a key begins with users/<user>/ or quarantine/users/<user>/, or is \
             events/<partition>/<uuid>.parquet"
    )]
    OutsideUsers,
    /// A segment is empty, `.` or `..`, too long for a file name, or has a character that
    /// [`BlobKey::build`] would have percent-encoded.
    #[error("the key's segment {0:?} is not percent-encoded text of 1 to 255 bytes")]
    Segment(String),
    /// The extension is not lower-case ASCII letters and digits.
    #[error("a file extension is 1 to 16 lower-case ASCII letters or digits")]
    Extension,
}

impl BlobKey {
    /// The key of an entity's first body: `users/{user}/{entity_type}s/{entity_id}.{extension}`.
    ///
    /// `entity_id` is any text that [`UserId`] would take; entities made here have UUIDs.
    ///
    /// # Errors
    /// [`InvalidKey`] if a part cannot be a segment or the whole is too long.
    pub fn build(
        user: &UserId,
        entity_type: &EntityType,
        entity_id: &str,
        extension: &str,
    ) -> Result<Self, InvalidKey> {
        let stem = UserId::parse(entity_id)
            .map_err(|_| InvalidKey::Segment(entity_id.to_owned()))?
            .segment();
        check_extension(extension)?;
        Self::parse(format!("{}{stem}.{extension}", prefix(user, entity_type)))
    }

    /// The key of a later revision:
    /// `users/{user}/{entity_type}s/{entity_id}/{revision_id}.{extension}`.
    ///
    /// # Errors
    /// [`InvalidKey`] if the extension or the whole does not fit.
    pub fn revision(
        user: &UserId,
        entity_type: &EntityType,
        entity_id: Uuid,
        revision_id: Uuid,
        extension: &str,
    ) -> Result<Self, InvalidKey> {
        check_extension(extension)?;
        Self::parse(format!("{}{entity_id}/{revision_id}.{extension}", prefix(user, entity_type)))
    }

    /// The key of a file of the archive of events: `events/{partition}/{archive_id}.parquet`. It is of
    /// no user: event-service alone reads it.
    ///
    /// # Errors
    /// [`InvalidKey`] if the partition's name cannot be a segment.
    pub fn archive(partition: &str, archive_id: Uuid) -> Result<Self, InvalidKey> {
        Self::parse(format!("events/{partition}/{archive_id}.parquet"))
    }

    /// The key that the blob of this one has in quarantine: `quarantine/{key}`; `None` unless this is
    /// a user's key, and short enough.
    #[must_use]
    pub fn in_quarantine(&self) -> Option<Self> {
        let is_users = self.0.starts_with("users/");
        is_users.then(|| Self::parse(format!("{QUARANTINE}{self}")).ok()).flatten()
    }

    /// The key that a blob in quarantine had; `None` if it is in none.
    #[must_use]
    pub fn out_of_quarantine(&self) -> Option<Self> {
        self.0.strip_prefix(QUARANTINE).map(|key| Self(key.to_owned()))
    }

    /// Checks a key that came over the wire or out of a row.
    ///
    /// # Errors
    /// See [`InvalidKey`].
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if text.is_empty() || text.len() > MAX_KEY_BYTES {
            return Err(InvalidKey::Length);
        }
        if let Some(bad) = text.split('/').find(|segment| !is_segment(segment)) {
            return Err(InvalidKey::Segment(bad.to_owned()));
        }
        let segments: Vec<&str> = text.split('/').collect();
        let is_in_place = match &segments[..] {
            ["users", _, _, ..] | ["quarantine", "users", _, _, ..] => true,
            ["events", _, file] => {
                file.strip_suffix(".parquet").is_some_and(|id| Uuid::try_parse(id).is_ok())
            }
            _ => false,
        };
        if !is_in_place {
            return Err(InvalidKey::OutsideUsers);
        }
        Ok(Self(text))
    }

    /// The key as the store sees it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key lies below `users/{user}/`.
    #[must_use]
    pub fn belongs_to(&self, user: &UserId) -> bool {
        let below = self.0.strip_prefix("users/").and_then(|below| below.split('/').next());
        below == Some(&user.segment())
    }

    /// The content type that the key's extension stands for.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        let extension = self.0.rsplit('.').next().unwrap_or_default();
        MediaType::from_extension(extension)
            .map_or("application/octet-stream", MediaType::content_type)
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn prefix(user: &UserId, entity_type: &EntityType) -> String {
    format!("users/{}/{entity_type}s/", user.segment())
}

fn check_extension(extension: &str) -> Result<(), InvalidKey> {
    let fits = (1..=16).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits { Ok(()) } else { Err(InvalidKey::Extension) }
}

fn is_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_~.%".contains(&b);
    !matches!(segment, "" | "." | "..")
        && segment.len() <= crate::MAX_SEGMENT_BYTES
        && segment.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_key_is_what_is_built() {
        let user = UserId::parse("user-123").unwrap();
        let key = BlobKey::build(&user, &EntityType::note(), "entity-456", "md").unwrap();
        assert_eq!(key.as_str(), "users/user-123/notes/entity-456.md");
        assert!(key.belongs_to(&user));
        assert!(!key.belongs_to(&UserId::parse("user-12").unwrap()));
    }

    #[test]
    fn a_later_revision_lies_below_its_entity() {
        let user = UserId::parse("u").unwrap();
        let (entity, revision) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let key = BlobKey::revision(&user, &EntityType::note(), entity, revision, "md").unwrap();
        assert_eq!(key.as_str(), format!("users/u/notes/{entity}/{revision}.md"));
    }

    #[test]
    fn a_file_of_the_archive_belongs_to_nobody() {
        let key = BlobKey::archive("events_2026w48", Uuid::from_u128(1)).unwrap();
        assert_eq!(key.as_str(), format!("events/events_2026w48/{}.parquet", Uuid::from_u128(1)));
        assert!(!key.belongs_to(&UserId::parse("events_2026w48").unwrap()));
        for bad in ["events/w/x.parquet", "events/x.parquet", "events/w/a/b.parquet"] {
            assert_eq!(BlobKey::parse(bad), Err(InvalidKey::OutsideUsers), "{bad}");
        }
        assert!(BlobKey::archive("a/b", Uuid::from_u128(1)).is_err());
    }

    #[test]
    fn a_key_goes_into_quarantine_and_comes_out_as_it_was() {
        let key = BlobKey::parse("users/u/notes/x.md").unwrap();
        let there = key.in_quarantine().unwrap();
        assert_eq!(there.as_str(), "quarantine/users/u/notes/x.md");
        assert!(!there.belongs_to(&UserId::parse("u").unwrap()));
        assert_eq!(there.out_of_quarantine(), Some(key.clone()));
        assert_eq!((there.in_quarantine(), key.out_of_quarantine()), (None, None));
        let longest =
            BlobKey::parse(format!("users/u/{}", "a".repeat(255) + "/") + &"b".repeat(255));
        assert!(longest.unwrap().in_quarantine().is_some());
        let archive = BlobKey::archive("w", Uuid::from_u128(1)).unwrap();
        assert_eq!(archive.in_quarantine(), None);
        assert!(BlobKey::parse("quarantine/events/w/x").is_err());
    }

    #[test]
    fn a_key_that_could_leave_its_place_is_refused() {
        for bad in [
            "",
            "/users/u/notes/x.md",
            "users/../etc/passwd",
            "users/u/./x.md",
            "users//x.md",
            "users/u/notes/x.md/",
            "users/u/a b.md",
            "users/u/x#1",
            "users/u",
            "tmp/u/notes/x.md",
            "users\\u\\x.md",
        ] {
            assert!(BlobKey::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(
            BlobKey::parse(format!("users/u/{}", "a/".repeat(600) + "x")),
            Err(InvalidKey::Length)
        );
    }

    #[test]
    fn hostile_parts_stay_below_the_users_prefix() {
        for id in ["..", "../../x", "a/b", "auth0|12", "\u{202e}x", "CON", "#1"] {
            let user = UserId::parse(id).unwrap();
            let key = BlobKey::build(&user, &EntityType::note(), "../../up", "md").unwrap();
            assert!(key.belongs_to(&user), "{key}");
            assert_eq!(key.as_str().split('/').count(), 4, "{key}");
        }
        let user = UserId::parse("u").unwrap();
        assert_eq!(
            BlobKey::build(&user, &EntityType::note(), "x", "md/../.."),
            Err(InvalidKey::Extension)
        );
    }
}
