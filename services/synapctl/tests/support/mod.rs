//! A whole system in real processes, on a database and a blob directory of its own.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use synap_auth::Secret;
use synap_proto::gateway::{
    CreateNoteRequest, GetNoteRequest, Note, note_service_client::NoteServiceClient,
};
use synap_rpc::Channel;
use synap_testkit::{
    ports::Port,
    postgres::{TestDatabase, TestServer},
};
use synap_types::{SystemClock, UserId};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};
use tonic::{Request, Status, metadata::MetadataValue};

pub const SECRET: &str = "the secret of a test, and of nobody else";

/// What must happen soon; the limit only decides how long a failing test takes.
pub const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    Content,
    Entity,
    Event,
    Gateway,
}

impl Name {
    pub const ALL: [Self; 4] = [Self::Content, Self::Entity, Self::Event, Self::Gateway];

    pub fn text(self) -> &'static str {
        match self {
            Self::Content => "content-service",
            Self::Entity => "entity-service",
            Self::Event => "event-service",
            Self::Gateway => "gateway",
        }
    }
}

/// A failpoint to arm: place and action.
#[derive(Debug, Clone)]
pub struct Armed(pub String, pub &'static str);

pub struct System {
    pub database: TestDatabase,
    pub directory: TempDir,
    addresses: HashMap<Name, SocketAddr>,
    pub http: SocketAddr,
    processes: HashMap<Name, Child>,
    _ports: Vec<Port>,
    /// Set for every process on top of the short times of tests.
    pub environment: Vec<(&'static str, String)>,
}

impl System {
    /// Nothing runs yet.
    pub async fn new() -> Self {
        let server = TestServer::shared().await;
        let database = server.database("system", migrate).await;
        Self::on(database)
    }

    pub fn on(database: TestDatabase) -> Self {
        let ports: Vec<Port> = (0..5).map(|_| Port::claim()).collect();
        let address = |port: &Port| SocketAddr::from(([127, 0, 0, 1], port.number()));
        Self {
            database,
            directory: tempfile::tempdir().unwrap(),
            addresses: Name::ALL.into_iter().zip(ports.iter().map(address)).collect(),
            http: address(&ports[4]),
            _ports: ports,
            processes: HashMap::new(),
            environment: Vec::new(),
        }
    }

    /// All four services, ready.
    pub async fn start() -> Self {
        let mut system = Self::new().await;
        system.start_all(None).await;
        system
    }

    /// Starts all services, one of them with a failpoint.
    pub async fn start_all(&mut self, armed: Option<(Name, Armed)>) {
        for name in Name::ALL {
            let armed = armed.as_ref().filter(|(who, _)| *who == name).map(|(_, armed)| armed.clone());
            self.spawn(name, armed);
        }
        for name in Name::ALL {
            self.ready(name).await;
        }
    }

    /// Starts one service and does not wait for it.
    pub fn spawn(&mut self, name: Name, armed: Option<Armed>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        command.args(["run", name.text(), "--", "--listen", &self.addresses[&name].to_string()]);
        if name == Name::Gateway {
            let url = |name: Name| format!("http://{}", self.addresses[&name]);
            command.args(["--http-listen", &self.http.to_string()]);
            command.args(["--content-url", &url(Name::Content)]);
            command.args(["--entity-url", &url(Name::Entity), "--event-url", &url(Name::Event)]);
        }
        let short_times = [
            ("OPERATION_LEASE_SECS", "1"),
            ("EVENT_LEASE_SECS", "0.3"),
            ("BLOB_SETTLE_SECS", "1"),
            ("RECOVERY_INTERVAL_SECS", "0.1"),
            ("RECOVERY_MAX_INTERVAL_SECS", "0.2"),
            ("DEFAULT_DEADLINE_SECS", "5"),
            ("SHUTDOWN_GRACE_SECS", "3"),
            ("DATABASE_CONNECTIONS", "4"),
        ];
        command
            .envs(short_times)
            .env("ENTITY_DATABASE_URL", &self.database.url)
            .env("EVENT_DATABASE_URL", &self.database.url)
            .env("BLOB_DIR", self.blob_dir())
            .env("JWT_HS256_SECRET", SECRET)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .kill_on_drop(true);
        if let Some(Armed(place, action)) = armed {
            command.env("SYNAP_FAILPOINT", format!("{place}={action}"));
            command.env("SYNAP_FAILPOINT_MARK", self.mark());
        }
        self.processes.insert(name, command.spawn().unwrap());
    }

    fn log(&self, name: Name) -> Stdio {
        let path = self.directory.path().join(format!("{}.log", name.text()));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.into()
    }

    /// Waits until a service says that it is ready.
    pub async fn ready(&self, name: Name) {
        let channel = self.channel(name);
        eventually(&format!("{} is ready", name.text()), || async { channel.is_ready().await }).await;
    }

    /// kill -9, and the end of the process.
    pub async fn kill(&mut self, name: Name) {
        let mut child = self.processes.remove(&name).unwrap();
        child.kill().await.unwrap();
    }

    /// Waits until a process has died by itself.
    pub async fn died(&mut self, name: Name) {
        let mut child = self.processes.remove(&name).unwrap();
        let status = tokio::time::timeout(SOON, child.wait()).await;
        status.unwrap_or_else(|_| panic!("{} is still alive", name.text())).unwrap();
    }

    /// The file that a paused process waits for.
    pub fn mark(&self) -> PathBuf {
        self.directory.path().join("paused")
    }

    pub fn blob_dir(&self) -> PathBuf {
        self.directory.path().join("blobs")
    }

    pub fn address(&self, name: Name) -> SocketAddr {
        self.addresses[&name]
    }

    pub fn channel(&self, name: Name) -> Channel {
        Channel::connect(name.text(), &format!("http://{}", self.addresses[&name])).unwrap()
    }

    /// A client of one user.
    pub fn client(&self, user: &str) -> Client {
        Client { stub: NoteServiceClient::new(self.channel(Name::Gateway)), token: token(user) }
    }

    /// Every object in the store: key and bytes. What a crash left half-written has no key.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let mut blobs = BTreeMap::new();
        let root = self.blob_dir();
        if root.exists() {
            collect(&root, &root, &mut blobs);
        }
        blobs
    }

    /// Waits until recovery has nothing left to do.
    pub async fn settled(&self) {
        eventually("recovery has nothing left to do", || async {
            let open: i64 = sqlx::query_scalar(
                "SELECT (SELECT count(*) FROM write_operations
                         WHERE state IN ('PENDING', 'COMMITTED'))
                      + (SELECT count(*) FROM blob_gc)",
            )
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
            open == 0
        })
        .await;
    }

    /// What must hold of a settled system whatever happened to it: every note is wholly there, and
    /// nothing else is. Returns the bodies by note.
    pub async fn check_whole(&self) -> BTreeMap<String, String> {
        let rows: Vec<(String, String, String, String, String)> = sqlx::query_as(
            "SELECT e.id::text, e.user_id, e.file_path, e.checksum, b.content
             FROM entities e JOIN content_blocks b ON b.entity_id = e.id
                  JOIN entity_revisions r ON r.entity_id = e.id AND r.version = e.version
                       AND r.file_path = e.file_path AND r.checksum = e.checksum",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let count = |sql: &'static str| async move {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.database.pool).await.unwrap()
        };
        let notes = i64::try_from(rows.len()).unwrap();
        assert_eq!(count("SELECT count(*) FROM entities").await, notes, "rows without their block");
        assert_eq!(count("SELECT count(*) FROM content_blocks").await, notes);
        assert_eq!(count("SELECT count(*) FROM entity_revisions").await, notes);
        assert_eq!(
            count("SELECT count(*) FROM write_operations WHERE state = 'DONE'").await,
            notes,
            "operations without their note"
        );

        let events: Vec<(String, String, i64, serde_json::Value)> = sqlx::query_as(
            "SELECT aggregate_id::text, event_type, version, data FROM event_store.events",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        assert_eq!(i64::try_from(events.len()).unwrap(), notes, "one event for each note");
        let events: BTreeMap<_, _> = events.into_iter().map(|event| (event.0.clone(), event)).collect();

        let mut blobs = self.blobs();
        let mut bodies = BTreeMap::new();
        for (id, user, path, checksum, body) in rows {
            let blob = blobs.remove(&path).unwrap_or_else(|| panic!("no blob at {path}"));
            assert_eq!(String::from_utf8(blob).unwrap(), body, "blob and content block differ");
            assert_eq!(synap_types::Checksum::of(body.as_bytes()).to_string(), checksum);
            let segment = UserId::parse(user).unwrap().segment();
            assert_eq!(path, format!("users/{segment}/notes/{id}.md"));
            let (_, event_type, version, data) = &events[&id];
            assert_eq!((event_type.as_str(), *version), ("entity.created", 1));
            assert_eq!(data["file"]["path"], path.as_str());
            assert!(!data.to_string().contains(&body) || body.len() < 40, "the event has the body");
            bodies.insert(id, body);
        }
        assert!(blobs.is_empty(), "blobs that no row names: {:?}", blobs.keys());
        bodies
    }

    /// What the processes wrote, for a failing test.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for name in Name::ALL {
            let path = self.directory.path().join(format!("{}.log", name.text()));
            logs.extend(["--- ", name.text(), "\n"]);
            logs.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
        logs
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

async fn migrate(url: String) -> Result<(), synap_postgres::MigrateError> {
    use synap_entity_service as entity;
    use synap_event_service as event;
    synap_postgres::migrate(&url, &entity::MIGRATOR, entity::MIGRATION_TABLE).await?;
    synap_postgres::migrate(&url, &event::MIGRATOR, event::MIGRATION_TABLE).await
}

fn collect(root: &Path, folder: &Path, blobs: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, blobs);
        } else {
            let key = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if !key.contains('#') {
                blobs.insert(key, std::fs::read(&path).unwrap());
            }
        }
    }
}

/// Asks again and again until it holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn token(user: &str) -> String {
    let user = UserId::parse(user).unwrap();
    let secret = Secret::new(SECRET);
    synap_auth::issue_hs256(&secret, &user, Duration::from_hours(1), &SystemClock)
}

/// Calls the gateway as one user.
#[derive(Clone)]
pub struct Client {
    pub stub: NoteServiceClient<Channel>,
    pub token: String,
}

impl Client {
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let header: MetadataValue<_> = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        request
    }

    pub async fn create(&self, content: &str, request_id: &str) -> Result<(Note, bool), Status> {
        let request = CreateNoteRequest {
            content: content.to_owned(),
            request_id: request_id.to_owned(),
            ..CreateNoteRequest::default()
        };
        let answer = self.stub.clone().create_note(self.request(request)).await?.into_inner();
        Ok((answer.note.unwrap(), answer.event_pending))
    }

    pub async fn get(&self, id: &str) -> Result<Note, Status> {
        let request = GetNoteRequest { id: id.to_owned(), include_content: true };
        let answer = self.stub.clone().get_note(self.request(request)).await?;
        Ok(answer.into_inner().note.unwrap())
    }
}
