//! UpdateNote: a new body is put under a key of its own; the pivot changes what was asked for, in the
//! row that is there then. The steps are described in [`super`].

use serde_json::{Map, Value, json};
use synap_types::UserId;
use uuid::Uuid;

use super::{Saga, Write, Written, note_body::reference};
use crate::{
    clients::{Attempt, BodyAhead, Change, Intent, Kind, NewBody, OperationId, Update, What},
    domain::{Body, NoteUpdate},
    error::Error,
};

struct UpdateNote {
    update: NoteUpdate,
}

impl Saga {
    /// Changes a note. A repeat with the same `request` gets the first answer.
    pub(crate) async fn update_note(
        &self,
        user: UserId,
        request: Uuid,
        update: NoteUpdate,
    ) -> Result<Written, Error> {
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: update.fingerprint(),
            entity_type: "note".to_owned(),
            kind: Kind::Update {
                id: update.id,
                extension: update.content.is_some().then_some("md"),
            },
            lease: None,
            draft: None,
            words: None,
        };
        self.run(&intent, &mut UpdateNote { update }).await
    }
}

impl Write for UpdateNote {
    async fn prepare(
        &mut self,
        saga: &Saga,
        attempt: &Attempt,
        ahead: Option<BodyAhead>,
    ) -> Result<Change, Error> {
        let NoteUpdate { id: _, expected_version, title, tags, content } = &self.update;
        // Deltas only: what is not in it has not changed.
        let mut data = Map::from_iter([("entityType".to_owned(), json!("note"))]);
        data.extend(title.iter().map(|title| ("title".to_owned(), json!(title))));
        data.extend(tags.iter().map(|tags| ("tags".to_owned(), json!(tags))));
        let mut body = None;
        if let Some((content, preview)) = content {
            let placed = saga.place(attempt, content, ahead).await?;
            data.insert("file".to_owned(), reference(attempt, content));
            body = Some(NewBody {
                preview: preview.clone(),
                file: placed.file,
                content_block: placed.content_block,
                search_text: Some(placed.search_text),
            });
        }
        let update = Update {
            expected_version: *expected_version,
            title: title.clone(),
            tags: tags.clone(),
            body,
        };
        Ok(Change {
            what: What::Update(Box::new(update)),
            event_type: "entity.updated",
            event_data: Value::Object(data).to_string(),
        })
    }

    fn body(&self) -> Option<&Body> {
        self.update.content.as_ref().map(|(content, _)| content)
    }
}
