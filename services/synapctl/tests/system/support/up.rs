//! `synapctl up` and the commands beside it, as a person runs them.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use synap_rpc::Channel;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    Client, SOON, eventually,
    process::{children_of, is_alive, signal},
};

/// What a machine may have set for a system of its own.
const SETTINGS: [&str; 16] = [
    "DATABASE_URL",
    "ENTITY_DATABASE_URL",
    "EVENT_DATABASE_URL",
    "JWT_HS256_SECRET",
    "JWT_PUBLIC_KEY_FILE",
    "JWT_JWKS_URL",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "BLOB_STORE",
    "BLOB_DIR",
    "R2_ACCOUNT_ID",
    "R2_ACCESS_KEY_ID",
    "R2_SECRET_ACCESS_KEY",
    "R2_BUCKET_NAME",
    "R2_PUBLIC_URL",
    "S3_ENDPOINT",
];

fn synapctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    for name in SETTINGS {
        command.env_remove(name);
    }
    command
}

/// A command that ends by itself.
pub async fn run(args: &[&str]) -> Output {
    let output = synapctl(args).stderr(Stdio::piped()).output();
    timeout(SOON, output).await.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap()
}

/// Starts `up` on a data directory, and it is told to stop so much later. It ends by itself, and well.
///
/// By SIGTERM, which is heard as Ctrl-C is: a shell has what it runs in the background ignore SIGINT,
/// and everything that this starts, until it says otherwise.
pub async fn stop_after(data: &Path, delay: Duration) {
    let args = ["up", "--data-dir", data.to_str().unwrap(), "--port-base", "0"];
    let child = synapctl(&args).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(delay).await;
    assert!(signal(child.id().unwrap(), "TERM"));
    let output = timeout(SOON, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("it does not end after {delay:?}")).unwrap();
    // A signal that comes before anybody listens to it ends the process, too.
    let ended = output.status.code() == Some(0) || output.status.signal() == Some(15);
    assert!(ended, "{delay:?}: {output:?}");
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running `synapctl up`.
pub struct Up {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    /// What it printed until it was ready.
    printed: String,
    data: PathBuf,
    log: PathBuf,
}

impl Up {
    /// Starts it on a data directory and free ports, and reads until it says that it is ready.
    pub async fn start(data: &Path, more: &[&str]) -> Self {
        let log = data.with_extension("log");
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let data_dir = data.to_str().unwrap();
        let mut command = synapctl(&["up", "--data-dir", data_dir, "--port-base", "0"]);
        let mut child = command.args(more).stderr(stderr).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = String::new();
        let reading = async {
            while let Some(line) = out.next_line().await.unwrap() {
                printed.extend([line.as_str(), "\n"]);
                if line.starts_with("ready") {
                    return true;
                }
            }
            false
        };
        // The first one on a machine may have to fetch PostgreSQL.
        let ready = timeout(SOON * 4, reading).await.unwrap_or(false);
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(ready, "`up` is not ready; it printed\n{printed}\nand logged\n{said}");
        Self { child, out, printed, data: data.to_owned(), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// PostgreSQL's, while it runs.
    pub fn postmaster(&self) -> Option<u32> {
        let text =
            std::fs::read_to_string(self.data.join("postgres/pgdata/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().filter(|pid| is_alive(*pid))
    }

    /// The word behind the first of these marks: an address, a token.
    fn printed_after(&self, mark: &str) -> String {
        let (_, rest) =
            self.printed.split_once(mark).unwrap_or_else(|| panic!("no {mark}: {}", self.printed));
        rest.split([' ', ',', '\n']).next().unwrap().to_owned()
    }

    pub fn address(&self, service: &str) -> String {
        let line =
            self.printed.lines().find(|line| line.trim_start().starts_with(service)).unwrap();
        line.split_once("gRPC ").unwrap().1.split(',').next().unwrap().to_owned()
    }

    pub fn token(&self) -> String {
        self.printed_after("export TOKEN=")
    }

    pub fn client(&self, token: &str) -> Client {
        Client::new(channel(&self.address("gateway")), token.to_owned())
    }

    /// Its children: the services, with `--processes`.
    pub fn services(&self) -> Vec<(u32, String)> {
        let mut children = children_of(self.pid());
        children.retain(|(_, line)| line.contains(" run "));
        children
    }

    /// Ctrl-C, and what it says and leaves.
    pub async fn interrupt(mut self) {
        let (services, postmaster) = (self.services(), self.postmaster().unwrap());
        assert!(signal(self.pid(), "INT"));
        let mut last = String::new();
        while let Some(line) = self.out.next_line().await.unwrap() {
            last = line;
        }
        let status = timeout(SOON, self.child.wait()).await.unwrap().unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap();
        assert_eq!((status.code(), last.as_str()), (Some(0), "stopped"), "{log}");
        assert!(!is_alive(postmaster), "PostgreSQL is left behind");
        for (pid, line) in services {
            assert!(!is_alive(pid), "left behind: {line}");
        }
    }

    /// kill -9. What it had started ends by itself.
    pub async fn kill(mut self) {
        let (services, postmaster) = (self.services(), self.postmaster().unwrap());
        self.child.kill().await.unwrap();
        eventually("PostgreSQL and the services have ended", || async {
            !is_alive(postmaster) && services.iter().all(|(pid, _)| !is_alive(*pid))
        })
        .await;
    }
}

pub fn channel(address: &str) -> Channel {
    Channel::connect("gateway", &format!("http://{address}")).unwrap()
}

/// The commands that `up` prints, each with its continuation lines, split as a shell does.
pub fn printed_commands(up: &Up, program: &str) -> Vec<Vec<String>> {
    let joined = up.printed.replace("\\\n", " ").replace("$TOKEN", &up.token());
    let lines = joined.lines().map(str::trim).filter(|line| line.starts_with(program));
    lines.map(shell_words).collect()
}

/// Words between blanks, with single and double quotes; what is printed needs no more.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty())),
            (c, _) => word.push(c),
        }
    }
    words.push(word);
    words
}

pub fn option<'a>(words: &'a [String], flag: &str) -> &'a str {
    let at = words
        .iter()
        .position(|word| word == flag)
        .unwrap_or_else(|| panic!("no {flag}: {words:?}"));
    &words[at + 1]
}
