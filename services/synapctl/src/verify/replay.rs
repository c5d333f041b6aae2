//! What the events of an entity make of it.

use serde_json::Value;
use synap_proto::{entity::Entity, event::Event};

/// An entity as its events tell. What they do not tell of is `None`: an entity of V0.2 was something
/// before it had events here, and the events of V0.2 tell only that something happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Of the last event; 0 if there is none.
    version: i64,
    /// The first two that do not follow each other.
    gap: Option<(i64, i64)>,
    is_begun: bool,
    title: Option<String>,
    tags: Option<Vec<String>>,
    /// Size and checksum: a repair gives the same body another key, and tells nobody.
    file: Option<(i64, String)>,
    deleted: Option<bool>,
}

/// What is not the same on both sides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unlike {
    pub(super) field: &'static str,
    pub(super) entity: String,
    pub(super) events: String,
}

impl Replayed {
    /// The next event, in the order of versions.
    pub(super) fn apply(&mut self, event: &Event) {
        if self.is_begun && event.version != self.version + 1 {
            self.gap.get_or_insert((self.version, event.version));
        }
        (self.version, self.is_begun) = (event.version, true);
        let metadata = serde_json::from_str::<Value>(&event.metadata).unwrap_or_default();
        if metadata.get("legacy").is_some() {
            return;
        }
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.r#type.as_str() {
            "entity.created" | "entity.restored" => self.deleted = Some(false),
            "entity.deleted" | "entity.purged" => self.deleted = Some(true),
            _ => {}
        }
        if let Some(title) = data.get("title") {
            self.title = Some(title.as_str().unwrap_or_default().to_owned());
        }
        if let Some(Value::Array(tags)) = data.get("tags") {
            let text = |tag: &Value| tag.as_str().map(ToOwned::to_owned);
            self.tags = Some(tags.iter().filter_map(text).collect());
        }
        if let Some(Value::Object(file)) = data.get("file") {
            let size = file.get("size").and_then(Value::as_i64).unwrap_or_default();
            let checksum = file.get("checksum").and_then(Value::as_str).unwrap_or_default();
            self.file = Some((size, checksum.to_owned()));
        }
    }

    pub(super) fn has_events(&self) -> bool {
        self.is_begun
    }

    /// Where the entity is not what its events make of it.
    pub(super) fn compare(&self, entity: &Entity) -> Vec<Unlike> {
        let mut unlike = Vec::new();
        if let Some((before, after)) = self.gap {
            unlike.push(Unlike {
                field: "versions",
                entity: format!("{} after {before}", before + 1),
                events: format!("{after} after {before}"),
            });
        }
        let mut check = |field, entity: String, events: Option<String>| {
            if let Some(events) = events.filter(|events| *events != entity) {
                unlike.push(Unlike { field, entity, events });
            }
        };
        check("version", entity.version.to_string(), Some(self.version.to_string()));
        check("title", entity.title.clone(), self.title.clone());
        let tags = self.tags.as_ref().map(|tags| format!("{tags:?}"));
        check("tags", format!("{:?}", entity.tags), tags);
        let deleted = self.deleted.map(|deleted| deleted.to_string());
        check("deleted", entity.delete_time.is_some().to_string(), deleted);
        let text = |size: i64, checksum: &str| format!("{size} bytes, {checksum}");
        let of_entity = entity.file.as_ref();
        let of_entity = of_entity.map_or_else(String::new, |file| text(file.size, &file.checksum));
        check("file", of_entity, self.file.as_ref().map(|(size, sum)| text(*size, sum)));
        unlike
    }
}
