//! CreateNote: what it puts, and what its pivot writes. The steps are described in [`super`].

use serde_json::json;
use synap_types::UserId;
use url::Url;
use uuid::Uuid;

use super::{Saga, Write, Written};
use crate::{
    clients::{Attempt, Change, Creation, Intent, Kind, OperationId, What},
    domain::{NoteDraft, StoredFile},
    error::Error,
};

/// Bytes of a body that are searched: entity-service takes no more.
const MAX_SEARCH_BYTES: usize = 64 * 1024;

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
            entity_type: "note",
            kind: Kind::Create { extension: "md" },
            lease: None,
            draft: None,
        };
        self.run(&intent, &mut CreateNote { draft }).await
    }
}

impl Write for CreateNote {
    async fn prepare(&mut self, saga: &Saga, attempt: &Attempt) -> Result<Change, Error> {
        let file = if attempt.phase.writes_blob() {
            synap_failpoint::hit("gateway.put.before").await;
            let url = saga.content.put(&attempt.key, &self.draft.content).await?;
            synap_failpoint::hit("gateway.put.after").await;
            Some(stored_file(attempt, &self.draft, url))
        } else {
            None
        };
        Ok(change(attempt, &self.draft, file))
    }
}

fn stored_file(attempt: &Attempt, draft: &NoteDraft, url: String) -> StoredFile {
    StoredFile {
        url,
        path: attempt.key.clone(),
        size: i64::try_from(draft.content.bytes().len()).unwrap_or(i64::MAX),
        kind: "markdown".to_owned(),
        checksum: draft.content.checksum().to_string(),
        name: String::new(),
    }
}

fn change(attempt: &Attempt, draft: &NoteDraft, file: Option<StoredFile>) -> Change {
    // References and deltas; whoever wants the body reads it.
    let data = json!({
        "entityType": "note",
        "title": draft.title,
        "tags": draft.tags,
        "file": file.as_ref().map(|file| json!({
            "path": file.path, "size": file.size, "checksum": file.checksum,
        })),
        "inputType": draft.input_type.name(),
        "audioUrl": draft.audio_url.as_ref().map(Url::as_str),
        "autoEnrich": draft.auto_enrich,
    });
    let creation = Creation {
        title: draft.title.clone(),
        preview: draft.preview.clone(),
        tags: draft.tags.clone(),
        file,
        content_block: attempt.phase.writes_content_block().then(|| draft.content.to_text()),
        search_text: Some(draft.content.beginning(MAX_SEARCH_BYTES)),
    };
    Change {
        what: What::Create(Box::new(creation)),
        event_type: "entity.created",
        event_data: data.to_string(),
    }
}
