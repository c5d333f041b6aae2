//! What a new file must be.

use serde::{Deserialize, Serialize};
use synap_proto::{
    field::{Checked, Violation, required},
    gateway::FileMetadata,
};
use synap_types::{Checksum, MediaType};

use super::{Fingerprint, MAX_TITLE_CHARS, check_tags, check_text};

/// Bytes of a file's name at most: what file systems take.
const MAX_NAME_BYTES: usize = 255;

/// A new file that has passed all checks but those of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileDraft {
    /// The name it has where it comes from, or empty.
    pub(crate) name: String,
    pub(crate) media: MediaType,
    /// Title; the caller's, or the file's name.
    pub(crate) title: String,
    /// Tags in the user's order.
    pub(crate) tags: Vec<String>,
    /// Bytes of the body, where they were promised.
    pub(crate) size: Option<i64>,
    /// SHA-256 of the body, where it was promised.
    pub(crate) checksum: Option<Checksum>,
}

impl FileDraft {
    /// Checks what is said of a file; its body may have `max_bytes` bytes.
    pub(crate) fn check(metadata: Option<FileMetadata>, max_bytes: i64) -> Checked<Self> {
        let metadata = required("metadata", metadata)?;
        let draft = Self::check_fields(metadata, max_bytes);
        draft.map_err(|violation| violation.within("metadata"))
    }

    fn check_fields(metadata: FileMetadata, max_bytes: i64) -> Checked<Self> {
        let FileMetadata { file_name, content_type, title, tags, size, checksum, request_id: _ } =
            metadata;
        check_name(&file_name)?;
        let media = MediaType::from_content_type(&content_type).ok_or_else(|| {
            let known: Vec<_> = MediaType::all().map(MediaType::essence).collect();
            Violation::new("content_type", format!("must be one of {}", known.join(", ")))
        })?;
        check_text("title", &title, MAX_TITLE_CHARS)?;
        check_tags("tags", &tags)?;
        if size.is_some_and(|size| !(1..=max_bytes).contains(&size)) {
            return Err(Violation::new("size", format!("must be between 1 and {max_bytes} bytes")));
        }
        let checksum = (!checksum.is_empty())
            .then(|| checksum.parse().map_err(|why| Violation::new("checksum", why)))
            .transpose()?;
        let title = if title.trim().is_empty() { file_name.clone() } else { title };
        Ok(Self { name: file_name, media, title, tags, size, checksum })
    }

    /// Checks what is said of a file that goes straight to the store: its size and checksum are
    /// what the URL is bound to.
    pub(crate) fn check_direct(metadata: Option<FileMetadata>, max_bytes: i64) -> Checked<Self> {
        let draft = Self::check(metadata, max_bytes)?;
        required("metadata.size", draft.size)?;
        required("metadata.checksum", draft.checksum)?;
        Ok(draft)
    }

    /// What was asked for, and by which method; a repeat must ask for the same.
    pub(crate) fn fingerprint(&self, method: &str) -> Checksum {
        let mut print = Fingerprint::default();
        print.part(method.as_bytes());
        print.part(self.name.as_bytes());
        print.part(self.media.essence().as_bytes());
        print.part(self.title.as_bytes());
        print.tags(&self.tags);
        print.part(&self.size.unwrap_or(-1).to_be_bytes());
        print.part(self.checksum.as_ref().map_or(&[][..], |sum| sum.as_bytes()));
        print.0.finish()
    }

    /// As JSON, for the operation of a direct upload.
    pub(crate) fn to_json(&self) -> String {
        let kept = Kept {
            name: self.name.clone(),
            media: self.media.essence().to_owned(),
            title: self.title.clone(),
            tags: self.tags.clone(),
            size: self.size,
            checksum: self.checksum.map(|checksum| checksum.to_string()),
        };
        serde_json::json!(kept).to_string()
    }

    /// What [`to_json`](Self::to_json) has written; `None` for anything else.
    pub(crate) fn from_json(json: &str) -> Option<Self> {
        let Kept { name, media, title, tags, size, checksum } = serde_json::from_str(json).ok()?;
        Some(Self {
            name,
            media: MediaType::from_content_type(&media)?,
            title,
            tags,
            size,
            checksum: checksum.map(|text| text.parse()).transpose().ok()?,
        })
    }
}

/// How a draft is kept between CreateUploadUrl and CompleteUpload.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    name: String,
    media: String,
    title: String,
    tags: Vec<String>,
    size: Option<i64>,
    checksum: Option<String>,
}

/// A name, not a path: it is suggested to browsers, never used as a place.
fn check_name(name: &str) -> Checked<()> {
    let fits = name.len() <= MAX_NAME_BYTES
        && !name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\'))
        && !matches!(name, "." | "..");
    let what = "must be a file's name without its folder: 255 bytes at most, no slashes, no control \
                characters";
    if fits { Ok(()) } else { Err(Violation::new("file_name", what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> FileMetadata {
        FileMetadata {
            file_name: "Paper.pdf".to_owned(),
            content_type: "application/pdf".to_owned(),
            ..FileMetadata::default()
        }
    }

    fn refused(metadata: FileMetadata) -> String {
        FileDraft::check(Some(metadata), 100).unwrap_err().field
    }

    #[test]
    fn a_field_that_cannot_be_accepted_is_named() {
        let long = "ü".repeat(128);
        for name in
            ["../x.pdf", "a/b", "a\\b", "..", ".", "a\0b", "a\nb", &long, &"x".repeat(10_000)]
        {
            let file_name = name.to_owned();
            assert_eq!(refused(FileMetadata { file_name, ..metadata() }), "metadata.file_name");
        }
        for content_type in ["", "text/html", "image/svg+xml", "application/octet-stream", "pdf"] {
            let content_type = content_type.to_owned();
            assert_eq!(
                refused(FileMetadata { content_type, ..metadata() }),
                "metadata.content_type"
            );
        }
        for size in [i64::MIN, -1, 0, 101] {
            let size = Some(size);
            assert_eq!(refused(FileMetadata { size, ..metadata() }), "metadata.size");
        }
        let checksum = "md5:x".to_owned();
        assert_eq!(refused(FileMetadata { checksum, ..metadata() }), "metadata.checksum");
        let tags = vec![" ".to_owned()];
        assert_eq!(refused(FileMetadata { tags, ..metadata() }), "metadata.tags[0]");
        assert_eq!(FileDraft::check(None, 100).unwrap_err().field, "metadata");
        let direct = FileDraft::check_direct(Some(metadata()), 100).unwrap_err();
        assert_eq!(direct.field, "metadata.size");
        assert_eq!(FileDraft::check(Some(metadata()), 100).unwrap().title, "Paper.pdf");
    }

    #[test]
    fn a_draft_is_kept_whole() {
        let full = FileMetadata {
            title: "Ü \u{1}".to_owned(),
            tags: vec!["a".to_owned()],
            size: Some(7),
            checksum: Checksum::of(b"x").to_string(),
            ..metadata()
        };
        for metadata in [metadata(), full] {
            let draft = FileDraft::check(Some(metadata), 100).unwrap();
            assert_eq!(FileDraft::from_json(&draft.to_json()), Some(draft));
        }
        assert_eq!(FileDraft::from_json("{}"), None);
    }

    #[test]
    fn what_differs_has_another_fingerprint() {
        let all = [
            metadata(),
            FileMetadata { file_name: "x".into(), title: "Paper.pdf".into(), ..metadata() },
            FileMetadata { content_type: "image/png".into(), ..metadata() },
            FileMetadata { title: "t".into(), ..metadata() },
            FileMetadata { tags: vec!["t".into()], ..metadata() },
            FileMetadata { size: Some(7), ..metadata() },
            FileMetadata { checksum: Checksum::of(b"x").to_string(), ..metadata() },
        ];
        let drafts = all.iter().map(|one| FileDraft::check(Some(one.clone()), 100).unwrap());
        let prints = drafts.flat_map(|draft| ["a", "b"].map(|method| draft.fingerprint(method)));
        assert_eq!(prints.collect::<std::collections::HashSet<_>>().len(), 14);
    }
}
