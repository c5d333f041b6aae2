//! The notes as clients have them: through the gateway.

use std::sync::Arc;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use synap_proto::gateway::{
    CreateNoteRequest, GetNoteRequest, Note, SearchNotesRequest, UpdateNoteRequest,
    note_service_client::NoteServiceClient,
};
use synap_rpc::Channel;
use tonic::metadata::AsciiMetadataValue;

use super::{Kind, Side};
use crate::bench::{
    processes::Processes,
    system::{CALLERS_PER_CONNECTION, bearer_of, request},
};

/// Writers of the notes that are there before.
const WRITERS: usize = 64;
/// Results of a search.
const LIMIT: i32 = 20;

type Stub = NoteServiceClient<Channel>;

/// A client of the gateway, of many users.
#[derive(Clone)]
pub(super) struct Gateway {
    stubs: Arc<Vec<Stub>>,
    headers: Arc<Vec<AsciiMetadataValue>>,
    /// The ids of the notes that are there. The user of each is its place's.
    ids: Arc<std::sync::OnceLock<Vec<String>>>,
    pub(super) texts: Arc<Vec<String>>,
    pub(super) searches: Arc<Vec<String>>,
}

/// The user whose the note at a place is.
pub(super) fn user(place: usize, users: usize) -> String {
    format!("bench-{}", place % users)
}

impl Gateway {
    pub(super) fn connect(
        processes: &Processes,
        users: usize,
        texts: Arc<Vec<String>>,
        searches: Arc<Vec<String>>,
    ) -> anyhow::Result<Self> {
        let url = format!("http://{}", processes.address("gateway")?);
        let stubs = (0..WRITERS.div_ceil(CALLERS_PER_CONNECTION))
            .map(|_| Channel::connect("gateway", &url).map(NoteServiceClient::new))
            .collect::<Result<_, _>>()?;
        let headers = (0..users)
            .map(|place| bearer_of(&processes.secret, &user(place, users)))
            .collect::<Result<_, _>>()?;
        let (stubs, headers) = (Arc::new(stubs), Arc::new(headers));
        Ok(Self { stubs, headers, ids: Arc::default(), texts, searches })
    }

    pub(super) fn users(&self) -> usize {
        self.headers.len()
    }

    fn stub(&self, number: usize) -> Stub {
        self.stubs[number % self.stubs.len()].clone()
    }

    fn header(&self, number: usize) -> &AsciiMetadataValue {
        &self.headers[number % self.headers.len()]
    }

    fn text(&self, number: usize) -> String {
        self.texts[number % self.texts.len()].clone()
    }

    /// Writes the notes that are there before anything is measured, and returns their ids.
    pub(super) async fn write(&self, notes: usize) -> anyhow::Result<Vec<String>> {
        eprintln!("writing {notes} notes");
        let writes = (0..notes).map(|place| async move { self.create(place).await });
        let ids: Vec<String> =
            stream::iter(writes.collect::<Vec<_>>()).buffered(WRITERS).try_collect().await?;
        anyhow::ensure!(self.ids.set(ids.clone()).is_ok(), "the notes are written once");
        Ok(ids)
    }

    async fn create(&self, number: usize) -> anyhow::Result<String> {
        let note = CreateNoteRequest { content: self.text(number), ..Default::default() };
        let answer = self.stub(number).create_note(request(self.header(number), note)).await?;
        Ok(answer.into_inner().note.context("an answer without a note")?.id)
    }
}

impl Side for Gateway {
    async fn call(&self, kind: Kind, number: usize) -> anyhow::Result<()> {
        let ids = self.ids.get().context("no notes")?;
        let place = number % ids.len();
        let (mut stub, header) = (self.stub(number), self.header(place));
        match kind {
            Kind::Get => {
                let id = ids[place].clone();
                let get = GetNoteRequest { id, include_content: true, ..Default::default() };
                let answer = stub.get_note(request(header, get)).await?.into_inner();
                anyhow::ensure!(
                    answer.note.is_some_and(|note| !note.content.is_empty()),
                    "a note without content"
                );
            }
            Kind::Create => {
                self.create(number).await?;
            }
            Kind::Update => {
                let (id, content) = (ids[place].clone(), self.text(number));
                let note = Some(Note { id, content, ..Default::default() });
                let update = UpdateNoteRequest { note, ..Default::default() };
                stub.update_note(request(header, update)).await?;
            }
            Kind::Search => {
                let query = self.searches[number % self.searches.len()].clone();
                let search = SearchNotesRequest { query, limit: LIMIT, ..Default::default() };
                stub.search_notes(request(header, search)).await?;
            }
        }
        Ok(())
    }
}
