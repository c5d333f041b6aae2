//! The repair of a note's blob, in phase dual_write: the body that content_blocks holds is put under
//! a fresh key, and the pivot has the row name that one. The steps are described in [`super`]; there
//! is no event, so the third is the last.

use synap_types::UserId;
use uuid::Uuid;

use super::{Saga, Write, Written};
use crate::{
    clients::{Attempt, BodyAhead, Change, Intent, Kind, OperationId, What},
    domain::{Body, repair_fingerprint},
    error::Error,
};

/// A blob that is missing or damaged.
pub(crate) struct BadBlob {
    pub(crate) user: UserId,
    /// The note.
    pub(crate) id: Uuid,
    /// The note's version.
    pub(crate) version: i32,
    /// The blob's key.
    pub(crate) key: String,
}

struct RepairNote {
    blob: BadBlob,
    body: Body,
}

impl Saga {
    /// Puts the body back. The request id is made of the note's and the key: all gateways that find
    /// the blob do it once.
    pub(crate) async fn repair_note(&self, blob: BadBlob, body: Body) -> Result<Written, Error> {
        let request = Uuid::new_v5(&blob.id, blob.key.as_bytes());
        let intent = Intent {
            operation: OperationId { user: blob.user.clone(), request },
            fingerprint: repair_fingerprint(blob.id, &blob.key),
            entity_type: "note".to_owned(),
            kind: Kind::Repair { id: blob.id, extension: "md" },
            lease: None,
            draft: None,
            words: None,
        };
        self.run(&intent, &mut RepairNote { blob, body }).await
    }
}

impl Write for RepairNote {
    async fn prepare(
        &mut self,
        saga: &Saga,
        attempt: &Attempt,
        _: Option<BodyAhead>,
    ) -> Result<Change, Error> {
        let BadBlob { id, version, key, .. } = &self.blob;
        if !attempt.phase.repairs() {
            let what = "and the storage phase is not one that repairs it any more";
            return Err(Error::BodyCorrupt { id: *id, revision: *version, what });
        }
        synap_failpoint::hit("gateway.put.before").await;
        let url = saga.content.put(&attempt.key, &self.body, None).await?;
        synap_failpoint::hit("gateway.put.after").await;
        let what = What::Repair { version: *version, bad_key: key.clone(), url };
        Ok(Change { what, event_type: "", event_data: String::new() })
    }
}
