//! Notes, and what a new one must be.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use synap_proto::{
    field::{self, Checked, Violation},
    gateway::CreateNoteRequest,
};
use synap_types::{Checksum, Hasher};
use url::Url;
use uuid::Uuid;

/// Characters of a title at most.
pub const MAX_TITLE_CHARS: usize = 500;
/// Tags of a note at most, and characters of each.
pub const MAX_TAGS: usize = 50;
/// Characters of a tag at most.
pub const MAX_TAG_CHARS: usize = 100;
/// Characters of an audio URL at most.
pub const MAX_URL_CHARS: usize = 2048;
/// Characters of a preview at most.
pub const PREVIEW_CHARS: usize = 200;
/// Characters of a title that is taken from the body.
const DERIVED_TITLE_CHARS: usize = 100;

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its id.
    pub id: Uuid,
    /// The owner.
    pub user_id: String,
    /// Title, or empty.
    pub title: String,
    /// The beginning of the body as plain text.
    pub preview: String,
    /// The body, if it was asked for.
    pub content: Option<String>,
    /// Tags in the user's order.
    pub tags: Vec<String>,
    /// The body in the object store; `None` for a note that is still in the legacy tables.
    pub file: Option<File>,
    /// Counts the revisions from 1.
    pub version: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
}

impl Note {
    /// Changes with every revision (AIP-154).
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }
}

/// A body in the object store, as a row describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Public name, or empty.
    pub url: String,
    /// The object key.
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// `markdown` for notes.
    pub kind: String,
    /// `sha256:` and base64.
    pub checksum: String,
}

/// A new note that has passed all checks.
#[derive(Debug, Clone)]
pub struct NoteDraft {
    /// The body.
    pub content: Body,
    /// Title; the caller's, or taken from the body.
    pub title: String,
    /// The beginning of the body as plain text.
    pub preview: String,
    /// Tags in the user's order.
    pub tags: Vec<String>,
    /// How it was captured.
    pub input_type: InputType,
    /// Where the recording is.
    pub audio_url: Option<Url>,
    /// Whether those who follow the events should enrich it.
    pub auto_enrich: bool,
}

/// How a note was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputType {
    /// Typed.
    Text,
    /// Spoken.
    Audio,
}

impl InputType {
    /// The name on the wire and in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Audio => "audio",
        }
    }
}

/// A body with its checksum. Holds UTF-8; cloning it copies nothing.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Bytes,
    checksum: Checksum,
}

impl Body {
    /// Takes a text as it is.
    #[must_use]
    pub fn new(text: String) -> Self {
        let bytes = Bytes::from(text);
        let checksum = Checksum::of(&bytes);
        Self { bytes, checksum }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// A copy of the text.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl NoteDraft {
    /// Checks a request; a body may have `max_bytes` bytes.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn check(request: CreateNoteRequest, max_bytes: usize) -> Checked<Self> {
        let CreateNoteRequest {
            content,
            title,
            tags,
            input_type,
            audio_url,
            auto_enrich,
            request_id: _,
        } = request;
        if content.is_empty() {
            return Err(Violation::new("content", "is empty; a note has at least one byte"));
        }
        if content.len() > max_bytes {
            let size = content.len();
            let what = format!("has {size} bytes; a note has {max_bytes} at most");
            return Err(Violation::new("content", what));
        }
        let text = |name: &str, text: &str, max_chars| {
            if text.contains('\0') {
                return Err(Violation::new(
                    name,
                    "contains NUL, which no database column can hold",
                ));
            }
            if text.chars().count() > max_chars {
                return Err(Violation::new(name, format!("has more than {max_chars} characters")));
            }
            Ok(())
        };
        text("content", &content, usize::MAX)?;
        text("title", &title, MAX_TITLE_CHARS)?;
        field::length("tags", &tags, 0, MAX_TAGS)?;
        for (index, tag) in tags.iter().enumerate() {
            let name = format!("tags[{index}]");
            text(&name, tag, MAX_TAG_CHARS)?;
            if tag.trim().is_empty() {
                return Err(Violation::new(name, "is empty"));
            }
        }
        let input_type = match input_type.as_str() {
            "" | "text" => InputType::Text,
            "audio" => InputType::Audio,
            _ => return Err(Violation::new("input_type", "must be text or audio")),
        };
        let title = if title.trim().is_empty() { derived_title(&content) } else { title };
        Ok(Self {
            title,
            preview: preview(&content),
            content: Body::new(content),
            tags,
            input_type,
            audio_url: check_audio_url(&audio_url)?,
            auto_enrich,
        })
    }

    /// SHA-256 of everything that was asked for: a repeat with the same request id must have the
    /// same one. Every part is preceded by its length, so that no two requests run together.
    #[must_use]
    pub fn fingerprint(&self) -> Checksum {
        let mut hasher = Hasher::default();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(b"notes.create");
        part(self.content.checksum().as_bytes());
        part(self.title.as_bytes());
        part(&(self.tags.len() as u64).to_be_bytes());
        for tag in &self.tags {
            part(tag.as_bytes());
        }
        part(self.input_type.name().as_bytes());
        part(self.audio_url.as_ref().map_or("", Url::as_str).as_bytes());
        part(&[u8::from(self.auto_enrich)]);
        hasher.finish()
    }
}

fn check_audio_url(text: &str) -> Checked<Option<Url>> {
    if text.is_empty() {
        return Ok(None);
    }
    let what = format!(
        "must be an http or https URL of {MAX_URL_CHARS} characters at most, without credentials"
    );
    let wrong = || Violation::new("audio_url", &what);
    let url = Url::parse(text).map_err(|_| wrong())?;
    // What is kept is the parsed form: percent-encoding can make it three times as long.
    let fits = text.len().max(url.as_str().len()) <= MAX_URL_CHARS
        && !text.contains(char::is_control)
        && matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none();
    if fits { Ok(Some(url)) } else { Err(wrong()) }
}

/// The first line with text, without Markdown's heading marks.
fn derived_title(content: &str) -> String {
    content
        .lines()
        .map(|line| line.trim().trim_start_matches('#').trim())
        .find(|line| !line.is_empty())
        .map(|line| line.chars().take(DERIVED_TITLE_CHARS).collect())
        .unwrap_or_default()
}

/// The beginning of the body in one line.
fn preview(content: &str) -> String {
    let mut preview = String::new();
    for word in content.split_whitespace() {
        let room = PREVIEW_CHARS.saturating_sub(preview.chars().count());
        if room == 0 {
            break;
        }
        if !preview.is_empty() {
            preview.push(' ');
        }
        preview.extend(word.chars().take(room));
    }
    preview.chars().take(PREVIEW_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content: &str) -> CreateNoteRequest {
        CreateNoteRequest { content: content.to_owned(), ..CreateNoteRequest::default() }
    }

    fn refused(request: CreateNoteRequest) -> String {
        NoteDraft::check(request, 100).unwrap_err().field
    }

    #[test]
    fn a_field_that_cannot_be_stored_is_named() {
        assert_eq!(refused(request("")), "content");
        assert_eq!(refused(request(&"x".repeat(101))), "content");
        assert_eq!(refused(request("a\0b")), "content");
        let title = "ü".repeat(MAX_TITLE_CHARS + 1);
        assert_eq!(refused(CreateNoteRequest { title, ..request("x") }), "title");
        let tags = vec!["a".to_owned(), " ".to_owned()];
        assert_eq!(refused(CreateNoteRequest { tags, ..request("x") }), "tags[1]");
        let tags = vec!["a".to_owned(); MAX_TAGS + 1];
        assert_eq!(refused(CreateNoteRequest { tags, ..request("x") }), "tags");
        let input_type = "video".to_owned();
        assert_eq!(refused(CreateNoteRequest { input_type, ..request("x") }), "input_type");
        let long = format!("https://example.org/{}", "ü".repeat(900));
        for url in [
            "x",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "ht\ttp://example.org/",
            "https://me:hush@example.org/",
            &long,
        ] {
            let audio_url = url.to_owned();
            assert_eq!(refused(CreateNoteRequest { audio_url, ..request("x") }), "audio_url");
        }
        assert!(NoteDraft::check(request(&"x".repeat(100)), 100).is_ok());
    }

    #[test]
    fn title_and_preview_come_from_the_body() {
        let draft = NoteDraft::check(request("\n\n## A  note\n\nwith\ttwo lines"), 100).unwrap();
        assert_eq!(draft.title, "A  note");
        assert_eq!(draft.preview, "## A note with two lines");
        assert_eq!(preview(&"wörd ".repeat(100)).chars().count(), PREVIEW_CHARS);
    }

    #[test]
    fn what_differs_has_another_fingerprint() {
        let base = request("x");
        let tagged = |tags: &[&str]| CreateNoteRequest {
            tags: tags.iter().map(ToString::to_string).collect(),
            ..base.clone()
        };
        let all = [
            base.clone(),
            request("y"),
            CreateNoteRequest { title: "t".into(), ..base.clone() },
            tagged(&["ab"]),
            tagged(&["a", "b"]),
            CreateNoteRequest { input_type: "audio".into(), ..base.clone() },
            CreateNoteRequest { auto_enrich: true, ..base.clone() },
        ];
        let prints: std::collections::HashSet<_> =
            all.iter().map(|r| NoteDraft::check(r.clone(), 100).unwrap().fingerprint()).collect();
        assert_eq!(prints.len(), all.len());
    }
}
