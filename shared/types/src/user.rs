//! User ids come from outside identity providers: `auth0|5f…`, e-mail addresses, anything.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest percent-encoded path segment, in bytes: the file name limit of the usual file systems,
/// and well inside the 1,024 bytes that S3 and R2 allow for a whole key.
pub const MAX_SEGMENT_BYTES: usize = 255;

/// Everything but RFC 3986's unreserved characters is encoded, and so is `.`: no segment can be
/// `.` or `..`, and none can hold a separator.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// The owner of a note, a blob or an event: the `sub` claim of a token, unchanged.
///
/// Not empty, no control characters (PostgreSQL's `text` cannot hold NUL), and at most
/// [`MAX_SEGMENT_BYTES`] bytes once percent-encoded, so that every user has a place in the object
/// store.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

/// Why a text is not a [`UserId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserId {
    /// The text is empty.
    #[error("the user id is empty")]
    Empty,
    /// The text has a control character.
    #[error("the user id contains a control character")]
    ControlCharacter,
    /// The text is too long to be a path segment.
    #[error(
        "the user id takes {encoded} bytes once percent-encoded; at most {MAX_SEGMENT_BYTES} fit"
    )]
    TooLong {
        /// Length of the percent-encoded id in bytes.
        encoded: usize,
    },
}

impl UserId {
    /// Checks a text from outside.
    ///
    /// # Errors
    /// See [`InvalidUserId`].
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidUserId> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidUserId::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidUserId::ControlCharacter);
        }
        let encoded = encode_segment(&text).len();
        if encoded > MAX_SEGMENT_BYTES {
            return Err(InvalidUserId::TooLong { encoded });
        }
        Ok(Self(text))
    }

    /// The id as the identity provider wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as one path segment of an object key.
    #[must_use]
    pub fn segment(&self) -> String {
        encode_segment(&self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn encode_segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_outside_providers_become_one_segment_each() {
        for (id, segment) in [
            ("user-123", "user-123"),
            ("auth0|12", "auth0%7C12"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            ("../x", "%2E%2E%2Fx"),
            ("ada@example.org", "ada%40example%2Eorg"),
            ("Jürgen", "J%C3%BCrgen"),
            ("a%2Fb", "a%252Fb"),
        ] {
            assert_eq!(UserId::parse(id).unwrap().segment(), segment);
        }
    }

    #[test]
    fn ids_that_no_store_could_hold_are_refused() {
        assert_eq!(UserId::parse(""), Err(InvalidUserId::Empty));
        assert_eq!(UserId::parse("a\0b"), Err(InvalidUserId::ControlCharacter));
        assert_eq!(UserId::parse("ü".repeat(200)), Err(InvalidUserId::TooLong { encoded: 1200 }));
        assert!(UserId::parse("x".repeat(MAX_SEGMENT_BYTES)).is_ok());
    }

    #[test]
    fn whatever_an_id_is_made_of_its_segment_stays_in_its_place_and_can_be_read_back() {
        let storable: Vec<char> = ('\0'..=char::MAX).filter(|c| !c.is_control()).collect();
        for characters in storable.chunks(16) {
            let id: String = characters.iter().collect();
            let segment = UserId::parse(&*id).unwrap().segment();
            assert!(!segment.contains(['/', '.']), "{segment}");
            let back = percent_encoding::percent_decode_str(&segment).decode_utf8().unwrap();
            assert_eq!(back, id);
        }
    }
}
