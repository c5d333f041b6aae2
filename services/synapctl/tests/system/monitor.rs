//! `synapctl monitor`: everything is covered in the time that it states, and an alert comes at once.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::support::{
    SOON, System, eventually, process,
    verifying::{Damage, notes},
};

/// A monitor that goes on.
struct Monitor {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    metrics: String,
}

impl Monitor {
    async fn start(system: &System, args: &[&str]) -> Self {
        let fixed = ["monitor", "--metrics-listen", "127.0.0.1:0"];
        let mut child = system.synapctl(&[&fixed, args].concat()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = timeout(SOON, log.next_line()).await.unwrap().unwrap().unwrap();
        let metrics = line.split_once("metrics on ").unwrap().1.to_owned();
        // A full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, out, metrics }
    }

    async fn line(&mut self) -> Value {
        let line = timeout(SOON, self.out.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The next interval's line; what was found in it is passed over.
    async fn tick(&mut self) -> Value {
        loop {
            let line = self.line().await;
            if line["sync_rate"].is_number() {
                return line;
            }
        }
    }

    async fn gauge(&self, name: &str) -> String {
        let text = reqwest::get(&self.metrics).await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("synap_monitor_{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {text}")).split_once(' ').unwrap().1.to_owned()
    }
}

/// An HTTP server that refuses the first message, and keeps the others.
async fn webhook() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let messages = Arc::<Mutex<Vec<Value>>>::default();
    let kept = Arc::clone(&messages);
    tokio::spawn(async move {
        for n in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut request, mut body) = (Vec::new(), None);
            while body.is_none() {
                let mut piece = [0; 4096];
                let length = socket.read(&mut piece).await.unwrap();
                assert!(length > 0, "a request that ends early");
                request.extend_from_slice(&piece[..length]);
                let text = String::from_utf8_lossy(&request).into_owned();
                body = text.split_once("\r\n\r\n").and_then(|(_, b)| serde_json::from_str(b).ok());
            }
            let status = if n == 0 { "503 Busy" } else { "204 Taken" };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
            if n > 0 {
                kept.lock().unwrap().push(body.unwrap());
            }
        }
    });
    (url, messages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_covers_everything_in_the_time_it_states_and_alerts_at_once() {
    let system = System::start().await;
    let notes = system.write_notes(notes()).await;
    system.settled().await;
    let (url, messages) = webhook().await;
    let batch = (notes.len() / 5).to_string();
    let args = ["--interval", "0.2", "--newest", "1", "--batch", &batch, "--webhook", &url];
    let mut monitor = Monitor::start(&system, &args).await;
    let plan = monitor.line().await;
    assert_eq!((&plan["covers_files"], &plan["intervals"]), (&notes.len().into(), &5.into()));
    assert!((plan["within_secs"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    let pool = &system.database.pool;
    let read = async |since: &str| -> usize {
        let count = "SELECT count(*) FROM file_checks WHERE file_verified_at > $1::timestamptz";
        let count: i64 = sqlx::query_scalar(count).bind(since).fetch_one(pool).await.unwrap();
        usize::try_from(count).unwrap()
    };
    let now = async || -> String {
        sqlx::query_scalar("SELECT clock_timestamp()::text").fetch_one(pool).await.unwrap()
    };
    for _ in 0..5 {
        let tick = monitor.tick().await;
        assert_eq!((&tick["sync_rate"], &tick["alert"]), (&1.0.into(), &false.into()));
    }
    assert_eq!(read("-infinity").await, notes.len());
    // And again, the one that is under way not counted.
    let begun = now().await;
    for _ in 0..6 {
        monitor.tick().await;
    }
    assert_eq!(read(&begun).await, notes.len());
    assert_eq!(monitor.gauge("sync_ratio").await, "1");

    // A tenth is gone.
    let gone: Vec<(PathBuf, Vec<u8>)> = notes
        .iter()
        .step_by(10)
        .map(|(_, key)| {
            let path = system.objects().join(key);
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            (path, bytes)
        })
        .collect();
    // The interval that was under way, and the one after.
    let first = monitor.tick().await;
    let next = monitor.tick().await;
    assert!(first["alert"] == true || next["alert"] == true, "{first} {next}");
    assert!((next["sync_rate"].as_f64().unwrap() - 0.9).abs() < 0.05, "{next}");
    assert_eq!(monitor.gauge("alert").await, "1");
    let told = async |state: &str| {
        eventually(state, || async {
            messages.lock().unwrap().iter().any(|message| message["state"] == state)
        })
        .await;
    };
    told("alerting").await;
    for (path, bytes) in gone {
        fs::write(path, bytes).unwrap();
    }
    told("resolved").await;
    assert_eq!(messages.lock().unwrap().len(), 2, "each change is told once");
    // It is known what was missing until it is looked at again.
    eventually("all is well", || async { monitor.gauge("missing_in_store").await == "0" }).await;
    assert!(process::signal(monitor.child.id().unwrap(), "TERM"));
    assert_eq!(timeout(SOON, monitor.child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_look_finds_what_a_monitor_is_meant_to_find() {
    let system = System::start().await;
    let notes = system.write_notes(notes()).await;
    let once = ["monitor", "--once", "--batch", "1000"];
    let said = system.ask(&once).await;
    assert_eq!((said.code, said.counts()), (0, BTreeMap::new()), "{}", said.total);
    assert_eq!(said.total["looked"], notes.len());
    assert_eq!(said.total["listed"], notes.len());

    let damage = Damage::of(&system, &notes).await;
    let before = system.everything().await;
    let said = system.ask(&once).await;
    assert_eq!(said.code, 1);
    assert_eq!(said.found("missing"), damage.deleted);
    assert_eq!(said.found("size_differs"), damage.truncated);
    assert_eq!(said.found("checksum_differs"), damage.flipped);
    assert_eq!(said.found("unknown"), damage.strays);
    assert_eq!(said.findings.len(), 40);
    assert_eq!(said.total["missing"], 10);
    assert_eq!(said.total["unknown"], 10);
    let rate = said.total["sync_rate"].as_f64().unwrap();
    assert!((rate - (1.0 - 20.0 / 240.0)).abs() < 1e-9 || notes.len() != 240, "{rate}");
    assert_eq!(said.total["alert"], json!(rate < 0.95));
    assert_eq!(system.everything().await, before);
    // A rate that is low enough for nobody.
    let said = system.ask(&[&once[..], &["--alert-below", "50"]].concat()).await;
    assert_eq!((said.code, &said.total["alert"]), (1, &false.into()));
}
