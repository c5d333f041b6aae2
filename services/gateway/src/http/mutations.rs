//! What changes a note: notes.create, notes.update, notes.delete and notes.undelete.

use axum::{
    body::Bytes,
    extract::{Extension, State},
    http::Uri,
    response::Response,
};
use prost_types::FieldMask;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use synap_proto::gateway::{
    self, CreateNoteRequest, DeleteNoteRequest, UndeleteNoteRequest, UpdateNoteRequest,
};
use synap_types::UserId;

use super::{batch::is_batch, input, output::NoteOutput, trpc};
use crate::{domain::Note, error::Error, notes::NoteApi, saga::Written};

/// What `notes.create` takes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CreateInput {
    content: String,
    title: String,
    tags: Vec<String>,
    input_type: String,
    audio_url: String,
    auto_enrich: bool,
    request_id: String,
}

impl Default for CreateInput {
    fn default() -> Self {
        Self {
            content: String::new(),
            title: String::new(),
            tags: Vec::new(),
            input_type: String::new(),
            audio_url: String::new(),
            // V0.2's clients that say nothing mean yes.
            auto_enrich: true,
            request_id: String::new(),
        }
    }
}

/// What `notes.update` takes: what is given is changed, and nothing else. A title that is to be empty
/// is taken from the content that is given with it; without content the note has none.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UpdateInput {
    id: String,
    etag: String,
    content: Option<String>,
    title: Option<String>,
    tags: Option<Vec<String>>,
    request_id: String,
}

/// What `notes.delete` and `notes.undelete` take.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TargetInput {
    id: String,
    etag: String,
    request_id: String,
}

/// The answer of each of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenOutput {
    note: NoteOutput,
    event_pending: bool,
}

/// `POST /trpc/notes.create`
pub(super) async fn create(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let write = |input: CreateInput| async move {
        let request = CreateNoteRequest {
            content: input.content,
            title: input.title,
            tags: input.tags,
            input_type: input.input_type,
            audio_url: input.audio_url,
            auto_enrich: input.auto_enrich,
            request_id: input.request_id,
        };
        api.create(user, request).await
    };
    written(&uri, &body, write).await
}

/// `POST /trpc/notes.update`
pub(super) async fn update(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let write =
        |input: UpdateInput| async move { api.update(user, input.into()).await.map_err(as_given) };
    written(&uri, &body, write).await
}

/// `POST /trpc/notes.delete`
pub(super) async fn delete(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let write = |TargetInput { id, etag, request_id }| async move {
        api.delete(user, &DeleteNoteRequest { id, etag, request_id }).await
    };
    written(&uri, &body, write).await
}

/// `POST /trpc/notes.undelete`
pub(super) async fn undelete(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let write = |TargetInput { id, etag, request_id }| async move {
        api.undelete(user, &UndeleteNoteRequest { id, etag, request_id }).await
    };
    written(&uri, &body, write).await
}

/// Reads the input, and answers with the note as it was written; as a batch where it came as one.
async fn written<I, W>(uri: &Uri, body: &[u8], write: impl FnOnce(I) -> W) -> Response
where
    I: DeserializeOwned,
    W: Future<Output = Result<Written, Error>>,
{
    let is_batch = is_batch(uri.query());
    let answer = async {
        let Written { entity, event_pending, replayed: _ } =
            write(input::from_body(is_batch, body)?).await?;
        Ok(WrittenOutput { note: Note { entity, content: None }.into(), event_pending })
    };
    let answer = trpc::answer(uri.path(), answer.await);
    if is_batch { trpc::list_of_one(answer).await } else { answer }
}

impl From<UpdateInput> for UpdateNoteRequest {
    fn from(input: UpdateInput) -> Self {
        let given = [
            ("content", input.content.is_some()),
            ("title", input.title.is_some()),
            ("tags", input.tags.is_some()),
        ];
        let paths = given.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned());
        let update_mask = Some(FieldMask { paths: paths.collect() });
        let note = gateway::Note {
            id: input.id,
            etag: input.etag,
            content: input.content.unwrap_or_default(),
            title: input.title.unwrap_or_default(),
            tags: input.tags.unwrap_or_default(),
            ..gateway::Note::default()
        };
        Self { note: Some(note), update_mask, request_id: input.request_id }
    }
}

/// At this edge what is changed stands beside the id, and what is given is the mask.
fn as_given(error: Error) -> Error {
    let Error::Invalid(mut violation) = error else { return error };
    violation.field = match violation.field.strip_prefix("note.") {
        Some(field) => field.to_owned(),
        None if violation.field == "update_mask" => "input".to_owned(),
        None => violation.field,
    };
    violation.into()
}
