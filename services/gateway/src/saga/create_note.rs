//! CreateNote, step by step. The steps are described in [`super`].

use serde_json::json;
use synap_types::UserId;
use url::Url;
use uuid::Uuid;

use super::{FIRST_POLL, Saga};
use crate::{
    clients::{Attempt, Begun, Change, Intent, NoteEvent, OperationId},
    domain::{File, Note, NoteDraft},
    error::Error,
};

/// A note that is durable.
#[derive(Debug, Clone)]
pub struct Created {
    /// The note, without its content.
    pub note: Note,
    /// Whether its event is still to be appended.
    pub event_pending: bool,
}

impl Saga {
    /// Stores a note. A repeat with the same `request` gets the first answer.
    pub(crate) async fn create_note(
        &self,
        user: UserId,
        request: Uuid,
        draft: NoteDraft,
    ) -> Result<Created, Error> {
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: draft.fingerprint(),
            entity_type: "note",
            extension: "md",
        };
        let mut poll = FIRST_POLL;
        loop {
            // 1 Begin
            synap_failpoint::hit("gateway.begin.before").await;
            let begun = self.entity.begin(&intent, self.ids.next_id()).await?;
            synap_failpoint::hit("gateway.begin.after").await;
            match begun {
                Begun::Started(attempt) => match self.attempt(&attempt, &draft).await {
                    Ok(created) => return Ok(created),
                    // Taken over: the operation itself knows what became of it.
                    Err(error) if error.is_fenced() => {}
                    Err(error) => {
                        if self.give_up(&attempt).await {
                            return Err(error);
                        }
                    }
                },
                Begun::Committed(committed) => {
                    let event_pending = match &committed.pending_event {
                        Some(event) => self.roll_forward(&intent.operation, event).await,
                        None => false,
                    };
                    return Ok(Created { note: committed.note, event_pending });
                }
                Begun::InProgress { retry_after } => Self::wait(&mut poll, retry_after).await?,
            }
        }
    }

    /// Steps 2 to 5 of an attempt that is ours.
    async fn attempt(&self, attempt: &Attempt, draft: &NoteDraft) -> Result<Created, Error> {
        // 2 Put
        let file = if attempt.phase.writes_blob() {
            synap_failpoint::hit("gateway.put.before").await;
            let url = self.content.put(&attempt.key, &draft.content).await?;
            synap_failpoint::hit("gateway.put.after").await;
            Some(stored_file(attempt, draft, url))
        } else {
            None
        };

        // 3 Commit: the pivot
        let change = change(attempt, draft, file);
        synap_failpoint::hit("gateway.commit.before").await;
        let note = self.entity.commit(attempt, &change).await?;
        synap_failpoint::hit("gateway.commit.after").await;

        // 4 Append, 5 Finish
        let event = NoteEvent {
            event_id: attempt.event_id,
            user_id: note.user_id.clone(),
            entity_type: "note".to_owned(),
            entity_id: attempt.entity_id,
            version: note.version.into(),
            event_type: change.event_type,
            occurred_at: attempt.occurred_at,
            data: change.event_data,
        };
        let event_pending = self.roll_forward(&attempt.operation, &event).await;
        Ok(Created { note, event_pending })
    }
}

fn stored_file(attempt: &Attempt, draft: &NoteDraft, url: String) -> File {
    File {
        url,
        path: attempt.key.clone(),
        size: i64::try_from(draft.content.bytes().len()).unwrap_or(i64::MAX),
        kind: "markdown".to_owned(),
        checksum: draft.content.checksum().to_string(),
    }
}

fn change(attempt: &Attempt, draft: &NoteDraft, file: Option<File>) -> Change {
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
    Change {
        title: draft.title.clone(),
        preview: draft.preview.clone(),
        tags: draft.tags.clone(),
        file,
        content_block: attempt.phase.writes_content_block().then(|| draft.content.to_text()),
        event_type: "entity.created".to_owned(),
        event_data: data.to_string(),
    }
}
