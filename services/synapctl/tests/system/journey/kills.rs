//! SIGKILL to whoever takes part, while a command runs.

use std::{
    fs::File,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use synap_postgres::{PoolOptions, connect_pool};
use tokio::process::{Child, Command};

use super::Journey;
use crate::support::{Name, within};

/// However many entities there are, a command takes no longer.
pub const LONG: Duration = Duration::from_hours(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Synapctl,
    Service(Name),
    Postgres,
}

use Victim::{Postgres, Service, Synapctl};

pub const ALL: [Victim; 6] = [
    Synapctl,
    Service(Name::Content),
    Service(Name::Entity),
    Service(Name::Event),
    Service(Name::Gateway),
    Postgres,
];

/// What tells how far a command is.
#[derive(Clone, Copy)]
pub struct Progress {
    pub count: &'static str,
    /// It is killed each time that so many more are done.
    pub step: i64,
}

impl Progress {
    /// So far between two kills that they come all along a command, of which there is so much.
    pub fn of(count: &'static str, all: i64) -> Self {
        let parts = i64::try_from(ALL.len()).unwrap() + 2;
        Self { count, step: (all / parts).max(1) }
    }
}

/// How a command ended.
pub struct Said {
    pub code: i32,
    pub lines: Vec<Value>,
}

impl Journey {
    /// Runs a command to its end. While it runs, the victims are killed one after the other, and are
    /// started again; it is begun anew where it is the victim, or has ended too soon.
    pub async fn run(
        &mut self,
        args: &[&str],
        progress: Option<Progress>,
        victims: &[Victim],
    ) -> Said {
        let begun = Instant::now();
        let mut command = self.start(args);
        for victim in victims {
            if command.try_wait().unwrap().is_some() {
                command = self.start(args);
            }
            self.advance(&mut command, progress).await;
            match victim {
                Synapctl => command.kill().await.unwrap(),
                other => self.strike(*other).await,
            }
            self.kills += 1;
            if let Some(users) = &self.users {
                users.go_on().await;
            }
        }
        let mut ended = command.wait().await.unwrap().code();
        // Killed, or something was away for too long: it says so, and is run again.
        while matches!(ended, None | Some(3)) {
            self.again += usize::from(ended.is_some());
            assert!(self.again < 10, "{args:?} does not end well: {}", self.said("err"));
            ended = self.start(args).wait().await.unwrap().code();
        }
        let (code, lines) = (ended.unwrap(), self.said("out"));
        assert!(code < 2, "{args:?} ended with {code}: {}", self.said("err"));
        println!("{:8.1} s  {}", begun.elapsed().as_secs_f64(), args.join(" "));
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Said { code, lines }
    }

    /// Kills a part of the system and starts it again.
    pub async fn strike(&mut self, victim: Victim) {
        match victim {
            Synapctl => {}
            Service(name) => {
                self.system.kill(name).await;
                self.system.spawn(name, None);
            }
            Postgres => {
                self.server.provided().kill().await;
                self.server.provided().restart().await.unwrap();
                // Our own connections are as broken as the services'.
                let url = &self.system.database.url;
                self.system.database.pool = connect_pool(url, &PoolOptions::new("test")).unwrap();
            }
        }
    }

    /// Until the command is some way further, or has ended.
    async fn advance(&self, command: &mut Child, progress: Option<Progress>) {
        let Some(Progress { count, step }) = progress else { return };
        let done = async || -> i64 {
            sqlx::query_scalar(count).fetch_one(&self.system.database.pool).await.unwrap()
        };
        let enough = done().await + step;
        within(LONG, "the command goes on", || {
            let ended = command.try_wait().unwrap().is_some();
            let done = &done;
            async move { ended || done().await >= enough }
        })
        .await;
    }

    fn start(&self, args: &[&str]) -> Child {
        let url = |name| format!("http://{}", self.system.address(name));
        let file = |name| Stdio::from(File::create(self.file(name)).unwrap());
        Command::new(env!("CARGO_BIN_EXE_synapctl"))
            .args(args)
            .args(["--output", "json"])
            .env("CONTENT_URL", url(Name::Content))
            .env("ENTITY_URL", url(Name::Entity))
            .env("EVENT_URL", url(Name::Event))
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.system.directory.path().join(name)
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }
}
