//! Notes, and what a new one must be.

use bytes::Bytes;
use synap_proto::{
    field::{Checked, Violation},
    gateway::CreateNoteRequest,
};
use synap_types::Checksum;
use url::Url;
use uuid::Uuid;

use super::{Entity, Fingerprint, MAX_TITLE_CHARS, check_tags, check_text};

/// Characters of an audio URL at most.
const MAX_URL_CHARS: usize = 2048;
/// Characters of a preview at most.
const PREVIEW_CHARS: usize = 200;
/// Characters of a title that is taken from the body.
const DERIVED_TITLE_CHARS: usize = 100;

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// The row.
    pub(crate) entity: Entity,
    /// The body, if it was asked for.
    pub(crate) content: Option<String>,
}

/// A new note that has passed all checks.
#[derive(Debug, Clone)]
pub(crate) struct NoteDraft {
    /// The body.
    pub(crate) content: Body,
    /// Title; the caller's, or taken from the body.
    pub(crate) title: String,
    /// The beginning of the body as plain text.
    pub(crate) preview: String,
    /// Tags in the user's order.
    pub(crate) tags: Vec<String>,
    /// How it was captured.
    pub(crate) input_type: InputType,
    /// Where the recording is.
    pub(crate) audio_url: Option<Url>,
    /// Whether those who follow the events should enrich it.
    pub(crate) auto_enrich: bool,
}

/// How a note was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputType {
    /// Typed.
    Text,
    /// Spoken.
    Audio,
}

impl InputType {
    /// The name on the wire and in events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Audio => "audio",
        }
    }
}

/// A body with its checksum. Holds UTF-8; cloning it copies nothing.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    bytes: Bytes,
    checksum: Checksum,
}

impl Body {
    /// Takes a text as it is.
    pub(crate) fn new(text: String) -> Self {
        let bytes = Bytes::from(text);
        let checksum = Checksum::of(&bytes);
        Self { bytes, checksum }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the bytes.
    pub(crate) fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// A copy of the text's beginning: whole characters of `max_bytes` at most.
    pub(crate) fn beginning(&self, max_bytes: usize) -> String {
        beginning(&self.bytes, max_bytes).to_owned()
    }

    /// A copy of the text.
    pub(crate) fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// As much of a text as `max_bytes` hold, without the character that would be cut in two.
pub(crate) fn beginning(text: &[u8], max_bytes: usize) -> &str {
    let text = &text[..text.len().min(max_bytes)];
    let whole = match std::str::from_utf8(text) {
        Ok(_) => text.len(),
        Err(why) => why.valid_up_to(),
    };
    std::str::from_utf8(&text[..whole]).unwrap_or_default()
}

impl NoteDraft {
    /// Checks a request; a body may have `max_bytes` bytes.
    pub(crate) fn check(request: CreateNoteRequest, max_bytes: usize) -> Checked<Self> {
        let CreateNoteRequest {
            content,
            title,
            tags,
            input_type,
            audio_url,
            auto_enrich,
            request_id: _,
        } = request;
        check_content(&content, max_bytes)?;
        check_text("title", &title, MAX_TITLE_CHARS)?;
        check_tags("tags", &tags)?;
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

    /// What was asked for; a repeat must ask for the same.
    pub(crate) fn fingerprint(&self) -> Checksum {
        let mut print = Fingerprint::default();
        print.part(b"notes.create");
        print.part(self.content.checksum().as_bytes());
        print.part(self.title.as_bytes());
        print.tags(&self.tags);
        print.part(self.input_type.name().as_bytes());
        print.part(self.audio_url.as_ref().map_or("", Url::as_str).as_bytes());
        print.part(&[u8::from(self.auto_enrich)]);
        print.0.finish()
    }
}

/// What a repair is of.
pub(crate) fn repair_fingerprint(id: Uuid, bad_key: &str) -> Checksum {
    let mut print = Fingerprint::default();
    print.part(b"notes.repair");
    print.part(id.as_bytes());
    print.part(bad_key.as_bytes());
    print.0.finish()
}

/// A body of a note.
pub(super) fn check_content(content: &str, max_bytes: usize) -> Checked<()> {
    if content.is_empty() {
        return Err(Violation::new("content", "is empty; a note has at least one byte"));
    }
    if content.len() > max_bytes {
        let size = content.len();
        let what = format!("has {size} bytes; a note has {max_bytes} at most");
        return Err(Violation::new("content", what));
    }
    check_text("content", content, usize::MAX)
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
pub(super) fn derived_title(content: &str) -> String {
    content
        .lines()
        .map(|line| line.trim().trim_start_matches('#').trim())
        .find(|line| !line.is_empty())
        .map(|line| line.chars().take(DERIVED_TITLE_CHARS).collect())
        .unwrap_or_default()
}

/// The beginning of the body in one line.
pub(super) fn preview(content: &str) -> String {
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
    use super::{super::MAX_TAGS, *};

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
