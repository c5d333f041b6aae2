//! Two users with hundreds of notes each: whatever one calls with what is the other's, nothing of it can be
//! told from what does not exist, and nothing of it changes.

mod owner;

use std::{cell::RefCell, collections::BTreeSet, fmt::Debug};

use futures::{StreamExt as _, stream};
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use synap_proto::{
    gateway::{
        CreateDownloadUrlRequest, GetDailyActivityRequest, GetNoteHistoryRequest,
        ListNoteRevisionsRequest, ListNotesRequest, ListUserEventsRequest, Note,
        SearchNotesRequest,
    },
    reason,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use self::owner::{AT_ONCE, Owner, Seen, all, ids_of, pdf_upload};
use crate::support::{
    System,
    files::put,
    notes::seen,
    refusal::{assert_etag, assert_field, assert_status},
};

/// An id that nobody has.
const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

/// One user with what is another's.
struct Stranger<'a> {
    me: &'a Owner,
    owner: &'a Owner,
    called: &'a RefCell<BTreeSet<&'static str>>,
}

impl Stranger<'_> {
    /// The answer has nothing of the owner's.
    fn check_silent(&self, method: &'static str, answer: &impl Debug) {
        self.called.borrow_mut().insert(method);
        let text = format!("{answer:?}");
        for secret in [&self.owner.secret, &format!("users/{}/", self.owner.name)] {
            assert!(!text.contains(secret), "{method} tells {secret}: {text}");
        }
    }

    /// The method refuses what is the owner's exactly as it refuses what does not exist.
    async fn is_blind<'i, T: Debug>(
        &self,
        method: &'static str,
        ids: impl Iterator<Item = &'i str>,
        call: impl AsyncFn(&str) -> Result<T, Status>,
    ) {
        let described = |status: &Status, id: &str| {
            let details = format!("{} {:?}", status.message(), status.get_error_details());
            (status.code(), details.replace(id, ""))
        };
        let of_nothing = call(NOBODYS).await.unwrap_err();
        assert_status(&of_nothing, Code::NotFound, reason::NOT_FOUND);
        let call = &call;
        let calls = stream::iter(ids).map(|id| async move { (id, call(id).await.unwrap_err()) });
        let refused: Vec<_> = calls.buffered(AT_ONCE).collect().await;
        for (id, refused) in refused {
            assert_eq!(described(&refused, id), described(&of_nothing, NOBODYS), "{method}");
            self.check_silent(method, &refused);
        }
    }

    /// The owner sees what the owner saw, and nothing of what is kept has changed.
    async fn assert_unchanged(&self, before: (Seen, BTreeSet<String>), system: &System) {
        let changed = &before.1 ^ &self.owner.has(system).await;
        assert_eq!(changed, BTreeSet::new(), "was there, or is there now");
        assert_eq!(self.owner.sees().await, before.0);
    }

    async fn with_ids(&self) {
        let client = &self.me.client;
        let ids = || ids_of(&self.owner.notes);
        let named = |id: &str| Note {
            id: id.to_owned(),
            content: "mine now".to_owned(),
            ..Note::default()
        };
        let etag = &self.owner.notes[1].etag;
        // Each id one way, every other in another form.
        let other = |id: &str| id.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']);
        self.is_blind("GetNote", ids(), async |id| {
            if other(id) { client.get_at(id, 1).await } else { client.get(id).await }
        })
        .await;
        self.is_blind("ListNoteRevisions", ids(), async |id| client.revisions(id, 0).await).await;
        self.is_blind("GetNoteHistory", ids(), async |id| client.history(id, 0).await).await;
        self.is_blind("UpdateNote", ids(), async |id| client.update(named(id), &[], "").await)
            .await;
        self.is_blind("DeleteNote", ids(), async |id| {
            client.delete(id, if other(id) { etag } else { "" }, "").await
        })
        .await;
        self.is_blind("UndeleteNote", ids(), async |id| client.undelete(id, "", "").await).await;

        let file = || std::iter::once(self.owner.file.id.as_str());
        self.is_blind("GetFile", file(), async |id| client.get_file(id).await).await;
        self.is_blind("DownloadFile", file(), async |id| client.download(id, 0, 0).await).await;
        self.is_blind("DeleteFile", file(), async |id| client.delete_file(id, "", "").await).await;
        self.is_blind("CreateDownloadUrl", file(), async |id| {
            let request = CreateDownloadUrlRequest { id: id.to_owned(), expires_in: None };
            client.files().create_download_url(client.request(request)).await
        })
        .await;
        let uploads = std::iter::once(&self.owner.upload.upload_id).chain(&self.owner.request_ids);
        let uploads = uploads.map(String::as_str);
        self.is_blind("CompleteUpload", uploads, async |id| client.complete(id).await).await;
    }

    /// Etags of the owner's are of no version of anything of mine.
    async fn with_etags(&self) {
        let client = &self.me.client;
        let refused = async |(n, (mine, theirs)): (usize, (&Note, &Note))| {
            let refused = if n % 2 == 0 {
                let change = Note { content: "changed".to_owned(), ..seen(mine) };
                client.update(Note { etag: theirs.etag.clone(), ..change }, &[], "").await
            } else {
                client.delete(&mine.id, &theirs.etag, "").await
            };
            assert_etag(&refused.unwrap_err(), &mine.etag);
        };
        // The first has been changed since, the last is deleted.
        let notes = self.me.notes.iter().zip(&self.owner.notes);
        let notes = notes.take(self.me.notes.len() - 1).skip(1);
        stream::iter(notes.enumerate())
            .map(refused)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
        let (mine, theirs) = (&self.me.deleted, &self.owner.deleted);
        let refused = client.undelete(&mine.id, &theirs.etag, "").await.unwrap_err();
        assert_etag(&refused, &mine.etag);
        let (mine, theirs) = (&self.me.file, &self.owner.file);
        let refused = client.delete_file(&mine.id, &theirs.etag, "").await.unwrap_err();
        assert_etag(&refused, &mine.etag);
    }

    /// Page tokens of the owner's go on with nothing; and lists and searches have what is mine only.
    async fn with_page_tokens(&self) {
        let (mine, theirs) = (&self.me.client, &self.owner.client);
        let refused = |method: &'static str, status: Status| {
            assert_field(&status, reason::INVALID_FIELD, "page_token");
            self.check_silent(method, &status);
        };
        let mut list = ListNotesRequest { page_size: 10, ..Owner::list() };
        list.page_token = theirs.list(list.clone()).await.unwrap().next_page_token;
        refused("ListNotes", mine.list(list).await.unwrap_err());
        let all = mine.list_all(Owner::list()).await.unwrap();
        assert_eq!(all.len(), self.me.notes.len());
        self.check_silent("ListNotes", &all);

        let query = "note".to_owned();
        let mut search = SearchNotesRequest { query, page_size: 10, ..Default::default() };
        search.page_token = theirs.search(search.clone()).await.unwrap().next_page_token;
        refused("SearchNotes", mine.search(search).await.unwrap_err());
        for (query, query_vector) in [
            (self.owner.secret.clone(), Vec::new()),
            ("note or title".to_owned(), Vec::new()),
            (self.owner.secret.clone(), self.owner.vector.clone()),
            (String::new(), self.owner.vector.clone()),
        ] {
            let request = SearchNotesRequest { query, query_vector, ..Default::default() };
            self.check_silent("SearchNotes", &mine.search(request).await.unwrap());
        }

        // With the owner's note, and with one of mine.
        let (of_theirs, of_mine) = (self.owner.notes[0].id.clone(), self.me.notes[0].id.clone());
        let mut revisions =
            ListNoteRevisionsRequest { id: of_theirs, page_size: 1, page_token: String::new() };
        let mut history = GetNoteHistoryRequest {
            id: revisions.id.clone(),
            page_size: 1,
            page_token: String::new(),
        };
        let asked = theirs.request(revisions.clone());
        let page = theirs.stub.clone().list_note_revisions(asked).await.unwrap();
        revisions.page_token = page.into_inner().next_page_token;
        let page = theirs.stub.clone().get_note_history(theirs.request(history.clone())).await;
        history.page_token = page.unwrap().into_inner().next_page_token;
        for id in [revisions.id.clone(), of_mine] {
            revisions.id.clone_from(&id);
            let asked = mine.request(revisions.clone());
            let status = mine.stub.clone().list_note_revisions(asked).await.unwrap_err();
            refused("ListNoteRevisions", status);
            history.id = id;
            let asked = mine.request(history.clone());
            refused("GetNoteHistory", mine.stub.clone().get_note_history(asked).await.unwrap_err());
        }
    }

    /// The owner's events are in no list and no watch of mine, also where a cursor or a token of the
    /// owner's says to begin.
    async fn with_cursors(&self) {
        let (mine, theirs) = (&self.me.client, &self.owner.client);
        let page = ListUserEventsRequest { page_size: 10, ..ListUserEventsRequest::default() };
        let of_theirs = theirs.events(page.clone()).await.unwrap();
        let page_token = of_theirs.next_page_token;
        let status = mine.events(ListUserEventsRequest { page_token, ..page.clone() }).await;
        assert_field(&status.unwrap_err(), reason::INVALID_FIELD, "page_token");
        self.check_silent("ListUserEvents", &mine.events(page).await.unwrap());
        let mut days = GetDailyActivityRequest {
            start_date: "2026-01-01".to_owned(),
            end_date: "2035-12-31".to_owned(),
            page_size: 1,
            page_token: String::new(),
        };
        days.page_token = theirs.days(days.clone()).await.unwrap().next_page_token;
        let status = mine.days(days.clone()).await.unwrap_err();
        assert_field(&status, reason::INVALID_FIELD, "page_token");
        days.page_token.clear();
        self.check_silent("GetDailyActivity", &mine.days(days).await.unwrap());
        // Mine are after it, or nothing is; a message without an event says that all was looked at.
        let mut watch = mine.watch(&of_theirs.events[9].cursor).await.unwrap();
        let theirs: BTreeSet<_> = ids_of(&self.owner.notes).collect();
        while let Some(event) = watch.next().await.unwrap().event {
            assert!(!theirs.contains(event.entity_id.as_str()));
            self.check_silent("WatchEvents", &event);
        }
        self.check_silent("WatchEvents", &"");
    }

    /// Request ids of the owner's are not taken: each stands for what I ask.
    async fn with_request_ids(&self) {
        let client = &self.me.client;
        let ids = &self.owner.request_ids;
        // Three fifths of them for new notes, a tenth for each of the other things.
        let (create, rest) = ids.split_at(ids.len() / 5 * 3);
        let fresh = all(stream::iter(create).map(|id| async {
            let (note, _) = client.create("mine", id).await?;
            Ok(note)
        }))
        .await;
        self.check_silent("CreateNote", &fresh);
        let theirs: BTreeSet<_> = ids_of(&self.owner.notes).collect();
        assert!(ids_of(&fresh).all(|id| !theirs.contains(id)));
        assert!(fresh.iter().all(|note| note.user_id == self.me.name));
        // The same notes are changed, deleted and undeleted, each under an id of its own.
        let mut tenths = rest.chunks(ids.len() / 10);
        let [update, delete, undelete, upload] = [(); 4].map(|()| tenths.next().unwrap());
        let edited = all(stream::iter(fresh.iter().zip(update).zip(delete).zip(undelete)).map(
            async |(((note, update), delete), undelete)| {
                let change = Note { content: "mine still".to_owned(), ..seen(note) };
                let (updated, _) = client.update(change, &[], update).await?;
                let (deleted, _) = client.delete(&note.id, &updated.etag, delete).await?;
                let (undeleted, _) = client.undelete(&note.id, &deleted.etag, undelete).await?;
                assert_eq!(undeleted.version, 4);
                Ok([updated, deleted, undeleted])
            },
        ))
        .await;
        self.check_silent("UndeleteNote", &edited);

        let files = all(stream::iter(upload.chunks(2)).map(async |pair| {
            let (metadata, body) = pdf_upload(&pair[0], "mine");
            let (file, _) = client.upload(metadata, &body).await?;
            let (gone, _) = client.delete_file(&file.id, &file.etag, &pair[1]).await?;
            assert_ne!(file.id, self.owner.file.id);
            Ok([file, gone])
        }))
        .await;
        self.check_silent("UploadFile", &files);
        // The same upload as the owner has begun, and yet another one.
        let (metadata, body) = pdf_upload(&self.owner.upload.upload_id, "mine");
        let url = client.upload_url(metadata).await.unwrap();
        assert_ne!(url.url, self.owner.upload.url);
        self.check_silent("CreateUploadUrl", &url);
        assert!(put(&url, body).await.is_success());
        let (file, _) = client.complete(&url.upload_id).await.unwrap();
        self.check_silent("CompleteUpload", &file);
    }
}

#[tokio::test]
async fn nothing_of_another_user_can_be_seen_or_changed() {
    let system = System::start().await;
    let (ada, eve) =
        tokio::join!(Owner::settle(&system, "ada", 1), Owner::settle(&system, "eve", 2));
    let called = RefCell::default();
    for (me, owner) in [(&eve, &ada), (&ada, &eve)] {
        let stranger = Stranger { me, owner, called: &called };
        let before = (owner.sees().await, owner.has(&system).await);
        stranger.with_ids().await;
        stranger.with_etags().await;
        stranger.with_page_tokens().await;
        stranger.with_cursors().await;
        stranger.assert_unchanged(before, &system).await;
    }
    for (me, owner) in [(&eve, &ada), (&ada, &eve)] {
        let before = (owner.sees().await, owner.has(&system).await);
        let stranger = Stranger { me, owner, called: &called };
        stranger.with_request_ids().await;
        stranger.assert_unchanged(before, &system).await;
    }
    for owner in [&ada, &eve] {
        assert!(put(&owner.upload, pdf_upload("", "").1).await.is_success());
        owner.client.complete(&owner.upload.upload_id).await.unwrap();
    }
    // Every body is the one that its note names.
    system.settled().await;
    system.check_everything().await;

    // What is there to be called is what was called: a method of tomorrow belongs here, too.
    let descriptors =
        FileDescriptorSet::decode(synap_proto::descriptors("synap.gateway.v1")).unwrap();
    let of_gateway = descriptors.file.iter().filter(|file| file.package() == "synap.gateway.v1");
    let services = of_gateway.flat_map(|file| &file.service);
    let methods: BTreeSet<&str> =
        services.flat_map(|service| &service.method).map(MethodDescriptorProto::name).collect();
    assert_eq!(called.into_inner(), methods);
}
