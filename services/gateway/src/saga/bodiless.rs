//! DeleteNote, UndeleteNote, DeleteFile and the purge: nothing is put; the pivot is all there is to
//! it. The steps are described in [`super`].

use serde_json::json;
use synap_types::UserId;
use uuid::Uuid;

use super::{Saga, Write, Written};
use crate::{
    clients::{Attempt, BodyAhead, Change, Intent, Kind, OperationId, Purgeable, What},
    domain::fingerprint,
    error::Error,
};

/// What is written upon.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) user: UserId,
    /// `note`, `file`, …
    pub(crate) entity_type: String,
    pub(crate) id: Uuid,
    /// The version that the caller has seen, if it says which.
    pub(crate) expected_version: Option<i32>,
}

struct Bodiless(Change);

impl Saga {
    /// Deletes a note or a file. A repeat with the same `request` gets the first answer.
    pub(crate) async fn delete(&self, target: Target, request: Uuid) -> Result<Written, Error> {
        let kind = Kind::Delete { id: target.id };
        let what = What::Delete { expected_version: target.expected_version };
        self.run_bodiless(target, request, ("delete", kind), (what, "entity.deleted")).await
    }

    /// Takes a deletion back. A repeat with the same `request` gets the first answer.
    pub(crate) async fn undelete(&self, target: Target, request: Uuid) -> Result<Written, Error> {
        let kind = Kind::Undelete { id: target.id };
        let what = What::Undelete { expected_version: target.expected_version };
        self.run_bodiless(target, request, ("undelete", kind), (what, "entity.restored")).await
    }

    /// Removes what was deleted longer ago than the retention. The request id is made of the
    /// entity's: all replicas that find it due run one operation.
    pub(crate) async fn purge(&self, entity: Purgeable) -> Result<Written, Error> {
        let Purgeable { user, entity_type, id } = entity;
        let request = Uuid::new_v5(&id, b"purge");
        let target = Target { user, entity_type, id, expected_version: None };
        let kind = Kind::Purge { id };
        self.run_bodiless(target, request, ("purge", kind), (What::Purge, "entity.purged")).await
    }

    async fn run_bodiless(
        &self,
        target: Target,
        request: Uuid,
        (verb, kind): (&str, Kind),
        (what, event_type): (What, &'static str),
    ) -> Result<Written, Error> {
        let Target { user, entity_type, id, expected_version } = target;
        let event_data = json!({ "entityType": entity_type }).to_string();
        let intent = Intent {
            operation: OperationId { user, request },
            fingerprint: fingerprint(&format!("{entity_type}s.{verb}"), id, expected_version),
            entity_type,
            kind,
            lease: None,
            draft: None,
            words: None,
        };
        self.run(&intent, &mut Bodiless(Change { what, event_type, event_data })).await
    }
}

impl Write for Bodiless {
    async fn prepare(
        &mut self,
        _: &Saga,
        _: &Attempt,
        _: Option<BodyAhead>,
    ) -> Result<Change, Error> {
        Ok(self.0.clone())
    }
}
