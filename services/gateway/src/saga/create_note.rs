//! CreateNote: what it puts, and what its pivot writes. The steps are described in [`super`].

use serde_json::json;
use synap_types::UserId;
use url::Url;
use uuid::Uuid;

use super::{Saga, Write, Written, note_body::reference};
use crate::{
    clients::{
        Attempt, BodyAhead, Change, Creation, EntityEvent, Intent, Kind, OperationId, What, Words,
    },
    domain::{Body, NoteDraft},
    error::Error,
};

/// Bytes of a body whose search document is made ahead: entity-service takes no more.
const MAX_AHEAD_BYTES: usize = 16 * 1024;

const NOTE: &str = "note";
const CREATED: &str = "entity.created";

struct CreateNote {
    draft: NoteDraft,
}

impl Saga {
    /// Stores a note. A repeat with the same `request` gets the first answer.
    pub(crate) async fn create_note(
        &self,
        user: UserId,
        request: Uuid,
        draft: NoteDraft,
    ) -> Result<Written, Error> {
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: draft.fingerprint(),
            entity_type: NOTE.to_owned(),
            kind: Kind::Create { extension: "md" },
            lease: None,
            draft: None,
            words: words(&draft),
        };
        self.run(&intent, &mut CreateNote { draft }).await
    }
}

/// What the note will be found by. A long one is not worth sending twice.
fn words(draft: &NoteDraft) -> Option<Words> {
    (draft.content.bytes().len() <= MAX_AHEAD_BYTES).then(|| Words {
        title: draft.title.clone(),
        tags: draft.tags.clone(),
        text: draft.content.to_text(),
    })
}

/// References and deltas; whoever wants the body reads it.
fn event_data(draft: &NoteDraft, attempt: &Attempt) -> String {
    let data = json!({
        "entityType": NOTE,
        "title": draft.title,
        "tags": draft.tags,
        "file": reference(attempt, &draft.content),
        "inputType": draft.input_type.name(),
        "audioUrl": draft.audio_url.as_ref().map(Url::as_str),
        "autoEnrich": draft.auto_enrich,
    });
    data.to_string()
}

impl Write for CreateNote {
    async fn prepare(
        &mut self,
        saga: &Saga,
        attempt: &Attempt,
        ahead: Option<BodyAhead>,
    ) -> Result<Change, Error> {
        let draft = &self.draft;
        let placed = saga.place(attempt, &draft.content, ahead).await?;
        let creation = Creation {
            title: draft.title.clone(),
            preview: draft.preview.clone(),
            tags: draft.tags.clone(),
            file: placed.file,
            content_block: placed.content_block,
            search_text: Some(placed.search_text),
        };
        Ok(Change {
            what: What::Create(Box::new(creation)),
            event_type: CREATED,
            event_data: event_data(draft, attempt),
        })
    }

    fn event(&self, attempt: &Attempt) -> Option<EntityEvent> {
        Some(EntityEvent {
            event_id: attempt.event_id,
            user_id: attempt.operation.user.to_string(),
            entity_type: NOTE.to_owned(),
            entity_id: attempt.entity_id,
            version: 1,
            event_type: CREATED.to_owned(),
            occurred_at: attempt.occurred_at,
            data: event_data(&self.draft, attempt),
            adopts: false,
        })
    }

    fn body(&self) -> Option<&Body> {
        Some(&self.draft.content)
    }
}
