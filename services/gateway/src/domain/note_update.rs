//! What a change of a note must be.

use synap_proto::{
    field::{self, Checked, Violation},
    gateway::{Note, UpdateNoteRequest},
};
use synap_types::{Checksum, UserId};
use uuid::Uuid;

use super::{
    Fingerprint, MAX_TITLE_CHARS, check_etag, check_tags, check_text,
    note::{Body, check_content, derived_title, preview},
};

/// A change of a note that has passed all checks: what is `None` stays as it is.
#[derive(Debug, Clone)]
pub(crate) struct NoteUpdate {
    /// The note.
    pub(crate) id: Uuid,
    /// The version that the caller has seen, if it says which.
    pub(crate) expected_version: Option<i32>,
    /// Title; empty for none.
    pub(crate) title: Option<String>,
    /// Tags in the user's order.
    pub(crate) tags: Option<Vec<String>>,
    /// The new body, and its beginning as plain text.
    pub(crate) content: Option<(Body, String)>,
}

/// Which fields are asked for (AIP-134).
struct Mask {
    content: bool,
    title: bool,
    tags: bool,
}

impl NoteUpdate {
    /// Checks a request of a user; a body may have `max_bytes` bytes.
    pub(crate) fn check(
        request: UpdateNoteRequest,
        user: &UserId,
        max_bytes: usize,
    ) -> Checked<Self> {
        let note = field::required("note", request.note)?;
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let mask = Mask::check(&paths, &note)?;
        Self::check_note(note, &mask, user, max_bytes).map_err(|why| why.within("note"))
    }

    fn check_note(note: Note, mask: &Mask, user: &UserId, max_bytes: usize) -> Checked<Self> {
        let id = field::uuid("id", &note.id)?;
        let expected_version = check_etag("etag", &note.etag, user.as_str(), id)?;
        let Note { content, mut title, tags, .. } = note;
        if mask.content {
            check_content(&content, max_bytes)?;
        }
        if mask.title {
            check_text("title", &title, MAX_TITLE_CHARS)?;
            if title.trim().is_empty() {
                title = if mask.content { derived_title(&content) } else { String::new() };
            }
        }
        if mask.tags {
            check_tags("tags", &tags)?;
        }
        let content = mask.content.then(|| {
            let preview = preview(&content);
            (Body::new(content), preview)
        });
        Ok(Self {
            id,
            expected_version,
            title: mask.title.then_some(title),
            tags: mask.tags.then_some(tags),
            content,
        })
    }

    /// What was asked for; a repeat must ask for the same.
    pub(crate) fn fingerprint(&self) -> Checksum {
        let mut print = Fingerprint::of("notes.update", self.id, self.expected_version);
        print.part(&[u8::from(self.title.is_some())]);
        print.part(self.title.as_deref().unwrap_or_default().as_bytes());
        print.part(&[u8::from(self.tags.is_some())]);
        print.tags(self.tags.as_deref().unwrap_or_default());
        let checksum = self.content.as_ref().map(|(body, _)| body.checksum());
        print.part(checksum.as_ref().map_or(&[][..], |sum| sum.as_bytes()));
        print.0.finish()
    }
}

impl Mask {
    fn check(paths: &[String], note: &Note) -> Checked<Self> {
        let mut mask = Self { content: false, title: false, tags: false };
        if paths.is_empty() {
            mask = Self {
                content: !note.content.is_empty(),
                title: !note.title.is_empty(),
                tags: !note.tags.is_empty(),
            };
        }
        for path in paths {
            match path.as_str() {
                "*" => mask = Self { content: true, title: true, tags: true },
                "content" => mask.content = true,
                "title" => mask.title = true,
                "tags" => mask.tags = true,
                _ => {
                    let what =
                        format!("has {path:?}; content, title and tags can be changed, or *");
                    return Err(Violation::new("update_mask", what));
                }
            }
        }
        if !(mask.content || mask.title || mask.tags) {
            let what = "is empty, and so are content, title and tags: there is nothing to change";
            return Err(Violation::new("update_mask", what));
        }
        Ok(mask)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn note() -> Note {
        Note { id: ID.to_string(), ..Note::default() }
    }

    fn check(paths: &[&str], note: Note) -> Checked<NoteUpdate> {
        let paths = paths.iter().map(ToString::to_string).collect();
        let request = UpdateNoteRequest {
            note: Some(note),
            update_mask: Some(FieldMask { paths }),
            request_id: String::new(),
        };
        NoteUpdate::check(request, &UserId::parse("ada").unwrap(), 100)
    }

    #[test]
    fn a_mask_says_what_changes_and_without_one_what_is_set_does() {
        let full = Note {
            content: "# New\n\nbody".to_owned(),
            title: "title".to_owned(),
            tags: vec!["a".to_owned()],
            ..note()
        };
        let changed = |paths: &[&str], note: Note| {
            let update = check(paths, note).unwrap();
            (update.content.is_some(), update.title, update.tags.map(|tags| tags.len()))
        };
        let title = || Some("title".to_owned());
        assert_eq!(changed(&[], full.clone()), (true, title(), Some(1)));
        assert_eq!(changed(&["*"], full.clone()), (true, title(), Some(1)));
        assert_eq!(changed(&["title"], full.clone()), (false, title(), None));
        assert_eq!(changed(&["tags"], note()), (false, None, Some(0)));
        assert_eq!(changed(&["title"], note()), (false, Some(String::new()), None));
        assert_eq!(
            changed(&[], Note { title: String::new(), ..full.clone() }),
            (true, None, Some(1))
        );
        let untitled = Note { title: " ".to_owned(), ..full };
        assert_eq!(changed(&["*"], untitled), (true, Some("New".to_owned()), Some(1)));
    }

    #[test]
    fn a_field_that_cannot_be_accepted_is_named() {
        let refused = |paths: &[&str], note: Note| check(paths, note).unwrap_err().field;
        assert_eq!(refused(&["title"], Note { id: "x".to_owned(), ..note() }), "note.id");
        assert_eq!(refused(&["title"], Note { etag: "x".to_owned(), ..note() }), "note.etag");
        assert_eq!(refused(&["content"], note()), "note.content");
        assert_eq!(refused(&["*"], note()), "note.content");
        let long = "x".repeat(101);
        assert_eq!(refused(&[], Note { content: long, ..note() }), "note.content");
        let tags = vec!["a".to_owned(), String::new()];
        assert_eq!(refused(&["tags"], Note { tags, ..note() }), "note.tags[1]");
        let title = "x".repeat(MAX_TITLE_CHARS + 1);
        assert_eq!(refused(&["title"], Note { title, ..note() }), "note.title");
        for paths in [&[][..], &["preview"], &["title", "user_id"], &["Title"], &["note.title"]] {
            assert_eq!(refused(paths, note()), "update_mask", "{paths:?}");
        }
        let none = UpdateNoteRequest::default();
        let user = UserId::parse("ada").unwrap();
        assert_eq!(NoteUpdate::check(none, &user, 100).unwrap_err().field, "note");
    }

    #[test]
    fn what_differs_has_another_fingerprint() {
        let set = |title: &str, tags: &[&str]| Note {
            title: title.to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            content: "x".to_owned(),
            ..note()
        };
        let all = [
            check(&["title"], set("", &[])),
            check(&["title"], set("a", &[])),
            check(&["tags"], set("", &[])),
            check(&["tags"], set("", &["a"])),
            check(&["content"], set("", &[])),
            check(&["title", "tags"], set("", &[])),
            check(&["title"], Note { id: Uuid::from_u128(8).to_string(), ..note() }),
            check(&["title"], Note { etag: super::super::etag("ada", ID, 7), ..note() }),
        ];
        let prints = all.iter().map(|update| update.as_ref().unwrap().fingerprint());
        assert_eq!(prints.collect::<std::collections::HashSet<_>>().len(), all.len());
    }
}
