//! From the domain to protobuf. The other way is a check, and lives with what is checked.

use synap_proto::{field, gateway as pb};

use crate::{
    clients::{DayCount, EntityEvent, Happened},
    domain::{Entity, Note, StoredFile},
    list_notes::Page,
    saga::Written,
    search_notes::{Found, FoundNote},
};

impl From<Note> for pb::Note {
    fn from(Note { entity, content }: Note) -> Self {
        let etag = entity.etag();
        let file = entity.file;
        let text = |value: fn(&StoredFile) -> &String| {
            file.as_ref().map(value).cloned().unwrap_or_default()
        };
        Self {
            id: entity.id.to_string(),
            user_id: entity.user_id,
            title: entity.title,
            preview: entity.preview,
            content: content.unwrap_or_default(),
            tags: entity.tags,
            file_url: text(|file| &file.url),
            file_path: text(|file| &file.path),
            file_size: file.as_ref().map_or(0, |file| file.size),
            file_type: text(|file| &file.kind),
            checksum: text(|file| &file.checksum),
            version: entity.version,
            etag,
            create_time: Some(field::timestamp(entity.created_at)),
            update_time: Some(field::timestamp(entity.updated_at)),
            delete_time: entity.deleted_at.map(field::timestamp),
        }
    }
}

impl From<Entity> for pb::Note {
    fn from(entity: Entity) -> Self {
        Note { entity, content: None }.into()
    }
}

/// The answers of writes have one shape.
macro_rules! written {
    ($($answer:ident),*) => {$(
        impl From<Written> for pb::$answer {
            fn from(Written { entity, event_pending, replayed: _ }: Written) -> Self {
                Self { note: Some(entity.into()), event_pending }
            }
        }
    )*};
}
written!(CreateNoteResponse, UpdateNoteResponse, DeleteNoteResponse, UndeleteNoteResponse);

impl From<EntityEvent> for pb::NoteEvent {
    fn from(event: EntityEvent) -> Self {
        Self {
            id: event.event_id.to_string(),
            r#type: event.event_type,
            version: event.version,
            occur_time: Some(field::timestamp(event.occurred_at)),
            data: event.data,
        }
    }
}

impl From<Happened> for pb::UserEvent {
    fn from(Happened { event, cursor, .. }: Happened) -> Self {
        Self {
            id: event.event_id.to_string(),
            r#type: event.event_type,
            entity_type: event.entity_type,
            entity_id: event.entity_id.to_string(),
            version: event.version,
            occur_time: Some(field::timestamp(event.occurred_at)),
            data: event.data,
            cursor,
        }
    }
}

impl From<DayCount> for pb::DailyActivity {
    fn from(DayCount { date, event_type, entity_type, count }: DayCount) -> Self {
        Self { date, r#type: event_type, entity_type, count }
    }
}

impl From<Page<Note>> for pb::ListNotesResponse {
    fn from(page: Page<Note>) -> Self {
        let notes = page.items.into_iter().map(Into::into).collect();
        Self { notes, next_page_token: page.next_page_token }
    }
}

impl From<Found> for pb::SearchNotesResponse {
    fn from(Found { page, mode }: Found) -> Self {
        let result = |FoundNote { note, score, snippet }| pb::SearchResult {
            note: Some(pb::Note::from(note)),
            score,
            snippet,
        };
        Self {
            results: page.items.into_iter().map(result).collect(),
            next_page_token: page.next_page_token,
            mode: mode.to_owned(),
        }
    }
}

impl From<Entity> for pb::File {
    fn from(entity: Entity) -> Self {
        let etag = entity.etag();
        let file = entity.file;
        let text = |value: fn(&StoredFile) -> &str| {
            file.as_ref().map_or_else(String::new, |file| value(file).to_owned())
        };
        Self {
            id: entity.id.to_string(),
            user_id: entity.user_id,
            title: entity.title,
            file_name: text(|file| &file.name),
            content_type: text(StoredFile::media_type),
            tags: entity.tags,
            file_url: text(|file| &file.url),
            file_path: text(|file| &file.path),
            file_size: file.as_ref().map_or(0, |file| file.size),
            file_type: text(|file| &file.kind),
            checksum: text(|file| &file.checksum),
            version: entity.version,
            etag,
            create_time: Some(field::timestamp(entity.created_at)),
            update_time: Some(field::timestamp(entity.updated_at)),
            delete_time: entity.deleted_at.map(field::timestamp),
        }
    }
}
