//! Parts that are away, hang, or come back: a clear answer in time, nothing half there, and no
//! hand is needed for the recovery.

use std::time::Duration;

use crate::support::{
    Armed, Client, Name, System, eventually,
    http::assert_envelope,
    refusal::{assert_status, assert_unavailable},
};
use reqwest::Method;
use serde_json::json;
use synap_postgres::{PoolOptions, connect_pool};
use synap_proto::{entity::StoragePhase, gateway::Note, reason};
use synap_testkit::postgres::TestServer;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const ID: &str = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";

/// What an answer may take beyond its deadline to come to us from a busy machine.
const SLACK: Duration = Duration::from_secs(1);

/// Waits for an answer and checks that it came within its deadline.
async fn in_time<T>(limit: Duration, call: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = call.await;
    assert!(begun.elapsed() < limit + SLACK, "{:?} instead of {limit:?}", begun.elapsed());
    answer
}

/// CreateNote and GetNote with a deadline, both answered within it.
async fn try_both(client: &Client, note: &Note) -> [Status; 2] {
    let limit = Duration::from_secs(3);
    let created = in_time(limit, client.create_within(limit, "new", ID)).await;
    let read = in_time(limit, client.get_within(limit, &note.id)).await;
    [created.unwrap_err(), read.unwrap_err()]
}

/// From here on a body is read in the object store only: in `dual_write`, where a system begins, a
/// note can be read without it (see `damage`).
async fn only_one_copy(system: &System) {
    system.change_phase(StoragePhase::DualWrite, StoragePhase::ObjectPrimary).await;
}

/// The row is there, and its body cannot be had now: which one is said.
#[track_caller]
fn assert_body_unreachable(status: &Status, note: &Note) {
    assert_unavailable(status, reason::SERVICE_UNAVAILABLE);
    assert!(status.message().contains(&note.id), "{status:?}");
    assert!(status.message().contains("revision 1"), "{status:?}");
}

/// Calls again and again with one request id, as a client would, until the note is there.
async fn create_at_last(client: &Client) -> Note {
    let note = std::cell::RefCell::new(None);
    eventually("a note can be created again", || async {
        *note.borrow_mut() = client.create("new", ID).await.ok();
        note.borrow().is_some()
    })
    .await;
    note.take().unwrap().0
}

async fn health(system: &System, name: Name, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(system.channel(name)).check(request).await.unwrap().into_inner().status()
}

async fn is_http_ready(system: &System) -> bool {
    let answer = system.edge("ada").request(Method::GET, "/readyz").send().await;
    answer.unwrap().status().is_success()
}

/// The gateway and a service say that they live and cannot work.
async fn unready(system: &System, service: Name) {
    for name in [service, Name::Gateway] {
        eventually(&format!("{} is not ready", name.text()), || async {
            health(system, name, "readiness").await == ServingStatus::NotServing
        })
        .await;
        assert_eq!(health(system, name, "liveness").await, ServingStatus::Serving);
    }
    assert!(!is_http_ready(system).await);
}

/// Both notes are there, and nothing else.
async fn recovered(system: &System, client: &Client, old: &Note) {
    let new = create_at_last(client).await;
    for name in Name::ALL {
        system.ready(name).await;
    }
    assert!(is_http_ready(system).await);
    assert_eq!(client.get(&old.id).await.unwrap().content, "old");
    assert_eq!(client.get(&new.id).await.unwrap().content, "new");
    system.retry_deletions().await;
    system.settled().await;
    let bodies = system.check_whole().await;
    let expected = [(old.id.clone(), "old".to_owned()), (new.id, "new".to_owned())];
    assert_eq!(bodies, expected.into());
}

#[tokio::test]
async fn the_database_stops_and_comes_back() {
    let server = TestServer::start_private().await;
    let mut system = System::on(&server).await;
    system.start_all(None).await;
    let client = system.client("ada");
    let (old, _) = client.create("old", "").await.unwrap();

    server.provided().kill().await;
    for status in try_both(&client, &old).await {
        match status.code() {
            Code::Unavailable => assert_unavailable(&status, reason::DATABASE_UNAVAILABLE),
            _ => assert_status(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED),
        }
    }
    unready(&system, Name::Entity).await;
    // Who does not need the database does not mind.
    assert_eq!(health(&system, Name::Content, "readiness").await, ServingStatus::Serving);

    server.provided().restart().await.unwrap();
    // Our own connections are as broken as the services'.
    system.database.pool = connect_pool(&system.database.url, &PoolOptions::new("test")).unwrap();
    recovered(&system, &client, &old).await;
}

#[tokio::test]
async fn the_store_cannot_be_written_to() {
    let system = System::start().await;
    only_one_copy(&system).await;
    let client = system.client("ada");
    let (old, _) = client.create("old", "").await.unwrap();

    // A file where the directory was: that stops root, too.
    let aside = system.directory.path().join("aside");
    std::fs::rename(system.blob_dir(), &aside).unwrap();
    std::fs::write(system.blob_dir(), "not a directory").unwrap();
    let [created, read] = try_both(&client, &old).await;
    assert_unavailable(&created, reason::STORE_UNAVAILABLE);
    assert_body_unreachable(&read, &old);
    let refused = system.edge("ada").create(&json!({ "content": "new" })).await;
    assert_envelope(&refused, 503, "SERVICE_UNAVAILABLE", reason::STORE_UNAVAILABLE);
    unready(&system, Name::Content).await;
    assert_eq!(health(&system, Name::Entity, "readiness").await, ServingStatus::Serving);
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM entities")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(notes, 1);

    std::fs::remove_file(system.blob_dir()).unwrap();
    std::fs::rename(&aside, system.blob_dir()).unwrap();
    recovered(&system, &client, &old).await;
}

#[tokio::test]
async fn without_event_service_a_note_is_created_and_its_event_follows_once() {
    let mut system = System::start().await;
    let client = system.client("ada");
    let (old, event_pending) = client.create("old", "").await.unwrap();
    assert!(!event_pending);
    system.settled().await;

    system.kill(Name::Event).await;
    let limit = Duration::from_secs(3);
    let answer = in_time(limit, client.create_within(limit, "new", ID)).await;
    let (new, event_pending) = answer.unwrap();
    assert!(event_pending);
    // The note is there, before its event and after; a repeat says that it still follows.
    assert_eq!(client.get(&new.id).await.unwrap().content, "new");
    assert_eq!(client.create("new", ID).await.unwrap(), (new.clone(), true));
    // Writing does not depend on it, and readiness says so.
    assert_eq!(health(&system, Name::Gateway, "readiness").await, ServingStatus::Serving);

    system.spawn(Name::Event, None);
    system.ready(Name::Event).await;
    recovered(&system, &client, &old).await;
    assert_eq!(client.create("new", ID).await.unwrap(), (new, false));
}

#[tokio::test]
async fn a_service_that_is_away_is_named_and_missed_until_it_is_back() {
    for name in [Name::Content, Name::Entity] {
        let mut system = System::start().await;
        only_one_copy(&system).await;
        let client = system.client("ada");
        let (old, _) = client.create("old", "").await.unwrap();
        system.kill(name).await;
        let [created, read] = try_both(&client, &old).await;
        assert_unavailable(&created, reason::SERVICE_UNAVAILABLE);
        assert!(created.message().contains(name.text()), "{created:?}");
        if name == Name::Content {
            assert_body_unreachable(&read, &old);
        } else {
            assert_unavailable(&read, reason::SERVICE_UNAVAILABLE);
            assert!(read.message().contains(name.text()), "{read:?}");
        }
        system.spawn(name, None);
        recovered(&system, &client, &old).await;
    }
}

#[tokio::test]
async fn a_service_that_hangs_takes_nobody_beyond_a_deadline() {
    let system = System::start().await;
    only_one_copy(&system).await;
    let client = system.client("ada");
    let (old, _) = client.create("old", "").await.unwrap();
    for name in [Name::Content, Name::Entity] {
        system.signal(name, "STOP");
        let limit = Duration::from_secs(1);
        let created = in_time(limit, client.create_within(limit, "never seen", "")).await;
        assert_status(&created.unwrap_err(), Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
        let read = in_time(limit, client.get_within(limit, &old.id)).await.unwrap_err();
        if name == Name::Content {
            // Half of the time is enough to know.
            assert_body_unreachable(&read, &old);
        } else {
            assert_status(&read, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
        }
        system.signal(name, "CONT");
        system.ready(name).await;
        // Whatever of it still arrives is undone.
        eventually("recovery has seen it", || async {
            system.retry_deletions().await;
            system.settled_now().await
        })
        .await;
        assert_eq!(system.check_whole().await.len(), 1, "{}", name.text());
    }

    // After the pivot nothing is an error: the answer comes in time, without the event.
    system.signal(Name::Event, "STOP");
    let limit = Duration::from_secs(3);
    let answer = in_time(limit, client.create_within(limit, "new", ID)).await;
    let (new, event_pending) = answer.unwrap();
    assert!(event_pending);
    system.signal(Name::Event, "CONT");
    recovered(&system, &client, &old).await;
    assert_eq!(client.create("new", ID).await.unwrap(), (new, false));
}

/// Every process at once, in the middle of a write: what a power cut leaves.
#[tokio::test]
async fn everything_dies_at_once() {
    let mut system = System::new().await;
    let armed = Armed("gateway.append.before".to_owned(), "pause");
    system.start_all(Some((Name::Gateway, armed))).await;
    let client = system.client("ada");
    let lost = tokio::spawn({
        let client = client.clone();
        async move { client.create("new", ID).await }
    });
    let mark = system.mark();
    eventually("a note is committed", || async { mark.exists() }).await;
    let (old, _) = client.create("old", "").await.unwrap();
    for name in Name::ALL {
        system.kill(name).await;
    }
    std::fs::remove_file(&mark).unwrap();
    lost.await.unwrap().unwrap_err();
    for name in Name::ALL {
        system.spawn(name, None);
    }
    for name in Name::ALL {
        system.ready(name).await;
    }
    system.settled().await;
    // The one that nobody heard of was committed: it is there as well.
    assert_eq!(system.check_whole().await.len(), 2);
    recovered(&system, &client, &old).await;
}
