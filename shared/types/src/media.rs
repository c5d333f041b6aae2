//! The kinds of files that Synap keeps: one table of content types, file extensions, and the five
//! kinds that V0.2's `entities.file_type` knows.

use std::fmt;

/// The kind of a file, as the column `entities.file_type` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Markdown text.
    Markdown,
    /// PDF.
    Pdf,
    /// Sound.
    Audio,
    /// Moving pictures.
    Video,
    /// A picture.
    Image,
}

impl FileKind {
    /// The name in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Pdf => "pdf",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Image => "image",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A media type that is accepted (RFC 6838), and the file extension that keys have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaType {
    essence: &'static str,
    extension: &'static str,
    kind: FileKind,
}

const fn media(essence: &'static str, extension: &'static str, kind: FileKind) -> MediaType {
    MediaType { essence, extension, kind }
}

/// Every media type that is accepted. No HTML and no SVG: what a browser would run has no place
/// under a URL of ours.
const ALL: [MediaType; 20] = [
    media("text/markdown", "md", FileKind::Markdown),
    media("application/pdf", "pdf", FileKind::Pdf),
    media("audio/mpeg", "mp3", FileKind::Audio),
    media("audio/mp4", "m4a", FileKind::Audio),
    media("audio/wav", "wav", FileKind::Audio),
    media("audio/ogg", "ogg", FileKind::Audio),
    media("audio/flac", "flac", FileKind::Audio),
    media("audio/aac", "aac", FileKind::Audio),
    media("audio/webm", "weba", FileKind::Audio),
    media("video/mp4", "mp4", FileKind::Video),
    media("video/webm", "webm", FileKind::Video),
    media("video/quicktime", "mov", FileKind::Video),
    media("video/x-matroska", "mkv", FileKind::Video),
    media("image/png", "png", FileKind::Image),
    media("image/jpeg", "jpg", FileKind::Image),
    media("image/gif", "gif", FileKind::Image),
    media("image/webp", "webp", FileKind::Image),
    media("image/avif", "avif", FileKind::Image),
    media("image/heic", "heic", FileKind::Image),
    media("image/tiff", "tiff", FileKind::Image),
];

impl MediaType {
    /// Markdown: what notes are.
    pub const MARKDOWN: Self = ALL[0];

    /// The media type that a `Content-Type` names; its parameters do not matter.
    #[must_use]
    pub fn from_content_type(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        ALL.into_iter().find(|media| media.essence.eq_ignore_ascii_case(essence))
    }

    /// The media type that a key's extension stands for.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        ALL.into_iter().find(|media| media.extension == extension)
    }

    /// All that are accepted.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter()
    }

    /// Type and subtype without parameters: `image/png`.
    #[must_use]
    pub fn essence(self) -> &'static str {
        self.essence
    }

    /// The value of a `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self.kind {
            FileKind::Markdown => "text/markdown; charset=utf-8",
            _ => self.essence,
        }
    }

    /// The extension of keys, without a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.extension
    }

    /// The kind of file.
    #[must_use]
    pub fn kind(self) -> FileKind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_and_extensions_name_the_same_media_types() {
        for media in MediaType::all() {
            assert_eq!(MediaType::from_content_type(media.content_type()), Some(media));
            assert_eq!(MediaType::from_extension(media.extension()), Some(media));
        }
        assert_eq!(
            MediaType::from_content_type("Text/Markdown; charset=utf-8"),
            Some(MediaType::MARKDOWN)
        );
        for refused in ["text/html", "image/svg+xml", "", "application/octet-stream"] {
            assert_eq!(MediaType::from_content_type(refused), None);
        }
    }
}
