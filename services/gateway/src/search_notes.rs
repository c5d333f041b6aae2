//! SearchNotes: entity-service finds and ranks; here the lists of words and meaning become one, and
//! each hit gets its snippet.
//!
//! A snippet is made of the body's beginning, read from where the body is, for the hits of one page
//! only: a copy of every body in PostgreSQL, kept for snippets, is what this system exists to do
//! away with. A body that does not come in time costs its snippet, never the search: the preview
//! stands in.

use std::time::Duration;

use bytes::BytesMut;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use synap_proto::gateway::SearchNotesRequest;
use synap_rpc::deadline;
use synap_types::UserId;

use crate::{
    domain::{Entity, Hit, Note, NoteSearch, Rank, beginning, fuse},
    error::Error,
    list_notes::{Finder, Page},
};

/// Bytes of a body that a snippet is made of: the more, the longer its search for matches takes.
const SNIPPET_BYTES: usize = 16 * 1024;
const READ_BYTES: i64 = 16 * 1024;
/// Bodies that are read at once for one page.
const READS: usize = 8;
/// What reading them may take; and never more than half of the time that is left.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Hits of each list that hybrid search puts together.
const FUSED: usize = 100;

/// A page of what was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) page: Page<FoundNote>,
    /// keyword or hybrid.
    pub(crate) mode: &'static str,
}

/// A note that was found.
#[derive(Debug)]
pub(crate) struct FoundNote {
    pub(crate) note: Note,
    pub(crate) score: f32,
    /// Markdown.
    pub(crate) snippet: String,
}

impl Finder {
    /// Searches the user's notes.
    pub(crate) async fn search(
        &self,
        user: &UserId,
        request: SearchNotesRequest,
    ) -> Result<Found, Error> {
        let token = request.page_token.clone();
        let search = NoteSearch::check(request)?;
        let (hits, next_page_token) = match &search.meaning {
            None => self.by_words(user, &search, &token).await?,
            Some(_) => self.hybrid(user, &search, &token).await?,
        };
        let snippets = self.snippets(user, &search.query, &hits).await;
        let items = hits.into_iter().zip(snippets).map(|(Hit { entity, score }, snippet)| {
            FoundNote { note: Note { entity, content: None }, score, snippet }
        });
        let page = Page { items: items.collect(), next_page_token };
        Ok(Found { page, mode: search.mode() })
    }

    /// Goes on after the last hit of the page before: what is written meanwhile moves nothing.
    async fn by_words(
        &self,
        user: &UserId,
        search: &NoteSearch,
        token: &str,
    ) -> Result<(Vec<Hit>, String), Error> {
        let question = search.fingerprint();
        let after = self.tokens.open(user, question, token)?.and_then(Rank::from_bytes);
        let mut hits = self.entity.search(user, &search.query, after, search.size + 1).await?;
        let more = hits.len() > search.size;
        hits.truncate(search.size);
        let last = hits.last().filter(|_| more).map(Rank::of);
        let next = last.map(|last| self.tokens.seal(user, question, &last.to_bytes()));
        Ok((hits, next.unwrap_or_default()))
    }

    /// The order of the whole depends on all of both lists, so a page is a part of it.
    async fn hybrid(
        &self,
        user: &UserId,
        search: &NoteSearch,
        token: &str,
    ) -> Result<(Vec<Hit>, String), Error> {
        let question = search.fingerprint();
        let begin = self.tokens.open(user, question, token)?.map_or(0, u32::from_be_bytes);
        let Some(meaning) = &search.meaning else { return Ok(Default::default()) };
        let by_words = async {
            if search.query.trim().is_empty() {
                return Ok(Vec::new());
            }
            self.entity.search(user, &search.query, None, FUSED).await
        };
        let by_meaning = self.entity.search_vectors(user, meaning, FUSED);
        let (by_words, by_meaning) = tokio::try_join!(by_words, by_meaning)?;
        let fused = fuse([by_words, by_meaning]);

        let end = begin.saturating_add(u32::try_from(search.size).unwrap_or(u32::MAX));
        let more = fused.len() > end as usize;
        let page = fused.into_iter().skip(begin as usize).take(search.size).collect();
        let next = more.then(|| self.tokens.seal(user, question, &end.to_be_bytes()));
        Ok((page, next.unwrap_or_default()))
    }

    /// A snippet for each hit.
    async fn snippets(&self, user: &UserId, query: &str, hits: &[Hit]) -> Vec<String> {
        let left = deadline::remaining().map_or(READ_LIMIT, |left| left / 2);
        let made =
            tokio::time::timeout(left.min(READ_LIMIT), self.make_snippets(user, query, hits));
        let made = match made.await {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => {
                tracing::warn!(%error, "previews stand in for snippets");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!("bodies do not come in time; previews stand in for snippets");
                Vec::new()
            }
        };
        let made = made.into_iter().chain(std::iter::repeat(String::new()));
        let or_preview = |(hit, snippet): (&Hit, String)| {
            if snippet.is_empty() { hit.entity.preview.clone() } else { snippet }
        };
        hits.iter().zip(made).map(or_preview).collect()
    }

    async fn make_snippets(
        &self,
        user: &UserId,
        query: &str,
        hits: &[Hit],
    ) -> Result<Vec<String>, Error> {
        if hits.is_empty() {
            return Ok(Vec::new());
        }
        let reads: Vec<_> = hits.iter().map(|hit| self.beginning(user, &hit.entity)).collect();
        let texts = stream::iter(reads)
            .buffered(READS)
            // One that cannot be read is the reader's to complain about, not the searcher's.
            .map(Result::unwrap_or_default)
            .collect()
            .await;
        self.entity.snippets(user, query, texts).await
    }

    /// The beginning of a body, or nothing.
    async fn beginning(&self, user: &UserId, entity: &Entity) -> Result<String, Error> {
        let Some(file) = &entity.file else {
            let found = self.entity.entity(user, &entity.entity_type, entity.id, 0, true).await?;
            let body = found.and_then(|(_, block)| block).unwrap_or_default();
            return Ok(beginning(body.as_bytes(), SNIPPET_BYTES).to_owned());
        };
        let Some(mut body) = self.content.read_stream(file, 0, READ_BYTES).await? else {
            return Ok(String::new());
        };
        let mut read = BytesMut::new();
        while let Some(chunk) = body.try_next().await? {
            read.extend_from_slice(&chunk);
            if read.len() >= SNIPPET_BYTES {
                // Early V0.3 left rows without a size: those are read as a whole.
                break;
            }
        }
        Ok(beginning(&read, SNIPPET_BYTES).to_owned())
    }
}
