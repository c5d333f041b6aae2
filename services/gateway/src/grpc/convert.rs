//! From the domain to protobuf. The other way is a check, and lives with what is checked.

use synap_proto::{field, gateway as pb};

use crate::{domain::Note, saga::Created};

impl From<Note> for pb::Note {
    fn from(note: Note) -> Self {
        let etag = note.etag();
        let file = note.file;
        let text = |value: fn(&crate::domain::File) -> &String| {
            file.as_ref().map(value).cloned().unwrap_or_default()
        };
        Self {
            id: note.id.to_string(),
            user_id: note.user_id,
            title: note.title,
            preview: note.preview,
            content: note.content.unwrap_or_default(),
            tags: note.tags,
            file_url: text(|file| &file.url),
            file_path: text(|file| &file.path),
            file_size: file.as_ref().map_or(0, |file| file.size),
            file_type: text(|file| &file.kind),
            checksum: text(|file| &file.checksum),
            version: note.version,
            etag,
            create_time: Some(field::timestamp(note.created_at)),
            update_time: Some(field::timestamp(note.updated_at)),
            delete_time: note.deleted_at.map(field::timestamp),
        }
    }
}

impl From<Created> for pb::CreateNoteResponse {
    fn from(created: Created) -> Self {
        Self { note: Some(created.note.into()), event_pending: created.event_pending }
    }
}
