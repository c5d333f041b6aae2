//! What the gateway speaks of: entities, and what new notes and files must be.

mod activity;
mod content_check;
mod etag;
mod file;
mod listing;
mod note;
mod note_update;
mod page_token;
mod search;

use chrono::{DateTime, Utc};
use synap_proto::field::{self, Checked, Violation};
use synap_types::{Checksum, Hasher, MediaType};
use uuid::Uuid;

pub(crate) use activity::{PageEnd, days_question, events_question};
pub(crate) use content_check::{ContentCheck, HEAD_BYTES};
pub(crate) use etag::{check_etag, etag};
pub(crate) use file::FileDraft;
pub(crate) use listing::{NoteFilter, Position, page_size};
pub(crate) use note::{Body, Note, NoteDraft, beginning, repair_fingerprint};
pub(crate) use note_update::NoteUpdate;
pub(crate) use page_token::PageTokens;
pub(crate) use search::{Hit, Meaning, NoteSearch, Rank, fuse};

/// Characters of a title at most.
pub(crate) const MAX_TITLE_CHARS: usize = 500;
/// Tags of an entity at most, and characters of each.
pub(crate) const MAX_TAGS: usize = 50;
/// Characters of a tag at most.
pub(crate) const MAX_TAG_CHARS: usize = 100;

/// A note or a file, as its row describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`entity_type` is what it is called everywhere")]
pub(crate) struct Entity {
    pub(crate) id: Uuid,
    /// The owner.
    pub(crate) user_id: String,
    /// `note` or `file`.
    pub(crate) entity_type: String,
    /// Title, or empty.
    pub(crate) title: String,
    /// The beginning of the body as plain text, or empty.
    pub(crate) preview: String,
    /// Tags in the user's order.
    pub(crate) tags: Vec<String>,
    /// The body in the object store; `None` for a note that is still in the legacy tables.
    pub(crate) file: Option<StoredFile>,
    /// Counts the revisions from 1.
    pub(crate) version: i32,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) deleted_at: Option<DateTime<Utc>>,
}

impl Entity {
    /// Changes with every revision (AIP-154).
    pub(crate) fn etag(&self) -> String {
        etag(&self.user_id, self.id, self.version)
    }
}

/// A body in the object store, as a row describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredFile {
    /// Public name, or empty.
    pub(crate) url: String,
    /// The object key.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: i64,
    /// markdown, pdf, audio, video or image.
    pub(crate) kind: String,
    /// `sha256:` and base64.
    pub(crate) checksum: String,
    /// The name that the user's file had, or empty.
    pub(crate) name: String,
}

impl StoredFile {
    /// The media type that the key's extension stands for.
    pub(crate) fn media_type(&self) -> &'static str {
        let extension = self.path.rsplit('.').next().unwrap_or_default();
        MediaType::from_extension(extension).map_or("application/octet-stream", MediaType::essence)
    }
}

/// A text that a column can hold and a person can read.
fn check_text(name: &str, text: &str, max_chars: usize) -> Checked<()> {
    if text.contains('\0') {
        return Err(Violation::new(name, "contains NUL, which no database column can hold"));
    }
    if text.chars().count() > max_chars {
        return Err(Violation::new(name, format!("has more than {max_chars} characters")));
    }
    Ok(())
}

fn check_tags(name: &str, tags: &[String]) -> Checked<()> {
    field::length(name, tags, 0, MAX_TAGS)?;
    for (index, tag) in tags.iter().enumerate() {
        let name = format!("{name}[{index}]");
        check_text(&name, tag, MAX_TAG_CHARS)?;
        if tag.trim().is_empty() {
            return Err(Violation::new(name, "is empty"));
        }
    }
    Ok(())
}

/// SHA-256 of everything that was asked for: a repeat with the same request id must have the same
/// one. Every part is preceded by its length, so that no two requests run together.
#[derive(Default)]
struct Fingerprint(Hasher);

impl Fingerprint {
    /// Of a write on an entity that is there.
    fn of(method: &str, id: Uuid, expected_version: Option<i32>) -> Self {
        let mut print = Self::default();
        print.part(method.as_bytes());
        print.part(id.as_bytes());
        print.part(&expected_version.unwrap_or_default().to_be_bytes());
        print
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn tags(&mut self, tags: &[String]) {
        self.part(&(tags.len() as u64).to_be_bytes());
        for tag in tags {
            self.part(tag.as_bytes());
        }
    }
}

/// What a write that brings nothing asks for; a repeat must ask for the same.
pub(crate) fn fingerprint(method: &str, id: Uuid, expected_version: Option<i32>) -> Checksum {
    Fingerprint::of(method, id, expected_version).0.finish()
}
