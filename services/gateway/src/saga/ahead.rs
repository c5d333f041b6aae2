//! What is begun before its turn, where few writes are under way.

use super::{Saga, Write};
use crate::clients::{Attempt, BodyAhead, CommitAhead, EventAhead};

/// Nothing is done ahead while more attempts than this are under way: it takes a commit of its own,
/// and many are better off with one that they share.
const FEW: usize = 2;

/// Steps that are under way before their turn. Dropped, they leave nothing.
pub(super) struct Ahead {
    /// Step 3.
    pub(super) commit: Option<CommitAhead>,
    /// Step 4.
    pub(super) event: Option<EventAhead>,
}

impl Saga {
    /// Begins the pivot and the append of an attempt, if they are known by now, all of both but their
    /// commits. The pivot only where nothing is missing of the body but its end.
    pub(super) async fn go_ahead(
        &self,
        attempt: &Attempt,
        write: &mut impl Write,
        body: Option<&BodyAhead>,
    ) -> Ahead {
        if self.under_way.len() > FEW || !self.content.is_quick() {
            return Ahead { commit: None, event: None };
        }
        let url = match body {
            Some(body) if body.is_at(&attempt.key) => self.content.foretell_url(&attempt.key).await,
            _ => None,
        };
        let change = url.and_then(|url| write.foretell(attempt, url));
        let commit = change.and_then(|change| self.entity.send_ahead(attempt, change));
        let event = write.event(attempt).and_then(|event| self.event.send_ahead(event));
        Ahead { commit, event }
    }
}
