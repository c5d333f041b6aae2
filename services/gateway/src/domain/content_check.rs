//! Whether a body is what was said of it, found out while it passes by.

use synap_proto::field::Violation;
use synap_types::{Checksum, FileKind, Hasher, MediaType};

use super::FileDraft;
use crate::error::Error;

/// Bytes at a body's beginning that say what it is. EBML needs 257 of them.
pub(crate) const HEAD_BYTES: usize = 512;

/// Looks at a body chunk by chunk, and keeps none of it but its head.
pub(crate) struct ContentCheck {
    media: MediaType,
    promised_size: Option<i64>,
    promised_checksum: Option<Checksum>,
    max_bytes: i64,
    size: i64,
    hasher: Hasher,
    head: Vec<u8>,
    head_checked: bool,
    text: TextCheck,
}

impl ContentCheck {
    /// A check of what the draft promises; a body may have `max_bytes` bytes.
    pub(crate) fn new(draft: &FileDraft, max_bytes: i64) -> Self {
        Self {
            media: draft.media,
            promised_size: draft.size,
            promised_checksum: draft.checksum,
            max_bytes,
            size: 0,
            hasher: Hasher::default(),
            head: Vec::new(),
            head_checked: false,
            text: TextCheck::default(),
        }
    }

    /// A check of the type alone, for a body whose size and checksum are known: it may be given no
    /// more than its head, unless it [`needs_all`](Self::needs_all).
    pub(crate) fn of_type(draft: &FileDraft) -> Self {
        let unknown = FileDraft { size: None, checksum: None, ..draft.clone() };
        Self::new(&unknown, i64::MAX)
    }

    /// Whether the type shows only in the whole body.
    pub(crate) fn needs_all(&self) -> bool {
        self.media.kind() == FileKind::Markdown
    }

    /// Whether nothing has passed by yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.size == 0
    }

    /// Looks at the next chunk.
    ///
    /// # Errors
    /// As soon as the body cannot be what was promised any more.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.size += i64::try_from(chunk.len()).unwrap_or(i64::MAX);
        if self.size > self.max_bytes {
            let what = format!("has more than {} bytes; a file has no more", self.max_bytes);
            return Err(Violation::new("data", what).into());
        }
        if self.promised_size.is_some_and(|size| self.size > size) {
            return Err(Error::BodyMismatch { field: "metadata.size" });
        }
        self.hasher.update(chunk);
        if self.needs_all() {
            self.text.push(chunk)?;
        } else if !self.head_checked {
            let room = HEAD_BYTES - self.head.len();
            self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if self.head.len() == HEAD_BYTES {
                self.check_head()?;
            }
        }
        Ok(())
    }

    /// The body has ended: its size and checksum.
    ///
    /// # Errors
    /// If it is not what was promised.
    pub(crate) fn finish(mut self) -> Result<(i64, Checksum), Error> {
        if self.size == 0 {
            return Err(Violation::new("data", "is empty; a file has at least one byte").into());
        }
        if self.needs_all() {
            self.text.finish()?;
        } else if !self.head_checked {
            self.check_head()?;
        }
        if self.promised_size.is_some_and(|size| self.size != size) {
            return Err(Error::BodyMismatch { field: "metadata.size" });
        }
        let checksum = self.hasher.finish();
        if self.promised_checksum.is_some_and(|promised| promised != checksum) {
            return Err(Error::BodyMismatch { field: "metadata.checksum" });
        }
        Ok((self.size, checksum))
    }

    fn check_head(&mut self) -> Result<(), Error> {
        self.head_checked = true;
        let found = infer::get(&self.head).map(|found| found.mime_type());
        if found.is_some_and(|found| signatures(self.media).contains(&found)) {
            return Ok(());
        }
        let is = found.unwrap_or("nothing that is known");
        let what = format!("is {}, but the first bytes are of {is}", self.media.essence());
        Err(Violation::new("metadata.content_type", what).into())
    }
}

/// What the first bytes of a media type may look like, in the words of `infer`. Containers say
/// which family they are of, not always whether there is a picture in them.
fn signatures(media: MediaType) -> &'static [&'static str] {
    match media.essence() {
        "application/pdf" => &["application/pdf"],
        "audio/mpeg" => &["audio/mpeg"],
        "audio/mp4" => &["audio/m4a", "video/mp4"],
        "audio/wav" => &["audio/x-wav"],
        "audio/ogg" => &["audio/ogg", "audio/opus"],
        "audio/flac" => &["audio/x-flac"],
        "audio/aac" => &["audio/aac"],
        "audio/webm" | "video/webm" => &["video/webm"],
        "video/mp4" => &["video/mp4", "video/x-m4v"],
        "video/quicktime" => &["video/quicktime"],
        "video/x-matroska" => &["video/x-matroska"],
        "image/png" => &["image/png"],
        "image/jpeg" => &["image/jpeg"],
        "image/gif" => &["image/gif"],
        "image/webp" => &["image/webp"],
        "image/avif" => &["image/avif"],
        "image/heic" => &["image/heif"],
        "image/tiff" => &["image/tiff"],
        _ => &[],
    }
}

/// UTF-8 without NUL, in chunks that may cut a character.
#[derive(Default)]
struct TextCheck {
    /// The beginning of a character whose rest is to come: three bytes at most.
    cut: Vec<u8>,
}

impl TextCheck {
    fn push(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        if chunk.contains(&0) {
            return Err(not_text("contains NUL"));
        }
        while !self.cut.is_empty() {
            let Some((next, rest)) = chunk.split_first() else { return Ok(()) };
            self.cut.push(*next);
            chunk = rest;
            if whole(&self.cut)? == self.cut.len() {
                self.cut.clear();
            }
        }
        let whole = whole(chunk)?;
        self.cut.extend_from_slice(&chunk[whole..]);
        Ok(())
    }

    fn finish(&self) -> Result<(), Error> {
        if self.cut.is_empty() { Ok(()) } else { Err(not_text("ends within a character")) }
    }
}

/// How many bytes are whole characters; what is left may be the beginning of one.
fn whole(bytes: &[u8]) -> Result<usize, Error> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(why) if why.error_len().is_none() => Ok(why.valid_up_to()),
        Err(_) => Err(not_text("is not UTF-8")),
    }
}

fn not_text(what: &str) -> Error {
    let what = format!("is text/markdown, but the body {what}");
    Violation::new("metadata.content_type", what).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(media: MediaType) -> FileDraft {
        FileDraft {
            name: String::new(),
            media,
            title: String::new(),
            tags: Vec::new(),
            size: None,
            checksum: None,
        }
    }

    fn check(draft: &FileDraft, body: &[u8], chunk: usize) -> Result<(i64, Checksum), Error> {
        let mut check = ContentCheck::new(draft, 1 << 20);
        body.chunks(chunk).try_for_each(|chunk| check.push(chunk))?;
        check.finish()
    }

    /// The beginning of a file of each media type.
    fn samples() -> Vec<(&'static str, Vec<u8>)> {
        let ebml = |doc: &[u8]| {
            let length = 0x80 | u8::try_from(doc.len()).unwrap();
            [b"\x1a\x45\xdf\xa3\x93\x42\x82", &[length][..], doc, &[0; 300]].concat()
        };
        let ftyp = |brand: &[u8]| [b"\0\0\0\x14ftyp", brand, b"\0\0\0\0", brand].concat();
        vec![
            ("application/pdf", b"%PDF-1.7\n".to_vec()),
            ("audio/mpeg", b"ID3\x04\0\0\0\0\0\0".to_vec()),
            ("audio/mp4", ftyp(b"M4A ")),
            ("audio/wav", b"RIFF\x24\0\0\0WAVEfmt ".to_vec()),
            ("audio/ogg", b"OggS\0\x02".to_vec()),
            ("audio/flac", b"fLaC\0\0\0\x22".to_vec()),
            ("audio/aac", b"\xff\xf1\x50\x80".to_vec()),
            ("audio/webm", ebml(b"webm")),
            ("video/mp4", ftyp(b"isom")),
            ("video/webm", ebml(b"webm")),
            ("video/quicktime", ftyp(b"qt  ")),
            ("video/x-matroska", ebml(b"matroska")),
            ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()),
            ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec()),
            ("image/gif", b"GIF89a\x01\0\x01\0".to_vec()),
            ("image/webp", b"RIFF\x24\0\0\0WEBPVP8 ".to_vec()),
            ("image/avif", ftyp(b"avif")),
            ("image/heic", ftyp(b"heic")),
            ("image/tiff", b"II*\0\x08\0\0\0\0\0\0\0".to_vec()),
        ]
    }

    #[test]
    fn every_media_type_is_known_by_its_first_bytes_and_no_other() {
        let samples = samples();
        assert_eq!(samples.len() + 1, MediaType::all().count());
        for (declared, _) in &samples {
            let draft = draft(MediaType::from_content_type(declared).unwrap());
            for (real, body) in &samples {
                let ebml = declared.ends_with("webm") && real.ends_with("webm");
                let iso = (*declared, *real) == ("audio/mp4", "video/mp4");
                let fits = declared == real || ebml || iso;
                for chunk in [1, 7, 4096] {
                    assert_eq!(check(&draft, body, chunk).is_ok(), fits, "{declared}: {real}");
                }
            }
            assert!(check(&draft, b"<html>", 7).is_err());
            assert!(check(&draft, b"", 7).is_err());
        }
    }

    #[test]
    fn markdown_is_text_however_it_is_cut() {
        let draft = draft(MediaType::MARKDOWN);
        let text = "# ü 日本 👩‍👩‍👧 \u{10ffff}";
        for chunk in 1..text.len() {
            let (size, checksum) = check(&draft, text.as_bytes(), chunk).unwrap();
            assert_eq!(usize::try_from(size).unwrap(), text.len());
            assert_eq!(checksum, Checksum::of(text.as_bytes()));
        }
        for bad in [&b"a\0b"[..], b"\xff", b"a\xc3", b"\xc3a", b"\xed\xa0\x80", b"\xf0\x9f\x91"] {
            for chunk in 1..=bad.len() {
                assert!(check(&draft, bad, chunk).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn a_body_that_is_not_as_promised_is_refused() {
        let body = b"# text";
        let promise = FileDraft {
            size: Some(6),
            checksum: Some(Checksum::of(body)),
            ..draft(MediaType::MARKDOWN)
        };
        assert!(check(&promise, body, 2).is_ok());
        let field = |body: &[u8]| match check(&promise, body, 2) {
            Err(Error::BodyMismatch { field }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(b"# texts"), "metadata.size");
        assert_eq!(field(b"# tex"), "metadata.size");
        assert_eq!(field(b"# Text"), "metadata.checksum");
    }
}
