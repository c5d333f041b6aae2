//! Calls the gateway as its clients do.

use std::time::Duration;

use synap_auth::Secret;
use synap_proto::gateway::{
    CreateNoteRequest, GetNoteRequest, ListNotesRequest, ListNotesResponse, Note,
    SearchNotesRequest, SearchNotesResponse, SearchResult, note_service_client::NoteServiceClient,
};
use synap_rpc::Channel;
use synap_types::{SystemClock, UserId};
use tonic::{Request, Status, metadata::MetadataValue};

use super::{SECRET, SOON};

pub fn token(user: &str) -> String {
    let user = UserId::parse(user).unwrap();
    let secret = Secret::new(SECRET);
    synap_auth::issue_hs256(&secret, &user, Duration::from_hours(1), &SystemClock)
}

/// Calls the gateway as one user.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub stub: NoteServiceClient<Channel>,
    pub token: String,
}

impl Client {
    pub fn new(channel: Channel, token: String) -> Self {
        let stub = NoteServiceClient::new(channel.clone());
        Self { channel, stub: stub.max_decoding_message_size(64 * 1024 * 1024), token }
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let header: MetadataValue<_> = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        request
    }

    pub async fn create(&self, content: &str, request_id: &str) -> Result<(Note, bool), Status> {
        self.send(self.request(new_note(content, request_id))).await
    }

    /// As [`create`](Self::create), with a deadline of the caller's.
    pub async fn create_within(
        &self,
        limit: Duration,
        content: &str,
        request_id: &str,
    ) -> Result<(Note, bool), Status> {
        let mut request = self.request(new_note(content, request_id));
        request.set_timeout(limit);
        self.send(request).await
    }

    pub async fn send(&self, request: Request<CreateNoteRequest>) -> Result<(Note, bool), Status> {
        let answer = self.stub.clone().create_note(request).await?.into_inner();
        Ok((answer.note.unwrap(), answer.event_pending))
    }

    pub async fn get(&self, id: &str) -> Result<Note, Status> {
        self.get_within(SOON, id).await
    }

    pub async fn get_within(&self, limit: Duration, id: &str) -> Result<Note, Status> {
        let message = GetNoteRequest { id: id.to_owned(), include_content: true, revision: 0 };
        let mut request = self.request(message);
        request.set_timeout(limit);
        let answer = self.stub.clone().get_note(request).await?;
        Ok(answer.into_inner().note.unwrap())
    }

    pub async fn list(&self, request: ListNotesRequest) -> Result<ListNotesResponse, Status> {
        Ok(self.stub.clone().list_notes(self.request(request)).await?.into_inner())
    }

    pub async fn search(&self, request: SearchNotesRequest) -> Result<SearchNotesResponse, Status> {
        Ok(self.stub.clone().search_notes(self.request(request)).await?.into_inner())
    }

    /// Every page of a search.
    pub async fn search_all(
        &self,
        mut request: SearchNotesRequest,
    ) -> Result<Vec<SearchResult>, Status> {
        let mut all = Vec::new();
        loop {
            let page = self.search(request.clone()).await?;
            all.extend(page.results);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Every page of a list.
    pub async fn list_all(&self, mut request: ListNotesRequest) -> Result<Vec<Note>, Status> {
        let mut all = Vec::new();
        loop {
            let page = self.list(request.clone()).await?;
            all.extend(page.notes);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }
}

pub fn new_note(content: &str, request_id: &str) -> CreateNoteRequest {
    CreateNoteRequest {
        content: content.to_owned(),
        request_id: request_id.to_owned(),
        ..CreateNoteRequest::default()
    }
}
