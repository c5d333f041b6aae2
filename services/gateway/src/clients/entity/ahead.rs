//! Pivots that are sent before their body is in the store: entity-service does all of it but the
//! commit, which it is told when the body is there.

use synap_proto::entity::{
    PrepareCommitRequest, PrepareCommitResponse, prepare_commit_request::Step,
};

use super::{
    super::{prepared::Prepared, promised},
    Attempt, Change, EntityClient, SERVICE, commit_request, entity,
};
use crate::{domain::Entity, error::Error};

/// A pivot on its way. Dropped, it leaves nothing.
pub(crate) struct CommitAhead {
    change: Change,
    commit: Prepared<PrepareCommitRequest, PrepareCommitResponse>,
}

impl EntityClient {
    /// Begins to commit what may still not happen: a new entity with a small body. `None` outside of a
    /// call, which has no deadline.
    pub(crate) fn send_ahead(&self, attempt: &Attempt, change: Change) -> Option<CommitAhead> {
        let steps = [Step::Commit(commit_request(attempt, change.clone())), Step::Confirm(())];
        let messages = steps.map(|step| PrepareCommitRequest { step: Some(step) });
        let mut stub = self.operations.clone();
        let call = |messages| async move { stub.prepare_commit(messages).await };
        Some(CommitAhead { change, commit: Prepared::begin(messages, call)? })
    }
}

impl CommitAhead {
    /// The body is in the store. `None` if this is not the change that it brings, or was not
    /// committed, as far as we know: then it is to be committed as any other, which finds out.
    pub(super) async fn commit(self, change: &Change) -> Option<Result<Entity, Error>> {
        if self.change != *change {
            return None;
        }
        let answer = self.commit.commit().await?;
        Some(promised(SERVICE, "entity", answer.entity).and_then(entity))
    }
}
