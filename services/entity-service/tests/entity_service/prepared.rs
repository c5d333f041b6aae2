//! Commits in two steps: done, and committed or not.

use futures::{
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    future::join_all,
};
use sqlx::PgPool;
use synap_proto::{
    entity::{self as pb, begin_operation_response::Outcome, prepare_commit_request::Step},
    reason,
};
use synap_rpc::RpcError;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{
    Answer, Api, Rows, Running, assert_fenced, assert_invalid, assert_refused, begin_request,
    commit_request, database, deletions, edit_request, expire_leases, id, operation, rows, service,
    set_phase, until, update_commit,
};

/// A call under way. Dropped, it breaks off.
struct Prepared {
    steps: UnboundedSender<pb::PrepareCommitRequest>,
    answer: JoinHandle<Answer<pb::Entity>>,
}

impl Prepared {
    fn call(api: &Api) -> Self {
        let (steps, messages) = unbounded();
        Self { steps, answer: tokio::spawn(call(api.clone(), messages)) }
    }

    fn of(api: &Api, commit: pb::CommitOperationRequest) -> Self {
        Self::call(api).then(Some(Step::Commit(commit)))
    }

    fn then(self, step: Option<Step>) -> Self {
        // If the call has ended, its answer says why.
        let _ = self.steps.unbounded_send(pb::PrepareCommitRequest { step });
        self
    }

    fn ended(self) -> Self {
        self.steps.close_channel();
        self
    }

    /// Waits until everything is done but the commit.
    async fn done(self, pool: &PgPool) -> Self {
        until("a commit to be prepared", async || {
            open(pool).await > 0 || self.answer.is_finished()
        })
        .await;
        self
    }

    async fn answer(mut self) -> Answer<pb::Entity> {
        (&mut self.answer).await.unwrap()
    }

    fn confirmed(self) -> Self {
        self.then(Some(Step::Confirm(())))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

async fn call(
    api: Api,
    messages: UnboundedReceiver<pb::PrepareCommitRequest>,
) -> Answer<pb::Entity> {
    Ok(api.operations().prepare_commit(messages).await?.into_inner().entity.unwrap())
}

/// Commits that are done and not committed.
async fn open(pool: &PgPool) -> i64 {
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'idle in transaction'
                  AND backend_xid IS NOT NULL";
    sqlx::query_scalar(open).fetch_one(pool).await.unwrap()
}

/// A slow machine has no connection in time, or does not confirm in time: then it is done again.
fn is_too_slow(answer: &Answer<pb::Entity>) -> bool {
    let reasons = [reason::COMMIT_UNCONFIRMED, reason::OVERLOADED];
    answer.as_ref().is_err_and(|error| reasons.contains(&error.reason.as_str()))
}

/// Prepares and confirms.
async fn settled(api: &Api, commit: &pb::CommitOperationRequest) -> Answer<pb::Entity> {
    loop {
        let answer = Prepared::of(api, commit.clone()).confirmed().answer().await;
        if !is_too_slow(&answer) {
            return answer;
        }
    }
}

async fn state(pool: &PgPool, started: &pb::OperationStarted) -> String {
    operation(pool, started.operation.as_ref()).await.state
}

/// Rows of one operation that has written nothing.
const NOTHING: Rows =
    Rows { entities: 0, content_blocks: 0, entity_revisions: 0, write_operations: 1, blob_gc: 0 };

#[tokio::test]
async fn what_is_prepared_is_seen_when_it_is_confirmed_and_only_then() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let started = api.start("ada", &id()).await;
    let commit = commit_request(&started, "body");
    let entity = loop {
        let prepared = Prepared::of(api, commit.clone()).done(pool).await;
        assert_eq!((rows(pool).await, state(pool, &started).await), (NOTHING, "PENDING".into()));
        let answer = prepared.confirmed().answer().await;
        if !is_too_slow(&answer) {
            break answer.unwrap();
        }
    };
    assert_eq!(entity.id, started.entity_id);
    assert_eq!(api.get("ada", &entity.id).await.unwrap().entity.as_ref(), Some(&entity));
    let once = Rows { entities: 1, content_blocks: 1, entity_revisions: 1, ..NOTHING };
    assert_eq!((rows(pool).await, state(pool, &started).await), (once, "COMMITTED".into()));
    // A reply that was lost is found, in either way.
    assert_eq!(api.commit(commit.clone()).await.unwrap(), entity);
    assert_eq!(settled(api, &commit).await.unwrap(), entity);
    assert_eq!(api.claim(10).await.unwrap().pending_events.len(), 0);
}

#[tokio::test]
async fn what_is_not_confirmed_leaves_nothing() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let started = api.start("ada", &id()).await;
    let commit = || commit_request(&started, "body");
    let prepared = async || Prepared::of(api, commit()).done(pool).await;
    drop(prepared().await);
    until("it to be rolled back", async || open(pool).await == 0).await;
    let answers = [
        prepared().await.ended().answer().await,
        prepared().await.then(None).answer().await,
        prepared().await.then(Some(Step::Commit(commit()))).answer().await,
        // Silent for as long as it is waited for.
        prepared().await.answer().await,
    ];
    for answer in answers {
        assert!(is_too_slow(&answer), "{answer:?}");
    }
    assert_eq!((open(pool).await, rows(pool).await), (0, NOTHING));
    assert_eq!(state(pool, &started).await, "PENDING");
    api.commit(commit()).await.unwrap();
}

#[tokio::test]
async fn an_attempt_is_given_up_under_its_prepared_commit() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let started = api.start("ada", &id()).await;
    let prepared = Prepared::of(api, commit_request(&started, "body")).done(pool).await;
    // Step 2 has failed: the call is broken off, and the abort does not wait for long.
    drop(prepared);
    api.abort(started.operation.clone()).await.unwrap();
    assert_eq!((rows(pool).await.entities, state(pool, &started).await), (0, "ABORTED".into()));
    assert_eq!(deletions(pool).await, [started.key.as_str()]);
    assert_fenced(settled(api, &commit_request(&started, "body")).await);
}

#[tokio::test]
async fn a_prepared_commit_and_a_take_over_race_and_one_of_them_wins() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    for confirms in [true, false] {
        let request = id();
        let slow = api.start("ada", &request).await;
        let commit = commit_request(&slow, "slow");
        expire_leases(pool).await;
        let prepared = Prepared::of(api, commit.clone()).done(pool).await;
        // Recovery leaves alone what is locked, and the next attempt waits for it.
        api.claim(10).await.unwrap();
        let begin = tokio::spawn({
            let (api, again) = (api.clone(), begin_request("ada", &request));
            async move { api.begin(again).await.unwrap() }
        });
        let answer = if confirms { prepared.confirmed() } else { prepared }.answer().await;
        match begin.await.unwrap() {
            Outcome::Committed(done) => assert_eq!(done.entity, answer.ok()),
            Outcome::Started(second) => {
                assert!(is_too_slow(&answer), "{answer:?}");
                assert_fenced(settled(api, &commit).await);
                settled(api, &commit_request(&second, "body")).await.unwrap();
            }
            Outcome::InProgress(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(rows(pool).await.entities, 2);
}

#[tokio::test]
async fn of_two_prepared_commits_of_one_operation_one_is_first() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    for confirms in [true, false] {
        let started = api.start("ada", &id()).await;
        let commit = || commit_request(&started, "body");
        let first = Prepared::of(api, commit()).done(pool).await;
        let second = Prepared::of(api, commit()).confirmed();
        let first = if confirms { first.confirmed() } else { first }.answer().await;
        let second = second.answer().await;
        let third = settled(api, &commit()).await.unwrap();
        for answer in [first, second] {
            match answer {
                Ok(entity) => assert_eq!(entity, third),
                // It waited for the other for too long.
                Err(error) if error.code == Code::Unavailable => {}
                answer => assert!(is_too_slow(&answer), "{answer:?}"),
            }
        }
    }
    assert_eq!(rows(pool).await.entities, 2);
}

#[tokio::test]
async fn a_change_of_the_phase_waits_for_what_is_prepared_and_stops_what_comes_after() {
    use pb::StoragePhase::{DualWrite, ObjectPrimary};
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let started = api.start("ada", &id()).await;
    let commit = commit_request(&started, "body");
    let prepared = Prepared::of(api, commit.clone()).done(pool).await;
    let change = api.change_phase(DualWrite, ObjectPrimary);
    let (changed, answer) = tokio::join!(change, prepared.answer());
    changed.unwrap();
    assert!(is_too_slow(&answer), "{answer:?}");
    assert_refused(settled(api, &commit).await, Code::Aborted, reason::PHASE_CHANGED);
    assert_eq!((rows(pool).await, open(pool).await), (NOTHING, 0));
    assert_eq!(state(pool, &started).await, "PENDING");
}

#[tokio::test]
async fn what_may_not_be_committed_is_not_prepared() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    set_phase(pool, "dual_write").await;
    let note = api.write("bob").await.1;
    let update = api.started(edit_request(pb::OperationKind::Update, "bob", &note.id, "md")).await;
    let started = api.start("ada", &id()).await;
    let commit = |body: &str| commit_request(&started, body);
    let searched = |text: String| {
        let mut commit = commit("body");
        commit.create.as_mut().unwrap().search_text = Some(text);
        commit
    };
    let large = "x".repeat(16 * 1024 + 1);
    let before = rows(pool).await;
    for (field, step) in [
        ("commit", None),
        ("commit", Some(Step::Confirm(()))),
        ("commit.create", Some(Step::Commit(update_commit(&update, "body")))),
        ("commit.create.content_block", Some(Step::Commit(commit(&large)))),
        ("commit.create.search_text", Some(Step::Commit(searched(large.clone())))),
        (
            "commit.operation",
            Some(Step::Commit(pb::CommitOperationRequest { operation: None, ..commit("body") })),
        ),
    ] {
        assert_invalid(Prepared::call(api).then(step).confirmed().answer().await, field);
    }
    // Nobody waits for a first message for long.
    assert_invalid(Prepared::call(api).answer().await, "commit");

    // Another user's operation, and another attempt's key.
    let mut stolen = commit("body");
    stolen.operation.as_mut().unwrap().user_id = "eve".to_owned();
    assert_fenced(settled(api, &stolen).await);
    let mut elsewhere = commit("body");
    elsewhere.create.as_mut().unwrap().file.as_mut().unwrap().path = note.file.unwrap().path;
    assert_invalid(settled(api, &elsewhere).await, "create.file.path");
    assert_eq!(rows(pool).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_open_calls_keep_two_connections_and_no_write_from_its_end() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let started = join_all((0..60).map(|_| async { api.start("ada", &id()).await })).await;
    let open_calls: Vec<_> =
        started.iter().map(|it| Prepared::of(api, commit_request(it, "body"))).collect();
    let mut most = 0;
    for _ in 0..5 {
        api.write("bob").await;
        most = most.max(open(pool).await);
    }
    assert!(most <= 2, "{most} were open at once");
    for answer in join_all(open_calls.into_iter().map(Prepared::answer)).await {
        assert!(is_too_slow(&answer), "{answer:?}");
    }
    assert_eq!((open(pool).await, rows(pool).await.entities), (0, 5));
}

#[tokio::test]
async fn a_small_pool_has_no_place() {
    let database = database().await;
    let few = ["--database-connections", "3"];
    let running = Running::start(&database.url, &few).await.ready().await;
    let started = running.api.start("ada", &id()).await;
    let refused = Prepared::of(&running.api, commit_request(&started, "body")).answer().await;
    let RpcError { code, reason, retry_after, .. } = refused.unwrap_err();
    assert_eq!((code, &*reason), (Code::ResourceExhausted, reason::OVERLOADED));
    assert!(retry_after.is_some());
    running.stop().await;
}
