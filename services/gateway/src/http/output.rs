//! How a note looks at this edge.

use serde::Serialize;

use crate::domain::Note;

/// A note as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NoteOutput {
    id: String,
    user_id: String,
    title: String,
    preview: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    tags: Vec<String>,
    file_url: Option<String>,
    file_path: Option<String>,
    file_size: Option<i64>,
    file_type: Option<String>,
    checksum: Option<String>,
    version: i32,
    etag: String,
    create_time: String,
    update_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_time: Option<String>,
}

impl From<Note> for NoteOutput {
    fn from(Note { entity: note, content }: Note) -> Self {
        let etag = note.etag();
        let (url, path, size, file_type, checksum) = match note.file {
            Some(file) => (
                Some(file.url).filter(|url| !url.is_empty()),
                Some(file.path),
                Some(file.size),
                Some(file.kind),
                Some(file.checksum),
            ),
            None => (None, None, None, None, None),
        };
        let time = |time: chrono::DateTime<chrono::Utc>| {
            time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
        };
        Self {
            id: note.id.to_string(),
            user_id: note.user_id,
            title: note.title,
            preview: note.preview,
            content,
            tags: note.tags,
            file_url: url,
            file_path: path,
            file_size: size,
            file_type,
            checksum,
            version: note.version,
            etag,
            create_time: time(note.created_at),
            update_time: time(note.updated_at),
            delete_time: note.deleted_at.map(time),
        }
    }
}
