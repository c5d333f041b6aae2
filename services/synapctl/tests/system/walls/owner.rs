//! A user who has something of everything.

use std::collections::BTreeSet;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use synap_proto::{
    entity::{EntityVector, UpsertVectorsRequest, entity_service_client::EntityServiceClient},
    gateway::{
        CreateNoteRequest, CreateUploadUrlResponse, File, FileMetadata, ListNotesRequest, Note,
        NoteEvent,
    },
};
use synap_types::Checksum;
use tonic::Status;
use uuid::Uuid;

use crate::support::{
    Client, Name, System, eventually,
    files::{metadata, pdf},
    full_size,
};

/// Calls of one user at once: fewer than the gateway allows.
pub const AT_ONCE: usize = 48;

/// Everything that a user has, and that another may have come to know.
pub struct Owner {
    pub name: &'static str,
    pub client: Client,
    /// A word in all that is theirs.
    pub secret: String,
    pub notes: Vec<Note>,
    /// Those of the notes, each the id of the note that it made.
    pub request_ids: Vec<String>,
    pub deleted: Note,
    pub file: File,
    pub upload: CreateUploadUrlResponse,
    pub vector: Vec<f32>,
}

/// Notes, the body and the past of one of them, and a file.
pub type Seen = (Vec<Note>, Note, (File, Vec<u8>), Vec<Note>, Vec<NoteEvent>);

pub fn ids_of(notes: &[Note]) -> impl Iterator<Item = &str> {
    notes.iter().map(|note| note.id.as_str())
}

pub async fn all<T>(calls: impl Stream<Item = impl Future<Output = Result<T, Status>>>) -> Vec<T> {
    calls.buffered(AT_ONCE).try_collect().await.unwrap()
}

pub fn pdf_upload(request_id: &str, title: &str) -> (FileMetadata, Vec<u8>) {
    let body = pdf(7, 2000);
    let metadata = FileMetadata {
        title: title.to_owned(),
        size: Some(2000),
        checksum: Checksum::of(&body).to_string(),
        ..metadata("application/pdf", request_id)
    };
    (metadata, body)
}

impl Owner {
    pub async fn settle(system: &System, name: &'static str, axis: usize) -> Self {
        let client = system.client(name);
        let secret = format!("secretof{name}");
        // A tenth of them are pairs of requests.
        let notes = full_size(60, 500);
        let request_ids: Vec<_> =
            (0..notes).map(|n| Uuid::from_u128(((axis << 32) + n) as u128).to_string()).collect();
        let notes = all(stream::iter(&request_ids).map(|request_id| {
            let request = CreateNoteRequest {
                content: format!("a note with {secret} in it"),
                title: format!("{secret} title"),
                tags: vec![secret.clone(), "shared".to_owned()],
                request_id: request_id.clone(),
                ..CreateNoteRequest::default()
            };
            async { Ok(client.send(client.request(request)).await?.0) }
        }))
        .await;
        let (deleted, _) = client.delete(&notes.last().unwrap().id, "", "").await.unwrap();
        client.rewrite(&notes[0].id, &format!("{secret} again")).await.unwrap();
        let (metadata, body) = pdf_upload("", &secret);
        let (file, _) = client.upload(metadata, &body).await.unwrap();
        let (metadata, _) = pdf_upload(&Uuid::from_u128(axis as u128).to_string(), &secret);
        let upload = client.upload_url(metadata).await.unwrap();
        let mut vector = vec![0.0; 1536];
        vector[axis] = 1.0;
        let upsert = UpsertVectorsRequest {
            user_id: name.to_owned(),
            entity_id: notes[0].id.clone(),
            embedding_model: "text-embedding-3-small".to_owned(),
            vectors: vec![EntityVector { chunk: 0, embedding: vector.clone() }],
        };
        let mut entities = EntityServiceClient::new(system.channel(Name::Entity));
        entities.upsert_vectors(upsert).await.unwrap();
        Self { name, client, secret, notes, request_ids, deleted, file, upload, vector }
    }

    /// All that is kept of the owner: the rows of every table and the bodies in the store.
    pub async fn has(&self, system: &System) -> BTreeSet<String> {
        let appended = || async {
            let waiting = "SELECT count(*) FROM write_operations WHERE state = 'COMMITTED'";
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&system.database.pool).await.unwrap()
                == 0
        };
        eventually("every event is appended", appended).await;
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT 'entity ' || t::text FROM entities t WHERE user_id = $1
             UNION ALL SELECT 'revision ' || t::text FROM entity_revisions t WHERE user_id = $1
             UNION ALL SELECT 'block ' || t::text FROM content_blocks t WHERE user_id = $1
             UNION ALL SELECT 'vector ' || t::text FROM entity_vectors t WHERE user_id = $1
             UNION ALL SELECT 'words ' || t::text FROM entity_search t WHERE user_id = $1
             UNION ALL SELECT 'write ' || t::text FROM write_operations t WHERE user_id = $1
             UNION ALL SELECT 'event ' || t::text FROM event_store.events t WHERE user_id = $1",
        )
        .bind(self.name)
        .fetch_all(&system.database.pool)
        .await
        .unwrap();
        let prefix = format!("users/{}/", self.name);
        let bodies = system.blobs().into_iter().filter(|(key, _)| key.starts_with(&prefix));
        let bodies = bodies.map(|(key, body)| format!("body {key} {}", Checksum::of(&body)));
        rows.into_iter().chain(bodies).collect()
    }

    pub fn list() -> ListNotesRequest {
        ListNotesRequest { page_size: 200, show_deleted: true, ..ListNotesRequest::default() }
    }

    /// All that the owner can see.
    pub async fn sees(&self) -> Seen {
        let client = &self.client;
        let notes = client.list_all(Self::list()).await.unwrap();
        let file = client.download(&self.file.id, 0, 0).await.unwrap();
        let first = &self.notes[0].id;
        let (revisions, history) =
            tokio::join!(client.revisions(first, 0), client.history(first, 0));
        (notes, client.get(first).await.unwrap(), file, revisions.unwrap(), history.unwrap())
    }
}
