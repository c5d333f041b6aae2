//! ListNotes: a page, and the token of the next one.

use synap_proto::gateway::ListNotesRequest;
use synap_types::UserId;

use crate::{
    clients::{ContentClient, EntityClient},
    domain::{Note, NoteFilter, PageTokens, Position, page_size},
    error::Error,
};

/// Lists and searches notes.
#[derive(Clone)]
pub(crate) struct Finder {
    pub(crate) content: ContentClient,
    pub(crate) entity: EntityClient,
    pub(crate) tokens: PageTokens,
}

/// A page of something.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Empty after the last page.
    pub(crate) next_page_token: String,
}

impl Finder {
    /// A page of the user's notes, the newest first.
    pub(crate) async fn list(
        &self,
        user: &UserId,
        request: ListNotesRequest,
    ) -> Result<Page<Note>, Error> {
        let size = page_size(request.page_size)?;
        let token = request.page_token.clone();
        let filter = NoteFilter::check(request)?;
        let question = filter.fingerprint();
        let after = self.tokens.open(user, question, &token)?.and_then(Position::from_bytes);

        // One more than the page holds: whether there is another page is known without asking again.
        let mut found = self.entity.list(user, "note", &filter, after, size + 1).await?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(Position::of);
        let next_page_token =
            last.map(|last| self.tokens.seal(user, question, &last.to_bytes())).unwrap_or_default();
        let items = found.into_iter().map(|entity| Note { entity, content: None }).collect();
        Ok(Page { items, next_page_token })
    }
}
