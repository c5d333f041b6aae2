//! What only reads: notes.get, notes.list and notes.search.

use axum::{
    extract::{Extension, RawQuery, State},
    http::Uri,
    response::Response,
};
use serde::{Deserialize, Serialize};
use synap_proto::gateway::{GetNoteRequest, ListNotesRequest, SearchNotesRequest};
use synap_types::UserId;

use super::{
    input::{self, Kind},
    output::NoteOutput,
    trpc,
};
use crate::{
    notes::NoteApi,
    search_notes::{Found, FoundNote},
};

/// What `notes.get` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GetInput {
    id: String,
    include_content: bool,
}

/// What `notes.list` takes. Times are in RFC 3339.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListInput {
    page_size: i32,
    page_token: String,
    show_deleted: bool,
    tags: Vec<String>,
    created_from: String,
    created_until: String,
    updated_from: String,
    updated_until: String,
}

impl ListInput {
    const PARAMETERS: [(&str, Kind); 8] = [
        ("pageSize", Kind::Number),
        ("pageToken", Kind::Text),
        ("showDeleted", Kind::Flag),
        ("tags", Kind::List),
        ("createdFrom", Kind::Text),
        ("createdUntil", Kind::Text),
        ("updatedFrom", Kind::Text),
        ("updatedUntil", Kind::Text),
    ];
}

/// What `notes.search` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SearchInput {
    query: String,
    limit: i32,
    mode: String,
    page_size: i32,
    page_token: String,
    query_vector: Vec<f32>,
    embedding_model: String,
}

impl SearchInput {
    const PARAMETERS: [(&str, Kind); 5] = [
        ("query", Kind::Text),
        ("limit", Kind::Number),
        ("mode", Kind::Text),
        ("pageSize", Kind::Number),
        ("pageToken", Kind::Text),
    ];
}

/// The answer of `notes.get`.
#[derive(Debug, Serialize)]
struct GetOutput {
    note: NoteOutput,
}

/// The answer of `notes.list`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListOutput {
    notes: Vec<NoteOutput>,
    /// Empty after the last page.
    next_page_token: String,
}

/// The answer of `notes.search`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchOutput {
    results: Vec<ResultOutput>,
    /// Empty after the last page.
    next_page_token: String,
    mode: &'static str,
}

/// A note that was found.
#[derive(Debug, Serialize)]
struct ResultOutput {
    note: NoteOutput,
    score: f32,
    snippet: String,
}

/// `GET /trpc/notes.get?input={"id":…}`, or `?id=…&includeContent=true`
pub(super) async fn get(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let parameters = [("id", Kind::Text), ("includeContent", Kind::Flag)];
        let input: GetInput = input::from_query(query.as_deref(), &parameters)?;
        let request =
            GetNoteRequest { id: input.id, include_content: input.include_content, revision: 0 };
        Ok(GetOutput { note: api.get(&user, &request).await?.into() })
    };
    trpc::answer(uri.path(), answer.await)
}

/// `GET /trpc/notes.list?input={"pageSize":…}`, or `?pageSize=…&tags=…`
pub(super) async fn list(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let input: ListInput = input::from_query(query.as_deref(), &ListInput::PARAMETERS)?;
        let request = ListNotesRequest {
            page_size: input.page_size,
            page_token: input.page_token,
            show_deleted: input.show_deleted,
            tags: input.tags,
            created_from: input::time("created_from", &input.created_from)?,
            created_until: input::time("created_until", &input.created_until)?,
            updated_from: input::time("updated_from", &input.updated_from)?,
            updated_until: input::time("updated_until", &input.updated_until)?,
        };
        let page = api.list(&user, request).await?;
        let notes = page.items.into_iter().map(Into::into).collect();
        Ok(ListOutput { notes, next_page_token: page.next_page_token })
    };
    trpc::answer(uri.path(), answer.await)
}

/// `GET /trpc/notes.search?input={"query":…}`, or `?query=…&limit=…`
pub(super) async fn search(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let input: SearchInput = input::from_query(query.as_deref(), &SearchInput::PARAMETERS)?;
        let request = SearchNotesRequest {
            query: input.query,
            limit: input.limit,
            mode: input.mode,
            page_size: input.page_size,
            page_token: input.page_token,
            query_vector: input.query_vector,
            embedding_model: input.embedding_model,
        };
        let Found { page, mode } = api.search(&user, request).await?;
        let result =
            |FoundNote { note, score, snippet }| ResultOutput { note: note.into(), score, snippet };
        let results = page.items.into_iter().map(result).collect();
        Ok(SearchOutput { results, next_page_token: page.next_page_token, mode })
    };
    trpc::answer(uri.path(), answer.await)
}
