//! The crash matrix of every write: at each step of the write protocol, the gateway or the service
//! of that step is killed with SIGKILL before the step, after its effect but before the reply, and
//! after the reply. Real processes; the failpoints exist in test builds only.

use std::collections::BTreeMap;

use crate::support::{
    Armed, Client, Kept, Name, System, eventually,
    files::{metadata, pdf},
};
use futures::future::join_all;
use synap_proto::gateway::Note;
use tonic::Status;
use uuid::Uuid;

#[derive(Debug, Clone, Copy)]
enum Moment {
    Before,
    Effect,
    After,
}

/// What is being done while the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// New notes and small files.
    Creations,
    /// New notes, so few that their events are appended ahead.
    Notes,
    /// One of more than one part, beside a small one; on S3.
    LargeFiles,
    /// Of everything that can be done to what is there.
    Edits,
    /// By recovery, of what was deleted long ago.
    Purges,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    CreateNote,
    UploadFile,
    Rewrite,
    Retitle,
    Delete,
    DeleteFile,
    Undelete,
}

/// One call, and what must be there when it is done.
#[derive(Clone)]
struct Call {
    act: Act,
    request: String,
    body: Vec<u8>,
    /// The note or file that is there before, with its etag and its body then.
    id: String,
    etag: String,
    before: Vec<u8>,
}

impl Work {
    fn calls(self) -> Vec<Call> {
        use Act::{CreateNote, Delete, DeleteFile, Retitle, Rewrite, Undelete, UploadFile};
        let acts = match self {
            Self::Creations => {
                vec![CreateNote, UploadFile, CreateNote, UploadFile, CreateNote, UploadFile]
            }
            Self::Notes => vec![CreateNote, CreateNote],
            Self::LargeFiles => vec![UploadFile, UploadFile],
            Self::Edits => vec![Rewrite, Retitle, Delete, DeleteFile, Undelete, Rewrite],
            Self::Purges => vec![],
        };
        let large = self == Self::LargeFiles;
        let size = |n| if large && n == 0 { 9 * 1024 * 1024 } else { 1000 };
        let call = |(n, act)| Call::new(n, act, size(n));
        (0..).zip(acts).map(call).collect()
    }
}

impl Call {
    fn new(n: u64, act: Act, size: usize) -> Self {
        let before = match act {
            Act::UploadFile | Act::DeleteFile => pdf(n, size),
            _ => format!("note {n}").into_bytes(),
        };
        let body =
            if act == Act::Rewrite { format!("again {n}").into_bytes() } else { before.clone() };
        let request = Uuid::from_u128(u128::from(n) + 1).to_string();
        Self { act, request, body, id: String::new(), etag: String::new(), before }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    /// Makes in peace what the call is about.
    async fn arrange(&mut self, client: &Client) {
        (self.id, self.etag) = match self.act {
            Act::CreateNote | Act::UploadFile => return,
            Act::DeleteFile => {
                let made = client.upload(metadata("application/pdf", ""), &self.before).await;
                let file = made.unwrap().0;
                (file.id, file.etag)
            }
            Act::Rewrite | Act::Retitle | Act::Delete | Act::Undelete => {
                let mut note = client.create(Self::text(&self.before), "").await.unwrap().0;
                if self.act == Act::Undelete {
                    note = client.delete(&note.id, &note.etag, "").await.unwrap().0;
                }
                (note.id, note.etag)
            }
        };
    }

    /// Returns the id of the note or file.
    async fn make(&self, client: &Client) -> Result<String, Status> {
        let Self { act, request, body, id, etag, before: _ } = self;
        let there = Note { id: id.clone(), etag: etag.clone(), ..Note::default() };
        Ok(match act {
            Act::CreateNote => client.create(Self::text(body), request).await?.0.id,
            Act::UploadFile => {
                client.upload(metadata("application/pdf", request), body).await?.0.id
            }
            Act::Rewrite => {
                let change = Note { content: Self::text(body).to_owned(), ..there };
                client.update(change, &["content"], request).await?.0.id
            }
            Act::Retitle => {
                let change = Note { title: "another".to_owned(), ..there };
                client.update(change, &["title"], request).await?.0.id
            }
            Act::Delete => client.delete(id, etag, request).await?.0.id,
            Act::DeleteFile => client.delete_file(id, etag, request).await?.0.id,
            Act::Undelete => client.undelete(id, etag, request).await?.0.id,
        })
    }

    /// The version that the call brings about, and whether what it was about is then deleted.
    fn outcome(&self) -> (i32, bool) {
        match self.act {
            Act::CreateNote | Act::UploadFile => (1, false),
            Act::Rewrite | Act::Retitle => (2, false),
            Act::Delete | Act::DeleteFile => (2, true),
            Act::Undelete => (3, false),
        }
    }

    /// The call has been acknowledged, so it has happened, as a whole and once.
    async fn check(&self, client: &Client, id: &str, kept: &BTreeMap<String, Kept>) {
        let there =
            kept.get(id).unwrap_or_else(|| panic!("{}, acknowledged, is lost", self.request));
        assert!(there.body == self.body, "another body");
        assert_eq!((there.version, there.deleted), self.outcome(), "{:?}", self.act);
        match self.act {
            Act::UploadFile => assert!(client.download(id, 0, 0).await.unwrap().1 == self.body),
            Act::DeleteFile => assert!(client.get_file(id).await.is_err()),
            Act::Delete => assert!(client.get(id).await.is_err()),
            Act::CreateNote | Act::Rewrite | Act::Retitle | Act::Undelete => {
                assert_eq!(client.get(id).await.unwrap().content.as_bytes(), self.body);
            }
        }
    }
}

/// Notes with two bodies each that are deleted; nobody purges them before they are old.
async fn arrange_deleted(client: &Client) {
    for n in 0..3 {
        let (note, _) = client.create(&format!("note {n}"), "").await.unwrap();
        client.rewrite(&note.id, &format!("again {n}")).await.unwrap();
        client.delete(&note.id, "", "").await.unwrap();
    }
}

async fn count(system: &System, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&system.database.pool).await.unwrap()
}

/// All deletions were longer ago than they are kept.
async fn grow_old(system: &System) {
    let age = "WITH old AS (UPDATE entities SET deleted_at = deleted_at - interval '31 days')
               UPDATE entity_revisions SET deleted_at = deleted_at - interval '31 days'";
    sqlx::query(age).execute(&system.database.pool).await.unwrap();
}

/// Starts a service anew with a failpoint. With the gateway goes what it may still have to finish:
/// that would meet the failpoint too soon.
async fn arm(system: &mut System, who: Name, armed: &Armed) {
    let mut again = vec![Name::Gateway];
    again.extend((who != Name::Gateway).then_some(who));
    for name in &again {
        system.kill(*name).await;
    }
    system.forget_mark();
    for name in &again {
        system.spawn(*name, (*name == who).then(|| armed.clone()));
    }
    for name in again {
        system.ready(name).await;
    }
}

/// Every way to die at a step that `service` carries out.
async fn crashes(work: Work, step: &str, service: Name) {
    // The gateway is new each time. A service that waits at its failpoint would keep it: that way
    // is the last.
    let ways = [
        (service, Moment::Before),
        (service, Moment::Effect),
        (service, Moment::After),
        (Name::Gateway, Moment::Before),
        (Name::Gateway, Moment::After),
        (Name::Gateway, Moment::Effect),
    ];
    crashes_of(work, step, service, &ways).await;
}

/// Some ways to die at a step that `service` carries out, one after the other in one system: only
/// who dies has to be new. Each has callers of its own, and after each everything is checked,
/// including what those before it left.
async fn crashes_of(work: Work, step: &str, service: Name, ways: &[(Name, Moment)]) {
    let mut system = System::new().await;
    if work == Work::LargeFiles {
        system.use_s3().await;
    }
    system.start_all(None).await;
    let mut there = 0;
    for &(victim, moment) in ways {
        println!("{} dies, {moment:?} {step}", victim.text());
        there = crash(&mut system, there, work, (step, service, moment), victim).await;
    }
    let events = "SELECT count(*) FROM event_store.events WHERE event_type = 'entity.purged'";
    let expected = if work == Work::Purges { 3 * ways.len() } else { 0 };
    assert_eq!(count(&system, events).await, i64::try_from(expected).unwrap());
}

/// Kills `victim` at a moment of a step that `service` carries out, and checks what is left. So
/// many entities are there before; returns how many are there afterwards.
async fn crash(
    system: &mut System,
    there: usize,
    work: Work,
    (step, service, moment): (&str, Name, Moment),
    victim: Name,
) -> usize {
    let at_gateway = victim == Name::Gateway;
    // Who has the failpoint, and whether it kills or lets us kill.
    let (who, place, action) = match (moment, at_gateway) {
        (Moment::Before, true) => (Name::Gateway, format!("gateway.{step}.before"), "kill"),
        (Moment::After, true) => (Name::Gateway, format!("gateway.{step}.after"), "kill"),
        (Moment::Before, false) => (service, format!("{step}.before"), "kill"),
        (Moment::Effect, false) => (service, format!("{step}.effect"), "kill"),
        // The service has had its effect and waits: the gateway dies without a reply.
        (Moment::Effect, true) => (service, format!("{step}.effect"), "pause"),
        // The gateway has the reply and waits: the service dies after it.
        (Moment::After, false) => (Name::Gateway, format!("gateway.{step}.after"), "pause"),
    };
    let user = format!("{moment:?} {}", victim.text());
    let mut calls = work.calls();
    // What there is to change is made in peace.
    let client = system.client(&user);
    join_all(calls.iter_mut().map(|call| call.arrange(&client))).await;
    if work == Work::Purges {
        arrange_deleted(&client).await;
    }
    system.settled().await;
    arm(system, who, &Armed(place, action)).await;

    let client = system.client(&user);
    let made: Vec<_> = calls
        .iter()
        .map(|call| {
            let (client, call) = (client.clone(), call.clone());
            tokio::spawn(async move { call.make(&client).await })
        })
        .collect();
    if work == Work::Purges {
        grow_old(system).await;
    }

    if action == "kill" {
        system.died(victim).await;
    } else {
        let mark = system.mark();
        eventually("the failpoint is reached", || async { mark.exists() }).await;
        system.kill(victim).await;
        std::fs::remove_file(&mark).unwrap();
    }
    system.spawn(victim, None);
    system.ready(victim).await;

    let answers: Vec<_> = join_all(made).await.into_iter().map(Result::unwrap).collect();
    if work == Work::Purges {
        eventually("all are purged", || async {
            count(system, "SELECT count(*) FROM entities").await == 0
        })
        .await;
    }
    system.settled().await;
    let kept = system.check_everything().await;
    if work == Work::Purges {
        assert!(system.blobs().is_empty());
    }

    // Nothing that was acknowledged is lost or differs; of what was not, all or nothing is there.
    for (call, answer) in calls.iter().zip(&answers) {
        match answer {
            Ok(id) => call.check(&client, id, &kept).await,
            Err(_) => {
                if let Some(there) = kept.get(&call.id) {
                    let (version, deleted) = call.outcome();
                    let done = (there.version, there.deleted) == (version, deleted);
                    assert!(done || there.version == version - 1, "{there:?}");
                    assert!(there.body == if done { &call.body[..] } else { &call.before });
                }
            }
        }
    }
    // Whatever was not acknowledged can be repeated, and is there once.
    let mut ids = Vec::new();
    for (call, answer) in calls.iter().zip(&answers) {
        let again = call.make(&client).await.unwrap();
        if let Ok(first) = answer {
            assert_eq!(again, *first);
        }
        ids.push(again);
    }
    system.settled().await;
    let kept = system.check_everything().await;
    for (call, id) in calls.iter().zip(&ids) {
        call.check(&client, id, &kept).await;
    }
    assert_eq!(kept.len(), there + calls.len());
    assert_eq!(system.unfinished_uploads(), Vec::<String>::new());
    kept.len()
}

/// The event is appended and not committed, and its pivot is not there yet.
#[tokio::test]
async fn creation_step_4_append_ahead() {
    let ways = [(Name::Event, Moment::Effect), (Name::Gateway, Moment::Effect)];
    crashes_of(Work::Notes, "prepare", Name::Event, &ways).await;
}

macro_rules! matrix {
    ($($work:ident, $test:ident: $step:literal, $service:ident;)*) => {$(
        #[tokio::test]
        async fn $test() {
            crashes(Work::$work, $step, Name::$service).await;
        }
    )*};
}

matrix! {
    Creations, creation_step_1_begin: "begin", Entity;
    Creations, creation_step_2_put: "put", Content;
    Creations, creation_step_3_commit: "commit", Entity;
    Creations, creation_step_4_append: "append", Event;
    Creations, creation_step_5_finish: "finish", Entity;
    LargeFiles, large_file_step_1_begin: "begin", Entity;
    LargeFiles, large_file_step_2_put: "put", Content;
    LargeFiles, large_file_step_3_commit: "commit", Entity;
    LargeFiles, large_file_step_4_append: "append", Event;
    LargeFiles, large_file_step_5_finish: "finish", Entity;
    Edits, edit_step_1_begin: "begin", Entity;
    Edits, edit_step_2_put: "put", Content;
    Edits, edit_step_3_commit: "commit", Entity;
    Edits, edit_step_4_append: "append", Event;
    Edits, edit_step_5_finish: "finish", Entity;
    Purges, purge_step_1_begin: "begin", Entity;
    Purges, purge_step_3_commit: "commit", Entity;
    Purges, purge_step_4_append: "append", Event;
    Purges, purge_step_5_finish: "finish", Entity;
}
