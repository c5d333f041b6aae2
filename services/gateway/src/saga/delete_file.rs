//! DeleteFile: nothing is put; the pivot is all there is to it. The steps are described in
//! [`super`].

use serde_json::json;
use synap_types::UserId;
use uuid::Uuid;

use super::{Saga, Write, Written};
use crate::{
    clients::{Attempt, Change, Intent, Kind, OperationId, What},
    domain::deletion_fingerprint,
    error::Error,
};

struct DeleteFile {
    expected_version: Option<i32>,
}

impl Saga {
    /// Deletes a file, if it is at the version that the caller has seen. A repeat with the same
    /// `request` gets the first answer.
    pub(crate) async fn delete_file(
        &self,
        user: UserId,
        request: Uuid,
        id: Uuid,
        expected_version: Option<i32>,
    ) -> Result<Written, Error> {
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: deletion_fingerprint(id, expected_version),
            entity_type: "file",
            kind: Kind::Delete { id },
            lease: None,
            draft: None,
        };
        self.run(&intent, &mut DeleteFile { expected_version }).await
    }
}

impl Write for DeleteFile {
    async fn prepare(&mut self, _: &Saga, _: &Attempt) -> Result<Change, Error> {
        Ok(Change {
            what: What::Delete { expected_version: self.expected_version },
            event_type: "entity.deleted",
            event_data: json!({ "entityType": "file" }).to_string(),
        })
    }
}
