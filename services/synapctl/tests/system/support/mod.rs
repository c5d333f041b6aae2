//! A whole system in real processes, on a database and a blob directory of its own.

pub mod activity;
pub mod client;
pub mod files;
pub mod http;
pub mod notes;
pub mod process;
pub mod refusal;
mod stores;
pub mod up;
pub mod verifying;
mod whole;

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use synap_rpc::Channel;
use synap_testkit::{
    ports::Port,
    postgres::{TestDatabase, TestServer},
    s3::{self, S3Server},
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

pub use synap_testkit::markdown;

pub use self::{
    client::{Client, token},
    whole::Kept,
};

pub const SECRET: &str = "the secret of a test, and of nobody else";

/// What must happen soon; the limit only decides how long a failing test takes.
pub const SOON: Duration = Duration::from_secs(30);

/// What takes longer where a test is made larger: however many rows there are, no step of it takes more.
pub const LONG: Duration = Duration::from_mins(10);

/// How many of something a test makes: few, or, with `SYNAP_TEST_FULL=1`, as many as show the most.
pub fn full_size<T>(few: T, full: T) -> T {
    if std::env::var_os("SYNAP_TEST_FULL").is_some() { full } else { few }
}

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
    /// Gateways beside the first.
    more: Vec<Child>,
    ports: Vec<Port>,
    /// Set for every process on top of the short times of tests.
    pub environment: Vec<(&'static str, String)>,
    /// In place of the local file system.
    s3: Option<S3Server>,
}

impl System {
    /// Nothing runs yet.
    pub async fn new() -> Self {
        Self::on(TestServer::shared().await).await
    }

    /// Nothing runs yet; the server is one that the test may kill.
    pub async fn on(server: &TestServer) -> Self {
        Self::of(server.database("system", migrate).await)
    }

    /// Nothing runs yet; the database is what it is.
    pub fn of(database: TestDatabase) -> Self {
        let ports: Vec<Port> = (0..5).map(|_| Port::claim()).collect();
        let address = |port: &Port| SocketAddr::from(([127, 0, 0, 1], port.number()));
        Self {
            database,
            directory: tempfile::tempdir().unwrap(),
            addresses: Name::ALL.into_iter().zip(ports.iter().map(address)).collect(),
            http: address(&ports[4]),
            ports,
            processes: HashMap::new(),
            more: Vec::new(),
            environment: Vec::new(),
            s3: None,
        }
    }

    /// Bodies go to an S3 server; nothing must run yet.
    pub async fn use_s3(&mut self) {
        let server = S3Server::start().await.unwrap();
        let endpoint = server.endpoint().to_owned();
        self.use_s3_behind(server, &endpoint);
    }

    /// Bodies go to an S3 server by way of what is in front of it.
    pub fn use_s3_behind(&mut self, server: S3Server, endpoint: &str) {
        self.s3 = Some(server);
        self.environment.extend([
            ("S3_ENDPOINT", endpoint.to_owned()),
            ("R2_ACCESS_KEY_ID", s3::ACCESS_KEY_ID.to_owned()),
            ("R2_SECRET_ACCESS_KEY", s3::SECRET_ACCESS_KEY.to_owned()),
            ("R2_BUCKET_NAME", s3::BUCKET.to_owned()),
            ("BLOB_STORE", "s3".to_owned()),
        ]);
    }

    /// The S3 server, where there is one.
    pub fn s3(&self) -> Option<&S3Server> {
        self.s3.as_ref()
    }

    /// Where the objects are.
    pub fn objects(&self) -> PathBuf {
        self.s3.as_ref().map_or_else(|| self.blob_dir(), S3Server::objects)
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
            let armed =
                armed.as_ref().filter(|(who, _)| *who == name).map(|(_, armed)| armed.clone());
            self.spawn(name, armed);
        }
        for name in Name::ALL {
            self.ready(name).await;
        }
    }

    /// Starts one service and does not wait for it.
    pub fn spawn(&mut self, name: Name, armed: Option<Armed>) {
        let child = self.command(name, self.addresses[&name], self.http, armed).spawn().unwrap();
        self.processes.insert(name, child);
    }

    /// Starts another gateway over the same services, ready.
    pub async fn second_gateway(&mut self) -> Channel {
        let ports = [Port::claim(), Port::claim()];
        let [grpc, http] = ports.each_ref().map(|port| ([127, 0, 0, 1], port.number()).into());
        self.ports.extend(ports);
        let child = self.command(Name::Gateway, grpc, http, None).spawn().unwrap();
        self.more.push(child);
        let channel = Channel::connect("gateway", &format!("http://{grpc}")).unwrap();
        eventually("the second gateway is ready", || async { channel.is_ready().await }).await;
        channel
    }

    fn command(
        &self,
        name: Name,
        listen: SocketAddr,
        http: SocketAddr,
        armed: Option<Armed>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        command.args(["run", name.text(), "--", "--listen", &listen.to_string()]);
        if name == Name::Gateway {
            let url = |name: Name| format!("http://{}", self.addresses[&name]);
            command.args(["--http-listen", &http.to_string()]);
            command.args(["--content-url", &url(Name::Content)]);
            command.args(["--entity-url", &url(Name::Entity), "--event-url", &url(Name::Event)]);
        }
        let short_times = [
            ("OPERATION_LEASE_SECS", "1"),
            ("EVENT_LEASE_SECS", "0.3"),
            ("BLOB_SETTLE_SECS", "1"),
            ("DELETION_LEASE_SECS", "1"),
            ("RECOVERY_INTERVAL_SECS", "0.2"),
            ("RECOVERY_MAX_INTERVAL_SECS", "1"),
            ("DEFAULT_DEADLINE_SECS", "5"),
            ("SHUTDOWN_GRACE_SECS", "3"),
            ("DATABASE_CONNECTIONS", "4"),
        ];
        command
            .envs(short_times)
            // Most tests of a database of V0.2 are of what comes after its adoption.
            .env("AUTO_ADOPT", "true")
            .env("ENTITY_DATABASE_URL", &self.database.url)
            .env("EVENT_DATABASE_URL", &self.database.url)
            .env("BLOB_DIR", self.blob_dir())
            .env("CONTENT_HTTP_LISTEN", "127.0.0.1:0")
            .env("JWT_HS256_SECRET", SECRET)
            // To make one, aws-lc gathers entropy: almost half of what a start costs a processor.
            .env("PAGE_TOKEN_SECRET", SECRET)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .kill_on_drop(true);
        if let Some(Armed(place, action)) = armed {
            command.env("SYNAP_FAILPOINT", format!("{place}={action}"));
            command.env("SYNAP_FAILPOINT_MARK", self.mark());
        }
        command
    }

    fn log(&self, name: Name) -> Stdio {
        let path = self.directory.path().join(format!("{}.log", name.text()));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.into()
    }

    /// Waits until a service says that it is ready.
    pub async fn ready(&self, name: Name) {
        let channel = self.channel(name);
        eventually(&format!("{} is ready", name.text()), || async { channel.is_ready().await })
            .await;
    }

    /// kill -9, and the end of the process.
    pub async fn kill(&mut self, name: Name) {
        let mut child = self.processes.remove(&name).unwrap();
        child.kill().await.unwrap();
    }

    /// Sends a signal to a process that stays: STOP makes a service that hangs, CONT ends that.
    pub fn signal(&self, name: Name, signal: &str) {
        assert!(process::signal(self.processes[&name].id().unwrap(), signal));
    }

    /// The most memory that a service has had so far, in MiB.
    pub fn peak_memory(&self, name: Name) -> u64 {
        process::peak_memory(self.processes[&name].id().unwrap()).unwrap() / 1024
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

    /// Lets a failpoint pause again, after another has. Whoever had that one must be gone.
    pub fn forget_mark(&self) {
        for file in [self.mark(), self.mark().with_extension("used")] {
            // Most failpoints leave none.
            let _ = std::fs::remove_file(file);
        }
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
        Client::new(self.channel(Name::Gateway), token(user))
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

/// Asks again and again until it holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl FnMut() -> F) {
    within(SOON, what, holds).await;
}

/// As [`eventually`], for what takes longer where there is more of it.
pub async fn within<F: Future<Output = bool>>(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> F,
) {
    let begun = Instant::now();
    while !holds().await {
        let waited = begun.elapsed();
        assert!(waited < limit, "not within {limit:?}: {what}");
        // What takes longer is asked for less often: asking takes time from what is waited for.
        let pause = (waited / 8).clamp(Duration::from_millis(10), Duration::from_millis(100));
        tokio::time::sleep(pause).await;
    }
}
