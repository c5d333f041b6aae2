//! A running service and short ways to talk to it.

use std::{
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use prost_types::Timestamp;
use synap_event_service::{Config, Service, StartError};
use synap_proto::event::{
    AppendEventsRequest, Event, ExpectedVersion, Heartbeat, NewEvent, ReadStreamRequest,
    StreamAppend, StreamAppendResult, SubscribeRequest, SubscribeResponse,
    event_service_client::EventServiceClient, expected_version::Expectation,
    subscribe_request::Start, subscribe_response::Message,
};
use synap_rpc::{Channel, RpcError};
use synap_testkit::postgres::{TestDatabase, TestServer};
use tokio::{process::Command as Process, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use uuid::Uuid;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) type Client = EventServiceClient<Channel>;

/// A service of this process; stopped when dropped.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) channel: Channel,
    pub(crate) url: String,
    stop: CancellationToken,
    task: JoinHandle<Result<(), StartError>>,
}

impl Running {
    /// Starts a service; it may not be ready yet.
    pub(crate) async fn start(database_url: &str, more: &[&str]) -> Self {
        let service = Service::bind(config(database_url, more)).await.unwrap();
        let url = format!("http://{}", service.local_addr());
        let stop = CancellationToken::new();
        let task = tokio::spawn(service.run(stop.clone()));
        let channel = Channel::connect("event-service", &url).unwrap();
        Self { client: EventServiceClient::new(channel.clone()), channel, url, stop, task }
    }

    pub(crate) async fn ready(self) -> Self {
        until("the service to be ready", || self.channel.is_ready()).await;
        self
    }

    pub(crate) async fn stop(mut self) -> Result<(), StartError> {
        self.stop.cancel();
        (&mut self.task).await.unwrap()
    }

    /// Waits for a service that gives up by itself.
    pub(crate) async fn outcome(mut self) -> Result<(), StartError> {
        (&mut self.task).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn config(database_url: &str, more: &[&str]) -> Config {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }
    let fixed = ["event-service", "--listen", "127.0.0.1:0", "--database-url", database_url];
    let mut config = Command::try_parse_from(fixed.iter().chain(more)).unwrap().config;
    if !more.contains(&"--upkeep-interval-secs") {
        // No upkeep, unless the test is of it.
        config.upkeep.upkeep_interval_secs = 0;
    }
    config
}

/// Runs a service as a process of its own, which does the upkeep and dies at a failpoint.
pub(crate) async fn dies_at(database_url: &str, more: &[&str], failpoint: &str) {
    let mut child = Process::new(env!("CARGO_BIN_EXE_event-service"))
        .args(["--listen", "127.0.0.1:0", "--database-url", database_url])
        .args(more)
        .env("SYNAP_FAILPOINT", format!("{failpoint}=kill"))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    let status = status.unwrap_or_else(|_| panic!("{failpoint} was not passed")).unwrap();
    assert_eq!(status.signal(), Some(9), "{failpoint}: {status}");
}

/// As if a minute had passed since whoever did the upkeep was heard of.
pub(crate) async fn expire_lease(database: &TestDatabase) {
    let expire = "UPDATE event_store.leases SET expires_at = '-infinity'";
    sqlx::query(expire).execute(&database.pool).await.unwrap();
}

/// As if all events had been recorded, and all files archived, so many days earlier; and no transaction
/// of another test holds back the feed before them.
pub(crate) async fn age(database: &TestDatabase, days: i32) {
    for statement in [
        "UPDATE event_store.events SET recorded_at = recorded_at - make_interval(days => $1)",
        "UPDATE event_store.archives SET changed_at = changed_at - make_interval(days => $1)",
    ] {
        sqlx::query(statement).bind(days).execute(&database.pool).await.unwrap();
    }
    let above = "SELECT count(*) FROM event_store.events
                 WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())";
    until("the horizon", async || count(database, above).await == 0).await;
}

/// Runs a service as a process of its own, which does the upkeep and stops at a failpoint: while the
/// file that this answers is there.
pub(crate) async fn pauses_at(
    database_url: &str,
    more: &[&str],
    failpoint: &str,
    folder: &std::path::Path,
) -> (tokio::process::Child, std::path::PathBuf) {
    let mark = folder.join("pause");
    let child = Process::new(env!("CARGO_BIN_EXE_event-service"))
        .args(["--listen", "127.0.0.1:0", "--database-url", database_url])
        .args(more)
        .env("SYNAP_FAILPOINT", format!("{failpoint}=pause"))
        .env("SYNAP_FAILPOINT_MARK", &mark)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until(failpoint, async || mark.exists()).await;
    (child, mark)
}

/// A database with the newest migration.
pub(crate) async fn database() -> TestDatabase {
    let migrate = async |url: String| synap_event_service::migrate(&url).await;
    TestServer::shared().await.database("event", migrate).await
}

/// A database with nothing in it.
pub(crate) async fn empty_database() -> TestDatabase {
    let nothing = async |_| Ok::<_, String>(());
    TestServer::shared().await.database("empty", nothing).await
}

/// A database and a service that is ready.
pub(crate) async fn service() -> (TestDatabase, Running) {
    let database = database().await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    (database, running)
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    within(PATIENCE, what, condition).await;
}

/// As [`until`], for what takes longer where there is more of it.
pub(crate) async fn within(limit: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ids that differ from test to test and from run to run mean nothing here: every test has a
/// database of its own.
pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0193_f6a0_0000_7000_8000_0000_0000_0000 + number)
}

pub(crate) fn event(number: u128) -> NewEvent {
    NewEvent {
        event_id: id(number).to_string(),
        r#type: "entity.created".to_owned(),
        occur_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 123_456_000 }),
        data: format!("{{\"number\": {number}}}"),
        ..NewEvent::default()
    }
}

/// One event for one stream of the user `ada`, whatever its version.
pub(crate) fn append(stream: u128, event_number: u128) -> StreamAppend {
    StreamAppend {
        aggregate_type: "note".to_owned(),
        aggregate_id: id(stream).to_string(),
        user_id: "ada".to_owned(),
        expected_version: None,
        events: vec![event(event_number)],
    }
}

pub(crate) fn exactly(version: i64) -> Option<ExpectedVersion> {
    expecting(Expectation::Exact(version))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field that it fills")]
pub(crate) fn expecting(expectation: Expectation) -> Option<ExpectedVersion> {
    Some(ExpectedVersion { expectation: Some(expectation) })
}

pub(crate) async fn send(
    client: &Client,
    appends: Vec<StreamAppend>,
) -> Result<Vec<StreamAppendResult>, RpcError> {
    let answer = client.clone().append_events(AppendEventsRequest { appends }).await;
    answer
        .map(|answer| answer.into_inner().results)
        .map_err(|status| RpcError::from_status(&status))
}

pub(crate) async fn send_one(
    client: &Client,
    append: StreamAppend,
) -> Result<StreamAppendResult, RpcError> {
    send(client, vec![append]).await.map(|results| results[0])
}

/// What a first append answers.
pub(crate) fn appended(first_version: i64, last_version: i64) -> StreamAppendResult {
    StreamAppendResult { first_version, last_version, duplicate: false }
}

/// What its repeat answers.
pub(crate) fn repeated(first_version: i64, last_version: i64) -> StreamAppendResult {
    StreamAppendResult { first_version, last_version, duplicate: true }
}

pub(crate) fn stream_of(user: &str, stream: u128) -> ReadStreamRequest {
    ReadStreamRequest {
        user_id: user.to_owned(),
        aggregate_type: "note".to_owned(),
        aggregate_id: id(stream).to_string(),
        ..ReadStreamRequest::default()
    }
}

pub(crate) async fn read(
    client: &Client,
    request: ReadStreamRequest,
) -> Result<Vec<Event>, RpcError> {
    let answers = client.clone().read_stream(request).await;
    let answers = answers.map_err(|status| RpcError::from_status(&status))?;
    answers
        .into_inner()
        .map(|answer| answer.map_err(|status| RpcError::from_status(&status)))
        .map_ok(|answer| answer.event.unwrap())
        .try_collect()
        .await
}

/// A subscription as a test reads it.
pub(crate) struct Feed {
    messages: Streaming<SubscribeResponse>,
}

impl Feed {
    pub(crate) async fn open(client: &Client, request: SubscribeRequest) -> Result<Self, RpcError> {
        let answer = client.clone().subscribe(request).await;
        let messages = answer.map_err(|status| RpcError::from_status(&status))?.into_inner();
        Ok(Self { messages })
    }

    pub(crate) async fn next(&mut self) -> Result<Message, RpcError> {
        let message = tokio::time::timeout(PATIENCE, self.messages.message()).await.unwrap();
        let message = message.map_err(|status| RpcError::from_status(&status))?;
        Ok(message.unwrap().message.unwrap())
    }

    /// The next events, whatever heartbeats come between.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            if let Message::Event(event) = self.next().await.unwrap() {
                events.push(event);
            }
        }
        events
    }

    /// The first heartbeat for which something holds; no event may come before it.
    pub(crate) async fn heartbeat(&mut self, condition: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.next().await.unwrap() {
                Message::Heartbeat(heartbeat) if condition(&heartbeat) => return heartbeat,
                Message::Heartbeat(_) => {}
                Message::Event(event) => panic!("an event: {event:?}"),
            }
        }
        panic!("waited too long for a heartbeat");
    }
}

/// From the beginning, with frequent heartbeats.
pub(crate) fn from_the_beginning() -> SubscribeRequest {
    SubscribeRequest {
        heartbeat_interval: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
        ..SubscribeRequest::default()
    }
}

pub(crate) fn from_now() -> SubscribeRequest {
    SubscribeRequest { start: Some(Start::Now(())), ..from_the_beginning() }
}

pub(crate) fn after(cursor: &str) -> SubscribeRequest {
    SubscribeRequest { start: Some(Start::Cursor(cursor.to_owned())), ..from_the_beginning() }
}

pub(crate) fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.event_id.as_str()).collect()
}

pub(crate) async fn count(database: &TestDatabase, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&database.pool).await.unwrap()
}
