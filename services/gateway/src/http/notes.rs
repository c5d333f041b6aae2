//! notes.create and notes.get.

use axum::{
    body::Bytes,
    extract::{Extension, RawQuery, State},
    http::Uri,
    response::Response,
};
use serde::{Deserialize, Serialize};
use synap_proto::{
    field::Violation,
    gateway::{CreateNoteRequest, GetNoteRequest},
};
use synap_types::UserId;

use super::trpc;
use crate::{domain::Note, error::Error, notes::NoteApi};

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

/// What `notes.get` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GetInput {
    id: String,
    include_content: bool,
}

/// A note as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NoteOutput {
    id: String,
    user_id: String,
    title: String,
    preview: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    tags: Vec<String>,
    file_url: Option<String>,
    file_path: Option<String>,
    file_size: Option<i64>,
    file_type: Option<String>,
    checksum: Option<String>,
    version: i32,
    etag: String,
    create_time: String,
    update_time: String,
}

/// The answer of `notes.create`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CreateOutput {
    note: NoteOutput,
    event_pending: bool,
}

/// The answer of `notes.get`.
#[derive(Debug, Serialize)]
struct GetOutput {
    note: NoteOutput,
}

/// `POST /trpc/notes.create`
pub(super) async fn create(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let answer = async {
        let input: CreateInput = parse("body", &body)?;
        let request = CreateNoteRequest {
            content: input.content,
            title: input.title,
            tags: input.tags,
            input_type: input.input_type,
            audio_url: input.audio_url,
            auto_enrich: input.auto_enrich,
            request_id: input.request_id,
        };
        let created = api.create(user, request).await?;
        Ok(CreateOutput {
            note: Note { entity: created.entity, content: None }.into(),
            event_pending: created.event_pending,
        })
    };
    respond(uri.path(), answer.await)
}

/// `GET /trpc/notes.get?input={"id":…}`, or `?id=…&includeContent=true`
pub(super) async fn get(
    State(api): State<NoteApi>,
    Extension(user): Extension<UserId>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let input = get_input(&query.unwrap_or_default())?;
        let request =
            GetNoteRequest { id: input.id, include_content: input.include_content, revision: 0 };
        Ok(GetOutput { note: api.get(&user, &request).await?.into() })
    };
    respond(uri.path(), answer.await)
}

fn respond(path: &str, answer: Result<impl Serialize, Error>) -> Response {
    match answer {
        Ok(data) => trpc::success(data),
        Err(error) => trpc::failure(path, &error.into()),
    }
}

fn parse<'a, T: Deserialize<'a>>(name: &str, text: &'a [u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(text)
        .map_err(|why| Violation::new(name, format!("is not valid UTF-8: {why}")))?;
    // serde would take a list of values for a struct, too.
    if !text.trim_start().starts_with('{') {
        return Err(Violation::new(name, "must be a JSON object").into());
    }
    serde_json::from_str(text).map_err(|why| {
        Violation::new(name, format!("is not the JSON that is expected: {why}")).into()
    })
}

fn get_input(query: &str) -> Result<GetInput, Error> {
    let mut input = GetInput::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "input" => return parse("input", value.as_bytes()),
            "id" => input.id = value.into_owned(),
            "includeContent" => input.include_content = value == "true",
            _ => {}
        }
    }
    Ok(input)
}

impl From<Note> for NoteOutput {
    fn from(Note { entity: note, content }: Note) -> Self {
        let etag = note.etag();
        let (url, path, size, file_type, checksum) = match note.file {
            Some(file) => (
                Some(file.url).filter(|url| !url.is_empty()),
                Some(file.path),
                Some(file.size),
                Some(file.kind),
                Some(file.checksum),
            ),
            None => (None, None, None, None, None),
        };
        let time = |time: chrono::DateTime<chrono::Utc>| {
            time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
        };
        Self {
            id: note.id.to_string(),
            user_id: note.user_id,
            title: note.title,
            preview: note.preview,
            content,
            tags: note.tags,
            file_url: url,
            file_path: path,
            file_size: size,
            file_type,
            checksum,
            version: note.version,
            etag,
            create_time: time(note.created_at),
            update_time: time(note.updated_at),
        }
    }
}
