//! event-service, a process, and PostgreSQL are killed while 16 write and 4 follow the feed.
//! `SYNAP_TEST_APPENDS` says how many events are appended.

use std::{
    collections::HashMap,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use sqlx::{Connection as _, PgConnection};
use synap_proto::event::{
    SubscribeRequest, event_service_client::EventServiceClient, subscribe_response::Message,
};
use synap_rpc::{Channel, deadline};
use synap_testkit::{
    ports::Port,
    postgres::{TestDatabase, TestServer},
};

use crate::harness::{Client, Feed, after, append, count, from_the_beginning, send, until, within};

const WRITERS: u128 = 16;
const READERS: usize = 4;
const KILLS: usize = 10;
/// However many events lie between two kills, they take no longer.
const LONG: Duration = Duration::from_mins(10);

fn appends() -> u128 {
    std::env::var("SYNAP_TEST_APPENDS").map_or(4_000, |text| text.parse().unwrap())
}

/// event-service as a process, at one place whatever happens to it.
struct Process {
    port: Port,
    database_url: String,
    child: Mutex<Child>,
}

impl Process {
    fn start(database: &TestDatabase) -> Self {
        let port = Port::claim();
        let child = Self::spawn(&port, &database.url);
        Self { port, database_url: database.url.clone(), child: Mutex::new(child) }
    }

    fn spawn(port: &Port, database_url: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_event-service"))
            .args(["--listen", &format!("127.0.0.1:{}", port.number())])
            .args(["--database-url", database_url])
            // The events are of 2023, and are to stay. Partitions are made while it is killed.
            .args(["--retention-days", "36000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// SIGKILL, and another one in its place.
    fn replace(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        *child = Self::spawn(&self.port, &self.database_url);
    }

    fn client(&self) -> (Client, Channel) {
        let url = format!("http://127.0.0.1:{}", self.port.number());
        let channel = Channel::connect("event-service", &url).unwrap();
        (EventServiceClient::new(channel.clone()), channel)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Appends until it is acknowledged.
async fn surely(client: &Client, number: u128, stream: u128) {
    loop {
        let call = send(client, vec![append(stream, number)]);
        if let Ok(Ok(_)) = deadline::within(Duration::from_secs(5), call).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// One event as a reader sees it: its id, stream, version.
type Seen = (String, String, i64);

/// Follows the feed and resumes after its last cursor, until it has seen so many events.
async fn follow(client: Client, total: usize, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut request: SubscribeRequest = from_the_beginning();
    loop {
        let Ok(mut feed) = Feed::open(&client, request.clone()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while let Ok(message) = feed.next().await {
            match message {
                Message::Event(event) => {
                    request = after(&event.cursor);
                    let mut seen = seen.lock().unwrap();
                    seen.push((event.event_id, event.aggregate_id, event.version));
                    if seen.len() == total {
                        return;
                    }
                }
                Message::Heartbeat(heartbeat) => request = after(&heartbeat.cursor),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_repeat_nothing_and_change_no_order() {
    let server = TestServer::start_private().await;
    let database =
        server.database("kills", async |url| synap_event_service::migrate(&url).await).await;
    let process = Process::start(&database);
    let (client, channel) = process.client();
    until("the service to be ready", || channel.is_ready()).await;

    let total = usize::try_from(appends()).unwrap();
    let views: Vec<Arc<Mutex<Vec<Seen>>>> = (0..READERS).map(|_| Arc::default()).collect();
    let readers: Vec<_> = views
        .iter()
        .map(|seen| tokio::spawn(follow(process.client().0, total, Arc::clone(seen))))
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in (writer..appends()).step_by(16) {
                    surely(&client, number, (1 << 40) + number % 97).await;
                }
            })
        })
        .collect();

    let begun = Instant::now();
    // At even distances of what is stored.
    for kill in 1..=KILLS {
        let due = i64::try_from(total * kill / (KILLS + 1)).unwrap();
        within(LONG, "the next kill", async || {
            let stored = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM event_store.event_ids");
            stored.fetch_one(&database.pool).await.is_ok_and(|stored| stored >= due)
        })
        .await;
        if kill % 2 == 0 {
            server.provided().kill().await;
            server.provided().restart().await.unwrap();
        } else {
            process.replace();
        }
    }
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    println!("{total} appends, {KILLS} kills: {:.0} s", begun.elapsed().as_secs_f64());
    // All that was acknowledged is stored once.
    let mut fresh = PgConnection::connect(&database.url).await.unwrap();
    let stored: (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM event_store.events),
                (SELECT count(*) FROM event_store.event_ids),
                (SELECT count(*) FROM event_store.event_ids AS i
                 JOIN event_store.events AS e
                 USING (event_id, aggregate_type, aggregate_id, version, occurred_at)),
                (SELECT sum(count)::bigint FROM event_store.daily_activity)",
    )
    .fetch_one(&mut fresh)
    .await
    .unwrap();
    let all = i64::try_from(total).unwrap();
    assert_eq!(stored, (all, all, all, all), "events, ledger, both, counts");
    join_all(readers).await.into_iter().for_each(Result::unwrap);

    let first = views[0].lock().unwrap().clone();
    for seen in &views[1..] {
        assert!(*seen.lock().unwrap() == first, "two readers saw different orders");
    }
    let mut heads: HashMap<&str, i64> = HashMap::new();
    for (event, stream, version) in &first {
        let head = heads.entry(stream).or_insert(0);
        assert_eq!(*version, *head + 1, "{event} is out of order, missing or twice");
        *head = *version;
    }
    assert_eq!(heads.len(), 97);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_sent_a_thousand_times_across_restarts_is_one_event() {
    let server = TestServer::start_private().await;
    let database =
        server.database("repeats", async |url| synap_event_service::migrate(&url).await).await;
    let process = Process::start(&database);
    let (client, channel) = process.client();
    until("the service to be ready", || channel.is_ready()).await;
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let senders: Vec<_> = (0..20)
        .map(|_| {
            let (client, sent) = (client.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                for _ in 0..50 {
                    for _ in 0..fastrand() % 50 {
                        tokio::task::yield_now().await;
                    }
                    surely(&client, 1, 900).await;
                    sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    for restart in 1..=3 {
        let due = restart * 250;
        until("the next restart", async || sent.load(std::sync::atomic::Ordering::Relaxed) >= due)
            .await;
        process.replace();
    }
    join_all(senders).await.into_iter().for_each(Result::unwrap);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 1);
    assert_eq!(count(&database, "SELECT version FROM event_store.streams").await, 1);
}

/// A number that differs from call to call.
fn fastrand() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}
