//! `synapctl up` as a newcomer runs it: one command, three calls that work as they are printed,
//! Ctrl-C; and as an operator fears it: killed, started twice, on ports that are taken.

use std::{net::TcpListener, path::Path, time::Duration};

use crate::support::{
    eventually,
    http::{Http, answer},
    process::{naming, signal},
    up::{Up, channel, option, printed_commands, run, stop_after, text},
};
use http::uri::PathAndQuery;
use reqwest::Method;
use serde_json::Value;
use synap_proto::gateway::{
    CreateNoteRequest, CreateNoteResponse, GetNoteRequest, GetNoteResponse,
};
use synap_rpc::Channel;
use synap_testkit::ports::Port;
use tonic::{Request, client::Grpc};
use tonic_prost::ProstCodec;

/// A first start takes a second or so: initdb, PostgreSQL, migrations.
const STEP: Duration = Duration::from_millis(150);

/// A printed grpcurl: the channel, the request's metadata, the path, and the message as JSON.
fn grpcurl(words: &[String]) -> (Grpc<Channel>, String, PathAndQuery, Value) {
    assert!(words.contains(&"-plaintext".to_owned()));
    let [.., address, path] = words else { panic!("{words:?}") };
    let header = option(words, "-H").strip_prefix("authorization: ").unwrap().to_owned();
    let message = serde_json::from_str(option(words, "-d")).unwrap();
    (Grpc::new(channel(address)), header, format!("/{path}").parse().unwrap(), message)
}

fn authorized<T>(message: T, header: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", header.parse().unwrap());
    request
}

/// The three calls, as they are printed.
async fn try_what_is_printed(up: &Up) {
    let [create, get] = printed_commands(up, "grpcurl").try_into().unwrap();
    let (mut grpc, header, path, json) = grpcurl(&create);
    let content = json["content"].as_str().unwrap().to_owned();
    assert_eq!(json.as_object().unwrap().len(), 1);
    let message = CreateNoteRequest { content: content.clone(), ..CreateNoteRequest::default() };
    let codec = ProstCodec::<CreateNoteRequest, CreateNoteResponse>::default();
    grpc.ready().await.unwrap();
    let created = grpc.unary(authorized(message, &header), path, codec).await.unwrap();
    let note = created.into_inner().note.unwrap();

    let (mut grpc, header, path, json) = grpcurl(&get);
    assert_eq!((&json["id"], &json["include_content"]), (&"<its id>".into(), &true.into()));
    let message = GetNoteRequest { id: note.id, include_content: true, revision: 0 };
    let codec = ProstCodec::<GetNoteRequest, GetNoteResponse>::default();
    grpc.ready().await.unwrap();
    let read = grpc.unary(authorized(message, &header), path, codec).await.unwrap();
    assert_eq!(read.into_inner().note.unwrap().content, content);

    let [curl] = <[_; 1]>::try_from(printed_commands(up, "curl")).unwrap();
    let mut call = Http::new("", None).request(Method::POST, &curl[1]);
    for at in (0..curl.len()).filter(|at| curl[*at] == "-H") {
        let (name, value) = curl[at + 1].split_once(": ").unwrap();
        call = call.header(name, value);
    }
    let (status, answer) = answer(call.body(option(&curl, "-d").to_owned())).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    let id = answer["result"]["data"]["note"]["id"].as_str().unwrap();
    assert_eq!(up.client(&up.token()).get(id).await.unwrap().content, "From curl");
}

/// `synapctl token` and `synapctl status`, beside a running system.
async fn try_the_other_commands(up: &Up, data: &Path) {
    let data = data.to_str().unwrap();
    let token = run(&["token", "--user", "ada", "--data-dir", data]).await;
    assert!(token.status.success(), "{}", text(&token.stderr));
    let (note, _) = up.client(text(&token.stdout).trim()).create("of ada", "").await.unwrap();
    assert_eq!(note.user_id, "ada");

    let url = |service| format!("http://{}", up.address(service));
    let status = run(&[
        "status",
        "--output",
        "json",
        "--gateway-url",
        &url("gateway"),
        "--content-url",
        &url("content-service"),
        "--entity-url",
        &url("entity-service"),
        "--event-url",
        &url("event-service"),
    ])
    .await;
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let services = status["services"].as_array().unwrap();
    assert_eq!(services.len(), 4);
    assert!(services.iter().all(|service| service["ready"] == true), "{status}");
    assert_eq!(status["storage"]["phase"], "dual_write");
    let since = status["storage"]["phase_since"].as_str().unwrap();
    assert!(since.ends_with('Z') && since.starts_with("20"), "{status}");
    // Nobody is there.
    let nowhere = "http://127.0.0.1:1";
    let findings = run(&["status", "--gateway-url", nowhere, "--entity-url", nowhere]).await;
    assert_eq!(findings.status.code(), Some(1), "{}", text(&findings.stderr));
    assert!(text(&findings.stdout).contains("NOT READY"));
}

/// From the first start to the third: what was acknowledged stays, and so does whoever may read it.
async fn a_life(more: &[&str], while_running: impl AsyncFnOnce(&Up, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let up = Up::start(&data, more).await;
    try_what_is_printed(&up).await;
    try_the_other_commands(&up, &data).await;
    while_running(&up, &data).await;
    let token = up.token();
    let (first, _) = up.client(&token).create("before Ctrl-C", "").await.unwrap();
    up.interrupt().await;

    let up = Up::start(&data, more).await;
    let client = up.client(&token);
    assert_eq!(client.get(&first.id).await.unwrap().content, "before Ctrl-C");
    let (second, _) = client.create("before kill -9", "").await.unwrap();
    up.kill().await;

    let up = Up::start(&data, more).await;
    let client = up.client(&token);
    for (note, content) in [(&first, "before Ctrl-C"), (&second, "before kill -9")] {
        assert_eq!(client.get(&note.id).await.unwrap().content, content);
    }
    client.create("after both", "").await.unwrap();
    up.interrupt().await;
}

#[tokio::test]
async fn in_one_process() {
    a_life(&[], async |up, data| {
        assert_eq!(up.services(), []);
        let again = run(&["up", "--data-dir", data.to_str().unwrap(), "--port-base", "0"]).await;
        let said = text(&again.stderr);
        assert_eq!(again.status.code(), Some(3), "{said}");
        assert!(said.contains("is in use by process"), "{said}");
        assert!(said.contains(&up.pid().to_string()), "{said}");
        // Nobody was disturbed.
        let client = up.client(&up.token());
        client.create("still there", "").await.unwrap();

        let postmaster = up.postmaster().unwrap();
        assert!(signal(postmaster, "KILL"));
        eventually("PostgreSQL is back", || async {
            up.postmaster().is_some_and(|pid| pid != postmaster)
        })
        .await;
        eventually("notes can be created again", || async {
            client.create("again", "").await.is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn in_processes_that_are_started_again_when_they_die() {
    a_life(&["--processes"], async |up, _| {
        let client = up.client(&up.token());
        let before = up.services();
        assert_eq!(before.len(), 4, "{before:?}");
        for name in ["entity-service", "gateway"] {
            let named = |(_, line): &&(u32, String)| line.contains(&format!(" {name} "));
            let (old, _) = before.iter().find(named).unwrap().clone();
            assert!(signal(old, "KILL"));
            eventually(&format!("{name} is back"), || async {
                let after = up.services();
                after.iter().find(named).is_some_and(|(pid, _)| *pid != old)
            })
            .await;
            eventually("notes can be created again", || async {
                client.create("again", "").await.is_ok()
            })
            .await;
        }
    })
    .await;
}

/// From before initdb until it is ready: whatever has been started by then ends.
#[tokio::test]
async fn a_stop_during_the_very_first_start_leaves_nothing_running() {
    let directory = tempfile::tempdir().unwrap();
    for step in 0..8_u32 {
        let data = directory.path().join(format!("data-{step}"));
        stop_after(&data, STEP * step).await;
        let what = format!("nothing is left of what was interrupted after {:?}", STEP * step);
        eventually(&what, || async { naming(&data).is_empty() }).await;
    }
}

/// Six ports in a row, the fifth of which somebody else listens on.
#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let in_a_row =
        |ports: &[Port]| ports.windows(2).all(|pair| pair[0].number() + 1 == pair[1].number());
    let mut ports: Vec<Port> = (0..6).map(|_| Port::claim()).collect();
    while !in_a_row(&ports) {
        ports.remove(0);
        ports.push(Port::claim());
    }
    let taken = ports[4].number();
    let _listener = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let base = ports[0].number().to_string();
    let directory = tempfile::tempdir().unwrap();
    for mode in [None, Some("--processes")] {
        let data = directory.path().to_str().unwrap();
        let mut args = vec!["up", "--data-dir", data, "--port-base", &base];
        args.extend(mode);
        let refused = run(&args).await;
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(said.contains(&format!("gateway cannot listen on 127.0.0.1:{taken}")), "{said}");
        assert!(!text(&refused.stdout).contains("\nready"));
    }
}
